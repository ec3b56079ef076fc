"""Bad captures made from a good one, through every command and format: none gives a green answer, each names its cause
and a command that mends it; and sound captures raise no doubt (SPEC 10.27).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head, pcap_record
from command import PCAPS, SHOP, sgfast, valid, write_capture
from corpus import ROOT
from frames import ends_of, ethernet, icmp, ip, tcp, udp, wire_length
from tunnels import erspan, geneve, gre, vxlan

from sgfast import replay
from sgfast.base.evidence import SOUND
from sgfast.traffic.capture import open_capture

Capsys = pytest.CaptureFixture[str]
Frame = tuple[int, bytes]

SECOND = 10**9
PROPOSED = PCAPS / "shop.proposed.yaml"


def frames_of(path: str) -> list[Frame]:
    with open_capture(path) as reader:
        return [(time_ns, data) for batch in iter(reader.next_batch, None) for time_ns, data, *_ in batch]


SHOP_FRAMES = frames_of(SHOP[1])
#: Packets that a filter judges, whose ends are IP addresses.
OF_SHOP = [each for each in SHOP_FRAMES if each[1][12:14] in (b"\x08\x00", b"\x86\xdd")]
WEB, DB, CLIENT = "10.0.0.5", "10.0.0.6", "198.51.100.7"


def rising(frame: Frame) -> bool:
    """Whether the source is the lower address."""
    source, destination = ends_of(frame[1][14:])
    return source < destination


def in_tunnel(tunnel: Callable[..., Any], frames: Sequence[Frame], cut: int | None = None) -> list[Frame]:
    return [(time_ns, ethernet(ip(WEB, DB, tunnel(data[:cut])))) for time_ns, data in frames]


def strangers(packets: int) -> list[Frame]:
    """Packets between addresses that no instance has."""
    first = SHOP_FRAMES[0][0]
    return [(first + n, ethernet(ip("172.16.1.1", f"172.16.2.{n % 250}", udp(1000 + n, 53)))) for n in range(packets)]


def only(protocol: int) -> list[Frame]:
    return [each for each in OF_SHOP if each[1][12:14] == b"\x08\x00" and each[1][23] == protocol]


def shifted(frames: Sequence[Frame], seconds: int) -> list[Frame]:
    return [(time_ns + seconds * SECOND, data) for time_ns, data in frames]


def from_client(frame: Frame) -> bool:
    """Whether a packet of TCP or UDP goes to the lower port."""
    transport = frame[1][54:] if frame[1][12:14] == b"\x86\xdd" else frame[1][34:]
    return transport[0:2] > transport[2:4]


@dataclass(frozen=True)
class Bad:
    code: str
    captures: Sequence[Sequence[Frame]]
    options: Sequence[str] = ()
    #: Bytes that are captured of each packet.
    snap: int | None = None
    #: Whether the capture says how long the packets were.
    keeps_length: bool = True
    policy: str | None = None
    #: Whether only numbers are uncertain.
    only_counts: bool = False


NOBODY = "version: 1\nsecurity_groups: [{name: web, rules: [{direction: inbound, protocol: all}]}]\n"
OTHERS = NOBODY + "instances: [{name: web-1, addresses: [192.0.2.9], security_groups: [web]}]\n"
TWO_VPCS = """
version: 1
vpcs: [{name: dev}, {name: prod}]
security_groups: [{name: web, rules: [{direction: inbound, protocol: all}, {direction: outbound, protocol: all}]}]
instances:
  - {name: web-1, vpc: dev, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [web]}
  - {name: client, vpc: prod, addresses: [198.51.100.7, "2001:db8:100::7"], security_groups: [web]}
"""
#: Filled up with what fits the policies of their own, so that a comparison needs two.
BAD: dict[str, Bad] = {
    "empty": Bad("no-packets", [[]]),
    "filtered away": Bad("no-packets", [SHOP_FRAMES], ["--filter", "port 9"]),
    "after the end": Bad("no-packets", [SHOP_FRAMES], ["--start", "1h"]),
    "snap length 34": Bad("truncated", [SHOP_FRAMES], snap=34),
    "snap length 20": Bad("truncated", [SHOP_FRAMES], snap=20),
    "snap length 14": Bad("truncated", [OF_SHOP], snap=14),
    "cut by a tool that lost their length": Bad("malformed", [OF_SHOP], snap=60, keeps_length=False),
    "no instances in the policy": Bad("no-instance", [SHOP_FRAMES], policy=NOBODY),
    "policy of another network": Bad("no-instance", [SHOP_FRAMES], policy=OTHERS),
    "nobody's packets only": Bad("no-instance", [strangers(200)]),
    "mostly out of scope": Bad("out-of-scope", [[*SHOP_FRAMES, *strangers(2000)]]),
    "half out of scope": Bad("out-of-scope", [[*SHOP_FRAMES, *strangers(len(OF_SHOP))]]),
    "rising addresses only": Bad("one-direction", [[each for each in OF_SHOP if rising(each)]]),
    "falling addresses only": Bad("one-direction", [[each for each in OF_SHOP if not rising(each)]]),
    "clients only": Bad("one-direction", [[each for each in only(6) if from_client(each)]]),
    "servers only": Bad("one-direction", [[each for each in only(6) if not from_client(each)]]),
    "UDP, one direction": Bad("one-direction", [[each for each in only(17) if from_client(each)]]),
    "pings, one direction": Bad("one-direction", [[(n * SECOND, ethernet(ip(CLIENT, DB, icmp(8)))) for n in range(5)]]),
    "a quarter seen one way": Bad(
        "one-direction",
        [[*OF_SHOP, *((SHOP_FRAMES[-1][0] + n, ethernet(ip(CLIENT, WEB, tcp(50000 + n // 2, 80, "SA"[n % 2]))))
                      for n in range(24))]],
    ),
    "VXLAN mirror": Bad("tunnels", [in_tunnel(vxlan, SHOP_FRAMES)]),
    "Geneve mirror": Bad("tunnels", [in_tunnel(geneve, SHOP_FRAMES)]),
    "GRE mirror": Bad("tunnels", [in_tunnel(lambda frame: gre(frame, 0x6558), SHOP_FRAMES)]),
    "ERSPAN mirror": Bad("tunnels", [in_tunnel(erspan, SHOP_FRAMES)]),
    "a third in VXLAN": Bad("tunnels", [[*OF_SHOP, *in_tunnel(vxlan, OF_SHOP[:120])]]),
    "mirror cut to 34": Bad("mirror-cut", [in_tunnel(vxlan, SHOP_FRAMES, 34)], ["--decap", "vxlan"]),
    "mirror cut to 40": Bad("mirror-cut", [in_tunnel(geneve, OF_SHOP, 40)], ["--decap", "auto"]),
    "every packet twice": Bad("duplicates", [[each for each in SHOP_FRAMES for _ in range(2)]], only_counts=True),
    "two taps of the same": Bad("duplicates", [SHOP_FRAMES, SHOP_FRAMES], only_counts=True),
    "overlap, one after another": Bad("overlap", [SHOP_FRAMES[::2], SHOP_FRAMES[1::2]]),
    "clock 90 s ahead": Bad("clocks", [SHOP_FRAMES, shifted(SHOP_FRAMES, 90)], ["--merge"]),
    "clock of one direction behind": Bad(
        "clocks",
        [[each for each in only(6) if from_client(each)], shifted([x for x in only(6) if not from_client(x)], -90)],
        ["--merge"],
    ),
    "an instance of an unpeered VPC": Bad("other-vpc", [OF_SHOP], ["--vpc", "dev"], policy=TWO_VPCS),
    "instances of two unpeered VPCs": Bad("other-vpc", [OF_SHOP], policy=TWO_VPCS),
    "a VPC that has nobody here": Bad("no-instance", [strangers(50)], ["--vpc", "prod"], policy=TWO_VPCS),
}  # fmt: skip


def written(folder: Path, bad: Bad) -> tuple[str, list[str]]:
    """The policy and the captures, as files."""
    policy = SHOP[0]
    if bad.policy is not None:
        (folder / "policy.yaml").write_text(bad.policy)
        policy = str(folder / "policy.yaml")
    names = []
    for n, frames in enumerate(bad.captures):
        path = folder / f"bad{n}.pcap"
        records = []
        for time_ns, data in frames:
            length = wire_length(data) if bad.keeps_length else None
            records.append(pcap_record(data[: bad.snap], time=divmod(time_ns // 1000, 1_000_000), wire=length))
        path.write_bytes(pcap_head() + b"".join(records))
        names.append(str(path))
    return policy, names


def reasons(evidence: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["code"]: each for each in evidence["reasons"]}


@pytest.mark.parametrize("name", BAD)
def test_replay_of_a_bad_capture_is_never_green(capsys: Capsys, tmp_path: Path, name: str) -> None:
    bad = BAD[name]
    policy, captures = written(tmp_path, bad)
    page = tmp_path / "page.html"
    given = ["replay", policy, *captures, *bad.options]
    done = sgfast(capsys, *given, "--json", "--fail-on", "would-break")
    found = valid("summary", json.loads(done.out))
    evidence = found["evidence"]
    assert evidence["conclusive"] != "yes" and bad.code in reasons(evidence), evidence
    reason = reasons(evidence)[bad.code]
    assert reason["sentence"] and reason["command"] and reason["packets"] >= 0
    assert bad.code not in ("no-packets", "no-instance") or reason["level"] == "no"
    if not bad.only_counts:
        assert done.status == 1, evidence
        assert sgfast(capsys, *given, "--fail-on", "denied").status == 1
    accepted = [word for code in reasons(evidence) for word in ("--accept-evidence", code)]
    done = sgfast(capsys, *given, *accepted, "--json")
    assert json.loads(done.out)["evidence"]["conclusive"] == "yes"
    for form in ("text", "markdown"):
        done = sgfast(capsys, *given, "--format", form, "--report", page)
        told = " ".join(done.out.replace("\\", "").split())
        assert done.status == 0 and reason["command"].split(",")[0] in told
        assert ("Cannot tell" in told.split("packets")[0]) == (evidence["conclusive"] == "no")
        if {"one-direction", "truncated", "tunnels", "mirror-cut"} & reasons(evidence).keys():
            assert "nothing that worked depends" not in told
        html = page.read_text()
        assert 'class="good"' not in html and reason["sentence"][1:20] in html
    assert ('<h1 class="calm">Cannot tell' in html) == (evidence["conclusive"] == "no")


@pytest.mark.parametrize(
    ("name", "doubt"),
    [("every packet twice", "may be too high"), ("clock 90 s ahead", "may be too high or too low"),
     ("two taps of the same", "may be too high or too low")],
)  # fmt: skip
def test_headline_does_not_state_a_number_that_the_evidence_does_not_carry(
    capsys: Capsys, tmp_path: Path, name: str, doubt: str
) -> None:
    """Some read nothing else."""
    bad, page = BAD[name], tmp_path / "page.html"
    policy, captures = written(tmp_path, bad)
    read, words = [*captures, *bad.options], f"ot certain, numbers {doubt}"
    traffic = [word for each in read for word in (["--traffic", each] if each in captures else [each])]
    replayed, same = ["replay", policy, *read, "--report", page], ["diff", policy, policy, *read]
    for form in ("text", "markdown"):
        told = " ".join(sgfast(capsys, *replayed, "--format", form).out.split())
        assert re.match(rf"(### )?N{words}: \d+ connections would break", told)
        told = " ".join(sgfast(capsys, *same, "--format", form).out.split())
        assert f"N{words}: nothing changes for this traffic" in told
        assert f" (n{words})" in " ".join(sgfast(capsys, "check", policy, *traffic, "--format", form).out.split())
    assert re.search(rf'<h1 class="bad">N{words}: \d+ connections that worked would break</h1>', page.read_text())
    codes = [f"--accept-evidence={code}" for code in ("duplicates", "overlap", "clocks")]
    assert re.match(r"\d+ connections would break", sgfast(capsys, *replayed, *codes).out)


@pytest.mark.parametrize("name", BAD)
def test_comparison_by_a_bad_capture_is_never_sure_that_nothing_changes(
    capsys: Capsys, tmp_path: Path, name: str
) -> None:
    bad = BAD[name]
    policy, captures = written(tmp_path, bad)
    given = ["diff", policy, PROPOSED if bad.policy is None else policy, *captures, *bad.options]
    done = sgfast(capsys, *given, "--json", "--fail-on", "newly-denied", "--fail-on", "newly-allowed")
    found = valid("diff", json.loads(done.out))
    assert found["evidence"]["conclusive"] != "yes" and bad.code in reasons(found["evidence"]), found["evidence"]
    if not bad.only_counts:
        assert done.status == 1
    text = " ".join(sgfast(capsys, *given).out.split())
    if found["evidence"]["conclusive"] == "no":
        assert "Nothing changes for this traffic" not in text and "Cannot tell" in text


@pytest.mark.parametrize("name", BAD)
def test_check_and_suggest_by_a_bad_capture_say_so(capsys: Capsys, tmp_path: Path, name: str) -> None:
    """The finding that a rule was never used is left out, or said to be uncertain."""
    bad = BAD[name]
    policy, captures = written(tmp_path, bad)
    traffic = [word for capture in captures for word in ("--traffic", capture)]
    found = json.loads(sgfast(capsys, "check", policy, *traffic, *bad.options, "--json").out)
    assert bad.code in reasons(found["evidence"]), found["evidence"]
    unused = [each for each in found["findings"] if each["code"] in ("SG012", "SG015")]
    assert unused == [] if found["evidence"]["conclusive"] == "no" else not any(each["certain"] for each in unused)
    done = sgfast(capsys, "suggest", *captures, "--policy", policy, *bad.options, "--json")
    found = json.loads(done.out)
    assert bad.code in reasons(found["evidence"]), found["evidence"]
    assert found["evidence"]["conclusive"] != "no" or done.status == 1


SOUND_RUNS = {
    "shop": (SHOP[0], [SHOP[1]], ()),
    "shop, first half": (SHOP[0], [SHOP[1]], ("--end", "7")),
    "shop, one host": (SHOP[0], [SHOP[1]], ("--filter", "host 10.0.0.5")),
    "shop, deny midstream": (SHOP[0], [SHOP[1]], ("--midstream", "deny")),
    "shop, verbatim": (SHOP[0], [SHOP[1]], ("--mode", "verbatim")),
    "shop, decap": (SHOP[0], [SHOP[1]], ("--decap", "auto")),
    "shop, two jobs": (SHOP[0], [SHOP[1]], ("--jobs", "2")),
}


@pytest.mark.parametrize("name", SOUND_RUNS)
def test_sound_capture_raises_no_doubt(capsys: Capsys, name: str) -> None:
    policy, captures, options = SOUND_RUNS[name]
    done = sgfast(capsys, "replay", policy, *captures, *options, "--json")
    assert json.loads(done.out)["evidence"] == {"conclusive": "yes", "reasons": []}
    if "--jobs" not in options:
        done = sgfast(capsys, "diff", policy, PROPOSED, *captures, *options, "--json")
        assert json.loads(done.out)["evidence"] == {"conclusive": "yes", "reasons": []}


#: Captures of the corpus, and the address in most of their packets.
SOUND_OF_CORPUS = {
    "pcaps/chrissanders-packets/tcp_ports.pcapng": "172.16.16.128",
    "pcaps/nDPI/default/pcap/gnutella.pcap": "10.0.2.15",
    "pcaps/nDPI/default/pcap/teamspeak3.pcap": "193.31.25.70",
    "pcaps/zeek/ftp/bigtransfer.pcap": "192.168.56.1",
    "pcaps/zeek/wikipedia-filtered-plus-udp.pcap": "141.142.220.118",
    "pcaps/nDPI/default/pcap/dns_fragmented.pcap": "2001:470:1f0b:16b0:20c:29ff:fe7c:a4cb",
    "pcaps/zeek/pop3/pop3.pcap": "192.168.0.4",
    "pcaps/nDPI/default/pcap/amqp.pcap": "127.0.0.1",
    "pcaps/nDPI/default/pcap/kerberos.pcap": "172.16.8.201",
    "pcaps/tcpdump/forces2.pcap": "192.168.1.142",
    "pcaps/zeek/sip/wireshark.pcap": "192.168.1.2",
    "pcaps/zeek/ftp/ipv4.pcap": "141.142.220.235",
    "pcaps/zeek/ftp/ipv6.pcap": "2001:470:1f11:81f:c999:d94:aa7c:2e3e",
    "pcaps/zeek/snmp/snmpv1_get.pcap": "172.31.19.54",
    "pcaps/zeek/tls/ocsp-revoked.pcap": "192.168.6.109",
    "pcaps/zeek/workshop_2011_browse.pcap": "10.0.2.15",
    "pcaps/nDPI/default/pcap/webdav.pcap": "192.168.16.173",
    "pcaps/zeek/http/http-body-match.pcap": "192.0.2.42",
    "pcaps/nDPI/default/pcap/whatsapp_voice_and_message.pcap": "10.8.0.1",
    "pcaps/zeek/http/docker-http-upgrade.pcap": "192.168.122.1",
    "pcaps/arkime/mpls-basic.pcap": "10.1.2.1",
    "pcaps/arkime/tcp-reassembly-synthetic.pcap": "10.180.156.1",
    "pcaps/arkime/smtp-decrypted.pcap": "45.0.0.15",
    "pcaps/zeek/var-services-std-ports.pcap": "172.16.238.131",
}


@pytest.mark.skipif(not ROOT.exists(), reason="the corpus is not here")
@pytest.mark.parametrize("name", SOUND_OF_CORPUS)
def test_sound_capture_of_the_corpus_raises_no_doubt(name: str) -> None:
    """With an instance at the address, in a group that allows everything."""
    rules = [
        {"direction": direction, "ethertype": family, "protocol": "all"}
        for direction in ("inbound", "outbound") for family in ("IPv4", "IPv6")
    ]  # fmt: skip
    instances = [{"name": "web-1", "addresses": [SOUND_OF_CORPUS[name]], "security_groups": ["web"]}]
    policy = {"version": 1, "security_groups": [{"name": "web", "rules": rules}], "instances": instances}
    assert replay(policy, ROOT / name).evidence == SOUND


def test_jobs_and_going_on_give_the_same_evidence(capsys: Capsys, tmp_path: Path) -> None:
    """A capture in two parts, the second one resumed."""
    frames = [each for each in OF_SHOP if rising(each)]
    policy, captures = written(tmp_path, Bad("one-direction", [frames[:60], frames[60:]]))
    whole = replay(policy, captures).evidence
    assert replay(policy, captures, jobs=2).evidence == whole
    replay(policy, captures[0], snapshot=tmp_path / "state")
    assert replay(policy, captures[1], resume=tmp_path / "state").evidence == whole


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_networks_with_equally_many_packets_stand_by_address_whichever_thread_met_them_first(
    capsys: Capsys, tmp_path: Path, jobs: str
) -> None:
    ends = [(f"192.0.{third}.1", f"198.51.{third}.2") for third in range(9, 0, -1)]
    capture = write_capture(tmp_path, *(ethernet(ip(*pair, udp(1, 53))) for pair in ends for _ in range(3)))
    done = sgfast(capsys, "replay", SHOP[0], capture, "--jobs", jobs, "--json")
    (reason,) = json.loads(done.out)["evidence"]["reasons"]
    assert [row["network"] for row in reason["networks"]] == [
        *(f"192.0.{third}.0/24" for third in range(1, 10)), "198.51.1.0/24"
    ]  # fmt: skip

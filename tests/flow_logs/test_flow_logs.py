"""``sgfast flowlog``: the log of a replay agrees with the policy it used. Without one of its rules, exactly the
connections that needed the rule disagree (SPEC 10.16).
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import pytest
from command import PCAPS, SHOP, handshake, sgfast, valid, write_capture, write_policy
from flow_logs import CLIENT, DB, GOOD, POLICY, WEB, assert_adds_up, check, log_of, record, told, without
from frames import ethernet, icmp, ip
from shop_log import logs

from sgfast import replay
from sgfast.flow_logs import checking, judging
from sgfast.flow_logs.checking import OTHER_VPC, SEVERAL_VPCS, check_logs
from sgfast.flow_logs.conversations import UNKNOWN_ORDER
from sgfast.flow_logs.records import FlowLog, Record
from sgfast.loading import load_policy, parse_policy
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.report.flow_log_lines import FORMATS

PROGRAMS = PCAPS / "programs"
RECORDINGS = [
    (PCAPS / "shop.yaml", PCAPS / "shop.pcap"),
    (PCAPS / "changes" / "policy.yaml", PCAPS / "changes" / "network.pcap"),
    *((path, PROGRAMS / "network.pcap") for path in sorted(PROGRAMS.glob("*.yaml"))),
]
ICMPS = (1, 58)


def shuffle(path: Path, seed: int) -> None:
    """Clouds do not keep records in order within an interval."""
    print(f"seed {seed}")
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if not line.endswith(b"NODATA\n")]
    random.Random(seed).shuffle(lines)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("interval", [1, 600])
@pytest.mark.parametrize(("policy", "capture"), RECORDINGS, ids=lambda path: path.stem)
def test_a_replays_log_agrees_with_its_policy(
    policy: Path, capture: Path, form: str, interval: int, tmp_path: Path
) -> None:
    loaded = load_policy(policy)
    path, _ = log_of(loaded, capture, tmp_path / "flow.log", form, interval)
    for seed in (None, 7, 8):
        if seed is not None:
            shuffle(path, seed)
        checked = check_logs(loaded, [str(path)])
        assert_adds_up(checked)
        assert checked.records > 50
        told = [(d.record.protocol, d.record.sport, d.record.dport) for d in checked.disagreements]
        # Without order, the opener is unknown for protocols without ports.
        assert [ports for ports in told if seed is None or ports[1] != ports[2]] == []
        assert all("ICMP" in why or (seed and why == UNKNOWN_ORDER) for why in checked.undecided)
        assert checked.undecided.total() <= (8 if seed is None else 18)


# A rule is missing


def matches(policy: Policy, rule: Rule, peer: str, protocol: int, port: int) -> bool:
    address = ip_address(peer)
    if rule.ethertype != address.version or rule.protocol not in (None, protocol):
        return False
    if rule.ports is not None and not any(first <= port <= last for first, last in rule.ports):
        return False
    if isinstance(rule.peer, GroupPeer):
        members = [i for i in policy.instances if rule.peer.name in i.security_groups]
        return any(address in network for member in members for network in member.addresses)
    if isinstance(rule.peer, AddressGroupPeer):
        return any(address in network for network in policy.address_group_by_name[rule.peer.name].addresses)
    return rule.peer is None or address in rule.peer


def allows(policy: Policy, instance: str, direction: str, peer: str, protocol: int, port: int) -> bool:
    groups = policy.instance_by_name[instance].security_groups
    found = [
        rule for name in groups for rule in policy.group_by_name[name].rules
        if rule.direction == direction and matches(policy, rule, peer, protocol, port)
    ]  # fmt: skip
    best = [rule for rule in found if rule.priority == min(rule.priority for rule in found)]
    return bool(best) and all(rule.action == "allow" for rule in best)


def is_plain(record: Record, openers: set[tuple[object, ...]]) -> bool:
    """Connections whose opener a record reveals: not ICMP, and not between ends that may both open, such as NTP
    servers.
    """
    src, dst = str(ip_address(record.src)), str(ip_address(record.dst))
    both = {(src, record.sport, dst, record.dport), (dst, record.dport, src, record.sport)} <= openers
    return record.protocol not in ICMPS and not both and not record.sport == record.dport != 0


def expected(policy: Policy, records: Iterable[Record], openers: set[tuple[object, ...]]) -> set[int]:
    """Lines of plain records that disagree with the policy's verdict on their connection's opener."""
    lines = set()
    for found in records:
        if not is_plain(found, openers):
            continue
        src, dst = str(ip_address(found.src)), str(ip_address(found.dst))
        outbound = src in map(str, _hosts(policy, found.interface))
        ends = (src, found.sport, dst, found.dport)
        if ends not in openers:
            assert (ends[2:] + ends[:2]) in openers
            ends, outbound = ends[2:] + ends[:2], not outbound
        peer = ends[2] if outbound else ends[0]
        direction = "outbound" if outbound else "inbound"
        port = int(str(ends[3]))
        if allows(policy, found.interface, direction, str(peer), found.protocol, port) != found.accepted:
            lines.add(found.line)
    return lines


def _hosts(policy: Policy, instance: str) -> list[object]:
    return [host for network in policy.instance_by_name[instance].addresses for host in network]


@pytest.mark.parametrize(("policy", "capture"), RECORDINGS, ids=lambda path: path.stem)
def test_without_a_rule_exactly_what_needed_it_disagrees(policy: Path, capture: Path, tmp_path: Path) -> None:
    loaded = load_policy(policy)
    path, connections = log_of(loaded, capture, tmp_path / "flow.log")
    records = list(FlowLog(str(path)))
    # For protocols without ports the log has 0.
    openers = {
        (c["initiator"], c["initiator_port"] or 0, c["responder"], c["responder_port"] or 0) for c in connections
    }
    assert expected(loaded, records, openers) == set()
    assert sum(is_plain(record, openers) for record in records) > len(records) / 2
    accepted = {record.line for record in records if record.accepted}
    for group in loaded.security_groups:
        for rule in group.rules:
            changed = without(loaded, rule)
            checked = check_logs(changed, [str(path)])
            assert_adds_up(checked)
            told = {d.record.line for d in checked.disagreements if is_plain(d.record, openers)}
            wanted = expected(changed, records, openers)
            assert told & accepted == wanted & accepted, rule.id
            # A deny rule is gone. So few rejected packets may have been no openers.
            assert told <= wanted
            rejected = sum(number for why, number in checked.undecided.items() if why.startswith("rejected"))
            assert rejected >= len(wanted - told), rule.id


def test_some_rules_are_needed(tmp_path: Path) -> None:
    loaded = load_policy(SHOP[0])
    path, _ = log_of(loaded, Path(SHOP[1]), tmp_path / "flow.log")
    changed = without(loaded, loaded.security_groups[0].rules[0])
    checked = check_logs(changed, [str(path)])
    assert checked.disagreeing > 5
    # The reply direction disagrees too, although the group allows everything out: it replies to what is now denied.
    assert {d.role for d in checked.disagreements} == {"opener", "reply"}
    assert {(d.verdict, d.reason, d.instance) for d in checked.disagreements} == {
        ("deny", "no-rule", "web-1"), ("deny", "no-rule", "web-2")
    }  # fmt: skip


def test_an_interface_is_told_by_what_its_records_have_in_common(tmp_path: Path) -> None:
    both = record(WEB, DB, 40000, 5432, interface="eni-a")
    assert check(tmp_path, both).undecided.total() == 1
    denied = record(WEB, DB, 40000, 22, interface="eni-db")
    checked = check(tmp_path, record(CLIENT, DB, 1, 1, action="REJECT", interface="eni-db"), denied)
    assert told(checked) == [(2, "opener", "no-rule")]
    checked = check(tmp_path, record("10.0.0.6", DB, 40000, 5432, interface="eni-db"), denied)
    assert checked.undecided.total() == 1 and told(checked) == [(2, "opener", "no-rule")]
    # At web-1 the same packets are allowed.
    assert told(check(tmp_path, record(WEB, DB, 40000, 22, interface="web-1"))) == []
    assert told(check(tmp_path, record(WEB, DB, 40000, 22, interface="db-1"))) == [(1, "opener", "no-rule")]
    assert check(tmp_path, record(CLIENT, WEB, 1, 1, interface="db-1")).out_of_scope.total() == 1


BY_ROLE = """
version: 1
settings: {infrastructure: by-role}
security_groups:
  - name: g
    rules: [{direction: inbound, protocol: icmpv6}, {direction: outbound, protocol: udp, ethertype: IPv6}]
instances: [{name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}]
"""


@pytest.mark.parametrize(
    "records",
    [
        # Over the other IP version the ports of DHCP mean nothing (SPEC 3.2).
        [record("2001:db8::5", "2001:db8::9", 67, 68, 17)],
        [record("10.0.0.5", "198.51.100.7", 547, 546, 17)],
        # A ping from outside and its replies.
        [record("2001:db8::9", "2001:db8::5", protocol=58), record("2001:db8::5", "2001:db8::9", protocol=58)],
    ],
)
def test_what_is_no_infrastructure_is_judged_by_its_rules(records: list[str], tmp_path: Path) -> None:
    by_role, filtered = (
        check(tmp_path, *records, policy=BY_ROLE.replace("by-role", setting)) for setting in ("by-role", "filtered")
    )
    assert told(by_role) == told(filtered) and by_role.undecided == filtered.undecided
    assert by_role.agreeing == filtered.agreeing


def test_unpeered_vpcs_and_dhcp() -> None:
    policy = parse_policy("""
version: 1
vpcs: [{name: a}, {name: b}]
security_groups: [{name: open, template: all-ports-open}]
instances:
  - {name: one, vpc: a, addresses: [10.0.0.1], security_groups: [open]}
  - {name: two, vpc: b, addresses: [10.1.0.1], security_groups: [open]}
""")
    checker = checking._Checker(policy, ())
    one, two = (ip_address(text).packed for text in ("10.0.0.1", "10.1.0.1"))
    checker.take((0, "x"), Record(1, "one", one, two, 40000, 80, 6, 1, 60, 0, 0, True))
    checker.take((0, "x"), Record(2, "one", one, b"\xff" * 4, 68, 67, 17, 1, 60, 0, 0, True))
    result = checker.finish()
    assert [d.reason for d in result.disagreements] == ["vpc-isolated"]
    assert result.out_of_scope.total() == 1


TWINS = """
version: 1
vpcs: [{name: one}, {name: two}]
security_groups:
  - {name: web, rules: [{direction: inbound, protocol: tcp, ports: 443}]}
  - {name: jump, rules: [{direction: inbound, protocol: tcp, ports: 22}]}
instances:
  - {name: web-1, vpc: one, addresses: [10.0.0.5], security_groups: [web]}
  - {name: jump-1, vpc: two, addresses: [10.0.0.5], security_groups: [jump]}
"""


def test_vpcs_that_use_the_same_addresses_are_told_apart_by_vpc(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy, log = write_policy(tmp_path, TWINS), tmp_path / "some.log"
    log.write_text("\n".join([
        record(CLIENT, WEB, 50000, 443, interface="web-1"),
        record(CLIENT, WEB, 50001, 22, interface="jump-1"),
        record(CLIENT, WEB, 50002, 22, interface="eni-x"),
    ]))  # fmt: skip
    # The interfaces' names tell which VPC it is, for all records but the last one.
    unnamed = valid("flowlog", json.loads(sgfast(capsys, "flowlog", policy, log, "--json").out))
    assert (unnamed["agreeing"], unnamed["disagreeing"], unnamed["undecided"]) == (2, 0, {SEVERAL_VPCS: 1})
    last = tmp_path / "last.log"
    last.write_text(record(CLIENT, WEB, 50002, 22, interface="eni-x"))
    outcome = sgfast(capsys, "flowlog", policy, last)
    assert outcome.status == 2 and "name the VPC that the logs are of (--vpc)" in outcome.one_line()
    told = {}
    for vpc in ("one", "two"):
        found = valid("flowlog", json.loads(sgfast(capsys, "flowlog", policy, log, "--vpc", vpc, "--json").out))
        # Records of the other VPC's instances do not concern this one.
        assert found["out_of_scope"] == {"neither end is the interface's instance": 1}
        told[vpc] = found["agreeing"], [(d["line"], d["instance"], d["verdict"]) for d in found["disagreements"]]
    assert told == {"one": (1, [(3, "web-1", "deny")]), "two": (2, [])}
    outcome = sgfast(capsys, "flowlog", policy, log, "--vpc", "three")
    assert outcome.status == 2 and "unknown VPC 'three'" in outcome.one_line()


def test_the_vpc_of_a_record_is_found_from_its_peer_or_from_other_records_of_its_interface(tmp_path: Path) -> None:
    more = [f"{{name: {name}, vpc: {vpc}, addresses: [{address}], security_groups: [web]}}"
            for name, vpc, address in (("near", "one", "10.0.0.6"), ("far", "two", "10.0.0.7"))]  # fmt: skip
    policy = TWINS + "".join(f"  - {each}\n" for each in more)
    lines = [
        record("10.0.0.6", WEB, 50000, 22, interface="eni-1", action="REJECT"),
        record(CLIENT, WEB, 50000, 22, interface="eni-1", action="REJECT"),
        record("10.0.0.7", WEB, 50001, 22, interface="eni-2"),
        record(CLIENT, WEB, 50001, 22, interface="eni-2"),
        record(CLIENT, WEB, 50002, 22, interface="eni-3"),
    ]
    checked = check(tmp_path, *lines, policy=policy)
    unknown = "both ends are instances, and it is unknown whose interface this is"
    assert (checked.agreeing, checked.disagreeing) == (2, 0)
    assert checked.undecided == {unknown: 2, SEVERAL_VPCS: 1}


def test_a_rejected_peer_that_is_an_instance_of_another_vpc_is_no_disagreement(tmp_path: Path) -> None:
    """By the rules of VPC one the peer is let in as somebody outside. If it is far, no packet of it arrives."""
    policy = parse_policy(TWINS.replace("two, addresses: [10.0.0.5]", "two, addresses: [10.9.9.9]"))
    log = tmp_path / "some.log"
    for peer, undecided in (("10.9.9.9", 1), (CLIENT, 0)):
        rows = [record(peer, WEB, 50000 + n, 443, action="REJECT", interface="web-1") for n in range(9)]
        log.write_text("\n".join(rows))
        checked = check_logs(policy, [str(log)], vpc="one")
        assert (checked.undecided[OTHER_VPC], checked.disagreeing) == (9 * undecided, 9 * (1 - undecided))


def test_little_memory_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = load_policy(SHOP[0])
    path, _ = log_of(loaded, Path(SHOP[1]), tmp_path / "flow.log", interval=1)
    monkeypatch.setattr(judging, "MOST_VERDICTS", 2)
    for name, few in (("MOST_CONVERSATIONS", 2), ("MOST_WAITING", 2), ("MOST_SERVICES", 2), ("MOST_INTERFACES", 0)):
        monkeypatch.setattr(checking, name, few)
        checked = check_logs(loaded, [str(path)] * 3)
        assert_adds_up(checked)
        assert checked.records + checked.nodata == 3 * len(path.read_text().splitlines())


def test_many_disagreements_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    lines = [record(CLIENT, DB, 40000 + n % 20000, 22, interface="db-1") for n in range(5000)]
    checked = check(tmp_path, *lines)
    assert (checked.disagreeing, checked.packets, checked.bytes) == (5000, 15000, 900_000)
    assert [d.record.line for d in checked.disagreements] == list(range(1, 1001))


# The command


def test_the_command_says_what_disagrees(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path, POLICY), tmp_path / "some.log"
    log.write_text(GOOD + "\n" + record(CLIENT, WEB, 50001, 22) + "\n")
    outcome = sgfast(capsys, "flowlog", policy, log)
    assert outcome.status == 0
    assert f"{log}:2: ACCEPT tcp 198.51.100.7:50001 to 10.0.0.5:22, inbound at" in " ".join(outcome.out.split())
    assert sgfast(capsys, "flowlog", policy, log, "--fail-on", "disagreement").status == 1
    found = valid("flowlog", json.loads(sgfast(capsys, "flowlog", policy, log, "--json").out))
    assert [d["line"] for d in found["disagreements"]] == [2]
    log.write_text(GOOD + "\n")
    assert sgfast(capsys, "flowlog", policy, log, "--fail-on", "disagreement").status == 0
    assert sgfast(capsys, "flowlog", "-", "-").status == 2


def test_written_and_read_back_by_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path), tmp_path / "flow.log"
    pings = [ethernet(ip(WEB, CLIENT, icmp(8, 0, 1))), ethernet(ip(CLIENT, WEB, icmp(0, 0, 1)))]
    capture = write_capture(tmp_path, *handshake(40000, 80), *handshake(40001, 8080), *pings)
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    assert len(log.read_text().splitlines()) == 4
    assert sgfast(capsys, "flowlog", policy, log, "--fail-on", "disagreement").status == 0
    policy.write_text(policy.read_text() + "  - {name: idle, addresses: [10.0.0.6], security_groups: [web]}\n")
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    found = json.loads(sgfast(capsys, "flowlog", policy, log, "--json").out)
    assert (found["records"], found["nodata"], found["broken_lines"]) == (4, 1, 0)


def test_the_log_that_comes_with_the_recordings_is_what_a_replay_writes(tmp_path: Path) -> None:
    text = Path(SHOP[0]).read_text()
    wanted = text.replace("ports: 80-81, source: 0.0.0.0", 'ports: "80-81,8080", source: 0.0.0.0')
    assert wanted != text
    path, _ = log_of(parse_policy(wanted), Path(SHOP[1]), tmp_path / "flow.log", interval=60)
    assert path.read_bytes() == (PCAPS / "shop.flow.log").read_bytes()


def test_the_logs_of_the_guides_are_what_the_writers_write() -> None:
    written = logs()
    assert (PCAPS / "shop.aws.log").read_bytes() == written["shop.aws.log"]
    assert gzip.decompress((PCAPS / "shop.month.log.gz").read_bytes()) == written["shop.month.log"]


@pytest.mark.parametrize(
    "command", ["replay POLICY LOG", "diff POLICY POLICY LOG", "check POLICY --traffic LOG",
                "suggest LOG --policy POLICY --keep"],
)  # fmt: skip
@pytest.mark.parametrize("what", ["a broken line", "a cut file"])
def test_a_log_that_could_not_be_read_whole_makes_the_status_three(
    command: str, what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SPEC 10.5, 10.29."""
    log = tmp_path / "flow.log"
    log.write_bytes((PCAPS / "shop.aws.log").read_bytes() + b"broken line\n")
    if what == "a cut file":
        log.write_bytes((PCAPS / "shop.month.log.gz").read_bytes()[:5000])
    words = {"POLICY": str(PCAPS / "shop.yaml"), "LOG": str(log)}
    outcome = sgfast(capsys, *(words.get(word, word) for word in command.split()))
    assert outcome.status == 3 and "flow.log: line" in outcome.err and outcome.out


def test_rules_are_not_taken_away_for_a_log_that_could_not_be_read_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log, written = tmp_path / "flow.log", tmp_path / "policy.yaml"
    text = gzip.decompress((PCAPS / "shop.month.log.gz").read_bytes())
    for more, status in ((b"", 0), (b"broken line\n", 3)):
        log.write_bytes(text + more)
        outcome = sgfast(capsys, "suggest", log, "--policy", PCAPS / "shop.yaml", "--remove", "30d", "-o", written)
        assert (outcome.status, written.exists()) == (status, status == 0)
        written.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dedup",), "dedup and decap are for packets"),
        (("--decap", "auto"), "dedup and decap are for packets"),
        (("--engine", "reference"), "flow logs need the fast engine"),
        (("--verdicts", "FILE"), "flow logs have no packets to write"),
        (("--write", "FILE.pcapng"), "flow logs have no packets to write"),
        (("--flow-log", "FILE"), "flow logs have no packets to write"),
        (("--snapshot", "FILE"), "resume and snapshot"),
        ((str(PCAPS / "shop.pcap"),), "give only flow logs, or only captures"),
    ],
)
def test_what_needs_packets_is_refused_for_flow_logs(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SPEC 10.31."""
    given = [option.replace("FILE", str(tmp_path / "file")) for option in options]
    outcome = sgfast(capsys, "replay", PCAPS / "shop.yaml", PCAPS / "shop.aws.log", *given)
    assert outcome.status == 2 and said in outcome.one_line()


def test_what_the_cloud_rejected_is_apart_and_compared_with_its_actions(capsys: pytest.CaptureFixture[str]) -> None:
    """SPEC 10.31."""
    arguments = ("replay", PCAPS / "shop.yaml", PCAPS / "shop.aws.log", "--compare-actions", "--json", "-q")
    found = valid("summary", json.loads(sgfast(capsys, *arguments).out))
    records = found["records"]
    others = sum(records["undecided"].values()) + sum(records["left_out"].values())
    assert records["read"] == 72 == records["judged"] + records["rejected"] + others
    assert [row["service"] for row in found["rejected"]["would_open"]] == ["tcp/81"]
    assert found["actions"]["accepted_denied"] == found["actions"]["rejected_allowed"] == 2
    assert sgfast(capsys, *arguments, "--fail-on", "disagreement").status == 1


def test_flowlog_names_what_replaces_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = (PCAPS / "shop.yaml", PCAPS / "shop.flow.log")
    assert "replaced by sgfast replay --compare-actions" in sgfast(capsys, "flowlog", *log).err
    assert sgfast(capsys, "flowlog", *log, "-q").err == ""


def test_a_replay_counts_the_packets_and_bytes_of_records() -> None:
    """SPEC 10.30."""
    log = PCAPS / "shop.aws.log"
    found = replay(PCAPS / "shop.yaml", log, tables="connections").tables.connections
    lines = [line.split() for line in log.read_text().splitlines()]
    for port in ("80", "8080"):
        counted = [line for line in lines if line[2] == "web-1" and port in line[5:7]]
        connections = [row for row in found if row["responder_port"] == int(port) and row["responder"] != "10.0.0.6"]
        assert len(counted) == 2 * len(connections) > 0
        for what, place in (("packets", 8), ("bytes", 9)):
            sums = [row[f"{what}_from_initiator"] + row[f"{what}_from_responder"] for row in connections]
            assert sum(sums) == sum(int(line[place]) for line in counted)

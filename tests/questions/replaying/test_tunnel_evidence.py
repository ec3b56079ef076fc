"""Traffic in tunnels and mirrors that cut: an answer about the tunnels is never taken for one about what is inside
(SPEC 9.12, 10.27).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captures import pcap_head, pcap_record
from command import POLICY, SERVER, SHOP, handshake, sgfast, valid, write_capture, write_policy
from frames import ethernet, ip, tcp, udp
from tunnels import erspan, geneve, gre, vxlan

from sgfast import ReadOptions, diff, replay
from sgfast.clouds.loading import parse_policy
from sgfast.core.base.frames import FrameBatch
from sgfast.questions.replaying import ReplayResult
from sgfast.traffic.capture import open_capture
from sgfast.traffic.preprocess.decap import TUNNELS_LOOK_EVERY, TUNNELS_LOOKED_AT, TunnelSample

Capsys = pytest.CaptureFixture[str]

#: Ends of the tunnels: instances of the shop, as of a traffic mirror.
ENDS = ("10.0.0.5", "10.0.0.6")
DECAP = ("--decap", "vxlan")


def frames_of(path: str) -> list[tuple[int, bytes]]:
    found = []
    with open_capture(path) as reader:
        while (batch := reader.next_batch()) is not None:
            found += [(time_ns, data) for time_ns, data, _, _ in batch]
    return found


def mirrored(
    folder: Path, *, cut: int | None = None, snap: int | None = None, tunnel: Callable[..., Any] = vxlan,
    is_mirrored: Callable[[int], bool] = lambda n: True,
) -> Path:  # fmt: skip
    """The shop's capture from a mirror that sends ``cut`` bytes of packets, of which ``snap`` bytes are captured."""
    path = folder / "mirror.pcap"
    with path.open("wb") as out:
        out.write(pcap_head())
        for n, (time_ns, data) in enumerate(frames_of(SHOP[1])):
            frame = ethernet(ip(*ENDS, tunnel(data[:cut]))) if is_mirrored(n) else data
            time = divmod(time_ns // 1000, 1_000_000)
            out.write(pcap_record(frame[:snap], time=time, wire=len(frame)))
    return path


def codes(result: ReplayResult) -> dict[str, str]:
    return {reason.code: reason.level for reason in result.evidence.reasons}


# Tunnels that are not taken off


def test_a_mirror_between_instances_is_not_green_unless_its_tunnels_are_taken_off(
    tmp_path: Path, capsys: Capsys
) -> None:
    """Most of what the filters allow are the tunnels."""
    capture, fails = mirrored(tmp_path), ("--fail-on", "would-break")
    run = sgfast(capsys, "replay", SHOP[0], capture, *fails, "--report", tmp_path / "page.html")
    assert run.status == 1 and "Cannot tell: 100 % of the packets are in VXLAN tunnels" in run.out
    assert "--decap vxlan" in run.out and "--decap vxlan" in (tmp_path / "page.html").read_text()
    summary = valid("summary", json.loads(sgfast(capsys, "replay", SHOP[0], capture, "--json").out))
    assert summary["evidence"]["conclusive"] == "no"
    (reason,) = [each for each in summary["evidence"]["reasons"] if each["code"] == "tunnels"]
    assert (reason["level"], reason["share"], reason["command"]) == ("no", 1.0, "--decap vxlan")
    assert reason["packets"] == summary["packets"]
    assert diff(SHOP[0], SHOP[0], capture).traffic.evidence.conclusive == "no"
    assert codes(replay(SHOP[0], capture, reading=ReadOptions(dedup=True)))["tunnels"] == "no"
    accepted = sgfast(
        capsys, "replay", SHOP[0], capture, "--json", "--accept-evidence", "tunnels", "--accept-evidence",
        "one-direction",
    )  # fmt: skip
    assert json.loads(accepted.out)["evidence"]["conclusive"] == "yes"

    plain, inside = replay(*SHOP), replay(SHOP[0], capture, reading=ReadOptions(decap=("vxlan",)))
    assert inside.evidence.conclusive == plain.evidence.conclusive == "yes"
    assert (inside.verdicts, inside.reasons, inside.connections) == (plain.verdicts, plain.reasons, plain.connections)


@pytest.mark.parametrize(
    ("in_a_hundred", "level"), [(9, None), (10, "partly"), (49, "partly"), (50, "no"), (100, "no")]
)
def test_a_few_tunnels_are_part_of_any_traffic(in_a_hundred: int, level: str | None, tmp_path: Path) -> None:
    pair = handshake(1000, 80)
    frames = [
        ethernet(ip(*ENDS, vxlan(pair[n % 3]))) if n < in_a_hundred else handshake(1000 + n, 80)[n % 3]
        for n in range(100)
    ]
    result = replay(parse_policy(POLICY), write_capture(tmp_path, *frames))
    assert codes(result).get("tunnels") == level


def test_where_no_instance_has_the_ends_of_the_tunnels_they_are_the_first_reason(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, *(ethernet(ip("192.0.2.1", "192.0.2.2", vxlan(f))) for f in handshake(1000, 80)))
    assert next(iter(codes(replay(parse_policy(POLICY), capture)))) == "tunnels"


def test_the_command_takes_off_what_it_took_off_before(tmp_path: Path) -> None:
    """A mirror of an overlay: the second tunnel is found when the first one is gone."""
    overlay = [ethernet(ip(*ENDS, geneve(frame))) for frame in handshake(1000, 80)]
    capture = write_capture(tmp_path, *(ethernet(ip(*ENDS, gre(frame, 0x6558))) for frame in overlay))
    result = replay(parse_policy(POLICY), capture, reading=ReadOptions(decap=("gre",)))
    (reason,) = [each for each in result.evidence.reasons if each.code == "tunnels"]
    assert "in Geneve tunnels" in reason.sentence and reason.command == "--decap gre,geneve"
    assert "tunnels" not in codes(replay(parse_policy(POLICY), capture, reading=ReadOptions(decap=("gre", "geneve"))))


INSIDE = handshake(1000, 80)[0]
TEXT = b"Good morning, this is a text and no packet. " * 3


@pytest.mark.parametrize(
    "payload",
    [
        udp(53, 4789, TEXT), udp(53, 8472, TEXT), udp(53, 6081, TEXT), udp(53, 2152, TEXT), udp(53, 6635, TEXT),
        vxlan(TEXT), vxlan(INSIDE, flags=0), udp(53, 4789, bytes(200)), udp(53, 6635, bytes(200)),
        udp(53, 6635, bytes([1] * 200)), udp(53, 6635, b"\0\0\1\0\x45" + b"\xff" * 60),
    ],
)  # fmt: skip
def test_a_port_alone_makes_no_tunnel(payload: Any, tmp_path: Path) -> None:
    """A resolver may answer to any port."""
    capture = write_capture(tmp_path, *[ethernet(ip("198.51.100.53", SERVER, payload))] * 20)
    assert "tunnels" not in codes(replay(parse_policy(POLICY), capture))


@pytest.mark.parametrize("size", [1, 100, 340, 8192, TUNNELS_LOOKED_AT + TUNNELS_LOOK_EVERY // 2])
def test_the_same_packets_are_looked_at_for_tunnels_whatever_a_batch_holds(size: int) -> None:
    """Each packet at the beginning, and one in each run of later ones."""
    packets = 2 * TUNNELS_LOOKED_AT
    frames = [ethernet(ip(*ENDS, vxlan(INSIDE))), INSIDE]
    sample, whole = TunnelSample(()), TunnelSample(())
    is_inside = [n * n % 7 < 3 for n in range(packets)]
    for first in range(0, packets, size):
        some = [frames[not each] for each in is_inside[first : first + size]]
        sample.look(FrameBatch.from_frames(some, [0] * len(some)))
    whole.look(FrameBatch.from_frames([frames[not each] for each in is_inside], [0] * packets))
    assert (sample.looked_at, sample.counts) == (whole.looked_at, whole.counts)
    assert sample.looked_at == packets
    assert sample.counts["vxlan"] == pytest.approx(sum(is_inside), rel=0.1)


@pytest.mark.parametrize("period", [2, 16, 256, 512])
def test_traffic_with_a_period_is_seen_as_what_it_is(period: int) -> None:
    frames = [ethernet(ip(*ENDS, vxlan(INSIDE))), *[INSIDE] * (period - 1)]
    batch = FrameBatch.from_frames(frames * (8192 // period), [0] * 8192)
    sample = TunnelSample(())
    for _ in range(128):
        sample.look(batch)
    assert sample.counts.get("vxlan", 0) / sample.looked_at == pytest.approx(1 / period, abs=0.02)


def late_tunnels(folder: Path, plain: int, mirrored: int, ends: tuple[str, str]) -> Path:
    """A capture of plain packets of a server, and then those of a mirror, in which connections would break."""
    path = folder / f"{plain}-{mirrored}.pcap"
    head = [frame for port in range(200) for frame in handshake(1000 + port, 80)]
    inside = [frame for port in range(200) for frame in handshake(5000 + port, 8080)]
    with path.open("wb") as out:
        out.write(pcap_head())
        for n in range(plain + mirrored):
            data = head[n % len(head)]
            if n >= plain:
                data = ethernet(ip(*ends, vxlan(inside[n % len(inside)])))
            out.write(pcap_record(data, time=divmod(1_000_000_000 + 100 * n, 1_000_000)))
    return path


COLLECTOR = POLICY.replace(
    "instances:", "  - {name: all, rules: [{direction: inbound, protocol: all}]}\ninstances:"
) + "  - {name: collector, addresses: [10.9.9.9], security_groups: [all]}\n"
NOBODY, COLLECTED = ("172.16.0.1", "172.16.0.2"), ("172.16.0.1", "10.9.9.9")


@pytest.mark.parametrize(
    ("plain", "mirrored", "ends", "level"),
    [
        (24_000, 16_000, NOBODY, "partly"), (24_000, 16_000, COLLECTED, "partly"), (600, 6_000, COLLECTED, "no"),
        (60_000, 40_000, COLLECTED, "partly"), (60_000, 90_000, NOBODY, "no"), (60_000, 3_000, COLLECTED, None),
    ],
)  # fmt: skip
def test_tunnels_that_begin_late_are_noticed(
    plain: int, mirrored: int, ends: tuple[str, str], level: str | None, tmp_path: Path
) -> None:
    """They begin behind what is looked at from end to end, too."""
    policy = parse_policy(COLLECTOR)
    capture = late_tunnels(tmp_path, plain, mirrored, ends)
    for result in (replay(policy, capture), diff(policy, policy, capture).traffic):
        found = {each.code: each for each in result.evidence.reasons}
        assert (found["tunnels"].level if "tunnels" in found else None) == level
        if level:
            share = mirrored / (plain + mirrored)
            assert found["tunnels"].share == pytest.approx(share, abs=0.1)
            assert found["tunnels"].packets == pytest.approx(mirrored, rel=0.2)


# Mirrors that cut


@pytest.mark.parametrize("tunnel", [vxlan, geneve, lambda frame: erspan(frame, 2), lambda frame: gre(frame, 0x6558)])
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_healthy_packet_that_the_mirror_cut_behind_its_ports_is_no_malformed_one(
    tunnel: Any, engine: Any, tmp_path: Path
) -> None:
    """Cut to 100 bytes, all headers of the shop are there."""
    plain = replay(*SHOP, engine=engine)
    capture = mirrored(tmp_path, cut=100, tunnel=tunnel)
    cut = replay(SHOP[0], capture, engine=engine, reading=ReadOptions(decap=("vxlan", "geneve", "erspan", "gre")))
    assert (cut.verdicts, cut.reasons, cut.connections) == (plain.verdicts, plain.reasons, plain.connections)
    assert cut.bytes == plain.bytes and codes(cut) == {}


@pytest.mark.parametrize("options", [{}, {"jobs": 2}])
@pytest.mark.parametrize("cut", [10, 20, 40, 50])
def test_a_mirror_that_cuts_before_ports_or_addresses_is_named_with_what_mends_it(
    cut: int, options: Any, tmp_path: Path
) -> None:
    """More bytes in the capture (tcpdump -s 0) would not help."""
    result = replay(SHOP[0], mirrored(tmp_path, cut=cut), reading=ReadOptions(decap=("vxlan",)), **options)
    assert codes(result)["mirror-cut"] == "no" and "truncated" not in codes(result)
    (reason,) = [each for each in result.evidence.reasons if each.code == "mirror-cut"]
    assert "packet-length" in reason.command and "tcpdump" not in reason.command
    assert result.observed is not None and reason.packets == result.observed.truncated > 100


def test_a_tunnel_that_the_capture_cut_is_not_the_fault_of_the_mirror(tmp_path: Path) -> None:
    result = replay(SHOP[0], mirrored(tmp_path, snap=14 + 20 + 8 + 8 + 40), reading=ReadOptions(decap=("vxlan",)))
    assert codes(result)["truncated"] == "no" and "mirror-cut" not in codes(result)


def test_causes_of_cuts_are_told_apart_in_one_capture(tmp_path: Path) -> None:
    """Every tenth packet is from a mirror that cuts. The capture cuts the others behind their ports, or before."""
    for cut, snap, truncated in ((40, 90, None), (3, 53, "no")):
        capture = mirrored(tmp_path, cut=cut, snap=snap, is_mirrored=lambda n: n % 10 == 0)
        found = codes(replay(SHOP[0], capture, reading=ReadOptions(decap=("vxlan",))))
        assert (found["mirror-cut"], found.get("truncated")) == ("partly", truncated)


@pytest.mark.parametrize(
    "packet",
    [
        ip("198.51.100.7", SERVER, tcp(1, 80, "S"), header_words=4),
        ip("198.51.100.7", SERVER, tcp(1, 80, "S"), total_length=10),
        ip("198.51.100.7", SERVER, tcp(1, 80, "S"), total_length=30),
        ip("198.51.100.7", SERVER, udp(1, 80, TEXT, length=7)),
        ip("198.51.100.7", SERVER, udp(1, 80, TEXT, length=1000), total_length=500),
    ],
)
def test_an_inner_packet_that_contradicts_what_it_claims_is_malformed(packet: bytes, tmp_path: Path) -> None:
    """Claims that no cut explains."""
    capture = write_capture(tmp_path, *[ethernet(ip(*ENDS, vxlan(ethernet(packet))))] * 10)
    result = replay(parse_policy(POLICY), capture, reading=ReadOptions(decap=("vxlan",)))
    assert result.reasons["malformed"] == 10 and "mirror-cut" not in codes(result)


def test_what_was_found_in_the_first_part_is_known_when_a_replay_goes_on(tmp_path: Path) -> None:
    policy, state = write_policy(tmp_path), tmp_path / "state"
    wrapped = [ethernet(ip(*ENDS, vxlan(frame[:40]))) for frame in handshake(1000, 80)]
    first = write_capture(tmp_path, *wrapped, name="first.pcap")
    second = write_capture(tmp_path, *handshake(1001, 80), name="second.pcap", first_second=1001)
    replay(policy, first, snapshot=state)
    assert codes(replay(policy, second, resume=state))["tunnels"] == "no"
    replay(policy, first, snapshot=state, reading=ReadOptions(decap=("vxlan",)))
    assert codes(replay(policy, second, resume=state, reading=ReadOptions(decap=("vxlan",))))["mirror-cut"] == "no"

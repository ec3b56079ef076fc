"""Every timeout of SPEC 5.2, just before and at its deadline: engine = kernel, and the kernel's time is SPEC's."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import frames as f
import pytest
from comparing import RAW, START, Comparison
from conversations import Step
from oracle import Kernel, Side, missing
from talks import INSTANCE, PATHS, STRANGER, open_policy, tcp_packets

from sgfast.engine import Engine

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"kernel oracle: {REASON}")

SECOND = 10**9


@dataclass(frozen=True)
class Case:
    """Packets into a state, SPEC 5.2's seconds for it, and a packet that only a connection lets through."""

    name: str
    packets: tuple[bytes, ...]
    seconds: int
    probe: bytes


def cases(family: int, inbound: bool) -> list[Case]:
    there, back = (STRANGER[family], INSTANCE[family]), (INSTANCE[family], STRANGER[family])
    if not inbound:
        there, back = back, there
    found = []
    for port, (name, path) in enumerate(PATHS.items(), 1024):
        if name in ("none", "refused"):
            continue        # no connection
        seconds = 600 if name.startswith("ESTABLISHED") else 30
        probe = (0, "A") if name.startswith("ESTABLISHED") else (1, "SA")
        found.append(
            Case(name, tuple(tcp_packets(family, inbound, port, path)), seconds,
                 tcp_packets(family, inbound, port, (probe,))[0])
        )  # fmt: skip
    make, query, reply = (f.icmp, 8, 0) if family == 4 else (f.icmpv6, 128, 129)
    asked = f.with_checksum(f.ip(*there, make(query, 0, 7)))
    answered = f.with_checksum(f.ip(*back, make(reply, 0, 7)))
    return [*found, Case("ICMP", (asked,), 30, answered)]


@pytest.mark.parametrize("inbound", [True, False], ids=["inbound", "outbound"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("left", "lives"), [(1, True), (0, False)], ids=["before", "at"])
def test_tcp_and_icmp_deadlines(family: int, inbound: bool, left: int, lives: bool) -> None:
    everything = cases(family, inbound)
    policy = open_policy()
    with Kernel(policy) as kernel:
        for packet in chain.from_iterable(case.packets for case in everything):
            assert kernel.judge(packet)[0]
        told = {(entry.state, entry.remaining) for entry in kernel.sides[0].entries()}
        assert {seconds for _, seconds in told} == {30, 600} and ("ESTABLISHED", 600) in told
        kernel.sides[0].set_remaining(left)
        by_kernel = {case.name: kernel.judge(case.probe)[0] for case in everything}
    by_engine = {}
    for case in everything:
        engine = Engine(policy)
        engine.process_frames(case.packets, [START] * len(case.packets), link_type=RAW)
        at = START + case.seconds * SECOND - (1 if lives else 0)
        by_engine[case.name] = engine.verdict(engine.process_frames([case.probe], [at], link_type=RAW)[0]).allowed
    assert by_engine == by_kernel == dict.fromkeys(by_kernel, lives)


# Without states Linux has one time whether there was a reply or not (oracle.UNKNOWN_SECONDS), so what the kernel says
# here is what it gives back with each packet, and that a reply is tied to its query until the end.
OTHERS = {"UDP": 17, "GRE": 47, "ESP": 50, "something": 253}


@pytest.mark.parametrize("replied", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(("left", "lives"), [(1, True), (0, False)], ids=["before", "at"])
def test_deadlines_of_protocols_without_states(
    protocol: int, family: int, replied: bool, left: int, lives: bool
) -> None:
    # Nothing may come in by itself, so a reply shows that the connection lives.
    policy = open_policy("outbound")
    there, back = (INSTANCE[family], STRANGER[family]), (STRANGER[family], INSTANCE[family])
    layers = (f.udp(1024, 53), f.udp(53, 1024)) if protocol == 17 else (f.other(protocol, bytes(8)),) * 2
    asked, answered = f.with_checksum(f.ip(*there, layers[0])), f.with_checksum(f.ip(*back, layers[1]))
    packets = [asked, answered, asked] if replied else [asked]
    seconds = 180 if replied else 30
    engine = Engine(policy)
    with Kernel(policy) as kernel:
        assert all(kernel.judge(packet)[0] for packet in packets)
        assert [entry.remaining for entry in kernel.sides[0].entries()] == [seconds]
        kernel.sides[0].set_remaining(left)
        by_kernel = kernel.judge(answered)[0]
    engine.process_frames(packets, [START] * len(packets), link_type=RAW)
    at = START + seconds * SECOND - (1 if lives else 0)
    assert engine.verdict(engine.process_frames([answered], [at], link_type=RAW)[0]).allowed == by_kernel == lives


class SlowKernel(Kernel):
    """On a machine that needs two seconds for each packet."""

    clock = 0

    def judge(self, packet: bytes) -> tuple[bool, Side | None]:
        judged = super().judge(packet)
        self.clock += 2
        for side in self.sides:
            for entry in side.table.entries():
                side.table.update(entry, max(0, entry.timeout - 2), entry.mark)
        return judged


def test_no_connection_ends_because_the_machine_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = open_policy("outbound")
    opener, answer = tcp_packets(4, False, 1024, ((0, "S"), (1, "SA")))
    others = [f.with_checksum(f.ip(INSTANCE[4], STRANGER[4], f.udp(port, 53))) for port in range(20)]
    with SlowKernel(policy) as kernel:
        monkeypatch.setattr("comparing.monotonic", lambda: kernel.clock)
        compared = Comparison(policy)
        compared.run([Step(0, packet) for packet in (opener, *others, answer)], kernel)
    assert compared.packets == 22 and compared.seen["allow", "established"] == 1

"""Random traffic the kernel can be asked about: whole IP packets, and silences of whole steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import frames as f
import numpy as np
from oracle import STEP_SECONDS
from policy_changes import Changer
from traffic import OUTSIDE, PORTS, TCP_BOTH_OPEN, TCP_SCRIPT

from sgfast.base.errors import PolicyError
from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.changes import Change
from sgfast.policy.model import Policy
from sgfast.reference.addresses import visible_prefixes

#: Protocols of random packets. SCTP and DCCP are not among them: Linux tracks their states.
PROTOCOLS = (6, 6, 6, 6, 6, 6, 17, 17, 17, 1, 1, 47, 50, 253)
TCP_ODD = ("S", "S", "SA", "A", "FA", "FA", "R", "RA", "", "SF", "SR", "F", "FPU", "SU", "AU", "FAU", "SE", "P", "RF",
           "SAEC")  # fmt: skip
ICMP_ODD = {4: (0, 8, 13, 14, 15, 16, 17, 18, 3, 11, 9, 42), 6: (128, 129, 1, 2, 3, 4, 144, 100)}
#: Around the timeouts of SPEC 5.2: just before, at, after.
SILENCES = (5, 5, 10, 10, 25, 25, 30, 30, 35, 145, 150, 175, 180, 185, 565, 570, 595, 600, 605)


@dataclass(frozen=True)
class Step:
    """``seconds`` of silence, then a packet."""

    seconds: int
    packet: bytes


@dataclass(frozen=True)
class Turn:
    """``seconds`` of silence, then changes of the policy, applied as one."""

    seconds: int
    changes: tuple[Change, ...]


@dataclass
class Conversation:
    family: int
    protocol: int
    ends: tuple[tuple[str, int], tuple[str, int]]
    identifier: int
    script: tuple[tuple[int, str], ...]
    step: int = 0
    last: bytes = b""


class Conversations:
    """Draws ``Step`` after ``Step``; only ``rng`` decides."""

    def __init__(self, policy: Policy, rng: np.random.Generator) -> None:
        self.rng = rng
        self.talks: list[Conversation] = []
        self._move(policy)

    def _move(self, policy: Policy) -> None:
        self.policy = policy
        self.inside: dict[int, list[str]] = {4: [], 6: []}
        owner: dict[str, str] = {}
        for instance in sorted(policy.instances, key=lambda i: -i.addresses[0].prefixlen):
            for network in instance.addresses:
                host = str(network[min(1, network.num_addresses - 1)])
                if owner.setdefault(host, instance.name) == instance.name:
                    self.inside[network.version].append(host)
        self.owner = owner

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def chance(self, one_in: int) -> bool:
        return int(self.rng.integers(one_in)) == 0

    def steps(self, count: int, silence_every: int = 400, changer: Changer | None = None) -> Iterator[Step | Turn]:
        """Every so many packets a silence comes before the next one, and in the middle between two of them the
        ``changer`` changes the policy; that costs a hundred times what a packet does."""
        for n in range(count):
            if changer is not None and n % silence_every == silence_every // 2:
                yield from self._turn(changer)
            if not self.talks or (self.chance(25) and len(self.talks) < 60):
                self.talks.append(self._begin())
            talk = self.pick(self.talks)
            if self.chance(150):
                self.talks.remove(talk)
            seconds = int(self.pick(SILENCES)) if n % silence_every == silence_every - 1 else 0
            assert seconds % STEP_SECONDS == 0
            yield Step(seconds, f.with_checksum(self._next(talk)))

    def _turn(self, changer: Changer) -> Iterator[Turn]:
        changes = changer.changes(self.policy)
        policy = apply_changes(self.policy, changes).policy
        families = {network.version for instance in policy.instances for network in instance.addresses}
        with suppress(PolicyError):     # an address owned twice, in two VPCs
            visible_prefixes(policy, None)
            if families == {4, 6} and changes:
                self._move(policy)
                yield Turn(0, tuple(changes))

    def _begin(self) -> Conversation:
        family = 4 if self.rng.integers(3) else 6
        inside = self.inside[family]
        ends = [str(self.pick(inside)), str(self.pick(OUTSIDE[family] if self.rng.integers(3) else inside))]
        if self.owner.get(ends[0]) == self.owner.get(ends[1]):
            ends[1] = str(self.pick(OUTSIDE[family]))
        if self.chance(2):
            ends.reverse()
        protocol = int(self.pick(PROTOCOLS))
        if protocol == 1 and family == 6:
            protocol = 58
        port = int(self.pick((1024, 40000, 30000 + int(self.rng.integers(40)))))
        return Conversation(
            family, protocol, ((ends[0], port), (ends[1], int(self.pick(PORTS)))), int(self.rng.integers(4)),
            TCP_BOTH_OPEN if self.chance(8) else TCP_SCRIPT, step=int(self.rng.integers(8)) if self.chance(8) else 0,
        )  # fmt: skip

    def _next(self, talk: Conversation) -> bytes:
        if talk.last and self.chance(25):
            return self._error_about(talk)
        position = talk.step % len(talk.script)
        closing = talk.protocol == 6 and position >= len(talk.script) - 6
        odd = self.chance(3 if closing else 10)
        way = talk.script[position][0] if talk.protocol == 6 else talk.step % 2
        if odd:
            way = int(self.rng.integers(2))
        else:
            talk.step += 1
        (source, _), (destination, _) = talk.ends[way], talk.ends[1 - way]
        talk.last = f.ip(source, destination, self._transport(talk, way, odd, talk.script[position][1]))
        return talk.last

    def _transport(self, talk: Conversation, way: int, odd: bool, flags: str) -> f.Layer:
        sport, dport = talk.ends[way][1], talk.ends[1 - way][1]
        payload = bytes(int(self.rng.integers(3)) * 4)
        if talk.protocol == 6:
            offset = int(self.pick((4, 5, 6, 15))) if odd and self.chance(8) else 5
            # No payload: without it no sequence number ever moves.
            return f.tcp(sport, dport, str(self.pick(TCP_ODD)) if odd else flags, data_offset=offset)
        if talk.protocol == 17:
            return f.udp(sport, dport, payload, length=int(self.pick((0, 7, 8, 2000))) if odd else None)
        if talk.protocol in (1, 58):
            kind = int(self.pick(ICMP_ODD[talk.family])) if odd else {4: (8, 0), 6: (128, 129)}[talk.family][way]
            make = f.icmp if talk.protocol == 1 else f.icmpv6
            return make(kind, 0, talk.identifier, payload)
        # GRE version 0, four bytes.
        return f.other(talk.protocol, bytes(4) + payload)

    def _error_about(self, talk: Conversation) -> bytes:
        """An ICMP error that quotes the last packet, mostly from where it went to where it came from."""
        quoted = talk.last
        source, destination = (str(ip_address(end)) for end in f.ends_of(quoted))
        outside = OUTSIDE[talk.family]
        sender = destination if self.rng.integers(4) else str(self.pick(outside))
        receiver = source if self.rng.integers(8) else str(self.pick(self.inside[talk.family]))
        if sender == receiver or (self.owner.get(sender) == self.owner.get(receiver) is not None):
            sender = str(self.pick(outside))
        if talk.family == 4:
            size = int(self.pick((28, 28, 28, 28, 20, 24, 22)))
            return f.ip(sender, receiver, f.icmp_error(int(self.pick((3, 3, 4, 11, 12))), 0, quoted, quoted_bytes=size))
        size = int(self.pick((1232, 1232, 48, 44, 40, 42)))
        return f.ip(sender, receiver, f.icmpv6_error(int(self.pick((1, 1, 2, 3, 4))), 0, quoted, quoted_bytes=size))

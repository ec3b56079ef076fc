"""A replay through the reference model: slow; it counts totals and rules, but makes no lists."""

from __future__ import annotations

from collections import Counter
from copy import copy
from ipaddress import ip_address
from itertools import islice
from typing import Any

import numpy as np

from sgfast.compiler import Numbering
from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.core.frames import FrameBatch
from sgfast.engine import NO_SIDE, REASONS, VERDICTS, Midstream, Mode
from sgfast.policy.change_file import TimedChange
from sgfast.policy.model import Policy
from sgfast.reference import PacketVerdict, ReferenceEngine, SideVerdict
from sgfast.replaying.results import (
    ChangeDone,
    Names,
    ReplayResult,
    RuleHits,
    Sinks,
    present_instances,
    warn_of_fragments,
    warn_of_time,
)


class ReferenceRunner:
    """The reference model behind the same arrays. Slow; it counts totals and rules, but makes no lists."""

    def __init__(
        self, policy: Policy, mode: Mode, midstream: Midstream, vpc: str | None, sinks: Sinks
    ) -> None:
        self.engine = ReferenceEngine(policy, mode=mode, midstream=midstream, vpc=vpc)
        self.policy = policy
        self.vpc = vpc
        self.sinks = sinks
        self.total_bytes = 0
        #: The earliest and the latest so far.
        self.times: list[int] = []
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.began: Counter[str] = Counter()
        # By group and rule id, like rule numbers: an id may be used again in another group.
        self.created: Counter[tuple[str, str]] = Counter()
        self.hits: Counter[tuple[str, str]] = Counter()
        self.hit_bytes: Counter[tuple[str, str]] = Counter()
        self.disconnected = 0
        self._number(Numbering().after(policy))

    def _number(self, numbering: Numbering) -> None:
        self.numbering = numbering
        self.rule_number = numbering.numbers[0]
        self.instance_number = {instance.name: n for n, instance in enumerate(numbering.instances)}
        if self.sinks.want_packets:
            names = list(self.instance_number), [rule.id for rule in numbering.rules]
            present = present_instances(self.engine.policy, self.vpc, numbering)
            self.sinks.begin(Names(*names, self.packets_judged, present))

    @property
    def packets_judged(self) -> int:
        return sum(self.verdicts.values())

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        probe = copy(self.engine)       # its clock moves, the engine's does not
        for n, (time_ns, *_) in enumerate(islice(batch, first, None)):
            if probe._advance_clock(time_ns) >= at_ns:
                return n
        return len(batch) - first

    def apply(self, change: TimedChange) -> ChangeDone:
        disconnected = self.engine.apply(change.change, change.at_ns).disconnected
        self.disconnected += disconnected
        # Like the engine's, apart from an instance that is deleted and comes back: to the reference that is one name.
        self._number(self.numbering.after(self.engine.policy))
        return ChangeDone(change.at_ns, change.text, disconnected)

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        headers = np.zeros(number, dtype=HEADER_DTYPE)
        results = np.zeros(number, dtype=RESULT_DTYPE)
        for n, (time_ns, data, wire, link_type) in enumerate(islice(batch, first, first + number)):
            verdict = self.engine.process_frame(time_ns, data, wire_length=wire, link_type=link_type)
            self._count(verdict, wire)
            self.times = [min([time_ns, *self.times]), max([time_ns, *self.times])]
            if self.sinks.want_packets:
                self._spell(verdict, time_ns, wire, headers[n], results[n])
        if self.sinks.want_packets:
            self.sinks.write_packets(batch, first, headers, results)

    def finish(self, *, goes_on: bool) -> None:
        pass

    def _count(self, verdict: PacketVerdict, wire: int) -> None:
        self.total_bytes += wire
        self.verdicts[verdict.verdict] += 1
        if verdict.reason is not None:
            self.reasons[verdict.reason] += 1
        if verdict.began is not None:
            self.began[verdict.began] += 1
        for side in (verdict.egress, verdict.ingress):
            if side is not None and side.rule is not None and side.group is not None:
                rule = (side.group, side.rule)
                self.hits[rule] += 1
                self.hit_bytes[rule] += wire
                self.created[rule] += side.verdict == "allow" and side.reason in ("rule", "inferred")

    def _spell(self, verdict: PacketVerdict, time_ns: int, wire: int, header: Any, result: Any) -> None:
        header["time_ns"], header["wire"] = time_ns, wire
        if verdict.src is not None and verdict.dst is not None:
            for name, text in (("src", verdict.src), ("dst", verdict.dst)):
                packed = ip_address(text).packed
                header[name][: len(packed)] = np.frombuffer(packed, dtype=np.uint8)
                header["family"] = 4 if len(packed) == 4 else 6
        header["protocol"] = verdict.protocol or 0
        if verdict.sport is not None:
            header["has_ports"], header["sport"], header["dport"] = 1, verdict.sport, verdict.dport
        if verdict.icmp_type is not None:
            header["has_icmp"], header["icmp_type"], header["icmp_code"] = 1, verdict.icmp_type, verdict.icmp_code
        result["verdict"] = VERDICTS.index(verdict.verdict)
        result["reason"] = REASONS.index(verdict.reason)
        for name, side in (("egress", verdict.egress), ("ingress", verdict.ingress)):
            result[name] = self._side(side)

    def _side(self, side: SideVerdict | None) -> tuple[int, int, int, int, int]:
        if side is None:
            return -1, -1, NO_SIDE, 0, 0
        rule = -1
        if side.rule is not None and side.group is not None:
            rule = self.rule_number[side.group, side.rule]
        return (
            self.instance_number[side.instance], rule, VERDICTS.index(side.verdict), REASONS.index(side.reason), 0
        )  # fmt: skip

    def fill(self, result: ReplayResult) -> None:
        result.packets, result.bytes = sum(self.verdicts.values()), self.total_bytes
        result.verdicts = {word: self.verdicts[word] for word in VERDICTS}
        result.reasons = {word: self.reasons[word] for word in REASONS if word is not None and self.reasons[word]}
        result.connections = {
            "opened": self.began["opened"], "denied": self.began["denied"], "disconnected": self.disconnected,
            "inferred": self.began["inferred"],
        }  # fmt: skip
        result.rules = [
            RuleHits(
                rule, group, self.created[group, rule.id], self.hits[group, rule.id], self.hit_bytes[group, rule.id]
            )
            for rule, group in zip(self.numbering.rules, self.numbering.rule_groups, strict=True)
        ]
        result.first_time_ns = min(self.times, default=None)
        result.last_time_ns = max(self.times, default=None)
        warn_of_time(result.warnings, self.engine.late, self.engine.restarts)
        warn_of_fragments(result.warnings, self.reasons["fragment"])

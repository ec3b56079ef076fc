"""Run a replay with the slow reference model, which counts totals and rule hits, but makes no lists."""

from __future__ import annotations

from collections import Counter
from copy import copy
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import Any

import numpy as np

from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import HEADER_DTYPE, RESOLVED_DTYPE, RESULT_DTYPE
from sgfast.engine import NO_SIDE, PENDING, REASONS, VERDICTS
from sgfast.policy.change_file import TimedChange
from sgfast.policy.changed_policy import apply_change
from sgfast.policy.model import Policy
from sgfast.questions.replaying.evidence import Observed
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.reorder_buffer import ReorderBuffer
from sgfast.questions.replaying.results import ChangeDone, Names, Oddities, ReplayResult, Rows, RuleHits, Sinks
from sgfast.reference.clock import Clock
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.verdicts import PacketVerdict, SideVerdict
from sgfast.rules.compiler import Numbering
from sgfast.traffic.vpc_mapping import seen_from

#: The number in ``FrameBatch.vpcs`` of packets that are mapped to no VPC.
NO_VPC = -1


class ReferenceRunner:
    """A ``Runner`` with the reference model.

    If the policy maps packets to VPCs, each VPC in ``FrameBatch.vpcs`` has its own model, made for its first packet.
    """

    file_reads = None

    def __init__(self, policy: Policy, options: ReplayOptions, sinks: Sinks) -> None:
        self.clock = Clock()
        self.policy = policy
        self.vpc = options.vpc
        self.mapped = options.is_mapped(policy)
        self.make = partial(ReferenceEngine, mode=options.mode, midstream=options.midstream, clock=self.clock)
        #: The engines by VPC. If packets are not mapped to VPCs, the only key is NO_VPC.
        self.engines: dict[int, ReferenceEngine] = {} if self.mapped else {NO_VPC: self.make(policy, vpc=self.vpc)}
        self.sinks = sinks
        self.packets_judged = 0
        #: The number of packets of each VPC.
        self.own: Counter[int] = Counter()
        #: The number among all packets and the wire length of each pending packet, by VPC and packet number within it.
        self.pending: dict[tuple[int, int], tuple[int, int]] = {}
        #: The results of packets that are no longer pending, each as a row of RESOLVED_DTYPE.
        self.resolved: list[Rows] = []
        self.reordered = ReorderBuffer(sinks)
        self.total_bytes = 0
        #: The earliest and the latest timestamp so far.
        self.times: list[int] = []
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.began: Counter[str] = Counter()
        # Rule counts have the group in their key, because groups may use the same rule id.
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
            # Packets not written yet may use the new names, because numbers keep their meaning.
            packets = self.packets_judged - self.reordered.waiting
            self.sinks.begin(Names.of(self.policy, self.vpc, numbering, packets))

    def frames_before(self, batch: FrameBatch, first: int, at_ns: int) -> int:
        probe = copy(self.clock)        # a copy, so that the engines' clock does not advance
        for n, (time_ns, *_) in enumerate(islice(batch, first, None)):
            if probe.advance(time_ns) >= at_ns:
                return n
        return len(batch) - first

    def flush(self) -> None:
        """Do nothing: ``process`` has already written all packets, and the model reports no connections."""

    def apply(self, change: TimedChange) -> ChangeDone:
        disconnected = sum(engine.apply(change.change, change.time_ns).disconnected for engine in self.engines.values())
        self.disconnected += disconnected
        self.policy = apply_change(self.policy, change.change).policy
        # Numbers are as in the engine, except that an instance that is deleted and added again keeps its number.
        self._number(self.numbering.after(self.policy))
        return ChangeDone(change.time_ns, change.text, disconnected)

    def process(self, batch: FrameBatch, first: int, number: int) -> None:
        headers = np.zeros(number, dtype=HEADER_DTYPE)
        results = np.zeros(number, dtype=RESULT_DTYPE)
        vpcs = batch.vpcs
        for n, (time_ns, data, wire, link_type) in enumerate(islice(batch, first, first + number)):
            vpc = vpcs[first + n] if self.mapped else NO_VPC
            verdict = self._engine(vpc).process_frame(time_ns, data, wire_length=wire, link_type=link_type)
            self.packets_judged += 1
            self.own[vpc] += 1
            self.total_bytes += wire
            self.times = [min([time_ns, *self.times]), max([time_ns, *self.times])]
            if self.sinks.want_packets:
                self._spell_headers(verdict, time_ns, wire, headers[n])
            if verdict.verdict == "pending":
                self.pending[vpc, self.own[vpc]] = self.packets_judged, wire
                results[n]["verdict"] = PENDING
            else:
                self._settle(verdict, wire, results[n])
            self._settle_pending()
        if self.sinks.want_packets and number:
            self.reordered.write(
                self.packets_judged - number + 1, batch, first, headers, results, self._take_resolved()
            )

    def _engine(self, vpc: int) -> ReferenceEngine:
        if vpc not in self.engines:
            self.engines[vpc] = self.make(self.policy, vpc=seen_from(self.policy, vpc))
        return self.engines[vpc]

    def finish(self, *, goes_on: bool) -> None:
        for engine in self.engines.values():
            engine.finish()
        self._settle_pending()
        self.reordered.resolve(self._take_resolved())

    def _settle_pending(self) -> None:
        for vpc, engine in self.engines.items():
            for packet, verdict in engine.resolved():
                row = np.zeros(1, dtype=RESOLVED_DTYPE)
                row["number"], wire = self.pending.pop((vpc, packet))
                self._settle(verdict, wire, row["result"][0])
                self.resolved.append(row)

    def _take_resolved(self) -> Rows:
        rows, self.resolved = self.resolved, []
        return np.concatenate(rows) if rows else np.empty(0, dtype=RESOLVED_DTYPE)

    def _settle(self, verdict: PacketVerdict, wire: int, result: Any) -> None:
        self._count(verdict, wire)
        if self.sinks.want_packets:
            self._spell_result(verdict, result)

    def _count(self, verdict: PacketVerdict, wire: int) -> None:
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
                opened = side.verdict == "allow" and side.reason in ("rule", "inferred")
                self.created[rule] += opened and not verdict.of_first_fragment

    def _spell_headers(self, verdict: PacketVerdict, time_ns: int, wire: int, header: Any) -> None:
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

    def _spell_result(self, verdict: PacketVerdict, result: Any) -> None:
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
        result.packets, result.bytes = self.packets_judged, self.total_bytes
        result.verdicts = {word: self.verdicts[word] for word in VERDICTS[:PENDING]}
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
        # Nobody follows connections in both directions here, so that their directions raise no doubt.
        cut, malformed = self.reasons["truncated"], self.reasons["malformed"]
        result.observed = Observed(two_way=1, truncated=cut, malformed=malformed)
        result.oddities = Oddities(
            self.clock.late, self.clock.most_late, self.clock.restarts, self.reasons["fragment"]
        )

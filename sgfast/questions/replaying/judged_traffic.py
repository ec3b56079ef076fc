"""The traffic that an answer is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sgfast.base.evidence import Evidence, EvidenceCode, EvidenceReason
from sgfast.base.names import without_credentials
from sgfast.engine import Midstream, Mode
from sgfast.policy.model import Policy
from sgfast.questions.replaying.evidence import Observed, TrafficFacts, evidence_of
from sgfast.rows.verdicts import VerdictWord
from sgfast.traffic.capture import Damage
from sgfast.traffic.flow_logs.log_records import ComparedActions, LogRecords
from sgfast.traffic.flow_logs.unsure_openers import UnsureOpeners
from sgfast.traffic.packet_selection import PacketsLeftOut
from sgfast.traffic.preprocess import TunnelKind


@dataclass(kw_only=True)
class JudgedTraffic:
    """The captures, their packets, and how they were read and judged.

    ``mode``: ``causal`` or ``verbatim`` (SPEC 9.2).
    ``midstream``: the treatment of TCP connections older than the captures (SPEC 9.3).
    ``vpc``: the VPC that the captures are from, as the caller named it; None: none was named.
    ``captures``: the captures as the caller named them, but without credentials in URLs.
    ``packets``: the number of packets that were judged.
    ``bytes``: bytes on the wire.
    ``left_out``: the packets of the captures that are not in ``packets``; None: no option leaves packets out.
    ``first_time_ns``: the packets' earliest timestamp. Timestamps may run backwards, unlike the replay's clock (SPEC
    9.1).
    ``last_time_ns``: the packets' latest timestamp.
    ``elapsed_seconds``: the seconds for reading and judging, without start-up.
    ``damaged``: the place at which a capture is damaged; None: no capture is.
    ``warnings``: full sentences about what the user should know.
    ``decapsulated``: the number of tunnel headers removed, by kind; None if the options remove none.
    ``observed``: facts from which ``evidence`` follows; in a comparison, those of the engine with OLD. The reference
    engine counts only packets that are cut or malformed.
    ``doubts``: reasons to doubt the answer that reading the captures gave.
    ``accepted_evidence``: codes of reasons in spite of which the user accepts the answer.
    ``records``: what became of the records of flow logs; None if the captures were packets.
    ``openers``: the connections of flow logs that either end may have opened; None if the captures were packets.
    ``actions``: the cloud's actions in flow logs, compared with the policy's verdicts; None: they were not compared.
    """

    mode: Mode
    midstream: Midstream
    vpc: str | None
    captures: tuple[str, ...]
    packets: int = 0
    bytes: int = 0
    left_out: PacketsLeftOut | None = None
    first_time_ns: int | None = None
    last_time_ns: int | None = None
    elapsed_seconds: float = 0.0
    damaged: Damage | None = None
    warnings: list[str] = field(default_factory=list)
    decapsulated: dict[TunnelKind, int] | None = None
    observed: Observed | None = None
    doubts: tuple[EvidenceReason, ...] = ()
    accepted_evidence: tuple[EvidenceCode, ...] = ()
    records: LogRecords | None = None
    openers: UnsureOpeners | None = None
    actions: ComparedActions | None = None

    def __init_subclass__(cls) -> None:
        # ``help`` does not show the docstrings of base classes.
        fields = (JudgedTraffic.__doc__ or "").partition("\n\n")[2]
        cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n{fields}"

    def __post_init__(self) -> None:
        self.captures = tuple(map(without_credentials, self.captures))

    @property
    def packets_per_second(self) -> float:
        """The packets that were judged in a second; 0 if it took no time."""
        return self.packets / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    def _evidence_for(
        self, policy: Policy, packets_with: Callable[[VerdictWord], int], judged: int, connections: int
    ) -> Evidence:
        """Return the evidence for a policy (SPEC 10.27). ``packets_with``: the number of packets by verdict.
        ``judged``: the number of packets that touch an instance.
        """
        facts = TrafficFacts(
            self.packets, self.packets - packets_with("not-ip"), packets_with("out-of-scope"), judged,
            packets_with("local"), connections, policy.is_stateful, self.observed, self.doubts, self.left_out, policy,
            self.vpc, self.records,
        )  # fmt: skip
        return evidence_of(facts)

"""The protocol of captures and flow logs: both yield batches of frames, and say afterwards what was read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sgfast.base.evidence import EvidenceReason, UnreadFiles, level_of
from sgfast.base.names import count, printable
from sgfast.base.signals import begin_judging, end_reading
from sgfast.core.base.frames import FrameBatch
from sgfast.traffic.capture import Damage
from sgfast.traffic.capture_pairs import CapturePairs, reasons_of
from sgfast.traffic.packet_selection import PacketSelection, are_copies
from sgfast.traffic.preprocess import TunnelKind
from sgfast.traffic.preprocess.decap import KINDS, MOST_TUNNELS, Decapsulation
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.vpc_mapping import VpcMapping

#: Names of tunnels in sentences.
_TUNNEL_NAMES = dict(
    zip(KINDS, ("VXLAN", "Geneve", "GRE", "IP-in-IP", "6in4", "ERSPAN", "GTP-U", "MPLS", "PPPoE"), strict=True)
)
#: Share of packets in tunnels from which they make a part of the answer uncertain.
SOME_TUNNELS = 0.1

Progress = Callable[[int, int], None]
"""A function that is called with the numbers of packets or records and of bytes that were read so far."""


class TrafficSource(ABC):
    """Iterate over batches of frames, in the order in which they are judged. A batch is valid until the next one is
    requested. All other attributes say what was read, and are complete when the iteration ends.

    ``selection`` leaves out packets, which are not in the batches, and counts them. ``vpc_mapping``: assigns packets
    to VPCs. ``progress``: is called before the next batch is read.
    """

    def __init__(
        self, reading: ReadOptions, selection: PacketSelection, vpc_mapping: VpcMapping | None,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self._reading = reading
        self._progress = progress
        self.selection = selection
        #: The damage that ended the iteration.
        self.damage: Damage | None = None
        #: Whether an interrupt stopped the iteration.
        self.is_interrupted = False
        self.warnings: list[str] = []
        #: The files opened so far, without credentials in URLs. ``Frame.position`` refers to their numbers, from 1 on.
        self.files: list[str] = []
        self.map_vpcs(vpc_mapping)

    def map_vpcs(self, vpc_mapping: VpcMapping | None) -> None:
        """Assign packets to VPCs by this mapping from now on."""
        self._vpc_mapping = vpc_mapping
        marks = None if vpc_mapping is None else vpc_mapping.marks
        tunnels = self._reading.decap
        self._decapsulation = Decapsulation(tunnels, marks) if tunnels or marks is not None else None

    @abstractmethod
    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames, including those that will be left out."""

    def __iter__(self) -> Iterator[FrameBatch]:
        for batch in self.batches():
            self.selection.apply(batch)
            if len(batch):
                begin_judging()
                yield batch
        self.is_interrupted = end_reading()

    @property
    def decapsulated(self) -> dict[TunnelKind, int] | None:
        """The number of tunnel headers removed so far, by kind; None if the options remove none."""
        return self._decapsulation.counts if self._decapsulation is not None and self._reading.decap else None

    @property
    def noticed(self) -> Noticed:
        """Unusual properties of the packets read so far."""
        looked_at, copies = self.selection.copies_seen
        too_deep = 0 if self._decapsulation is None else self._decapsulation.too_deep
        sample = self.selection.tunnels
        return Noticed(
            looked_at, copies, too_deep=too_deep, sampled=sample.looked_at, in_tunnels=tuple(sample.counts.items()),
            removed=tuple(self._reading.decap),
        )  # fmt: skip

    @property
    def noticed_by_comparing(self) -> Noticed:
        """Everything noticed, with what files have in common. Complete when all of them are read."""
        return self.noticed

    def warn(self, warnings: list[str]) -> None:
        """Add warnings about unusual packets."""
        self.noticed.warn(warnings)


@dataclass(frozen=True, slots=True)
class Noticed:
    """Unusual properties of packets that are no errors."""

    #: The number of packets checked for copies, if copies are not left out, and the number of copies among them.
    looked_at: int = 0
    copies: int = 0
    #: Captures that do not record interfaces although the policy needs them.
    without_interfaces: tuple[str, ...] = ()
    #: The number of packets in more nested tunnels than can be removed.
    too_deep: int = 0
    #: Packets looked at for tunnels, and those of them in tunnels that are not removed, by kind.
    sampled: int = 0
    in_tunnels: tuple[tuple[str, int], ...] = ()
    #: Kinds of tunnels that are removed.
    removed: tuple[str, ...] = ()
    #: Empty until all captures can be compared with each other; not added.
    pairs: CapturePairs = field(default_factory=CapturePairs)
    unread: UnreadFiles = field(default_factory=UnreadFiles)

    def __add__(self, other: Noticed) -> Noticed:
        without_interfaces = dict.fromkeys((*self.without_interfaces, *other.without_interfaces))
        in_tunnels = Counter(dict(self.in_tunnels)) + Counter(dict(other.in_tunnels))
        return Noticed(
            self.looked_at + other.looked_at, self.copies + other.copies, tuple(without_interfaces),
            self.too_deep + other.too_deep, self.sampled + other.sampled, tuple(in_tunnels.items()), other.removed,
            unread=self.unread + other.unread,
        )  # fmt: skip

    def reasons(self) -> tuple[EvidenceReason, ...]:
        """Return the reasons that they are for doubting an answer (SPEC 10.27)."""
        reasons = [*self.unread.reasons("capture"), *reasons_of(self.pairs)]
        if are_copies(self.looked_at, self.copies) and not self.pairs.common:
            share = self.copies / self.looked_at
            sentence = f"{self.copies:,} of {self.looked_at:,} packets checked are copies of earlier ones"
            reasons.append(EvidenceReason("duplicates", "partly", self.copies, share, sentence, "--dedup"))
        reasons += self._tunnel_reasons()
        return tuple(reasons)

    def _tunnel_reasons(self) -> list[EvidenceReason]:
        counts = Counter(dict(self.in_tunnels))
        packets = sum(counts.values())
        share = packets / max(self.sampled, 1)
        if share < SOME_TUNNELS:
            return []
        kinds = sorted(filter(counts.get, KINDS), key=lambda kind: -counts[kind])
        tunnels = f"{' or '.join(_TUNNEL_NAMES[kind] for kind in kinds)} tunnels"
        sentence = f"{100 * share:.0f} % of the packets are in {tunnels}: these were judged, not the packets inside"
        command = f"--decap {','.join((*self.removed, *kinds))}"
        return [EvidenceReason("tunnels", level_of(share), packets, share, sentence, command)]

    def warn(self, warnings: list[str]) -> None:
        if self.without_interfaces:
            first, more_captures = self.without_interfaces[0], len(self.without_interfaces) - 1
            rest_text = f" and {count(more_captures, 'more capture')}" if more_captures else ""
            warnings.append(
                f"{printable(first)}{rest_text}: no record of the interfaces by which the policy maps packets to VPCs; "
                "only pcapng has one"
            )
        if self.too_deep:
            warnings.append(
                f"{count(self.too_deep, 'packet')} in more than {MOST_TUNNELS} tunnels: only the outer {MOST_TUNNELS} "
                "were removed"
            )

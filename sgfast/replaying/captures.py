"""Several captures, read one after the other as one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sgfast.capture import Damage, open_capture
from sgfast.core.frames import FrameBatch
from sgfast.replaying.placement import Placement
from sgfast.replaying.results import count
from sgfast.stages.decap import MOST_TUNNELS, Decapsulation


@dataclass(frozen=True, slots=True)
class Reading:
    """How captures are read, by all who read them. ``sgfast.cli.options.reading_options`` are the same as options."""

    #: Packets of all captures in the order of their times, not capture after capture.
    merge: bool = False
    #: A capture that grows is read on until an interrupt ends it.
    follow: bool = False
    #: Kinds of tunnels (``sgfast.stages.decap.KINDS``) that are taken off: what is inside is judged.
    decap: tuple[str, ...] = ()


class Captures:
    """Iterating yields the batches of frames of all ``paths``, in order, each good until the next is asked for.

    ``progress`` is called with (packets, bytes read) so far once a batch is done with. Damage part way ends it there,
    and is in ``damage`` then. Raises CaptureError: what is wrong with a file is told before anything is read (SPEC
    10.5), as far as it can be known. ``placement`` says which VPC each packet belongs to. ValueError for an unknown
    kind of tunnel.
    """

    def __init__(
        self, paths: Sequence[str], reading: Reading, progress: Callable[[int, int], None] | None,
        placement: Placement | None = None,
    ) -> None:  # fmt: skip
        self._paths = paths
        self._reading = reading
        self._progress = progress
        self.damage: Damage | None = None
        self._placement = placement
        marks = None if placement is None else placement.marks
        self._decapsulation = Decapsulation(reading.decap, marks) if reading.decap or marks is not None else None
        for path in paths:
            if _can_be_tried(path):
                open_capture(path).close()

    def __iter__(self) -> Iterator[FrameBatch]:
        packets_before = bytes_before = 0
        for path in self._paths:
            if self._placement is not None:
                self._placement.enter(path)
            with open_capture(path) as reader:
                while (batch := reader.next_batch()) is not None:
                    if self._decapsulation is not None:
                        self._decapsulation.apply(batch)
                    yield batch
                    if self._progress is not None:
                        self._progress(packets_before + reader.packets, bytes_before + reader.bytes_read)
                packets_before += reader.packets
                bytes_before += reader.bytes_read
                if reader.damage is not None:
                    self.damage = reader.damage
                    return

    @property
    def decapsulated(self) -> dict[str, int] | None:
        """How many tunnels of each kind were taken off so far; None if none are to be."""
        return self._decapsulation.counts if self._decapsulation is not None and self._reading.decap else None

    def warn(self, warnings: list[str]) -> None:
        """What of the reading one should know that is no error."""
        keeps_vnis = {"vxlan", "geneve"}.isdisjoint(self._reading.decap)
        if self._placement is not None and self._placement.wants_vnis and keeps_vnis:
            warnings.append("the policy says which VPC a VNI is of, but tunnels stay on: take them off (--decap)")
        if self._decapsulation is not None and self._decapsulation.too_deep:
            warnings.append(
                f"{count(self._decapsulation.too_deep, 'packet')} in more than {MOST_TUNNELS} tunnels: what is in the "
                f"innermost of the first {MOST_TUNNELS} was judged"
            )


def _can_be_tried(path: str) -> bool:
    """Whether opening a capture takes nothing from who opens it next, as it would from a pipe, or just fails."""
    if path == "-":
        return False
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return True
    once = stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    return not (once and os.access(path, os.R_OK))

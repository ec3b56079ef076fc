"""Attempts that the cloud rejected, as flow logs tell of them: two policies judge them apart from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Policy
from sgfast.questions.comparing.pair import Pair
from sgfast.questions.replaying.engine_runner import make_engine
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import Oddities

if TYPE_CHECKING:
    from sgfast.questions.comparing.vpc_pairs import VpcPairs

#: The first and the last packet's time, and oddities of times (SPEC 9.1).
Times = tuple[int | None, int | None, Oddities]


class RejectedAttempts:
    """The comparison of rejected attempts. Its engines are made when the first attempt comes."""

    def __init__(
        self, old: Policy, new: Policy, options: ReplayOptions, hash_key: Sequence[int], vpc: str | None
    ) -> None:
        """The arguments are those of the comparison of all else. ``vpc``: the VPC as both policies call it."""
        self._policies, self._options, self._hash_key, self._vpc = (old, new), options, hash_key, vpc
        self._comparison: Pair | VpcPairs | None = None

    def process(self, batch: FrameBatch, first_ns: int | None) -> None:
        """Judge some attempts."""
        if len(batch):
            if self._comparison is None:
                self._comparison = self._made()
            self._comparison.process(batch)

    def _made(self) -> Pair | VpcPairs:
        old, new = self._policies
        if self._options.is_mapped(old) or self._options.is_mapped(new):
            from sgfast.questions.comparing.vpc_pairs import VpcPairs

            return VpcPairs(old, new, self._options, self._hash_key)
        return Pair(*(
            make_engine(policy, self._options, self._vpc, jobs=1, hash_key=self._hash_key) for policy in self._policies
        ))  # fmt: skip

    def finish(self) -> None:
        """End the comparison."""
        if self._comparison is not None:
            self._comparison.finish()
            self._comparison.close()

    @property
    def pairs(self) -> list[Pair]:
        """The pairs made so far."""
        return [] if self._comparison is None else self._comparison.pairs

    def times_with(self, times: Times) -> Times:
        """Return the times of all packets, those of the other comparison among them."""
        first, last, oddities = times
        own_first, own_last, _ = (None, None, oddities) if self._comparison is None else self._comparison.times
        known_times = [time_ns for time_ns in (first, own_first, last, own_last) if time_ns is not None]
        return min(known_times, default=None), max(known_times, default=None), oddities

"""The part of a comparison that is about captures, without that by the rules alone, which takes longer than it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from sgfast.clouds.loading import PolicySource
from sgfast.questions.comparing import TrafficDiff, run_diff
from sgfast.questions.replaying import ReadOptions
from sgfast.questions.replaying.options import ReplayOptions


def traffic_diff(
    old: PolicySource, new: PolicySource, captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *,
    reading: ReadOptions | None = None, progress: Callable[[int, int], None] | None = None, **options: Any,
) -> TrafficDiff:  # fmt: skip
    return run_diff(old, new, captures, ReplayOptions(reading=reading or ReadOptions(), **options), progress)

"""Captures in the output of ``sgfast check --traffic``: packets, times, and the connections that used a rule."""

from __future__ import annotations

from typing import Literal

from sgfast.checking import Finding
from sgfast.policy.model import Policy
from sgfast.replaying import ReplayResult
from sgfast.report.amounts import human_seconds, instant, left_out_words, plural
from sgfast.report.answer_rows import left_rows
from sgfast.report.rollup import By, Folded
from sgfast.report.rollup.observed import ObservedRollup
from sgfast.suggesting import TrafficTotals


def window_text(result: ReplayResult) -> str:
    """Describe the packets and times of the captures, in which rules could be used."""
    left_out = "" if result.left_out is None else f"; left out: {left_out_words(result.left_out)}"
    if result.first_time_ns is None or result.last_time_ns is None:
        return f"no packets{left_out}"
    seconds = human_seconds(max(0, result.last_time_ns - result.first_time_ns) / 1e9)
    return (
        f"{plural(result.packets, 'packet')} in {seconds}, from {instant(result.first_time_ns)} to "
        f"{instant(result.last_time_ns)} UTC{left_out}"
    )


def used_rows(
    policy: Policy, finding: Finding, connections: int, by: By, most: int
) -> tuple[Folded, str, Literal["all", "more"]]:
    """Return the largest rows of connections that used the finding's rule; the sum of the other connections in words,
    such as ``5 more pairs (5 connections)``, or ""; and whether listing more rows shows all connections.
    """
    folded = used(policy, finding, by, most)
    unlisted = connections - sum(row.connections for row in folded.rows)
    rows = "others of too many kinds to be told apart"
    if folded.unlisted_rows:
        rows = left_rows(folded)
    words = f"{rows} ({plural(unlisted, 'connection')})" if unlisted else ""
    return folded, words, "all" if folded.connections == connections else "more"


def used(policy: Policy, finding: Finding, by: By, most: int) -> Folded:
    """Return the connections that used the finding's rule, folded. Arguments are as in ``Rollup.fold``."""
    kinds = {kind: TrafficTotals(connections) for kind, connections in finding.used.items()}
    return ObservedRollup(policy, kinds).fold("observed", by=by, most=most)

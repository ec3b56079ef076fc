"""Captures in the output of ``sgfast check --traffic``: what they are, and who used a rule in them."""

from __future__ import annotations

from typing import Any, Literal

from sgfast.checking import Finding
from sgfast.policy.model import Policy
from sgfast.replaying import ReplayResult
from sgfast.report.amounts import human_seconds, instant, plural, time_text
from sgfast.report.answers import MOST_ROWS, counted_object
from sgfast.report.left_out import left_out_object, left_out_words
from sgfast.report.names import as_text
from sgfast.report.rollup import By, Folded
from sgfast.report.rollup.observed import ObservedRollup
from sgfast.report.summary import damage_object
from sgfast.suggesting import Evidence


def traffic_object(result: ReplayResult) -> dict[str, Any]:
    """Return the observation window as a JSON object."""
    return {
        "captures": [as_text(path) for path in result.captures],
        "packets": result.packets,
        "left_out": left_out_object(result.left_out),
        "first_time": None if result.first_time_ns is None else time_text(result.first_time_ns),
        "last_time": None if result.last_time_ns is None else time_text(result.last_time_ns),
        "damaged": None if result.damaged is None else damage_object(result.damaged),
    }


def window_text(result: ReplayResult) -> str:
    """Describe the observation window."""
    left_out = "" if result.left_out is None else f"; left out: {left_out_words(result.left_out)}"
    if result.first_time_ns is None or result.last_time_ns is None:
        return f"no packets{left_out}"
    seconds = human_seconds(max(0, result.last_time_ns - result.first_time_ns) / 1e9)
    return (
        f"{plural(result.packets, 'packet')} in {seconds}, from {instant(result.first_time_ns)} to "
        f"{instant(result.last_time_ns)} UTC{left_out}"
    )


def used_object(
    policy: Policy, finding: Finding, connections: int, by: By = "group", top: int | None = None
) -> dict[str, Any]:
    """Return the ``connections`` that used the finding's rule as a JSON object. ``by``: how they are folded. ``top``:
    how many rows it has.
    """
    folded = _used(policy, finding, by, top or MOST_ROWS, fitting=False)
    rows = [counted_object(row) for row in folded.rows]
    listed = sum(row.connections for row in folded.rows)
    return {
        "rows": [{name: row[name] for name in ("from", "to", "service", "connections")} for row in rows],
        "not_listed": {"rows": folded.left_rows, "connections": connections - listed},
    }


def used_rows(
    policy: Policy, finding: Finding, connections: int, by: By, most: int, asked: int = 1
) -> tuple[Folded, str, Literal["all", "more"]]:
    """The connections that used the finding's rule, folded until they fit; what the other ones add up to, such as
    ``5 more rows (5 connections)``, or ""; and whether more rows can tell all of them. ``asked``: the option for all
    rows has at least this value.
    """
    folded = _used(policy, finding, by, most, fitting=True, asked=asked)
    left = connections - sum(row.connections for row in folded.rows)
    rows = plural(folded.left_rows, "more row") if folded.left_rows else "others of too many kinds to be told apart"
    words = f"{rows} ({plural(left, 'connection')})" if left else ""
    return folded, words, "all" if folded.connections == connections else "more"


def _used(policy: Policy, finding: Finding, by: By, most: int, *, fitting: bool, asked: int = 1) -> Folded:
    kinds = {kind: Evidence(connections) for kind, connections in finding.used.items()}
    return ObservedRollup(policy, kinds).fold("observed", by=by, most=most, fitting=fitting, asked=asked)

"""What ``sgfast check --traffic`` says of the captures: what they are, and who used a rule in them."""

from __future__ import annotations

from typing import Any

from sgfast.checking import Finding
from sgfast.policy.model import Policy
from sgfast.replaying import ReplayResult
from sgfast.report.answer_rows import answer_text
from sgfast.report.answers import MOST_ROWS, counted_object
from sgfast.report.left_out import left_out_object, left_out_words
from sgfast.report.names import as_text
from sgfast.report.page import Page, grouped, human_seconds, instant, plural
from sgfast.report.rollup import MOST_FIT, Folded
from sgfast.report.rollup.observed import ObservedRollup
from sgfast.report.summary import damage_object
from sgfast.report.time_text import time_text
from sgfast.suggesting import Evidence

#: How many rows of who used a rule the text has.
USED_ROWS = 3


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


def used_object(policy: Policy, finding: Finding, connections: int) -> dict[str, Any]:
    """Return the ``connections`` that used the finding's rule as a JSON object."""
    folded = _used(policy, finding, MOST_ROWS)
    rows = [counted_object(row) for row in folded.rows]
    listed = sum(row.connections for row in folded.rows)
    return {
        "rows": [{name: row[name] for name in ("from", "to", "service", "connections")} for row in rows],
        "not_listed": {"rows": folded.left_rows, "connections": connections - listed},
    }


def _used(policy: Policy, finding: Finding, most: int, at_least: int = 0) -> Folded:
    """The connections that used the finding's rule."""
    kinds = {kind: Evidence(connections) for kind, connections in finding.used.items()}
    return ObservedRollup(policy, kinds).fold("observed", most=most, fitting=at_least > 0, at_least=at_least)


def write_used(page: Page, policy: Policy, finding: Finding, connections: int) -> None:
    """Write them as lines."""
    folded = _used(policy, finding, USED_ROWS, MOST_FIT)
    widest = max((len(grouped(row.connections)) for row in folded.rows), default=0)
    for row in folded.rows:
        page.hanging(f"      {grouped(row.connections):>{widest}}  ", answer_text(row))
    if left := connections - sum(row.connections for row in folded.rows):
        rows = f"{plural(folded.left_rows, 'more row')} (" if folded.left_rows else "others ("
        page.wrapped(f"and {rows}{plural(left, 'connection')}): --format json has more", "      ")

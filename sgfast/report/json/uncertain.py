"""Connections of flow logs that either end may have opened (SPEC 10.30)."""

from __future__ import annotations

from typing import Annotated, Any

from sgfast.base.json_types import Answer, at
from sgfast.policy.model import Action, Policy
from sgfast.report.json.traffic import JsonEnd, JsonTraffic
from sgfast.report.rollup import By
from sgfast.report.rollup.uncertain import UncertainRollup
from sgfast.traffic.flow_logs.unsure_openers import UnsureOpeners


class JsonReading(Answer):
    from_: JsonEnd = at(lambda reading: JsonEnd.of(reading.source, ends=reading.sources))
    to: JsonEnd = at(lambda reading: JsonEnd.of(reading.destination, ends=reading.destinations))
    service: str
    verdict: Action
    reason: Annotated[str, "The word of SPEC 10.3."]
    rule: Annotated[str | None, "The rule that decided, if only one rule did."]


ReadingsOfRow = Annotated[
    list[JsonReading],
    "The verdict if either end opened these connections. The likelier reading is first; it is that of the row.",
]


class JsonUncertain(JsonTraffic):
    readings: ReadingsOfRow


def uncertain_answer(policy: Policy, openers: UnsureOpeners | None, by: By, most: int) -> list[dict[str, Any]] | None:
    """Return the rows; None for captures."""
    if openers is None:
        return None
    rollup = UncertainRollup(policy, openers.differing)
    folded = rollup.fold("cannot-tell", by=by, most=most)
    return [JsonUncertain.of(row, readings=rollup.readings(row)) for row in folded.rows]

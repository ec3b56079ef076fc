"""Fold the connections that one of two policies blocks and the other lets pass (SPEC 10.14)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.engine import VERDICTS
from sgfast.policy.model import Policy
from sgfast.questions.comparing import ChangedKinds, NewVerdict, TrafficDiff
from sgfast.questions.replaying.kinds import Rows
from sgfast.report.rollup import By, Passing, Rollup, TrafficPart, only, with_first_twins


class ChangedRollup(Rollup):
    """A roll-up with one part, ``verdict``. Instances have the names and groups of the policy ``blocking``. Addresses
    that no instance owns are named by the rules of either policy.
    """

    def __init__(self, verdict: NewVerdict, kinds: ChangedKinds, blocking: Policy, passing: Policy) -> None:
        self._verdict: TrafficPart = verdict
        self._passing_rules, self._passing_policy = kinds.passing_rules, passing
        super().__init__(blocking, kinds, passing)

    def _whole(self, kinds: Any) -> Rows:
        return with_first_twins(self._passing_policy, kinds.rows, "passing_rule", kinds.passing_rules)

    def _counts(self, rows: Rows) -> dict[TrafficPart, dict[str, NDArray[np.int64]]]:
        return {self._verdict: {"": rows["connections"].astype(np.int64)}}

    def _first(self, rows: Rows) -> NDArray[np.int64]:
        return rows["broken"].astype(np.int64)

    def _columns(self, rows: Rows, by: By) -> list[NDArray[Any]]:
        return [*super()._columns(rows, by), rows["passes"]] + ([rows["passing_rule"]] if by == "rule" else [])

    def _is_packet_known(self, row: Any) -> bool:
        # If the connection is turned around, the packet that the policy blocks has another service.
        return super()._is_packet_known(row) and not row["turned"]

    def _passing(self, rows: Rows) -> Passing:
        rules = np.unique(rows["passing_rule"])
        return Passing(
            VERDICTS[int(rows[0]["passes"])], only(rules, self._passing_rules), int((rules >= 0).sum()),
            int(rows["broken"].sum()),
        )  # fmt: skip


def changed_rollups(result: TrafficDiff) -> dict[NewVerdict, ChangedRollup]:
    """Return roll-ups of the changed connections of ``result``: ``changed_rollups(result)[verdict].fold(verdict)``."""
    policies: dict[NewVerdict, tuple[Policy, Policy]] = {
        "newly-denied": (result.new, result.old), "newly-allowed": (result.old, result.new),
    }  # fmt: skip
    return {verdict: ChangedRollup(verdict, kinds, *policies[verdict]) for verdict, kinds in result.kinds.items()}

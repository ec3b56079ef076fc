"""Tables of a comparison's results (SPEC 14.9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sgfast.base.errors import ArgumentError, TableError
from sgfast.policy.model import Policy
from sgfast.questions.comparing.kinds import ChangedKinds
from sgfast.questions.replaying.kind_columns import ends_and_service, reason_and_rule, times_and_number
from sgfast.questions.replaying.kinds import summed
from sgfast.rows import Table
from sgfast.rows.arrow import Array
from sgfast.rows.columns import Words, numbers, words_of
from sgfast.rows.row_schema import CHANGED_TABLE, RULE_EFFECT_TABLE
from sgfast.rules.reaching.rows import Row
from sgfast.rules.reaching.tables import difference_table


class TrafficDiffTables:
    """The tables of a comparison by captures: ``changed`` and ``rules``."""

    def __init__(
        self, kinds: Iterable[tuple[str, ChangedKinds, Policy]], effects: Sequence[tuple[str, str, str, int, int]]
    ) -> None:
        """``kinds``: with the policy that blocks them. ``effects``: rules with their groups, their differences, and the
        numbers of connections that they newly deny and allow.
        """
        self._kinds, self._effects = list(kinds), effects

    @property
    def changed(self) -> Table:
        """All connections that only one policy blocks. Of each kind of change, those with most connections come
        first."""
        batches = [_columns(*kind) for kind in self._kinds]
        return Table(CHANGED_TABLE.columns, sum(batch[0].length for batch in batches), lambda: batches)

    @property
    def rules(self) -> Table:
        """The rules that differ between the policies and decide changed connections."""
        counts = np.array([effect[3:] for effect in self._effects], np.int64).reshape(-1, 2)
        columns = [
            *(words_of([str(effect[n]) for effect in self._effects]) for n in range(3)),
            *(numbers(counts[:, n]) for n in range(2)),
        ]
        return Table(RULE_EFFECT_TABLE.columns, len(self._effects), lambda: [columns])

    def __repr__(self) -> str:
        return "<Tables of a comparison by captures: changed, rules>"


def _columns(change: str, kinds: ChangedKinds, policy: Policy) -> list[Array]:
    # Rows do not say why the other policy lets a connection pass: by a rule, as inferred, or out of scope.
    rows = summed(kinds.rows, kinds.rows["passing_rule"])
    rows = rows[np.argsort(-rows["connections"].astype(np.int64), kind="stable")]
    return [
        words_of([change] * len(rows)),
        *ends_and_service(kinds, rows, policy),
        *reason_and_rule(kinds, rows),
        Words(kinds.passing_rules).column(rows["passing_rule"]),
        *(numbers(rows[name].astype(np.int64)) for name in ("connections", "broken", "packets", "bytes")),
        *times_and_number(rows),
    ]


class DiffTables:
    """The tables of a comparison of two policies: ``opened`` and ``closed``; with captures, also ``changed`` and
    ``rules``.
    """

    def __init__(
        self, opened: Sequence[Row], closed: Sequence[Row], not_compared: str, traffic: TrafficDiffTables | None
    ) -> None:
        """``not_compared``: why the rules were not compared; empty: they were."""
        self._opened, self._closed, self._not_compared, self._traffic = opened, closed, not_compared, traffic

    @property
    def opened(self) -> Table:
        """Connections that only the new policy allows. Raises TableError if the rules could not be compared."""
        return self._by_rules(self._opened)

    @property
    def closed(self) -> Table:
        """Connections that only the old policy allows. Errors as in ``opened``."""
        return self._by_rules(self._closed)

    @property
    def changed(self) -> Table:
        """Connections of the captures that only one policy blocks. Raises ArgumentError if there were no captures."""
        return self._of_traffic().changed

    @property
    def rules(self) -> Table:
        """Rules that differ and decide such connections. Errors as in ``changed``."""
        return self._of_traffic().rules

    def _by_rules(self, rows: Sequence[Row]) -> Table:
        if self._not_compared:
            raise TableError(f"the rules were not compared: {self._not_compared}")
        return difference_table([row._opened for row in rows])

    def _of_traffic(self) -> TrafficDiffTables:
        if self._traffic is None:
            raise ArgumentError("changed connections are those of captures: give some, or see opened and closed")
        return self._traffic

    def __repr__(self) -> str:
        return f"<Tables of a comparison: opened, closed{'' if self._traffic is None else ', changed, rules'}>"

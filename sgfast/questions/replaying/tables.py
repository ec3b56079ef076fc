"""Tables of a replay's results (SPEC 14.9), and the sinks that keep its packets and connections in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import TableError
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Policy, Rule
from sgfast.questions.replaying.kind_columns import ends_and_service, reason_and_rule, times_and_number
from sgfast.questions.replaying.kinds import Kinds, Rows, joined
from sgfast.questions.replaying.options import Kept
from sgfast.rows import BATCH_ROWS, PacketChunk, Table, connection_table, packet_table
from sgfast.rows.columns import Words, numbers, words_of
from sgfast.rows.row_schema import ALLOWED_TABLE, ANSWERS, DENIED_TABLE, RULE_TABLE

#: The maximum number of packets, and of connections, that are kept in memory. Each takes a gigabyte.
MOST_KEPT = 10_000_000

_ANSWERS = Words(ANSWERS)


class Numbered(Protocol):
    """The names of instances and rules by the numbers in rows, as in ``Names``."""

    @property
    def instances(self) -> Sequence[str]: ...

    @property
    def groups(self) -> Sequence[Sequence[str]]: ...

    @property
    def rules(self) -> Sequence[str]: ...


class _Rows:
    """Keep copies of rows, received in pieces as parallel arrays. Raises TableError for more than ``MOST_KEPT``
    rows."""

    def __init__(self, kept: Kept) -> None:
        self._kept_rows = kept
        self._pieces: list[tuple[NDArray[Any], ...]] = []
        self._waiting = 0
        self._count = 0
        self.instances: Sequence[str] = ()
        self.groups: Sequence[Sequence[str]] = ()
        self.rules: Sequence[str] = ()
        #: Chunks of kept rows, of about ``BATCH_ROWS`` rows each.
        self.chunks: list[tuple[NDArray[Any], ...]] = []

    def begin(self, names: Numbered) -> None:
        # Numbers keep their meaning, so the latest names are valid for all rows.
        self.instances, self.groups, self.rules = names.instances, names.groups, names.rules

    def keep(self, *rows: NDArray[Any]) -> None:
        self._count += len(rows[0])
        if self._count > MOST_KEPT:
            option = "--verdicts" if self._kept_rows == "packets" else "--connections"
            raise TableError(
                f"more than {MOST_KEPT:,} {self._kept_rows}, which is too many to keep in memory: select fewer with "
                "reading=ReadOptions(filter=..., start=..., end=...), or write a file with "
                f"sgfast replay {option} FILE.parquet"
            )
        self._pieces.append(tuple(array.copy() for array in rows))
        self._waiting += len(rows[0])
        if self._waiting >= BATCH_ROWS:
            self.close()

    def close(self) -> None:
        if self._pieces:
            self.chunks.append(tuple(map(np.concatenate, zip(*self._pieces, strict=True))))
        self._pieces, self._waiting = [], 0


class KeptPackets(_Rows):
    """A ``PacketSink`` that keeps packets, without their positions in captures."""

    def write(self, headers: Rows, results: Rows) -> None:
        nowhere = np.zeros(len(headers), np.int64)
        self.keep(headers, results, nowhere, nowhere)


class KeptFrames(_Rows):
    """A ``FrameSink`` that keeps packets with their positions in captures."""

    def write(self, batch: FrameBatch, first: int, headers: Rows, results: Rows) -> None:
        files, within = (np.empty(len(headers), np.int64) for _ in range(2))
        batch.fill_positions(first, files, within)
        self.keep(headers, results, files, within)


class KeptFlows(_Rows):
    """A ``FlowSink`` that keeps connections. ``numbered``: packets are numbered across the whole replay."""

    def __init__(self, numbered: bool) -> None:
        super().__init__("connections")
        self._numbered = numbered

    def write(self, flows: Rows) -> None:
        if not self._numbered:
            flows = flows.copy()
            flows["number"] = 0
        self.keep(flows)


class KeptRows:
    """Packets and connections that a replay keeps for its tables."""

    def __init__(self, tables: Sequence[Kept], *, placed: bool, numbered: bool) -> None:
        """``placed``: keep positions of packets in their captures. ``numbered``: as for ``KeptFlows``."""
        self.frames = KeptFrames("packets") if "packets" in tables and placed else None
        self.unplaced = KeptPackets("packets") if "packets" in tables and not placed else None
        self.flows = KeptFlows(numbered) if "connections" in tables else None
        #: The names of the captures, by number.
        self.files: Sequence[str] = ()
        #: The number of packets before the first kept packet.
        self.before = 0

    @property
    def packets(self) -> KeptFrames | KeptPackets | None:
        return self.frames or self.unplaced

    def close(self, files: Sequence[str], before: int) -> None:
        """End keeping: complete the last chunk."""
        for rows in (self.packets, self.flows):
            if rows is not None:
                rows.close()
        self.files, self.before = files, before


class ReplayTables:
    """The tables of a replay: ``would_break``, ``denied``, ``unanswered``, ``allowed`` and ``rules``; and the tables
    kept by ``replay(..., tables=("connections", "packets"))``.

    With the reference model the first four are empty.
    """

    def __init__(
        self, policy: Policy, kinds: Kinds, hits: Sequence[tuple[Rule, str, int, int, int]], kept: KeptRows | None
    ) -> None:
        """``hits``: rules with their groups and counts."""
        self._policy, self._kinds, self._hits, self._kept_rows = policy, kinds, hits, kept

    @property
    def connections(self) -> Table:
        """A row for each connection and denied attempt, in the order in which they ended.

        Raises TableError if the replay did not keep connections.
        """
        kept_flows = None if self._kept_rows is None else self._kept_rows.flows
        if kept_flows is None:
            raise _not_kept("connections")
        return connection_table(
            [flows for (flows,) in kept_flows.chunks], kept_flows.instances, kept_flows.groups, kept_flows.rules
        )

    @property
    def packets(self) -> Table:
        """A row for each packet. Raises TableError if the replay did not keep packets."""
        kept_packets = None if self._kept_rows is None else self._kept_rows.packets
        if self._kept_rows is None or kept_packets is None:
            raise _not_kept("packets")
        chunks = [PacketChunk(*chunk) for chunk in kept_packets.chunks]
        return packet_table(
            chunks, kept_packets.instances, kept_packets.rules, self._kept_rows.files, self._kept_rows.before + 1
        )

    @property
    def would_break(self) -> Table:
        """Connections that were answered, but that the security groups deny."""
        return self._denied("broken")

    @property
    def denied(self) -> Table:
        """All denied traffic, including connections that would break."""
        return self._denied("packets")

    @property
    def unanswered(self) -> Table:
        """Connections that are allowed, but that the instance refused or never answered."""
        return self._allowed("silent", "refused")

    @property
    def allowed(self) -> Table:
        """Connections that are allowed and were answered."""
        return self._allowed("answered")

    @property
    def rules(self) -> Table:
        """All rules, including those that matched no packet."""
        rules = [hit[0] for hit in self._hits]
        counts = np.array([hit[2:] for hit in self._hits], np.int64).reshape(-1, 3)
        columns = [
            words_of([rule.id for rule in rules]),
            words_of([hit[1] for hit in self._hits]),
            words_of([rule.direction for rule in rules]),
            words_of([rule.action for rule in rules]),
            numbers(np.array([rule.priority for rule in rules], np.int64)),
            *(numbers(counts[:, n]) for n in range(3)),
        ]
        return Table(RULE_TABLE.columns, len(rules), lambda: [columns])

    def _denied(self, measure: Literal["broken", "packets"]) -> Table:
        rows = joined(self._kinds)
        rows = rows[np.argsort(-rows[measure].astype(np.int64), kind="stable")]
        rows = rows[rows[measure] > 0]
        columns = [
            *ends_and_service(self._kinds, rows, self._policy),
            *reason_and_rule(self._kinds, rows),
            numbers(rows["broken" if measure == "broken" else "connections"].astype(np.int64)),
            *(numbers(rows[name].astype(np.int64)) for name in ("packets", "bytes")),
            *times_and_number(rows),
        ]
        return Table(DENIED_TABLE.columns, len(rows), lambda: [columns])

    def _allowed(self, *answers: str) -> Table:
        rows = joined(self._kinds)
        counts = {name: rows[name].astype(np.int64) for name in ("refused", "silent")}
        # If there was no room for a kind, its outcome is in another row than its beginning.
        began = rows["connections"].astype(np.int64) - counts["refused"] - counts["silent"]
        counts["answered"] = np.where(rows["packets"] > 0, 0, began.clip(0))
        places = np.concatenate([np.flatnonzero(counts[answer]) for answer in answers])
        words = np.concatenate([np.full(np.count_nonzero(counts[answer]), ANSWERS.index(answer)) for answer in answers])
        connections = np.concatenate([counts[answer][counts[answer] > 0] for answer in answers])
        order = np.argsort(-connections, kind="stable")
        rows = rows[places[order]]
        columns = [
            *ends_and_service(self._kinds, rows, self._policy),
            *reason_and_rule(self._kinds, rows),
            _ANSWERS.column(words[order]),
            numbers(connections[order]),
            *times_and_number(rows),
        ]
        return Table(ALLOWED_TABLE.columns, len(rows), lambda: [columns])

    def __repr__(self) -> str:
        kept_rows = self._kept_rows
        flows, packets = (None, None) if kept_rows is None else (kept_rows.flows, kept_rows.packets)
        names = [name for name, rows in (("connections", flows), ("packets", packets)) if rows is not None]
        always = ("would_break", "denied", "unanswered", "allowed", "rules")
        return f"<Tables of a replay: {', '.join((*names, *always))}>"


def _not_kept(row_kind: Kept) -> TableError:
    return TableError(
        f"no {row_kind} were kept: replay with tables=({row_kind!r},), which keeps up to {MOST_KEPT:,} in memory"
    )

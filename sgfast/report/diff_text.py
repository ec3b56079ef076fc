"""The differences as text, most important first. All names are escaped."""

from __future__ import annotations

from sgfast.capture.names import printable
from sgfast.comparing import Change, DiffResult
from sgfast.report.answer_rows import answer_text, nearest_text
from sgfast.report.diff import answered, headline, judgements, rule_words
from sgfast.report.left_out import left_out_words
from sgfast.report.page import Page, grouped, human_bytes, plural
from sgfast.report.rollup import MOST_FIT, By, Folded, Row
from sgfast.report.rollup.changed import ChangedRollup, changed_rollups
from sgfast.report.text import write_notes
from sgfast.report.why import Reasons

TITLES: dict[Change, str] = {"newly-denied": "Newly denied", "newly-allowed": "Newly allowed"}


class DiffText:
    """The part of the report that is about captures, in as many lines as asked for."""

    def __init__(self, result: DiffResult, by: By = "group") -> None:
        self._result = result
        self._by = by
        self._rollups = changed_rollups(result)
        self._reasons = Reasons(result.new)
        #: By place of a row: what is known of the nearest rule. A shorter text has some of the same rows.
        self._nearest: dict[int, str] = {}

    def text(self, most: int, few: int, *, width: int = 80, colour: bool = False) -> str:
        """``most``: how many rows the lists of changed connections have; ``few``: what matters less. ``width``: the
        desired number of columns.
        """
        page, result = Page(width, colour), self._result
        captures = ", ".join(printable(name) for name in result.captures[:3])
        if len(result.captures) > 3:
            captures += f" and {plural(len(result.captures) - 3, 'more capture')}"
        options = [result.mode, f"midstream {result.midstream}"]
        if result.vpc is not None:
            options.append(f"VPC {printable(result.vpc)}")
        page.heading(headline(result))
        page.wrapped(
            f"{plural(result.packets, 'packet')}, {human_bytes(result.bytes)} of {captures}; OLD is "
            f"{printable(result.old.origin)}, NEW is {printable(result.new.origin)} ({', '.join(options)})"
        )
        if result.left_out is not None:
            page.hanging("Left out: ", left_out_words(result.left_out))
        for change, rollup in self._rollups.items():
            self._write_changed(page, change, rollup, most)
        _write_rules(page, result, few)
        _write_moves(page, result, few)
        write_notes(page, few, result)
        return page.text()

    def _write_changed(self, page: Page, change: Change, rollup: ChangedRollup, most: int) -> None:
        total = self._result.total(change)
        if not total.connections:
            return
        # One row for everything would say nothing.
        folded = rollup.fold(change, by=self._by, most=most, at_least=MOST_FIT)
        page.line()
        page.heading(
            f"{TITLES[change]}: {plural(total.connections, 'connection')}, {answered(total)}; "
            f"{plural(total.packets, 'packet')}, {human_bytes(total.bytes)}"
        )
        widest = max(len(grouped(row.connections)) for row in folded.rows)
        for row in folded.rows:
            start = f"  {grouped(row.connections):>{widest}}  "
            style = "red" if change == "newly-denied" and row.answered else "bold"
            page.hanging(start, f"{answer_text(row)} ({row_counts(row)})", style)
            old, new = judgements(row, change)
            page.hanging(" " * len(start), f"OLD {old}; NEW {new}")
            if change == "newly-denied" and (near := self._near(row)):
                page.hanging(" " * len(start), near)
        if left := left_words(folded):
            page.wrapped(f"and {left}: --top {folded.every} lists all", "  ")

    def _near(self, row: Row) -> str:
        if row.place not in self._nearest:
            self._nearest[row.place] = nearest_text(row, self._reasons)
        return self._nearest[row.place]


def left_words(folded: Folded) -> str:
    """``12 more rows (3,000 connections, 0 answered; 9,000 packets)``; "" if all rows are listed."""
    if not folded.left_rows:
        return ""
    counts = f"{plural(folded.left_connections, 'connection')}, {grouped(folded.left_answered)} answered"
    return f"{plural(folded.left_rows, 'more row')} ({counts}; {plural(folded.left_packets, 'packet')})"


def row_counts(row: Row) -> str:
    """``2 answered; 16 packets, 1.1 kB, first is packet 134``"""
    counts = f"{grouped(row.answered)} answered; {plural(row.packets, 'packet')}, {human_bytes(row.bytes)}"
    return counts + (f", first is packet {grouped(row.example.packet)}" if row.example is not None else "")


def _write_rules(page: Page, result: DiffResult, most: int) -> None:
    if not result.rules:
        return
    page.line()
    page.heading("Rules that make the difference")
    for effect in result.rules[:most]:
        parts = [
            f"{grouped(number)} newly {word}"
            for number, word in ((effect.newly_denied, "denied"), (effect.newly_allowed, "allowed"))
            if number
        ]
        name = f"{printable(effect.rule)} in {printable(effect.group)}"
        page.hanging("  ", f"{name}, {effect.status}: {', '.join(parts)}")
        for policy, rule in (("OLD", effect.old), ("NEW", effect.new)):
            if rule is not None:
                page.wrapped(f"{policy} {rule_words(rule)}", " " * 6)
    if left := result.rules[most:]:
        denied, allowed = (sum(getattr(effect, name) for effect in left) for name in ("newly_denied", "newly_allowed"))
        page.wrapped(
            f"and {plural(len(left), 'more rule')} ({grouped(denied)} newly denied, {grouped(allowed)} newly allowed): "
            f"--top {len(result.rules)} lists all",
            "  ",
        )


def _write_moves(page: Page, result: DiffResult, most: int) -> None:
    if not result.moved:
        return
    page.line()
    page.heading("Allowed by both, but by another rule")
    rows = [
        (grouped(move.connections), printable(move.old_rule), printable(move.new_rule)) for move in result.moved[:most]
    ]
    page.table(("connections", "OLD", "NEW"), rows)
    rest = result.moved[most:]
    if rest or result.moved_others:
        connections = sum(move.connections for move in rest) + result.moved_others
        more = plural(len(rest), "more pair") if not result.moved_others else f"more than {grouped(len(rest))} pairs"
        every = "all that were counted" if result.moved_others else "all"
        option = f": --top {len(result.moved)} lists {every}" if rest else ""
        page.wrapped(f"and {more} ({plural(connections, 'connection')}){option}", "  ")

"""The differences as text in 80 columns, most important first. All names are escaped."""

from __future__ import annotations

from sgfast.capture.names import printable
from sgfast.comparing import CHANGES, Change, ChangedGroup, DiffResult
from sgfast.report.diff import answered, example_words, headline, peers, rule_words, why
from sgfast.report.left_out import left_out_words
from sgfast.report.names import service_name
from sgfast.report.page import Page, grouped, human_bytes, plural
from sgfast.report.text import write_notes

#: Maximum number of groups, rules and moves before "and N more".
TOP = 10

TITLES: dict[Change, str] = {"newly-denied": "Newly denied", "newly-allowed": "Newly allowed"}


def diff_text(result: DiffResult, *, width: int = 80, colour: bool = False) -> str:
    """Return the report as text. ``width``: the desired number of columns."""
    page = Page(width, colour)
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
    for change in CHANGES:
        _write_groups(page, result, change)
    _write_rules(page, result)
    _write_moves(page, result)
    write_notes(page, result)
    return page.text()


def _write_groups(page: Page, result: DiffResult, change: Change) -> None:
    groups, total = result.of(change), result.total(change)
    if not total.connections:
        return
    page.line()
    page.heading(
        f"{TITLES[change]}: {plural(total.connections, 'connection')}, {answered(total)}; "
        f"{plural(total.packets, 'packet')}, {human_bytes(total.bytes)}"
    )
    start = result.first_time_ns or 0
    for group in groups[:TOP]:
        _write_group(page, group, start)
    rest, others = groups[TOP:], result.others.get(change)
    if rest or others is not None:
        connections = sum(group.connections for group in rest) + (others.connections if others is not None else 0)
        more = plural(len(rest), "more kind") if others is None else f"more than {grouped(len(rest))} kinds"
        page.wrapped(f"and {more} ({plural(connections, 'connection')})", "  ")


def _write_group(page: Page, group: ChangedGroup, start: int) -> None:
    style = "red" if group.change == "newly-denied" and group.answered else "bold"
    page.hanging(
        f"  {grouped(group.connections):>7}  ",
        f"{printable(group.service.instance)} {group.direction} {service_name(group.service)} {peers(group)}",
        style,
    )
    page.wrapped(f"OLD {group.old.verdict}: {why(group.old, group.old_rule)}", " " * 11)
    page.wrapped(f"NEW {group.new.verdict}: {why(group.new, group.new_rule)}", " " * 11)
    first, last = ((time - start) / 1e9 for time in (group.first_time_ns, group.last_time_ns))
    page.wrapped(
        f"{grouped(group.answered)} answered; {plural(group.packets, 'packet')}, {human_bytes(group.bytes)}; "
        f"{first:.3f} s to {last:.3f} s",
        " " * 11,
    )
    page.wrapped("; ".join(map(example_words, group.examples)), " " * 11)


def _write_rules(page: Page, result: DiffResult) -> None:
    if not result.rules:
        return
    page.line()
    page.heading("Rules that make the difference")
    for effect in result.rules[:TOP]:
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
    if result.rules[TOP:]:
        page.wrapped(f"and {plural(len(result.rules) - TOP, 'more rule')}", "  ")


def _write_moves(page: Page, result: DiffResult) -> None:
    if not result.moved:
        return
    page.line()
    page.heading("Allowed by both, but by another rule")
    rows = [
        (grouped(move.connections), printable(move.old_rule), printable(move.new_rule)) for move in result.moved[:TOP]
    ]
    page.table(("connections", "OLD", "NEW"), rows)
    rest = result.moved[TOP:]
    if rest or result.moved_others:
        connections = sum(move.connections for move in rest) + result.moved_others
        more = plural(len(rest), "more pair") if not result.moved_others else f"more than {grouped(len(rest))} pairs"
        page.wrapped(f"and {more} ({plural(connections, 'connection')})", "  ")

"""The text report of a replay: 80 columns, most important first. All names are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from sgfast.capture.names import printable
from sgfast.engine import REASONS
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import ClusterUsed, CutConnection, ReplayResult, RuleHits
from sgfast.report.left_out import left_out_words
from sgfast.report.names import icmp_name, service_name
from sgfast.report.page import (
    MOST_LINES,
    NAMED_RULES,
    TOP,
    Page,
    connection_counts,
    grouped,
    human_bytes,
    human_seconds,
    instant,
    plural,
)
from sgfast.report.rollup import BY_PACKETS, By, Part, Rollup, Row
from sgfast.report.why import Reasons

if TYPE_CHECKING:
    from sgfast.comparing import DiffResult

#: The reasons that belong to the verdict "allow"; the others belong to "deny".
_ALLOWING = ("rule", "established", "related", "inferred")
_NOTES = {
    "moot": "follow a denied opener: would not exist",
    "out-of-scope": "neither end is an instance",
    "local": "both ends are the same instance",
    "exempt": "DHCP, neighbour discovery: not filtered",
    "not-ip": "",
}

REMINDER = "A capture taken behind today's security groups cannot show what they already block."


@dataclass(frozen=True, slots=True)
class Told:
    """What the sections share: how rows are told, and why packets were denied."""

    rollup: Rollup
    reasons: Reasons
    by: By


def text_report(
    result: ReplayResult, *, width: int = 80, colour: bool = False, by: By = "group", top: int | None = None
) -> str:
    """Return the report as text. ``width``: the desired number of columns. ``by``: how rows are folded. ``top``: how
    many rows a section has; without it, as many as let the report have ``MOST_LINES`` lines.
    """
    rollup = Rollup(result.policy, result.kinds)
    told = Told(rollup, Reasons(result.policy), by)
    if top is not None or by == "rule":
        return _report(result, told, top or TOP, top or TOP, width, colour)
    for most in range(TOP, 1, -1):
        text = _report(result, told, most, max(most // 2, 2), width, colour)
        if text.count("\n") <= MOST_LINES:
            break
    return text


def _report(result: ReplayResult, told: Told, most: int, few: int, width: int, colour: bool) -> str:
    """``most``: how many rows what would break has; ``few``: what matters less."""
    page = Page(width, colour)
    _write_verdicts(page, result)
    _write_changes(page, result, most)
    broken = "Would break: the other end answered in the capture, but these groups deny it"
    _write_answers(page, told, "would-break", broken, most)
    _write_expected(page, result)
    _write_denied(page, result, told, few)
    unanswered = "Allowed by the groups, but not served by the instance"
    _write_answers(page, told, "unanswered", unanswered, few)
    if told.by != "group":
        _write_answers(page, told, "allowed", "Allowed", most)
    _write_rules(page, result, told, few)
    _write_connections(page, result)
    write_notes(page, result, most_warnings=most)
    return page.text()


# Sections ------------------------------------------------------------------------------------------------------------


def _write_verdicts(page: Page, result: ReplayResult) -> None:
    captures = ", ".join(printable(name) for name in result.captures[:3])
    if len(result.captures) > 3:
        captures += f" and {plural(len(result.captures) - 3, 'more capture')}"
    options = [result.mode, f"midstream {result.midstream}"]
    if result.vpc is not None:
        options.append(f"VPC {printable(result.vpc)}")
    if result.engine != "fast":
        options.append(f"{result.engine} engine")
    page.heading(f"{plural(result.packets, 'packet')}, {human_bytes(result.bytes)}")
    page.wrapped(f"{captures} against {printable(result.policy.origin)} ({', '.join(options)})")
    if result.left_out is not None:
        page.hanging("Left out: ", left_out_words(result.left_out))
    if not result.packets:
        return
    page.line()
    for verdict, packets in result.verdicts.items():
        if not packets and verdict not in ("allow", "deny"):
            continue
        if verdict in _NOTES:
            note = _NOTES[verdict]
        else:
            note = ", ".join(f"{reason} {grouped(n)}" for reason, n in _reasons(result, verdict))
        share = f"{100 * packets / result.packets:.1f} %"
        start = f"  {verdict:13}{grouped(packets):>13}{share:>9}  "
        style = "red" if verdict == "deny" and packets else ""
        page.hanging(start, note, style)
    judged = result.packets - sum(result.verdicts[v] for v in ("out-of-scope", "exempt", "not-ip"))
    if not judged and result.verdicts["out-of-scope"]:
        page.line()
        page.wrapped("No packet touched an instance's address: is this the right policy, and the right --vpc?")


def _reasons(result: ReplayResult, verdict: str) -> list[tuple[str, int]]:
    found = [
        (reason, n)
        for reason, n in result.reasons.items()
        if reason in REASONS and reason != "opener-denied" and (reason in _ALLOWING) == (verdict == "allow")
    ]
    return sorted(found, key=lambda item: -item[1])


def _write_answers(page: Page, told: Told, part: Part, heading: str, most: int) -> None:
    """One part of the answer: rows of who reaches whom, largest first, each with why it was denied."""
    folded = told.rollup.fold(part, by=told.by, most=most)
    if not folded.rows:
        return
    page.line()
    page.heading(heading)
    counted = "packet" if part in BY_PACKETS else "connection"
    widest = max(len(_amount(row, part)) for row in folded.rows)
    for row in folded.rows:
        start = f"  {_amount(row, part):>{widest}}  "
        page.hanging(start, f"{answer_text(row)} ({_reason(row, part)})")
        if part == "would-break" and (near := nearest_text(row, told.reasons)):
            page.hanging(" " * (len(start) + 2), near)
    if folded.left_rows:
        left = folded.left_packets if part in BY_PACKETS else folded.left_connections
        page.wrapped(
            f"and {plural(folded.left_rows, 'more row')} ({plural(left, counted)}): "
            f"--top {len(folded.rows) + folded.left_rows} lists all",
            "  ",
        )


def _write_expected(page: Page, result: ReplayResult) -> None:
    expected = result.expected
    if expected is None or not (expected.meant or expected.contradicted):
        return
    page.line()
    page.heading(f"As {printable(expected.origin)} means it, or not")
    if expected.meant:
        page.wrapped(f"{plural(expected.meant, 'connection')} denied as meant, though answered in the capture", "  ")
    for each in expected.contradicted[:TOP]:
        is_denied = each.expectation.verdict == "allow"
        page.hanging(
            "  ",
            f"{plural(each.connections, 'connection')} {'denied' if is_denied else 'allowed'}, against line "
            f"{each.expectation.line}: {printable(each.expectation.text)} should be "
            f"{'allowed' if is_denied else 'denied'}",
            "yellow",
        )
    if len(expected.contradicted) > TOP:
        page.wrapped(f"and {plural(len(expected.contradicted) - TOP, 'more line')}: --json has all", "  ")


def answer_text(row: Row) -> str:
    """``web (12 instances) -> db: tcp/5432``; of rows that are not about ends, what they are about."""
    ends = f"{printable(row.source_text)} -> {printable(row.destination_text)}"
    return row.service if row.source.kind == "any" else f"{ends}: {row.service}"


def _amount(row: Row, part: Part) -> str:
    return grouped(row.packets) if part in BY_PACKETS else grouped(row.connections)


_ANSWERS = {"refused": "refused: RST or ICMP unreachable", "silent": "no answer"}


def _reason(row: Row, part: Part) -> str:
    """What the instance did, or the word of SPEC 10.3 with the rule that decided."""
    if part == "unanswered":
        return _ANSWERS[row.reason]
    return row.reason + (f" {printable(row.rule)}" if row.rule is not None else "")


def nearest_text(row: Row, reasons: Reasons) -> str:
    """The rule that came nearest to allowing it; if the row has several services, that of the largest."""
    near = reasons.nearest_rules(row.kind) if row.kind is not None else []
    if row.kind is None or not near:
        return ""
    (rule, differs), more = near[0], len(near) - 1
    which = f"for {service_name(row.kind.service)} the nearest" if row.services > 1 else "nearest"
    return f"{which} is {printable(rule)}{f' (and {more} more)' if more else ''}: {printable(', and '.join(differs))}"


def _write_denied(page: Page, result: ReplayResult, told: Told, most: int) -> None:
    denied = result.verdicts["deny"]
    if not result.packets:
        return
    after_cuts = sum(change.packets_after or 0 for change in result.changes)
    if denied == after_cuts:
        page.line()
        page.heading("Nothing else was denied" if denied else "Nothing was denied")
        return
    if result.engine == "reference":
        page.line()
        page.wrapped("The reference engine keeps no list of what was denied.")
        return
    heading = "Denied packets that nobody answered: nothing that worked depends on them"
    _write_answers(page, told, "one-way", heading, most)
    without_addresses = denied - after_cuts - told.rollup.total("denied") - result.kinds.lost
    if without_addresses > 0:
        page.wrapped(f"{plural(without_addresses, 'packet')} without readable addresses (malformed)", "  ")


def _write_rules(page: Page, result: ReplayResult, told: Told, most: int) -> None:
    page.line()
    used = sorted((rule for rule in result.rules if rule.packets), key=lambda rule: -rule.connections)
    page.heading(f"Rules: {grouped(len(used))} of {grouped(len(result.rules))} were hit")
    if told.by == "rule":
        _write_all_rules(page, result)
        return
    rows = [
        (grouped(hits.connections), grouped(hits.packets), human_bytes(hits.bytes), printable(hits.rule.id))
        for hits in used[:most]
    ]
    if rows:
        page.table(("connections", "packets", "bytes", "rule"), rows)
    idle = [hits for hits in result.rules if not hits.packets]
    left = [f"{plural(len(used) - most, 'more rule')} hit"] if len(used) > most else []
    if idle and len(idle) <= NAMED_RULES:
        left.append("never hit: " + ", ".join(printable(hits.rule.id) for hits in idle))
    elif idle:
        left.append(f"{plural(len(idle), 'rule')} of {plural(len({hits.group for hits in idle}), 'group')} never hit")
    more = len(used) > most or len(idle) > NAMED_RULES
    if left:
        page.wrapped("; ".join(left) + ("; --by rule lists them by group" if more else ""), "  ")


def _write_all_rules(page: Page, result: ReplayResult) -> None:
    used = [rule for rule in result.rules if rule.packets]
    columns = ("connections", "packets", "bytes")
    longest = max((len(rule.rule.id) for rule in used), default=0)
    # On a narrow terminal the numbers stand below the names.
    name_width = max(20, min(longest, page.width - 4 - 3 * 14)) if page.width >= 4 + 20 + 3 * 14 else 0
    if used and name_width:
        page.line(" " * (4 + name_width) + "".join(f" {name:>13}" for name in columns))
    for group, rules in groupby(result.rules, key=lambda rule: rule.group):
        page.line(f"  {printable(group)}")
        _write_group(page, list(rules), name_width)


def _write_group(page: Page, rules: Sequence[RuleHits], name_width: int) -> None:
    for rule in rules:
        if rule.packets:
            numbers = (grouped(rule.connections), grouped(rule.packets), human_bytes(rule.bytes))
            name = printable(rule.rule.id)
            if not name_width:
                page.line(f"    {name}")
                counts = f"{plural(rule.connections, 'connection')}, {plural(rule.packets, 'packet')}, {numbers[2]}"
                page.wrapped(counts, "      ")
                continue
            if len(name) > name_width:
                page.line(f"    {name}")
                name = ""
            page.line(f"    {name:{name_width}}" + "".join(f" {number:>13}" for number in numbers))
    unused = [printable(rule.rule.id) for rule in rules if not rule.packets]
    if len(unused) == len(rules) > 1:
        page.line(f"    never hit: all {grouped(len(rules))} rules", "yellow")
    elif unused:
        page.hanging("    never hit: ", ", ".join(unused), "yellow")


def _write_connections(page: Page, result: ReplayResult) -> None:
    if not result.packets:
        return
    page.line()
    counts = result.connections
    parts = connection_counts(counts)
    page.heading("Connections")
    if parts:
        page.wrapped(", ".join(parts), "  ")
    if counts["inferred"]:
        page.wrapped(
            f"{plural(counts['inferred'], 'connection')} began before the capture: who opened "
            f"{'it' if counts['inferred'] == 1 else 'them'} was inferred, and the rules allowed it",
            "  ",
        )
    if midstream := result.reasons.get("midstream", 0):
        packets = plural(midstream, "denied packet")
        page.wrapped(f"{packets} belonged to TCP connections that the filter does not know (midstream)", "  ")
    if not parts and not counts["inferred"] and not midstream:
        page.line("  none")


def _write_changes(page: Page, result: ReplayResult, most: int) -> None:
    if not result.changes and not result.changes_left:
        return
    page.line()
    cut = sum(change.disconnected for change in result.changes)
    finished = sum(change.finished or 0 for change in result.changes)
    of_these = f", {grouped(finished)} of which had finished before" if finished else ""
    page.heading(f"Changes of the policy: {plural(cut, 'connection')} cut{of_these}")
    start = result.first_time_ns or 0
    if result.changes:
        shown = sorted(result.changes, key=lambda change: -change.disconnected)[:most]
        rows = [
            (grouped(change.disconnected), _or_unknown(change.came_back), _seconds_from(start, change.at_ns),
             printable(change.text))
            for change in result.changes
            if any(change is each for each in shown)
        ]  # fmt: skip
        page.table(("cut", "came back", "at", "change"), rows)
        rest = [change for change in result.changes if not any(change is each for each in shown)]
        if rest:
            cut_by_rest = sum(change.disconnected for change in rest)
            page.wrapped(
                f"and {plural(len(rest), 'more change')} ({grouped(cut_by_rest)} cut): "
                f"--top {len(result.changes)} lists all",
                "  ",
            )
    followed = [(change, connection) for change in result.changes for connection in change.connections]
    for change, connection in followed[:most]:
        page.hanging("  ", f"{_cut_name(connection)}", "bold")
        page.wrapped(f"cut at {_seconds_from(start, change.at_ns)}; {_cut_end(connection, start)}", "    ")
    if (left := cut - len(followed[:most])) > 0:
        lists = f"--top {len(followed)} lists {'all' if len(followed) == cut else 'more'}"
        page.wrapped(f"and {plural(left, 'more connection')}" + (f": {lists}" if followed[most:] else ""), "  ")
    after_all = sum(change.packets_after or 0 for change in result.changes)
    if after_all:
        # These are not counted as denials: had the changes been real, they could only be retransmissions.
        page.wrapped(
            f"{plural(after_all, 'packet')} of theirs came after the cut: with these changes, retransmissions at most; "
            "what was denied most leaves them out",
            "  ",
        )
    if result.changes_left:
        page.wrapped(f"{plural(result.changes_left, 'change')} would come after the last packet", "  ")


def _or_unknown(number: int | None) -> str:
    return "?" if number is None else grouped(number)


def _seconds_from(start_ns: int, at_ns: int) -> str:
    return f"{(at_ns - start_ns) / 1e9:.3f} s"


def _cut_name(cut: CutConnection) -> str:
    protocol = protocol_name(cut.protocol) or f"protocol {cut.protocol}"
    if cut.initiator_port is not None:
        six = ":" in cut.initiator
        ends = (
            f"[{address}]:{port}" if six else f"{address}:{port}"
            for address, port in ((cut.initiator, cut.initiator_port), (cut.responder, cut.responder_port))
        )
        return f"{protocol} {' > '.join(ends)}"
    if cut.icmp_type is not None:
        protocol = f"{protocol} {icmp_name(cut.protocol, cut.icmp_type)}"
    return f"{protocol} {cut.initiator} > {cut.responder}"


def _cut_end(cut: CutConnection, start_ns: int) -> str:
    parts = ["had finished"] if cut.finished else []
    if cut.packets_after:
        parts.append(f"{plural(cut.packets_after, 'packet')} came after that")
    if cut.again_ns is None:
        parts.append("not opened again")
        return "; ".join(parts)
    at = _seconds_from(start_ns, cut.again_ns)
    if cut.outcome == "denied":
        parts.append(f"tried again at {at}, denied")
    else:
        rules = " and ".join(printable(rule) for rule in (cut.egress_rule, cut.ingress_rule) if rule is not None)
        turned = " opened by the other end," if cut.turned else ""
        parts.append(f"came back at {at},{turned} under {rules}")
    return "; ".join(parts)


def write_notes(page: Page, result: ReplayResult | DiffResult, most_warnings: int | None = None) -> None:
    """Write the times of the first and last packet, warnings, damage and speed."""
    page.line()
    notes: list[tuple[str, str, str]] = []
    if result.first_time_ns is not None and result.last_time_ns is not None:
        duration = human_seconds((result.last_time_ns - result.first_time_ns) / 1e9)
        notes += [
            ("First packet", f"{instant(result.first_time_ns)} UTC", ""),
            ("Last packet", f"{instant(result.last_time_ns)} UTC, {duration} later", ""),
        ]
    if result.decapsulated is not None:
        notes.append(("Tunnels", tunnels_text(result.decapsulated), ""))
    notes += [("Warning", printable(warning), "yellow") for warning in result.warnings[:most_warnings]]
    if (more := len(result.warnings) - len(result.warnings[:most_warnings])) > 0:
        notes.append(("Warning", f"and {plural(more, 'more warning')}: --json has all", "yellow"))
    if result.damaged is not None:
        notes.append(("Damage", f"{printable(str(result.damaged))}; the report ends there", "red"))
    notes.append(("Remember", REMINDER, ""))
    if result.packets:
        rate = grouped(round(result.packets_per_second))
        notes.append(("Speed", f"{rate} packets/s ({human_seconds(result.elapsed_seconds)}, without start-up)", ""))
    if isinstance(result, ReplayResult) and result.cluster is not None:
        notes.append(("Cluster", _cluster_text(result.cluster), ""))
    for label, note, style in notes:
        page.hanging(f"{label:14}", note, style)


def _cluster_text(used: ClusterUsed) -> str:
    """``tcp://10.0.0.1:8786, 8 workers, 16 shards: read 12 s (48 tasks), judge 4 s (16 tasks), gather 0.1 s``"""
    stages = [
        f"{stage.name} {human_seconds(stage.elapsed_seconds)}"
        + (f" ({plural(stage.tasks, 'task')})" if stage.name != "gather" else "")
        for stage in used.stages
    ]
    found = f"; {plural(used.segments_found, 'segment')} had been read before" if used.segments_found else ""
    where = f"{used.scheduler}, {plural(used.workers, 'worker')}, {plural(used.shards, 'shard')}"
    return f"{where}: {', '.join(stages)}{found}"


def tunnels_text(decapsulated: dict[str, int]) -> str:
    """``taken off packets: vxlan 1,200, gre 3``"""
    kinds = sorted(decapsulated.items(), key=lambda item: -item[1])
    return "taken off packets: " + (", ".join(f"{kind} {grouped(n)}" for kind, n in kinds) or "none were found")

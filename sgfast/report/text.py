"""The text report of a replay: 80 columns, most important first. All names are escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from sgfast.capture import Damage
from sgfast.capture.names import printable
from sgfast.engine import REASONS
from sgfast.policy.protocols import protocol_name
from sgfast.replaying import ChangeDone, ClusterUsed, CutConnection, ReplayResult, RuleHits
from sgfast.replaying.results import Contradicted, Expected
from sgfast.report.answer_rows import HEADINGS, Answers, answer_text
from sgfast.report.left_out import left_out_words
from sgfast.report.names import icmp_name
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
from sgfast.report.rollup import By, Part, Rollup

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

WRONG_POLICY = "No packet touched an instance's address: is this the right policy, and the right --vpc?"
NO_DENIALS = "The reference engine keeps no list of what was denied."
REMINDER = "A capture taken behind today's security groups cannot show what they already block."


#: So many rows of what would break are left while less important rows are there.
_LEAST_BROKEN = 4
#: So many characters of an expectation are shown, because it can have a thousand words.
_MOST_EXPECTED = 160
#: What is cut after that, in this order, and how many rows are left.
_CUTS = (
    *(("rules", 1), ("unanswered", 1), ("one-way", 1), ("allowed", 1), ("verdicts", 0), ("notes", 1)),
    *(("expected", 1), ("changes", 1), ("would-break", 3), ("would-break", 2), ("rules", 0), ("unanswered", 0)),
    *(("one-way", 0), ("allowed", 0), ("connections", 0), ("notes", 0), ("would-break", 1), ("expected", 0)),
    *(("changes", 0), ("would-break", 0)),
)
#: Without rows these sections are only mentioned, in one sentence.
_MENTIONED = ("one-way", "unanswered", "allowed", "rules", "connections", "notes")
_PARTS: Mapping[str, Part] = {str(part): part for part in HEADINGS}
#: How many rows of its list a section has.
_Sizes = Mapping[str, int]


def text_report(
    result: ReplayResult, *, width: int = 80, colour: bool = False, by: By = "group", top: int | None = None
) -> str:
    """Return the report as text. ``width``: the desired number of columns. ``by``: how rows are folded. ``top``: how
    many rows a section has; without it, as many as let the report have ``MOST_LINES`` lines.
    """
    report = _Report(result, by, width, colour)
    if top is not None:
        return report.text(dict.fromkeys(report.sections, top))
    steps = list[_Sizes]()
    for sizes in _smaller_and_smaller(report.sections, by):
        steps.append(sizes)
        if report.fits(sizes):
            break
    # The last cut may have made room for what was cut before it.
    for before, after in reversed(list(pairwise(steps))):
        sizes = _given_back(report, sizes, before, after)
    return report.text(sizes)


def _given_back(report: _Report, sizes: _Sizes, before: _Sizes, after: _Sizes) -> _Sizes:
    """With as many of the rows that one cut took away as there is room for."""
    for name in report.sections:
        if sizes[name] == after[name]:
            more = ({**sizes, name: most} for most in range(before[name], after[name], -1))
            sizes = next(filter(report.fits, more), sizes)
    return sizes


def _smaller_and_smaller(sections: Iterable[str], by: By) -> Iterator[_Sizes]:
    """How many rows the sections have, the most first. What matters less has half as many."""
    for most in range(TOP, _LEAST_BROKEN - 1, -1):
        few = most // 2
        rules = 4 * most if by == "rule" else few
        sizes = dict.fromkeys(sections, most) | {"one-way": few, "unanswered": few, "rules": rules}
        yield sizes
    for name, rows in _CUTS:
        sizes = sizes | {name: 4 * rows if (by, name) == ("rule", "rules") else rows}
        yield sizes


class _Report:
    """Its sections, of which each can be had in as many rows as there is room for."""

    def __init__(self, result: ReplayResult, by: By, width: int, colour: bool) -> None:
        self._result, self._answers = result, Answers(result, by)
        write_list = partial(_write_list, answers=self._answers)
        #: By name, in the order of what matters most. Each writes itself in so many rows.
        self.sections: dict[str, Callable[[Page, int], None]] = {
            "verdicts": partial(_write_verdicts, result=result),
            "changes": partial(_write_changes, result=result),
            "would-break": partial(write_list, part="would-break"),
            "expected": partial(_write_expected, result=result),
            "one-way": partial(_write_denied, result=result, answers=self._answers),
            "unanswered": partial(write_list, part="unanswered"),
            **({"allowed": partial(write_list, part="allowed")} if by != "group" else {}),
            "rules": partial(_write_all_rules if by == "rule" else _write_rules, result=result),
            "connections": partial(_write_connections, result=result),
            "notes": partial(write_notes, result=result),
        }
        self._new_page = partial(Page, width, colour)
        self._texts: dict[tuple[str, int], str] = {}

    def fits(self, sizes: _Sizes) -> bool:
        return self.text(sizes).count("\n") <= MOST_LINES

    def text(self, sizes: _Sizes) -> str:
        mentioned = [name for name in self.sections if name in _MENTIONED and not sizes[name]]
        texts = [self._section(name, sizes[name]) for name in self.sections if name not in mentioned]
        return "".join(texts) + (self._mention(mentioned) if mentioned else "")

    def _section(self, name: str, most: int) -> str:
        if (name, most) not in self._texts:
            page = self._new_page()
            self.sections[name](page, most)
            self._texts[name, most] = page.text()
        return self._texts[name, most]

    def _mention(self, names: Iterable[str]) -> str:
        """What the sections that are not there would say."""
        result, page = self._result, self._new_page()
        words, most = list[str](), 1
        for name in names:
            if name == "rules":
                words.append(f"rules ({grouped(len(used_rules(result)))} of {grouped(len(result.rules))} were hit)")
                most = max(most, len(result.rules))
            elif name == "connections":
                words.append(f"connections ({', '.join(connection_counts(result.connections)) or 'none'})")
            elif name == "notes":
                words.append("times" + (f" and {plural(len(result.warnings), 'warning')}" if result.warnings else ""))
                most = max(most, len(result.warnings))
            elif (told := self._answers.listed(_PARTS[name], 0)) is not None:
                words.append(f"{told.heading.partition(':')[0].lower()}, {told.left}")
                most = max(most, told.every)
        page.line()
        page.hanging("Not shown: ", f"{'; '.join(words)}; --top {most} shows all of it")
        if "notes" in names and result.damaged is not None:
            page.hanging("Damage: ", damage_words(result.damaged), "red")
        return page.text()


# Sections ------------------------------------------------------------------------------------------------------------


def _write_verdicts(page: Page, most: int, result: ReplayResult) -> None:
    named = 3 if most else 1
    captures = ", ".join(printable(name) for name in result.captures[:named])
    if more := len(result.captures[named:]):
        captures += f" and {plural(more, 'more capture')}"
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
        note = verdict_note(result, verdict) if most else ""
        share = f"{100 * packets / result.packets:.1f} %"
        start = f"  {verdict:13}{grouped(packets):>13}{share:>9}  "
        style = "red" if verdict == "deny" and packets else ""
        page.hanging(start, note, style)
    if not most:
        page.wrapped(f"--json has the reasons{', and all captures' if more else ''}", "  ")
    if touches_no_instance(result):
        page.line()
        page.wrapped(WRONG_POLICY)


def touches_no_instance(result: ReplayResult) -> bool:
    judged = result.packets - sum(result.verdicts.get(v, 0) for v in ("out-of-scope", "exempt", "not-ip"))
    return not judged and result.verdicts.get("out-of-scope", 0) > 0


def verdict_note(result: ReplayResult, verdict: str) -> str:
    if verdict in _NOTES:
        return _NOTES[verdict]
    reasons = [
        (reason, n)
        for reason, n in result.reasons.items()
        if reason in REASONS and reason != "opener-denied" and (reason in _ALLOWING) == (verdict == "allow")
    ]
    return ", ".join(f"{reason} {grouped(n)}" for reason, n in sorted(reasons, key=lambda item: -item[1]))


def _write_list(page: Page, most: int, part: Part, answers: Answers) -> None:
    """One part of the answer: rows of who reaches whom, largest first, each with why it was denied."""
    told = answers.listed(part, most)
    if told is None:
        return
    page.line()
    page.heading(told.heading)
    widest = max((len(each.amount) for each in told.rows), default=0)
    for each in told.rows:
        start = f"  {each.amount:>{widest}}  "
        page.hanging(start, f"{answer_text(each.row)} ({each.reason})")
        if each.nearest:
            page.hanging(" " * (len(start) + 2), each.nearest)
    if told.left:
        page.wrapped(f"{'and ' * bool(told.rows)}{told.left}: --top {told.every} lists all", "  ")


def _write_expected(page: Page, most: int, result: ReplayResult) -> None:
    expected = result.expected
    if expected is None or not (expected.meant or expected.contradicted):
        return
    page.line()
    page.heading(f"As {printable(expected.origin)} means it, or not")
    if expected.meant:
        page.wrapped(meant_words(expected), "  ")
    for each in expected.contradicted[:most]:
        page.hanging("  ", contradiction_words(each, _MOST_EXPECTED), "yellow")
    if (left := len(expected.contradicted[most:])) > 0:
        page.wrapped(f"{_more(left, most, 'line')}: --top {len(expected.contradicted)} lists all", "  ")


def meant_words(expected: Expected) -> str:
    return f"{plural(expected.meant, 'connection')} denied as meant, though answered in the capture"


def contradiction_words(found: Contradicted, most: int | None = None) -> str:
    """``most``: so many characters of the expectation are shown."""
    text = printable(found.expectation.text)
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    meant, got = ("allowed", "denied") if found.expectation.verdict == "allow" else ("denied", "allowed")
    return (
        f"{plural(found.connections, 'connection')} {got}, against line {found.expectation.line}: "
        f"{text} should be {meant}"
    )


def _more(left: int, shown: int, noun: str) -> str:
    """``and 3 more lines``, or ``3 lines`` if none are shown."""
    return f"and {plural(left, f'more {noun}')}" if shown else plural(left, noun)


def _write_denied(page: Page, most: int, result: ReplayResult, answers: Answers) -> None:
    denied = result.verdicts["deny"]
    if not result.packets:
        return
    if denied == _packets_after(result):
        page.line()
        page.heading("Nothing else was denied" if denied else "Nothing was denied")
        return
    if result.engine == "reference":
        page.line()
        page.wrapped(NO_DENIALS)
        return
    _write_list(page, most, "one-way", answers)
    if (number := without_addresses(result, answers.rollup)) > 0:
        page.wrapped(f"{plural(number, 'packet')} without readable addresses (malformed)", "  ")


def without_addresses(result: ReplayResult, rollup: Rollup) -> int:
    """How many denied packets are in no row because they have no addresses; 0 if nothing keeps rows of them."""
    if result.engine == "reference":
        return 0
    return result.verdicts.get("deny", 0) - _packets_after(result) - rollup.total("denied") - result.kinds.lost


def _write_rules(page: Page, most: int, result: ReplayResult) -> None:
    page.line()
    page.heading(rules_heading(result))
    used = used_rules(result)
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
    if len(used) > most or len(idle) > NAMED_RULES:
        left.append(f"--by rule --top {len(result.rules)} lists all by group")
    if left:
        page.wrapped("; ".join(left), "  ")


def rules_heading(result: ReplayResult) -> str:
    return f"Rules: {grouped(len(used_rules(result)))} of {grouped(len(result.rules))} were hit"


def used_rules(result: ReplayResult) -> list[RuleHits]:
    """Those that packets used, with most connections first."""
    return sorted((hits for hits in result.rules if hits.packets), key=lambda hits: -hits.connections)


def _write_all_rules(page: Page, most: int, result: ReplayResult) -> None:
    """So many rules by group, the groups with most connections first."""
    page.line()
    page.heading(rules_heading(result))
    groups = [list(rules) for _, rules in groupby(result.rules, key=lambda hits: hits.group)]
    groups.sort(key=lambda rules: -sum(hits.connections for hits in rules))
    told: list[list[RuleHits]] = []
    room = most
    for rules in groups:
        if room < 1:
            break
        # A group that no packet used is told in one line.
        is_used = any(hits.packets for hits in rules)
        told.append(sorted(rules, key=lambda hits: not hits.packets)[:room] if is_used else rules)
        room -= len(told[-1]) if is_used else 1
    columns = ("connections", "packets", "bytes")
    longest = max((len(hits.rule.id) for rules in told for hits in rules if hits.packets), default=0)
    # On a narrow terminal the numbers stand below the names.
    name_width = max(20, min(longest, page.width - 4 - 3 * 14)) if page.width >= 4 + 20 + 3 * 14 else 0
    if longest and name_width:
        page.line(" " * (4 + name_width) + "".join(f" {name:>13}" for name in columns))
    for rules in told:
        page.line(f"  {printable(rules[0].group)}")
        _write_group(page, rules, name_width)
    if left := len(result.rules) - sum(map(len, told)):
        page.wrapped(f"{_more(left, len(told), 'rule')}: --by rule --top {len(result.rules)} lists all", "  ")


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


def _write_connections(page: Page, most: int, result: ReplayResult) -> None:
    if not result.packets:
        return
    page.line()
    page.heading("Connections")
    for sentence in connection_words(result):
        page.wrapped(sentence, "  ")


def connection_words(result: ReplayResult) -> list[str]:
    """The numbers of connections first, then what else is to be said of them."""
    counts = result.connections
    words = [", ".join(connection_counts(counts))]
    if counts["inferred"]:
        words.append(
            f"{plural(counts['inferred'], 'connection')} began before the capture: who opened "
            f"{'it' if counts['inferred'] == 1 else 'them'} was inferred, and the rules allowed it"
        )
    if midstream := result.reasons.get("midstream", 0):
        packets = plural(midstream, "denied packet")
        words.append(f"{packets} belonged to TCP connections that the filter does not know (midstream)")
    return [each for each in words if each] or ["none"]


def _write_changes(page: Page, most: int, result: ReplayResult) -> None:
    if not result.changes and not result.changes_left:
        return
    page.line()
    page.heading(changes_heading(result))
    cut = sum(change.disconnected for change in result.changes)
    start = result.first_time_ns or 0
    if result.changes:
        shown = largest_changes(result, most)
        rows = [
            (grouped(change.disconnected), or_unknown(change.came_back), seconds_from(start, change.at_ns),
             printable(change.text))
            for change in shown
        ]  # fmt: skip
        if rows:
            page.table(("cut", "came back", "at", "change"), rows)
        if left := len(result.changes) - len(shown):
            cut_by_rest = cut - sum(change.disconnected for change in shown)
            page.wrapped(
                f"{_more(left, most, 'change')} ({grouped(cut_by_rest)} cut): --top {len(result.changes)} lists all",
                "  ",
            )
    if not most and result.changes:
        return
    followed = [(change, connection) for change in result.changes for connection in change.connections]
    for change, connection in followed[:most]:
        page.hanging("  ", f"{cut_name(connection)}", "bold")
        page.wrapped(f"cut at {seconds_from(start, change.at_ns)}; {cut_end(connection, start)}", "    ")
    if (left := cut - len(followed[:most])) > 0:
        lists = f"--top {len(followed)} lists {'all' if len(followed) == cut else 'more'}"
        page.wrapped(f"and {plural(left, 'more connection')}" + (f": {lists}" if followed[most:] else ""), "  ")
    if after := after_words(result):
        page.wrapped(after, "  ")
    if result.changes_left:
        page.wrapped(f"{plural(result.changes_left, 'change')} would come after the last packet", "  ")


def _packets_after(result: ReplayResult) -> int:
    """How many packets of connections came after a change had cut them."""
    return sum(change.packets_after or 0 for change in result.changes)


def after_words(result: ReplayResult) -> str:
    """The number of packets that came after the cut of their connections; "" if there are none."""
    number = _packets_after(result)
    if not number:
        return ""
    return (
        f"{plural(number, 'packet')} of theirs came after the cut. After a real change such packets could only be "
        "retransmissions, so they are not among the denied packets below."
    )


def largest_changes(result: ReplayResult, most: int) -> list[ChangeDone]:
    """Those that cut most connections, in the order in which they took effect."""
    order = sorted(range(len(result.changes)), key=lambda n: -result.changes[n].disconnected)
    return [result.changes[n] for n in sorted(order[:most])]


def changes_heading(result: ReplayResult) -> str:
    cut = sum(change.disconnected for change in result.changes)
    finished = sum(change.finished or 0 for change in result.changes)
    of_these = f", {grouped(finished)} of which had finished before" if finished else ""
    return f"Changes of the policy: {plural(cut, 'connection')} cut{of_these}"


def or_unknown(number: int | None) -> str:
    return "?" if number is None else grouped(number)


def seconds_from(start_ns: int, at_ns: int) -> str:
    return f"{(at_ns - start_ns) / 1e9:.3f} s"


def cut_name(cut: CutConnection) -> str:
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


def cut_end(cut: CutConnection, start_ns: int) -> str:
    parts = ["had finished"] if cut.finished else []
    if cut.packets_after:
        parts.append(f"{plural(cut.packets_after, 'packet')} came after that")
    if cut.again_ns is None:
        parts.append("not opened again")
        return "; ".join(parts)
    at = seconds_from(start_ns, cut.again_ns)
    if cut.outcome == "denied":
        parts.append(f"tried again at {at}, denied")
    else:
        rules = " and ".join(printable(rule) for rule in (cut.egress_rule, cut.ingress_rule) if rule is not None)
        turned = " opened by the other end," if cut.turned else ""
        parts.append(f"came back at {at},{turned} under {rules}")
    return "; ".join(parts)


def write_notes(page: Page, most: int, result: ReplayResult | DiffResult) -> None:
    """Write the times of the first and last packet, so many warnings, damage and speed."""
    page.line()
    notes = [(label, words, "") for label, words in times_and_tunnels(result)]
    notes += [("Warning", printable(warning), "yellow") for warning in result.warnings[:most]]
    if (more := len(result.warnings) - len(result.warnings[:most])) > 0:
        notes.append(("Warning", f"and {plural(more, 'more warning')}: --json has all", "yellow"))
    if result.damaged is not None:
        notes.append(("Damage", damage_words(result.damaged), "red"))
    notes.append(("Remember", REMINDER, ""))
    if result.packets:
        rate = grouped(round(result.packets_per_second))
        notes.append(("Speed", f"{rate} packets/s ({human_seconds(result.elapsed_seconds)}, without start-up)", ""))
    if isinstance(result, ReplayResult) and result.cluster is not None:
        notes.append(("Cluster", _cluster_text(result.cluster), ""))
    for label, note, style in notes:
        page.hanging(f"{label:14}", note, style)


def damage_words(damage: Damage) -> str:
    return f"{printable(str(damage))}; the report ends there"


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


def times_and_tunnels(result: ReplayResult | DiffResult) -> list[tuple[str, str]]:
    """When the first and the last packet came, and what was taken off packets; each with a label."""
    words = list[tuple[str, str]]()
    if result.first_time_ns is not None and result.last_time_ns is not None:
        duration = human_seconds((result.last_time_ns - result.first_time_ns) / 1e9)
        words += [
            ("First packet", f"{instant(result.first_time_ns)} UTC"),
            ("Last packet", f"{instant(result.last_time_ns)} UTC, {duration} later"),
        ]
    if result.decapsulated is not None:
        words.append(("Tunnels", tunnels_text(result.decapsulated)))
    return words


def tunnels_text(decapsulated: dict[str, int]) -> str:
    """``taken off packets: vxlan 1,200, gre 3``"""
    kinds = sorted(decapsulated.items(), key=lambda item: -item[1])
    return "taken off packets: " + (", ".join(f"{kind} {grouped(n)}" for kind, n in kinds) or "none were found")

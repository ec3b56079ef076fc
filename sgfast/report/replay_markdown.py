"""The report of a replay as Markdown for a pull request. It has the rows and numbers of the text (SPEC 10.24)."""

from __future__ import annotations

from sgfast.replaying import ReplayResult
from sgfast.report.answer_rows import Answers
from sgfast.report.left_out import left_out_words
from sgfast.report.markdown import TOP, capture_words, closing, code, escaped, left_line, more_line, rows_table, table
from sgfast.report.page import NAMED_RULES, grouped, human_bytes, plural
from sgfast.report.rollup import PERHAPS, By, Part
from sgfast.report.text import (
    NO_DENIALS,
    WRONG_POLICY,
    after_words,
    changes_heading,
    connection_words,
    contradiction_words,
    cut_end,
    cut_name,
    largest_changes,
    meant_words,
    or_unknown,
    rules_heading,
    seconds_from,
    times_and_tunnels,
    touches_no_instance,
    used_rules,
    verdict_note,
    without_addresses,
)


def replay_markdown(result: ReplayResult, by: By = "group", top: int | None = None) -> str:
    """``by``: how rows are folded. ``top``: how many rows a table has."""
    most, answers = top or TOP, Answers(result, by)
    lines = [f"### {_headline(result, answers)}", ""]
    lines += [
        f"{plural(result.packets, 'packet')}, {human_bytes(result.bytes)} of {capture_words(result.captures)} against "
        f"{code(result.policy.origin)}; {result.mode}, midstream {result.midstream}"
        + ("" if result.vpc is None else f", VPC {code(result.vpc)}")
        + ("" if result.engine == "fast" else f", {result.engine} engine")
        + ".",
        "",
    ]
    if result.left_out is not None:
        lines += [f"Left out: {left_out_words(result.left_out)}.", ""]
    if result.packets:
        lines += table(
            ("verdict", "packets", "share", "why"),
            (
                (verdict, grouped(packets), f"{100 * packets / result.packets:.1f} %", verdict_note(result, verdict))
                for verdict, packets in result.verdicts.items() if packets or verdict in ("allow", "deny")
            ),
        )  # fmt: skip
    lines += _changes(result, most)
    lines += _list(answers, "would-break", most)
    lines += _expected(result, most)
    if result.engine == "reference":
        lines += [NO_DENIALS, ""]
    lines += _list(answers, "one-way", most)
    if (number := without_addresses(result, answers.rollup)) > 0:
        lines += [f"{plural(number, 'denied packet')} without readable addresses (malformed)", ""]
    lines += _list(answers, "unanswered", most)
    if by != "group":
        lines += _list(answers, "allowed", most)
    lines += _rules(result, most)
    notes = list(map(escaped, connection_words(result))) if result.packets else []
    notes += [f"{label} {words}" for label, words in times_and_tunnels(result)]
    return "\n".join(lines + closing(notes, result.warnings, result.damaged, most)) + "\n"


def _headline(result: ReplayResult, answers: Answers) -> str:
    """In one sentence, without a full stop."""
    if not result.packets:
        return "No packets: nothing to judge"
    if touches_no_instance(result):
        return WRONG_POLICY
    denied = result.verdicts["deny"]
    if result.engine == "reference":
        return f"{plural(denied, 'packet')} denied; the reference engine does not follow what would break"
    broken, one_way, silent = (answers.rollup.total(part) for part in ("would-break", "one-way", "unanswered"))
    perhaps = int(answers.rollup.counts["one-way"][PERHAPS].sum())
    parts = [f"{plural(broken, 'connection')} would break" if broken else "No connection that was answered would break"]
    if cut := sum(change.disconnected for change in result.changes):
        parts.append(f"{plural(cut, 'connection')} cut by changes of the policy")
    if one_way:
        more = f" (and perhaps {grouped(perhaps)} more)" if perhaps else ""
        parts.append(f"nobody answered {plural(one_way - perhaps, 'denied packet')}{more}")
    if silent:
        parts.append(f"{plural(silent, 'allowed connection')} not served")
    return ", ".join(parts)


def _list(answers: Answers, part: Part, most: int) -> list[str]:
    told = answers.listed(part, most)
    if told is None:
        return []
    has_nearest = any(each.nearest for each in told.rows)
    rows = [
        (each.row, (each.amount,), (escaped(each.reason), *((escaped(each.nearest),) if has_nearest else ())))
        for each in told.rows
    ]
    lines = [f"#### {told.heading}", "", f"{plural(answers.rollup.total(part), told.counted[:-1])}", ""]
    lines += rows_table((told.counted,), ("why", *(("nearest rule",) if has_nearest else ())), rows)
    return lines + left_line(told.left, told.every)


def _changes(result: ReplayResult, most: int) -> list[str]:
    if not result.changes and not result.changes_left:
        return []
    lines, start = [f"#### {changes_heading(result)}", ""], result.first_time_ns or 0
    if result.changes:
        changes = (
            (grouped(change.disconnected), or_unknown(change.came_back), seconds_from(start, change.at_ns),
             code(change.text))
            for change in largest_changes(result, most)
        )  # fmt: skip
        lines += table(("cut", "came back", "at", "change"), changes) + more_line(len(result.changes), most, "change")
    followed = [(change, connection) for change in result.changes for connection in change.connections]
    if followed:
        connections = (
            (code(cut_name(connection)), seconds_from(start, change.at_ns), escaped(cut_end(connection, start)))
            for change, connection in followed[:most]
        )
        lines += table(("connection", "cut at", "what became of it"), connections)
        lines += more_line(len(followed), most, "connection")
    if (left := sum(change.disconnected for change in result.changes) - len(followed)) > 0:
        lines += [f"Of {plural(left, 'cut connection')} no more is known", ""]
    if after := after_words(result):
        lines += [after, ""]
    if result.changes_left:
        lines += [f"{plural(result.changes_left, 'change')} would come after the last packet", ""]
    return lines


def _expected(result: ReplayResult, most: int) -> list[str]:
    expected = result.expected
    if expected is None or not (expected.meant or expected.contradicted):
        return []
    lines = [f"#### As {code(expected.origin)} means it, or not", ""]
    if expected.meant:
        lines += [meant_words(expected), ""]
    if expected.contradicted:
        lines += [*(f"- {escaped(contradiction_words(each))}" for each in expected.contradicted[:most]), ""]
    return lines + more_line(len(expected.contradicted), most, "line")


def _rules(result: ReplayResult, most: int) -> list[str]:
    used = used_rules(result)
    lines = [f"#### {rules_heading(result)}", ""]
    if used:
        rows = (
            (grouped(hits.connections), grouped(hits.packets), human_bytes(hits.bytes), code(hits.rule.id),
             code(hits.group))
            for hits in used[:most]
        )  # fmt: skip
        lines += table(("connections", "packets", "bytes", "rule", "group"), rows) + more_line(len(used), most, "rule")
    idle = [hits for hits in result.rules if not hits.packets]
    if idle:
        names = ", ".join(code(hits.rule.id) for hits in idle[:NAMED_RULES])
        more = len(idle[NAMED_RULES:])
        lines += [f"Never hit: {names}" + (f" and {plural(more, 'more rule')}: `--json` has all" if more else ""), ""]
    return lines

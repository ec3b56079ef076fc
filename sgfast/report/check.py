"""The report of ``sgfast check``: the size of the compiled policy, and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgfast.base.evidence import ended
from sgfast.base.names import printable
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Policy, called
from sgfast.policy.rule_text import rule_of_id
from sgfast.questions.checking import CODES, INSTANCE_CODES, SEVERITIES, CheckResult, Finding, Severity, TableSizes
from sgfast.questions.checking.codes import NEVER_HIT, TRAFFIC_CODES, FindingCode
from sgfast.report.amounts import grouped, human_bytes, plural
from sgfast.report.document import (
    Document,
    Item,
    Items,
    Name,
    Paragraph,
    Section,
    Style,
    TableBlock,
    Traffic,
    TrafficRow,
    capture_names,
    more,
    more_of,
    notes,
    warning_items,
)
from sgfast.report.evidence import doubt_about_numbers, evidence_blocks, headline_of
from sgfast.report.log_records import naming, record_blocks, reminder

if TYPE_CHECKING:
    from sgfast.questions.replaying import ReplayResult
    from sgfast.report.rollup import By

#: The most rules that are listed if no packet used them.
NAMED_RULES = 6
#: Default limit of findings in the text. All rules of a group that no packet used count as one finding.
TOP = 100
#: Default limit of rows about connections that used a rule.
USED_ROWS = 3
_STYLES: dict[Severity, Style] = {"error": "red", "warning": "yellow", "note": ""}


def subject_called(policy: Policy, finding: Finding) -> str:
    """Return how reports name the object that the finding is about (SPEC 10.28). A rule's words are in the message."""
    subject, group = finding.subject, policy.group_by_name.get(finding.group or "")
    if finding.rule is not None and group is not None:
        is_named = subject.startswith(f"{group.name}/") and not group.label
        return subject if is_named else f"{subject} in {called(group)}"
    objects = (
        policy.address_group_by_name.get(finding.address_group or ""),
        policy.instance_by_name.get(subject) if finding.code in INSTANCE_CODES else group,
    )
    return next((called(subject_object) for subject_object in objects if subject_object is not None), subject)


def message_words(finding: Finding) -> str:
    """Return the message of a finding, with the numbers of instances and connections that it does not have itself."""
    parts = []
    if finding.rule is not None and finding.members is not None:
        have = f"{plural(finding.members, 'instance')} {'has' if finding.members == 1 else 'have'}"
        parts.append(f"{have if finding.members else 'no instance has'} it")
    if finding.used_connections is not None and finding.code not in TRAFFIC_CODES:
        parts.append(f"{plural(finding.used_connections, 'connection')} used it")
    return "; ".join((finding.message, *([" and ".join(parts)] if parts else [])))


def check_document(
    checked: CheckResult, lines: Lines, *, by: By = "group", findings: int = TOP, most: int = USED_ROWS,
    sized: bool = True,
) -> Document:
    """Return the report. ``by``: how the connections that used a rule are folded. ``findings``: the most findings;
    ``most``: the most rows of these connections. ``sized``: whether the report says how large the policy is.
    """  # fmt: skip
    policy, traffic, listed = checked.policy, checked.traffic, entries(checked, lines)
    blocks = evidence_blocks(checked.evidence)
    if sized:
        blocks.append(Paragraph(_sizes_words(policy, checked.table_sizes)))
    for instance in checked.assumed:
        groups = printable(", ".join(called(policy.group_by_name[name]) for name in instance.security_groups))
        address = instance.addresses[0].network_address
        blocks.append(Paragraph(f"Assumed: {printable(called(instance))}, {address}, as if in {groups}"))
    if traffic is not None:
        from sgfast.report.check_traffic import window_text

        blocks.append(Paragraph(("With ", *capture_names(traffic.captures), f": {window_text(traffic)}")))
        blocks += record_blocks(traffic.records)
        if traffic.damaged is not None:
            blocks.append(Paragraph(f"{printable(str(traffic.damaged))}; what comes after that was not read", "red"))
    shown = listed[:findings]
    rows = [(entry.code, entry.severity, _finding_words(entry)) for entry in shown]
    if rows:
        styles = [_STYLES[entry.severity] for entry in shown]
        blocks.append(TableBlock(("code", "severity", "finding"), rows, 0, styles))
    blocks += more_of(len(listed), findings, "finding")
    blocks += [Paragraph(sentence) for sentence in known_words(checked)]
    used = [_used(traffic, entry, by, most, len(shown)) for entry in shown if traffic is not None]
    last_uses: Sequence[Section] = ()
    if checked.rule_uses:
        from sgfast.report.check_traffic import use_sections

        last_uses = use_sections(policy, checked.rule_uses, findings)
    left_out = list(checked.left_out)
    if traffic is not None:
        from sgfast.questions.replaying.removal import unseen_rules

        left_out = naming(left_out, policy, traffic.records, unseen_rules(traffic), most)
    codes = sorted({entry.code for entry in shown})
    advice = [Section("What to do", [Items([Item(code, CODES[code].advice) for code in codes])])] if codes else []
    return [
        Section(_heading(checked), blocks),
        *(section for sections in used for section in sections), *last_uses, *advice,
        *notes([
            *(Item("Left out", sentence) for sentence in left_out),
            *warning_items(checked.warnings, findings),
            *([] if traffic is None else [Item("Remember", reminder(traffic.records))]),
        ]),
    ]  # fmt: skip


def _heading(checked: CheckResult) -> list[str]:
    words = [Name(checked.policy.origin), f" is valid; findings: {counts_words(checked)}"]
    if checked.evidence.conclusive == "no":
        return [f"{ended(headline_of(checked.evidence, ''))} Without the captures: ", *words]
    doubt = doubt_about_numbers(checked.evidence)
    return [*words, f" ({doubt})"] if doubt else words


def _finding_words(entry: Entry) -> list[str]:
    line_text = "" if entry.line is None else f"line {entry.line}, "
    perhaps = "" if entry.findings[0].certain else "Perhaps: "
    return [perhaps, line_text, Name(entry.subject), f": {printable(entry.message)}"]


def _sizes_words(policy: Policy, tables: TableSizes) -> str:
    counts = (
        (len(policy.security_groups), "security group"), (tables.rules, "rule"), (tables.instances, "instance"),
        (len(policy.vpcs), "VPC"),
    )  # fmt: skip
    addresses, ports = (plural(number, "class", "classes") for number in (tables.address_classes, tables.port_classes))
    large = tables.bit_vector_tables
    as_bits = f" ({grouped(large)} of them bit vectors, as they are large)" if large else ""
    return (
        f"{', '.join(plural(number, noun) for number, noun in counts)}. The rules tell {addresses} of addresses and "
        f"{ports} of protocols and ports apart. Compiled, they are {plural(tables.rule_tables, 'rule table')}{as_bits} "
        f"in {human_bytes(tables.nbytes)} of memory."
    )


def _used(traffic: ReplayResult, entry: Entry, by: By, most: int, findings: int) -> list[Section]:
    """Return a section with the connections that used a rule. ``findings``: the number of listed findings, which the
    hint on more rows keeps.
    """
    finding = entry.findings[0]
    if finding.connections is None:
        return []
    from sgfast.report.check_traffic import used_rows

    folded, unlisted, lists = used_rows(traffic.policy, finding, finding.connections, by, most)
    rows = [TrafficRow(row, row.connections) for row in folded.rows]
    unlisted_blocks = [Paragraph(f"and {unlisted}")] if unlisted else []
    if folded.unlisted_rows:
        unlisted_blocks = more(unlisted, max(folded.every, findings), lists)
    heading = (f"{entry.code}: {plural(finding.connections, 'connection')} used ", Name(entry.subject))
    return [Section(heading, [*([Traffic("connections", rows)] if rows else []), *unlisted_blocks])]


@dataclass(frozen=True, slots=True)
class Entry:
    """A finding in words, or all findings about unused rules of one group. Names in it are not escaped."""

    findings: tuple[Finding, ...]
    #: The subject: an object of the document, whose line is ``line``, or ``all 5 rules of web``.
    subject: str
    line: int | None
    message: str

    @property
    def code(self) -> FindingCode:
        return self.findings[0].code

    @property
    def severity(self) -> Severity:
        return self.findings[0].severity


def entries(checked: CheckResult, lines: Lines) -> list[Entry]:
    """Return the findings that count in words, most severe first."""
    runs: list[list[Finding]] = []
    for finding in checked.findings:
        if not finding.counts:
            continue
        last = runs[-1][0] if runs else None
        if last is not None and finding.code == NEVER_HIT == last.code and finding.group == last.group:
            runs[-1].append(finding)
        else:
            runs.append([finding])
    entries = []
    for run in runs:
        if checked.traffic is not None and len(run) > 1:
            entries.append(_never_hit(run, checked.traffic, lines))
        else:
            entries += [
                Entry((finding,), subject_called(checked.policy, finding), finding.line(lines), message_words(finding))
                for finding in run
            ]
    return entries


def _never_hit(findings: Sequence[Finding], traffic: ReplayResult, lines: Lines) -> Entry:
    group = traffic.policy.group_by_name[findings[0].group or ""]
    rules = len({traffic.policy._first_twin(rule).id for rule in group.rules})
    share = f"all {len(findings)}" if len(findings) == rules else f"{len(findings)} of the {rules}"
    names = []
    for finding in findings[:NAMED_RULES]:
        line = finding.line(lines)
        names.append(rule_of_id(traffic.policy, finding.subject) + (f" (line {line})" if line is not None else ""))
    unnamed = len(findings) - len(names)
    unnamed_text = f" and {plural(unnamed, 'more rule')} (--json has all)" if unnamed else ""
    message = f"none of {plural(traffic.packets, 'packet')} used {', '.join(names)}{unnamed_text}"
    return Entry(tuple(findings), f"{share} rules of {called(group)}", None, message)


def counts_words(checked: CheckResult) -> str:
    """Return ``1 error, 4 notes``, or ``none``."""
    counted = Counter(finding.severity for finding in checked.findings if finding.counts)
    new = "new " if checked.has_baseline else ""
    words = ", ".join(plural(counted[word], f"{new}{word}") for word in SEVERITIES if counted[word])
    return words or ("none is new" if checked.has_baseline else "none")


def known_words(checked: CheckResult) -> list[str]:
    """Return a sentence about the findings that do not count, if there are any."""
    in_baseline = sum(finding.in_baseline for finding in checked.findings)
    accepted = sum(not (finding.counts or finding.in_baseline) for finding in checked.findings)
    parts = [
        *([f"{plural(in_baseline, 'finding')} that the baseline has, too"] if in_baseline else []),
        *([f"{plural(accepted, 'accepted finding')}"] if accepted else []),
    ]
    return [f"Not listed: {' and '.join(parts)} (--json has all)"] if parts else []

"""The report of ``sgfast flowlog``."""

from __future__ import annotations

from ipaddress import ip_address

from sgfast.flow_logs.checking import Disagreement, FlowLogCheck
from sgfast.policy.model import Policy, called
from sgfast.policy.rule_text import rule_of_id
from sgfast.report.amounts import grouped, human_bytes, instant, plural
from sgfast.report.document import NOTES_WIDTH, Document, Item, Items, Name, Paragraph, Section, notes
from sgfast.report.evidence import evidence_blocks, headline_of
from sgfast.report.names import end_name, protocol_word
from sgfast.system.names import printable

#: Maximum number of disagreements in the report; JSON has more.
TOP = 20


def flow_log_document(found: FlowLogCheck) -> Document:
    """Return the report."""
    rows = [("agree", found.agreeing, ""), ("disagree", found.disagreeing, "")]
    if found.disagreeing:
        rows[1] = ("disagree", found.disagreeing, f"{plural(found.packets, 'packet')}, {human_bytes(found.bytes)}")
    rows += [("undecided", number, why) for why, number in found.undecided.most_common()]
    rows += [("out of scope", number, why) for why, number in found.out_of_scope.most_common()]
    rows += [
        (name, number, note)
        for name, number, note in (
            ("no data", found.nodata, "NODATA: an interface without traffic"),
            ("lost", found.skipdata, "SKIPDATA: the cloud recorded nothing, whatever there was"),
            ("broken", found.broken_lines, "lines that are no records"),
        )
        if number
    ]
    counts = [
        Item(f"{name:14}{grouped(number):>12} ", note, "red" if name == "disagree" and number else "")
        for name, number, note in rows
    ]
    times = [
        Item(name, f"{instant(second * 10**9, 0)} UTC")
        for name, second in (("First record", found.first_second), ("Last record", found.last_second))
        if second is not None
    ]
    warnings = [Item("Warning", printable(warning)) for warning in found.policy.warnings]
    heading = (f"{plural(found.records, 'flow log record')} against ", Name(found.policy.origin))
    # Warnings are listed below the times. Without records there are no times, so the warnings need another place.
    beside = [Items(warnings, NOTES_WIDTH)] if warnings and not times else []
    doubts = evidence_blocks(found.evidence)
    first = Section(heading, doubts)
    if found.evidence.conclusive == "no":
        first = Section(headline_of(found.evidence, ""), [*doubts, Paragraph(heading)])
    document = [first, Section("", [Items(counts), *beside], goes_on=True)]
    if found.disagreements:
        blocks = [Paragraph(_line(found.policy, disagreement)) for disagreement in found.disagreements[:TOP]]
        if found.disagreeing > TOP:
            more = found.disagreeing - TOP
            lists = "has all" if found.disagreeing == len(found.disagreements) else "has more"
            blocks.append(Paragraph(f"and {plural(more, 'more record')} (--format json {lists})"))
        document.append(Section("The log says otherwise than the policy", blocks))
    return [*document, *(notes([*times, *warnings]) if times else [])]


def _line(policy: Policy, found: Disagreement) -> str:
    record = found.record
    has_ports = record.sport or record.dport
    ends = [
        end_name(_address(address), port if has_ports else None)
        for address, port in ((record.src, record.sport), (record.dst, record.dport))
    ]
    why = f"{found.reason} {printable(rule_of_id(policy, found.rule))}" if found.rule else found.reason
    instance = printable(called(policy.instance_by_name[found.instance]))
    reply = ", as a reply" if found.role == "reply" else ""
    return (
        f"{printable(found.file)}:{record.line}: {'ACCEPT' if record.accepted else 'REJECT'} "
        f"{protocol_word(record.protocol)} {ends[0]} to {ends[1]}, {found.direction} at {instance}: "
        f"{found.verdict} ({why}{reply})"
    )


def _address(packed: bytes) -> str:
    return str(ip_address(packed))

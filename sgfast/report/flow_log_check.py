"""The output of ``sgfast flowlog``, as text."""

from __future__ import annotations

from ipaddress import ip_address

from sgfast.flow_logs import Checked, Disagreement
from sgfast.policy.protocols import protocol_name
from sgfast.report.amounts import grouped, human_bytes, instant, plural
from sgfast.report.page import Page
from sgfast.system.names import printable

#: Maximum number of disagreements in the text; JSON has more.
TOP = 20


def check_text(found: Checked, *, width: int = 80, colour: bool = False) -> str:
    page = Page(width, colour)
    page.heading(f"{plural(found.records, 'flow log record')} against {printable(found.policy.origin)}")
    page.line()
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
    for name, number, note in rows:
        page.hanging(f"  {name:14}{grouped(number):>12}  ", note, "red" if name == "disagree" and number else "")
    if found.disagreements:
        page.line()
        page.heading("The log says otherwise than the policy")
        for disagreement in found.disagreements[:TOP]:
            page.hanging("  ", _line(disagreement))
        if found.disagreeing > TOP:
            more = found.disagreeing - TOP
            lists = "has all" if found.disagreeing == len(found.disagreements) else "has more"
            page.wrapped(f"and {plural(more, 'more record')} (--format json {lists})", "  ")
    if found.first_second is not None and found.last_second is not None:
        page.line()
        for name, second in (("First record", found.first_second), ("Last record", found.last_second)):
            page.line(f"{name:14}{instant(second * 10**9)[:-7]} UTC")
    for warning in found.policy.warnings:
        page.hanging("Warning       ", printable(warning))
    return page.text()


def _line(found: Disagreement) -> str:
    record = found.record
    ends = [_address(record.src), _address(record.dst)]
    if record.sport or record.dport:
        ends = [_with_port(ends[0], record.sport), _with_port(ends[1], record.dport)]
    service = protocol_name(record.protocol) or f"protocol {record.protocol}"
    why = f"{found.reason} {printable(found.rule)}" if found.rule else found.reason
    reply = ", as a reply" if found.role == "reply" else ""
    return (
        f"{printable(found.file)}:{record.line}: {'ACCEPT' if record.accepted else 'REJECT'} {service} {ends[0]} to "
        f"{ends[1]}, {found.direction} at {found.instance}: {found.verdict} ({why}{reply})"
    )


def _address(packed: bytes) -> str:
    return str(ip_address(packed))


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

"""Words about the evidence of an answer (SPEC 10.27): its headline, and why it is not conclusive."""

from __future__ import annotations

from sgfast.base.evidence import CODES, Evidence, EvidenceReason, ended
from sgfast.report.amounts import grouped
from sgfast.report.document import Block, Item, Items, Name

CANNOT_TELL = "Cannot tell"
#: Styles of reasons by level.
_STYLES = {"no": "red", "partly": "yellow"}
#: Doubts about the numbers of a headline, and those by code that are more precise.
_UNCERTAIN = "not certain, numbers may be too high or too low"
_KNOWN_DOUBTS = {
    "duplicates": "not certain, numbers may be too high", "interrupted": "until the interrupt",
    "unread": "of what could be read",
}  # fmt: skip


def headline_of(evidence: Evidence, found: str, positive: str = "") -> str:
    """Return the headline of an answer. ``found``: what it is if the evidence carries it. ``positive``: what was found
    for certain although the evidence does not carry the whole answer; "" for nothing.
    """
    if evidence.conclusive != "no":
        return qualified(evidence, found)
    reason = f"{CANNOT_TELL}: {evidence.open_reasons[0].sentence}"
    return f"{ended(reason)} Of what could be judged: {positive}" if positive else reason


def qualified(evidence: Evidence, found: str) -> str:
    """Return a headline that begins with the doubt about its numbers, if there is one."""
    doubt = doubt_about_numbers(evidence)
    return f"{doubt[:1].upper()}{doubt[1:]}: {found[:1].lower()}{found[1:]}" if doubt else found


def doubt_about_numbers(evidence: Evidence) -> str:
    """Return the doubt about what was found; "" for none. Findings on what did not occur say how sure they are."""
    codes = [reason.code for reason in evidence.open_reasons if CODES[reason.code] != {"absence"}]
    doubts = {_KNOWN_DOUBTS.get(code, _UNCERTAIN) for code in codes}
    return _UNCERTAIN if len(doubts) > 1 else "".join(doubts)


def evidence_blocks(evidence: Evidence) -> list[Block]:
    """Return what stands above the numbers of a report: a sentence for each reason, and what mends it."""
    return [Items([_item(reason) for reason in evidence.reasons])] if evidence.reasons else []


def _item(reason: EvidenceReason) -> Item:
    accepted = " (accepted)" if reason.accepted else ""
    words = (f"{ended(reason.sentence + accepted)} To mend it: ", Name(reason.command))
    networks = [Item(Name(network), f"{grouped(packets)} packets") for network, packets in reason.networks]
    style = "" if reason.accepted else _STYLES[reason.level]
    return Item(reason.code, words, style, networks)  # type: ignore[arg-type]

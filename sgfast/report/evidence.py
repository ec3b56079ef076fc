"""Words about the evidence of an answer (SPEC 10.27): its headline, and why it is not conclusive."""

from __future__ import annotations

from sgfast.evidence import Evidence, EvidenceReason, ended
from sgfast.report.amounts import grouped
from sgfast.report.document import Block, Item, Items, Name

CANNOT_TELL = "Cannot tell"
#: Styles of reasons by level.
_STYLES = {"no": "red", "partly": "yellow"}


def headline_of(evidence: Evidence, found: str, positive: str = "") -> str:
    """Return the headline of an answer. ``found``: what it is if the evidence carries it. ``positive``: what was found
    for certain although the evidence does not carry the whole answer; "" for nothing.
    """
    if evidence.conclusive != "no":
        return found
    reason = f"{CANNOT_TELL}: {evidence.open_reasons[0].sentence}"
    return f"{ended(reason)} Of what could be judged: {positive}" if positive else reason


def evidence_blocks(evidence: Evidence) -> list[Block]:
    """Return what stands above the numbers of a report: a sentence for each reason, and what mends it."""
    return [Items([_item(each) for each in evidence.reasons])] if evidence.reasons else []


def _item(reason: EvidenceReason) -> Item:
    accepted = " (accepted)" if reason.accepted else ""
    words = (f"{ended(reason.sentence + accepted)} To mend it: ", Name(reason.command))
    networks = [Item(Name(network), f"{grouped(packets)} packets") for network, packets in reason.networks]
    style = "" if reason.accepted else _STYLES[reason.level]
    return Item(reason.code, words, style, networks)  # type: ignore[arg-type]

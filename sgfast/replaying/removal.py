"""Find out whether captures last long enough to show what may be removed from a policy (SPEC 10.27)."""

from __future__ import annotations

from sgfast.evidence import Evidence, EvidenceReason
from sgfast.replaying.results import ReplayResult

#: Days that captures must last, so that weekly jobs, backups and patches are in them.
NEEDED_DAYS = 7
#: The first and the last packet are seldom exactly at the ends of that time: this much may be missing.
SLACK_HOURS = 1


def evidence_for_removal(result: ReplayResult) -> Evidence:
    """Return the evidence of a replay for answers on what may be removed, which rest on its duration, too."""
    if result.first_time_ns is None or result.last_time_ns is None:
        return result.evidence
    seconds, needed = (result.last_time_ns - result.first_time_ns) / 1e9, 24 * 3600 * NEEDED_DAYS
    if seconds >= needed - 3600 * SLACK_HOURS:
        return result.evidence
    sentence = (
        f"the captures last {_lasting(seconds)} and not {NEEDED_DAYS} days, so the traffic of weekly jobs, backups and "
        "patches may be missing"
    )
    command = f"tcpdump -i any -s 0 -G 86400 -W {NEEDED_DAYS} -w %F.pcap, which captures {NEEDED_DAYS} days"
    reason = EvidenceReason("short-window", "partly", result.packets, seconds / needed, sentence, command)
    return Evidence.of([*result.evidence.reasons, reason]).accepting(result.accepted_evidence)


def _lasting(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two, rounded down from minutes on."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"

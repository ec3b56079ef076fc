"""Find out whether captures last long enough to show what may be removed from a policy (SPEC 10.27), and which rules
flow logs do not show in use although they may be (SPEC 10.12).
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from sgfast.base.evidence import Evidence, EvidenceReason
from sgfast.traffic.flow_logs.unlogged import UnseenRule, unlogged_groups, unseen_rule

if TYPE_CHECKING:
    from sgfast.questions.replaying.results import ReplayResult

#: The seconds that captures must last if nobody says how long: 7 days, so that weekly jobs, backups and patches are in
#: them.
DEFAULT_NEED = 7 * 86400.0
#: The first and the last packet are seldom exactly at the ends of that time: this part may be missing, but no more than
#: an hour.
SLACK = 1 / 168


def evidence_for_removal(result: ReplayResult, needed: float = DEFAULT_NEED) -> Evidence:
    """Return the evidence of a replay for answers on what may be removed, which rest on its duration, too. ``needed``:
    the seconds that it must last."""
    if result.first_time_ns is None or result.last_time_ns is None:
        return result.evidence
    records = result.records
    silent = 0 if records is None else 3600 * records.silent_hours
    seconds = (result.last_time_ns - result.first_time_ns) / 1e9 - silent
    if seconds >= needed - min(3600, SLACK * needed):
        return result.evidence
    days = ceil(needed / 86400)
    if needed == DEFAULT_NEED:
        time, missing = f"{days} days", "the traffic of weekly jobs, backups and patches"
    else:
        time, missing = _lasting(needed), "traffic that is rarer"
    traffic = "captures" if records is None else "flow logs"
    without = f", without {_lasting(silent)} of which they have no record," if silent else ""
    sentence = f"the {traffic} last {_lasting(seconds)}{without} and not {time}, so {missing} may be missing"
    length = f"{days} days" if days > 1 else "a day"
    command = f"tcpdump -i any -s 0 -G 86400 -W {days} -w %F.pcap, which captures {length}"
    if records is not None:
        command = f"flow logs of {length}"
    reason = EvidenceReason("short-window", "partly", result.packets, seconds / needed, sentence, command)
    return Evidence.of([*result.evidence.reasons, reason]).accepting(result.accepted_evidence)


def unseen_rules(result: ReplayResult) -> list[UnseenRule]:
    """Return the rules that no record shows in use, although traffic that the logs do not show may use them. Second
    halves of twins (SPEC 2.16) are left out, and so are rules of groups that were not wholly logged.
    """
    policy = result.policy
    unlogged = unlogged_groups(policy, result.records)
    used = {policy._first_twin(hits.rule).id for hits in result.rules if hits.packets or hits.connections}
    rule_of_id: dict[str, UnseenRule] = {}
    for group in policy.security_groups:
        for rule in group.rules if group.name not in unlogged else ():
            first = policy._first_twin(rule)
            unseen = unseen_rule(group.name, rule, result.records, result.openers)
            if unseen is not None and first.id not in used:
                rule_of_id.setdefault(first.id, replace(unseen, rule=first))
    return [*rule_of_id.values()]


def _lasting(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two, rounded down from minutes on."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"

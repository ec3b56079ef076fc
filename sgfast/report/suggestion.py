"""The report of ``sgfast suggest``."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from sgfast.base.names import printable
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule, called
from sgfast.policy.rule_text import rule_name, short
from sgfast.questions.replaying import Service
from sgfast.questions.suggesting import LeftOut, Suggestion
from sgfast.report.amounts import grouped, human_bytes, left_out_counts, plural
from sgfast.report.answer_rows import connection_rows
from sgfast.report.document import (
    Document,
    Item,
    Items,
    Name,
    Paragraph,
    Section,
    TableBlock,
    capture_names,
    damage_items,
    more,
    more_of,
    notes,
    warning_items,
)
from sgfast.report.evidence import evidence_blocks, headline_of
from sgfast.report.log_records import naming, reminder
from sgfast.report.names import protocol_word, service_name
from sgfast.report.rollup import By
from sgfast.report.rollup.observed import ObservedRollup
from sgfast.report.twins import suggested_by_rule, with_first_twins

#: Default limits in the text: of rules, and of rows of traffic left out for one reason. JSON has all rules.
TOP = 30
MOST_LEFT_OUT = 5


def peer_name(rule: Rule) -> str:
    if rule.peer is None:
        return "0.0.0.0/0" if rule.ethertype == 4 else "::/0"
    return rule.peer.name if isinstance(rule.peer, GroupPeer | AddressGroupPeer) else str(rule.peer)


def suggestion_document(
    found: Suggestion, by: By = "group", most: int = TOP, left_out: int = MOST_LEFT_OUT
) -> Document:
    """Return the report. ``by``: how left-out traffic is folded. ``most``: the most rules. ``left_out``: the most rows
    of traffic left out for one reason.
    """
    by_rule, policy = suggested_by_rule(found), found.policy
    by_size = sorted(range(len(by_rule)), key=lambda n: -by_rule[n].evidence.connections)
    shown = [by_rule[n] for n in sorted(by_size[:most])]
    rules = [
        (grouped(line.evidence.connections), human_bytes(line.evidence.bytes),
         (Name(called(policy.group_by_name[line.group])), ": ", printable(suggested_words(policy, line.rule))))
        for line in shown
    ]  # fmt: skip
    unlisted = [by_rule[n].evidence.connections for n in by_size[most:]]
    words = f"{plural(len(unlisted), 'more rule')} ({plural(sum(unlisted), 'connection')})" if unlisted else ""
    table = [TableBlock(("connections", "bytes", "rule"), rules, 2)] if rules else []
    check = ("Replayed with ", *capture_names(found.captures), f", {claim_words(found)}")
    packets: list[tuple[int, str]] = [(number, word) for word, number in found.other_packets.items()]
    packets += [(number, why) for number, why in left_out_counts(found.packets_left_out) if number]
    counts = ", ".join(f"{grouped(number)} {word}" for number, word in packets)
    warnings = naming(found.warnings, policy, found.records, found.unseen_rules or (), left_out)
    return [
        Section(headline(found), [
            *evidence_blocks(found.evidence), Paragraph(check, "" if found.check.matches else "red"), *table,
            *more(words, len(by_rule)),
        ]),
        *_removed_section(found, most),
        *_opened_section(found, most),
        *(_left_out_section(found, excluded, by, left_out, len(shown)) for excluded in found.left_out),
        *notes([
            *([Item("Packets", f"of no connection, or left out: {counts}")] if counts else []),
            *warning_items(warnings, most), *damage_items(found.damaged),
            Item("Remember", reminder(found.records)),
        ]),
    ]  # fmt: skip


def _removed_section(suggestion: Suggestion, most: int) -> list[Section]:
    if not suggestion.removed:
        return []
    names = (rule_name(suggestion.policy, removed.rule, removed.group) for removed in suggestion.removed[:most])
    items = [Item("", Name(name)) for name in names]
    heading = f"Taken away: {plural(len(suggestion.removed), 'rule')} that no packet used"
    return [Section(heading, [Items(items), *more_of(len(suggestion.removed), most, "rule")])]


def _opened_section(suggestion: Suggestion, most: int) -> list[Section]:
    """Return the section of what the suggested policy opens beyond the given one."""
    if suggestion.difference is None or not suggestion.difference.opened:
        return []
    from sgfast.report.difference import difference_words

    policies = {"old": suggestion.difference.old, "new": suggestion.policy}
    rows = with_first_twins(suggestion.difference.opened, policies)
    items = [Item("opens", difference_words(row, policies, most), "red") for row in rows[:most]]
    heading = "Connections that only the suggested policy allows, by the rules alone"
    return [Section(heading, [Items(items), *more_of(len(rows), most, "row")])]


def _left_out_section(suggestion: Suggestion, excluded: LeftOut, by: By, most: int, rules: int) -> Section:
    """Return the section of one reason. ``rules``: the number of listed rules, which the hint on more rows keeps."""
    folded = ObservedRollup(suggestion.policy, excluded.kinds).fold("observed", by=by, most=most)
    heading = f"Left out: {plural(excluded.evidence.connections, 'connection')}: {excluded.reason}"
    return Section(heading, connection_rows(folded, rules))


def headline(suggestion: Suggestion) -> str:
    """Summarise the suggestion in one sentence, without a full stop."""
    groups, instances = len(suggestion.policy.security_groups), len(suggestion.policy.instances)
    rules = len(suggested_by_rule(suggestion))
    if suggestion.kept is not None:
        policy = suggestion.policy
        kept_rules = {policy._first_twin(rule).id for group in policy.security_groups for rule in group.rules}
        words = f"Keeps {plural(len(kept_rules) - rules, 'rule')}, {{}}adds {grouped(rules) if rules else 'none'}"
        removed = grouped(len(suggestion.removed))
        taken_text = f", and takes away {removed} that no packet used" if suggestion.removed else ""
        words = words.format("" if taken_text else "and ") + taken_text
        return headline_of(suggestion.evidence, words, words)
    words = f"{plural(rules, 'rule')} in {plural(groups, 'group')} for {plural(instances, 'instance')}"
    return headline_of(suggestion.evidence, words, words)


def claim_words(suggestion: Suggestion) -> str:
    """Say how many of the connections the suggested policy allows."""
    check, is_kept = suggestion.check, suggestion.kept is not None
    claimed = plural(check.claimed, "connection") + (" that the added rules are for" if is_kept else "")
    other_connections = "others that are denied today" if is_kept else "those left out"
    also = f", and {grouped(check.also_allowed)} of {other_connections}" if check.also_allowed else ""
    return f"the suggested policy allows {grouped(check.allowed)} of {claimed}{also}"


def suggested_words(policy: Policy, rule: Rule) -> str:
    """Return ``tcp/5432 from web (IPv4)``; without the version for a rule that has a twin (SPEC 2.16)."""
    if rule.icmp_type is not None and rule.protocol is not None:
        service = service_name(Service("", rule.protocol, None, rule.icmp_type, 0))
    else:
        service = "all" if rule.protocol is None else protocol_word(rule.protocol)
        if rule.ports is not None:
            service += "/" + ",".join(str(first) if first == last else f"{first}-{last}" for first, last in rule.ports)
    peer = called(policy.group_by_name[rule.peer.name]) if isinstance(rule.peer, GroupPeer) else peer_name(rule)
    peer += "" if rule.id in policy.twins else f" (IPv{rule.ethertype})"
    if isinstance(rule.peer, IPv4Network | IPv6Network):
        peer = short(rule.peer)
    return f"{service} {'from' if rule.direction == 'inbound' else 'to'} {peer}"

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
    largest = sorted(range(len(by_rule)), key=lambda n: -by_rule[n].evidence.connections)[:most]
    shown = [by_rule[n] for n in sorted(largest)]
    rules = [
        (grouped(each.evidence.connections), human_bytes(each.evidence.bytes),
         (Name(called(policy.group_by_name[each.group])), ": ", printable(suggested_words(policy, each.rule))))
        for each in shown
    ]  # fmt: skip
    connections = sum(each.evidence.connections for each in by_rule) - sum(
        each.evidence.connections for each in shown
    )
    unlisted = len(by_rule) - len(shown)
    words = f"{plural(unlisted, 'more rule')} ({plural(connections, 'connection')})" if unlisted else ""
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
        *(_left_out_section(found, each, by, left_out, len(shown)) for each in found.left_out),
        *notes([
            *([Item("Packets", f"of no connection, or left out: {counts}")] if counts else []),
            *warning_items(warnings, most), *damage_items(found.damaged),
            Item("Remember", reminder(found.records)),
        ]),
    ]  # fmt: skip


def _removed_section(found: Suggestion, most: int) -> list[Section]:
    if not found.removed:
        return []
    items = [Item("", Name(rule_name(found.policy, each.rule, each.group))) for each in found.removed[:most]]
    heading = f"Taken away: {plural(len(found.removed), 'rule')} that no packet used"
    return [Section(heading, [Items(items), *more_of(len(found.removed), most, "rule")])]


def _opened_section(found: Suggestion, most: int) -> list[Section]:
    """Return the section of what the suggested policy opens beyond the given one."""
    if found.difference is None or not found.difference.opened:
        return []
    from sgfast.report.difference import difference_words

    policies = {"old": found.difference.old, "new": found.policy}
    rows = with_first_twins(found.difference.opened, policies)
    items = [Item("opens", difference_words(row, policies, most), "red") for row in rows[:most]]
    heading = "Connections that only the suggested policy allows, by the rules alone"
    return [Section(heading, [Items(items), *more_of(len(rows), most, "row")])]


def _left_out_section(found: Suggestion, excluded: LeftOut, by: By, most: int, rules: int) -> Section:
    """Return the section of one reason. ``rules``: the number of listed rules, which the hint on more rows keeps."""
    folded = ObservedRollup(found.policy, excluded.kinds).fold("observed", by=by, most=most)
    heading = f"Left out: {plural(excluded.evidence.connections, 'connection')}: {excluded.reason}"
    return Section(heading, connection_rows(folded, rules))


def headline(found: Suggestion) -> str:
    """Summarise the suggestion in one sentence, without a full stop."""
    groups, instances = len(found.policy.security_groups), len(found.policy.instances)
    rules = len(suggested_by_rule(found))
    if found.kept is not None:
        kept = {found.policy._first_twin(rule).id for group in found.policy.security_groups for rule in group.rules}
        words = f"Keeps {plural(len(kept) - rules, 'rule')}, {{}}adds {grouped(rules) if rules else 'none'}"
        taken = f", and takes away {grouped(len(found.removed))} that no packet used" if found.removed else ""
        words = words.format("" if taken else "and ") + taken
        return headline_of(found.evidence, words, words)
    words = f"{plural(rules, 'rule')} in {plural(groups, 'group')} for {plural(instances, 'instance')}"
    return headline_of(found.evidence, words, words)


def claim_words(found: Suggestion) -> str:
    """Say how many of the connections the suggested policy allows."""
    check, is_kept = found.check, found.kept is not None
    claimed = plural(check.claimed, "connection") + (" that the added rules are for" if is_kept else "")
    others = "others that are denied today" if is_kept else "those left out"
    also = f", and {grouped(check.also_allowed)} of {others}" if check.also_allowed else ""
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

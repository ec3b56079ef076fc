"""Rules that would let rows of "would break" through, as lines of a policy document (SPEC 10.24)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from sgfast.engine import REASONS
from sgfast.policy.matching import Kind
from sgfast.policy.model import Policy
from sgfast.policy.networks import peer_key
from sgfast.policy.profiles import PROFILES
from sgfast.policy.rule_text import rule_in_document
from sgfast.policy.templates import default_group
from sgfast.questions.replaying.listed_kinds import peer_of, service_of
from sgfast.questions.suggesting.missing import missing_rules
from sgfast.questions.suggesting.needs import Winners
from sgfast.questions.suggesting.observing import REPLY_DENIED, TrafficTotals, cannot_be_named
from sgfast.report.rollup import Rollup, RollupRow

#: The most kinds of traffic that are compared with rules for all rows together, the largest kinds of each row first:
#: half a second.
MOST_COMPARED = 20_000
TOO_MUCH = "the rest was not compared with the rules, as there is too much traffic"
NOT_KNOWN = "no rule, as the address or the instance is not known"
NOT_ITS_ADDRESS = "the receiver may lack a rule for the sender's address, which sgfast suggest --keep finds"
NO_DEFAULT = "the document has no group default (SPEC 8.1), and sgfast suggest --keep writes it whole"


@dataclass(frozen=True, slots=True)
class RowRules:
    """The rules that a row lacks."""

    #: The group and the rule as a line of a policy document, such as ``{direction: inbound, protocol: tcp, ...}``.
    added: tuple[tuple[str, str], ...]
    #: Reasons for which no rule lets a part of the row through.
    left_out: tuple[str, ...] = ()


class RuleFinder:
    """Find the rules that rows lack, under the policy with which the replay began."""

    def __init__(self, policy: Policy, rollup: Rollup) -> None:
        self._policy, self._rollup = policy, rollup
        self._comparisons_left = MOST_COMPARED
        self._winners = Winners(policy)
        self._first_port = PROFILES[policy.settings.profile].first_port

    def of(self, row: RollupRow) -> RowRules:
        rows = self._rollup.kinds.rows[row.places]
        rows = rows[rows["broken"] > 0]
        unknown = {TOO_MUCH} if len(rows) > self._comparisons_left else set()
        rows = rows[: self._comparisons_left]
        self._comparisons_left -= len(rows)
        kinds: dict[Kind, TrafficTotals] = {}
        #: The keys of addresses that stand for those of instances with several. Rules for them fit only one of these.
        uncertain: set[object] = set()
        for kind_row in rows:
            kind = self._kind(kind_row, uncertain)
            why = NOT_KNOWN if kind is None else cannot_be_named(kind, self._first_port)
            if REASONS[kind_row["reason"]] == "reply-denied":
                why = REPLY_DENIED
            if kind is None or why is not None:
                unknown.add(why or NOT_KNOWN)
            else:
                kinds.setdefault(kind, TrafficTotals()).add(TrafficTotals(int(kind_row["broken"])))
        missing = missing_rules(self._policy, kinds, winners=self._winners)
        added = []
        for suggested in missing.rules:
            if suggested.rule.direction == "inbound" and peer_key(suggested.rule.peer) in uncertain:
                unknown.add(NOT_ITS_ADDRESS)
            elif self._policy.group_by_name[suggested.group].rules == default_group().rules:
                unknown.add(NO_DEFAULT)
            else:
                added.append((suggested.group, rule_in_document(suggested.rule, self._policy)))
        return RowRules(tuple(added), tuple(sorted(unknown.union(missing.left_out))))

    def _kind(self, row: Any, uncertain: set[object]) -> Kind | None:
        """Return the kind of connections of a row; None if its ends or the policy's instance are not known. Adds the
        sender's address to ``uncertain`` if the sender has others.
        """
        if not row["family"] or row["instance"] < 0:
            return None
        service, (address, owner) = service_of(self._rollup.kinds, row), peer_of(self._rollup.kinds, row)
        instances = self._policy.instance_by_name
        if service.instance not in instances or not (owner is None or owner in instances):
            return None
        peer = ip_address(address)
        # The instance's own address is not counted. It only matters for a rule of the receiver that names addresses.
        networks = [address for address in instances[service.instance].addresses if address.version == peer.version]
        if not networks:        # a change added the address
            return None
        local = networks[0].network_address.packed
        if len(networks) > 1 or networks[0].prefixlen < networks[0].max_prefixlen:
            uncertain.add(peer_key(ip_network(local)))
        port = service.port if service.icmp_type is None else service.icmp_type
        traffic = (service.protocol, port, row["inbound"] != 0, service.icmp_code)
        # A packet that the receiver's filter denied has passed the sender's, so the sender needs no rule.
        if row["inbound"]:
            return Kind(peer.packed, local, owner, service.instance, *traffic)
        return Kind(local, peer.packed, service.instance, owner, *traffic)

"""The rules' verdict on a packet that opens a connection, as far as a flow log record describes one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sgfast.compiler import CompiledPolicy, compile_policy
from sgfast.errors import AmbiguousAddress
from sgfast.policy.model import ICMP, ICMPV6, Policy

#: Memory limit: the maximum number of cached verdicts.
MOST_VERDICTS = 1 << 17

#: ICMP types that cannot open a connection: errors (SPEC 4.6) and replies (SPEC 5.6).
_ICMP_NO_OPENERS = {4: {3, 4, 5, 11, 12, 0, 14, 16, 18}, 6: {*range(128), 129}}


class OpenerVerdict(NamedTuple):
    """The rules' verdict on an opener. ICMP is allowed if the rules allow any type, because records do not have the
    type."""

    allowed: bool
    reason: str
    rule: str | None


class Judge:
    """Evaluate the rules for openers, with a cache of verdicts."""

    def __init__(self, policy: Policy, vpc: str | None) -> None:
        """``vpc``: the VPC in which addresses are looked up; None: all VPCs, or if two own an address, that of the
        instance that a record is about. Raises AmbiguousAddress if two peers of the VPC own an address.
        """
        self._policy = policy
        self._vpc = vpc
        self._compiled: dict[str | None, CompiledPolicy] = {}
        #: Whether the instance's VPC must be known before its addresses are looked up.
        self.needs_vpc = False
        try:
            self.compiled(vpc)
        except AmbiguousAddress:
            if vpc is not None:
                raise
            self.needs_vpc = True
        #: Instances by number, which is the same in every VPC.
        self.instances = policy.instances
        self._verdicts: dict[tuple[object, ...], OpenerVerdict] = {}
        #: Whether each instance's filter is stateful (SPEC 4.13).
        self.is_stateful = [
            all(policy.group_by_name[name].stateful for name in instance.security_groups)
            for instance in self.instances
        ]
        #: ICMP keys, by whether the filter is stateful, and by IP version.
        self._icmp_keys = {
            (stateful, family): _icmp_keys(policy, family, _ICMP_NO_OPENERS[family] if stateful else set())
            for stateful in (False, True) for family in (4, 6)
        }  # fmt: skip

    def compiled(self, vpc: str | None) -> CompiledPolicy:
        """The policy as ``vpc`` sees it, or as all do."""
        if vpc not in self._compiled:
            self._compiled[vpc] = compile_policy(self._policy, vpc)
        return self._compiled[vpc]

    def opener(self, instance: int, inbound: bool, peer: bytes, protocol: int, port: int) -> OpenerVerdict:
        """Judge an opener that enters or leaves the instance. ``port`` is the opener's destination port."""
        key = instance, inbound, peer, protocol, port
        found = self._verdicts.get(key)
        if found is None:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            found = self._verdicts[key] = self._judge_anew(instance, inbound, peer, protocol, port)
        return found

    def _judge_anew(self, instance: int, inbound: bool, peer: bytes, protocol: int, port: int) -> OpenerVerdict:
        here = self.instances[instance]
        classifier = self.compiled(here.vpc if self.needs_vpc else self._vpc).classifier
        other = classifier.owner_of(peer)
        if other >= 0 and not self._policy.connected(here.vpc, self.instances[other].vpc):
            return OpenerVerdict(False, "vpc-isolated", None)
        family = 4 if len(peer) == 4 else 6
        if protocol != (ICMP if family == 4 else ICMPV6):
            return self._verdict_of_rule(classifier.rule_for(instance, inbound, peer, protocol, port))
        keys = self._icmp_keys[self.is_stateful[instance], family]
        kinds = {classifier.rule_for(instance, inbound, peer, protocol, key) for key in keys}
        return max(map(self._verdict_of_rule, sorted(kinds)), key=lambda judgement: judgement.allowed)

    def _verdict_of_rule(self, number: int) -> OpenerVerdict:
        if number < 0:
            return OpenerVerdict(False, "no-rule", None)
        rule = next(iter(self._compiled.values())).rules[number]
        return OpenerVerdict(rule.action == "allow", "rule" if rule.action == "allow" else "deny-rule", rule.id)


def _icmp_keys(policy: Policy, family: Literal[4, 6], left_out: set[int]) -> list[int]:
    """Return keys (as in rule tables) of ICMP types and codes, one for each kind that rules distinguish."""
    protocol = ICMP if family == 4 else ICMPV6
    named = {8 if family == 4 else 128: {0}}
    for group in policy.security_groups:
        for rule in group.rules:
            if rule.ethertype == family and rule.protocol == protocol and rule.icmp_type is not None:
                named.setdefault(rule.icmp_type, {0}).add(rule.icmp_code or 0)
    keys = []
    for kind, codes in named.items():
        if kind not in left_out:
            # Also try a code that no rule names.
            codes.add(next(code for code in (255, 254, *range(256)) if code not in codes or len(codes) == 256))
            keys += [kind << 8 | code for code in codes]
    other = next((kind for kind in range(255, -1, -1) if kind not in named and kind not in left_out), None)
    return keys if other is None else [*keys, other << 8]

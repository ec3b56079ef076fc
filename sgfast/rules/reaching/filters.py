"""Judge packets that open connections by a policy's filters alone, and compile each policy only once for that.

    filters = filters_about(policy, "default", [source, destination])
    filters.judge(source, destination, SingleService(6, 443))    the verdict of an engine without connections

What was compiled is kept with the policy, which never changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from sgfast.base.errors import AmbiguousAddress
from sgfast.core.check_one import SingleChecks
from sgfast.core.dataplane import DataPlane
from sgfast.core.dtypes import RESULT_DTYPE
from sgfast.policy.loaded_policy import LoadedPolicy, having
from sgfast.policy.matching import Address
from sgfast.policy.model import ICMP, ICMPV6, Direction, Instance, Policy, Rule, Timeouts
from sgfast.rows.verdicts import INFRASTRUCTURES, Verdict, verdict_of
from sgfast.rules.compiler import CompiledPolicy, Compiler
from sgfast.rules.reaching.services import SingleService

#: The opener's default source port. No rule checks it (SPEC 4.9), but it identifies DHCP (SPEC 3.2).
CLIENT_PORT = 49152
#: The number of VPCs for which a policy keeps what was compiled. Of more VPCs, the one compiled first is forgotten.
KEPT_VPCS = 4

_SYN = {"S": 2}
#: One thread compiles while the others wait, because they often want the same policy.
_compiling = threading.Lock()


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a compiled policy, which remember no connection."""

    compiled: CompiledPolicy
    #: The VPC to which addresses belong; None: all VPCs.
    vpc: str | None

    @property
    def policy(self) -> Policy:
        return self.compiled.policy

    def owner(self, address: Address) -> Instance | None:
        number = self.compiled.classifier.owner_of(address.packed)
        return None if number < 0 else self.compiled.instances[number]

    def winner(
        self, instance: str, peer: bytes, direction: Direction, family: int, protocol: int, port: int | None,
        icmp_code: int | None = None,
    ) -> Rule | None:  # fmt: skip
        """Return the rule that wins at an instance's filter (SPEC 4.10); None if no rule matches.

        ``port``: the destination port or ICMP type. ``icmp_code``: None stands for codes that no rule names.
        """
        here = self.compiled.numbering.of_instance(self.policy.instance_by_name[instance])
        is_icmp = protocol == (ICMP if family == 4 else ICMPV6)
        codes = (range(255, -1, -1) if icmp_code is None else (icmp_code,)) if is_icmp else (0,)
        for code in codes:
            key = (port or 0) << 8 | code if is_icmp else port or 0
            number = self.compiled.classifier.rule_for(here, direction == "inbound", peer, protocol, key)
            rule = None if number < 0 else self.compiled.rules[number]
            if rule is None or rule.icmp_code in (None, icmp_code):
                return rule
        return None

    def judge(self, src: Address, dst: Address, service: SingleService, sport: int | None = None) -> Verdict:
        """Judge a packet as a new engine does. A data plane is made in microseconds, and forgotten afterwards."""
        plane = DataPlane(
            self.compiled.classifier, timeouts_ns=(1,) * len(fields(Timeouts)), max_connections=1,
            infrastructure=INFRASTRUCTURES.index(self.policy.settings.infrastructure),
        )  # fmt: skip
        protocol, port, icmp_type, icmp_code = service
        row = SingleChecks(plane, {}, _SYN).check(
            src, dst, protocol, None if port is None else CLIENT_PORT if sport is None else sport, port, "S", icmp_type,
            icmp_code, 0, 0,
        )  # fmt: skip
        return verdict_of(np.frombuffer(row, dtype=RESULT_DTYPE)[0], self.compiled.rules, self.compiled.instances)


class CompiledOnce(NamedTuple):
    """A policy as compiled for one VPC."""

    #: A compiler that knows the policy's rules. It is copied before it compiles another policy.
    compiler: Compiler
    #: None if peers of the VPC own one address.
    compiled: CompiledPolicy | None


def filters_about(
    policy: Policy, vpc: str | None, ends: Sequence[Address | Instance], base: Policy | None = None
) -> Filters:
    """Return the filters for packets between two ends. If peers of the VPC own one address, they know only instances
    that have an address of the ends, and of an end that is an instance, only those of its VPC. Raises AmbiguousAddress
    if even then two own an address. ``base``: the policy from which ``policy`` was made for this question.
    """
    compiler, compiled = _compiled_once(base or policy, vpc)
    try:
        if base is not None and base is not policy:
            return Filters(compiler.copy().compile(policy), vpc)
        if compiled is not None:
            return Filters(compiled, vpc)
    except AmbiguousAddress:
        pass
    near = tuple(instance for instance in policy.instances if any(_has_addresses_of(instance, end) for end in ends))
    return Filters(compiler.copy().compile(having(policy, instances=near)), vpc)


def filters_between(policy: Policy, vpc: str, *peers: str) -> Filters:
    """Return the filters as a VPC sees addresses, if only these VPCs are its peers. Two owners of one address, both
    peers of a VPC, are thus told apart.
    """
    instances = tuple(instance for instance in policy.instances if instance.vpc in (vpc, *peers))
    return Filters(_compiled_once(policy, vpc).compiler.copy().compile(having(policy, instances=instances)), vpc)


def _compiled_once(policy: Policy, vpc: str | None) -> CompiledOnce:
    if not isinstance(policy, LoadedPolicy):
        return _compile(policy, vpc)
    if (compiled_once := policy._compiled.get(vpc)) is None:
        with _compiling:
            if (compiled_once := policy._compiled.get(vpc)) is None:
                compiled_once = _compile(policy, vpc)
                if len(policy._compiled) == KEPT_VPCS:
                    del policy._compiled[next(iter(policy._compiled))]
                policy._compiled[vpc] = compiled_once
    return compiled_once


def _compile(policy: Policy, vpc: str | None) -> CompiledOnce:
    compiler = Compiler(vpc)
    try:
        # The compiled policy refers to a copy, because a policy that keeps itself alive is only freed at some later
        # time, by the garbage collector.
        return CompiledOnce(compiler, compiler.compile(copy(policy)))
    except AmbiguousAddress:
        # Refused policies leave nothing behind. This one has the same rules, which take longest.
        compiler.compile(having(policy, instances=()))
        return CompiledOnce(compiler, None)


def _has_addresses_of(instance: Instance, end: Address | Instance) -> bool:
    if isinstance(end, Instance):
        return instance.vpc == end.vpc and any(
            own_network.version == end_network.version and own_network.overlaps(end_network)
            for own_network in instance.addresses for end_network in end.addresses
        )  # fmt: skip
    return any(end in network for network in instance.addresses)

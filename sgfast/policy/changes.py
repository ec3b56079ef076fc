"""Changes to a policy while traffic flows, as values (SPEC 6.1). ``changed_policy`` carries them out."""

from __future__ import annotations

from dataclasses import dataclass

from sgfast.policy.model import Instance, Network, Rule, SecurityGroup


@dataclass(frozen=True, slots=True)
class AddRule:
    """Append a rule to a group. A rule with an empty ``id`` gets the next id that was never used (SPEC 2.5).

    ``group``: the name of the security group.
    ``rule``: the rule.

    For example:

        https = sgfast.Rule("", "inbound", 4, protocol=6, ports=((443, 443),))
        engine.apply(sgfast.AddRule("web", https), now_ns=0)
    """

    group: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class RemoveRule:
    """Remove a rule from a group.

    ``group``: the name of the security group.
    ``rule``: the id of the rule.

    For example:

        engine.apply(sgfast.RemoveRule("web", "web-ssh"), now_ns=0)
    """

    group: str
    rule: str


@dataclass(frozen=True, slots=True)
class ModifyRule:
    """Replace a rule by ``new``, which gets the old rule's id and position; ``new.id`` is ignored (SPEC 9.5).

    ``group``: the name of the security group.
    ``rule``: the id of the old rule.
    ``new``: the new rule.

    For example:

        both = sgfast.Rule("", "inbound", 4, protocol=6, ports=((80, 80), (443, 443)))
        engine.apply(sgfast.ModifyRule("web", "web-http", both), now_ns=0)
    """

    group: str
    rule: str
    new: Rule


@dataclass(frozen=True, slots=True)
class AddMember:
    """Put an instance into another group.

    ``group``: the name of the security group.
    ``instance``: the name of the instance.

    For example:

        engine.apply(sgfast.AddMember("db", "web-1"), now_ns=0)
    """

    group: str
    instance: str


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """Take an instance out of a group.

    ``group``: the name of the security group.
    ``instance``: the name of the instance.

    For example:

        engine.apply(sgfast.RemoveMember("db", "web-2"), now_ns=0)
    """

    group: str
    instance: str


@dataclass(frozen=True, slots=True)
class AddInstance:
    """Add an instance. If it has no groups, it joins ``default``, which is created if it does not exist (SPEC 8.1).

    ``instance``: the instance with its addresses and the names of its groups.

    For example:

        third = sgfast.Instance("web-3", "prod", (ip_network("10.0.0.8/32"),), ("web",))
        engine.apply(sgfast.AddInstance(third), now_ns=0)
    """

    instance: Instance


@dataclass(frozen=True, slots=True)
class RemoveInstance:
    """Remove an instance, with its memberships and addresses.

    ``instance``: the name of the instance.

    For example:

        engine.apply(sgfast.RemoveInstance("db-1"), now_ns=0)
    """

    instance: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give an instance another address or prefix.

    ``instance``: the name of the instance.
    ``address``: an address as a /32 or a /128, or a prefix.

    For example:

        engine.apply(sgfast.AddAddress("web-1", ip_network("10.0.0.7/32")), now_ns=0)
    """

    instance: str
    address: Network


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Take an address or prefix from an instance.

    ``instance``: the name of the instance.
    ``address``: an address as a /32 or a /128, or a prefix.

    For example:

        engine.apply(sgfast.RemoveAddress("web-2", ip_network("10.0.0.9/32")), now_ns=0)
    """

    instance: str
    address: Network


@dataclass(frozen=True, slots=True)
class AddGroup:
    """Add a security group with its rules.

    ``group``: the group with its rules. Rules without an id get one.

    For example:

        engine.apply(sgfast.AddGroup(sgfast.SecurityGroup("quarantine")), now_ns=0)
    """

    group: SecurityGroup


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """Remove a group. This is rejected while an instance is in the group, or a rule of another group names it.

    ``group``: the name of the group.

    For example:

        engine.apply(sgfast.RemoveGroup("old"), now_ns=0)
    """

    group: str


@dataclass(frozen=True, slots=True)
class AddPeering:
    """Peer two VPCs, so that their instances reach each other.

    ``vpc_a``: the name of one VPC.
    ``vpc_b``: the name of the other VPC.

    For example:

        engine.apply(sgfast.AddPeering("prod", "test"), now_ns=0)
    """

    vpc_a: str
    vpc_b: str


@dataclass(frozen=True, slots=True)
class RemovePeering:
    """End the peering of two VPCs.

    ``vpc_a``: the name of one VPC.
    ``vpc_b``: the name of the other VPC.

    For example:

        engine.apply(sgfast.RemovePeering("prod", "dev"), now_ns=0)
    """

    vpc_a: str
    vpc_b: str


@dataclass(frozen=True, slots=True)
class SetAddressGroup:
    """Replace the addresses of an address group.

    ``name``: the name of the address group.
    ``addresses``: all addresses and networks that it has from now on.

    For example:

        engine.apply(sgfast.SetAddressGroup("offices", (ip_network("192.0.2.0/24"),)), now_ns=0)
    """

    name: str
    addresses: tuple[Network, ...]


#: Any change of a policy (SPEC 9.5).
Change = (
    AddRule | RemoveRule | ModifyRule | AddMember | RemoveMember | AddInstance | RemoveInstance | AddAddress
    | RemoveAddress | AddGroup | RemoveGroup | AddPeering | RemovePeering | SetAddressGroup
)  # fmt: skip

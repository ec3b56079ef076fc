"""Find the VPCs that two policies have under different names (SPEC 12.6)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

from sgfast.policy.loaded_policy import having
from sgfast.policy.model import Instance, Policy, Vpc
from sgfast.policy.networks import network_key


def with_vpc_names_of(new: Policy, old: Policy) -> Policy:
    """Return ``old`` in which each VPC has the name that ``new`` has for it, in the same order."""
    names = _names_in(new, old)
    if all(name == old_name for name, old_name in names.items()):
        return old
    return having(
        old,
        vpcs=tuple(replace(vpc, name=names[vpc.name]) for vpc in old.vpcs),
        peerings=frozenset(frozenset(names[name] for name in pair) for pair in old.peerings),
        security_groups=tuple(
            replace(group, vpc=names[group.vpc]) if group.vpc else group for group in old.security_groups
        ),
        instances=tuple(replace(instance, vpc=names[instance.vpc]) for instance in old.instances),
    )


def _names_in(new: Policy, old: Policy) -> dict[str, str]:
    """Return the name in ``new`` of each VPC of ``old``. A VPC that ``new`` does not have gets a name that it does not
    have either.
    """
    names: dict[str, str] = {}
    new_by_id, old_by_id = (_single({vpc.name: vpc.id for vpc in policy.vpcs if vpc.id}) for policy in (new, old))
    for id_, name in old_by_id.items():
        if id_ in new_by_id:
            names[name] = new_by_id[id_]
    used_names = {*names.values()}
    for name in old.vpc_by_name:
        if name not in names and name in new.vpc_by_name and name not in used_names:
            names[name] = name
            used_names.add(name)
    unnamed_vpcs = [vpc for vpc in old.vpcs if vpc.name not in names]
    free = [vpc for vpc in new.vpcs if vpc.name not in used_names]
    names |= _alike(unnamed_vpcs, old.instances, free, new.instances)
    for name in (vpc.name for vpc in unnamed_vpcs if vpc.name not in names):
        # No document has a VPC whose name has blanks.
        names[name] = f"{name} of OLD" if name in new.vpc_by_name else name
    return names


def _single(values: Mapping[str, str]) -> dict[str, str]:
    """Return the key of each value that only one key has."""
    times = Counter(values.values())
    return {value: key for key, value in values.items() if times[value] == 1}


def _alike(
    old: Iterable[Vpc], old_instances: Iterable[Instance], new: Iterable[Vpc], new_instances: Iterable[Instance]
) -> dict[str, str]:
    """Return the pairs of VPCs that have the same instances, or one of them, if no other VPC could be meant."""
    vpcs_by_name = {vpc.name: vpc for vpc in old}, {vpc.name: vpc for vpc in new}
    have: defaultdict[Hashable, list[str]] = defaultdict(list)
    for name, signs in _signs(vpcs_by_name[1], new_instances).items():
        for sign in signs:
            have[sign].append(name)
    pairs = {
        (name, match)
        for name, signs in _signs(vpcs_by_name[0], old_instances).items()
        for sign in signs for match in have.get(sign, ())
        # Different ids are different VPCs, whatever is in them.
        if not (vpcs_by_name[0][name].id and vpcs_by_name[1][match].id)
    }  # fmt: skip
    times = Counter(name for name, _ in pairs), Counter(match for _, match in pairs)
    return {name: match for name, match in pairs if times[0][name] == times[1][match] == 1}


def _signs(vpcs: Mapping[str, Vpc], instances: Iterable[Instance]) -> dict[str, set[Hashable]]:
    """Return the signs by which each VPC is recognised: all its addresses together; and each address with the name, and
    with the id, of the instance that has it.
    """
    signs: dict[str, set[Hashable]] = {}
    addresses: defaultdict[str, set[bytes]] = defaultdict(set)
    for instance in instances:
        if instance.vpc in vpcs:
            for key in map(network_key, instance.addresses):
                addresses[instance.vpc].add(key)
                of_vpc = signs.setdefault(instance.vpc, set())
                words = (("name", instance.name), ("id", instance.id))
                of_vpc.update((kind, word, key) for kind, word in words if word)
    for name, keys in addresses.items():
        signs[name].add(frozenset(keys))
    return signs

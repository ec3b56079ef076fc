"""A policy as nftables rules: a second, naive reading of SPEC 4, straight from the policy and for one instance.

No table, class or trie of sgfast is used. Members of groups are written out as addresses, rules are sorted as SPEC 4.10
says, and the kernel goes through them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sgfast.policy.model import AddressGroupPeer, GroupPeer, Instance, Network, Policy, Rule

FAMILY = {4: "ipv4", 6: "ipv6"}
ADDRESS = {4: "ip", 6: "ip6"}


#: A connection's mark: it is disconnected (SPEC 6.3).
DISCONNECTED = 1


def forward_filter(policy: Policy, instance: str, *, inside: str, outside: str, isolate: bool = True) -> str:
    """The filter of a machine between an instance and the network, by the names of its two devices.

    Other VPCs are looked at before connections are: what is isolated from them refreshes none (SPEC 3.6, 5.3). Without
    ``isolate`` they are not, only the rules.
    """
    ways = f'iifname "{outside}"', f'iifname "{inside}"'
    chains = [("forward", "filter", "drop", _chain(policy, instance, *ways))]
    raw = _isolation(policy, instance, *ways) if isolate else []
    if _is_stateless(policy, instance):
        raw.append("notrack")
    if raw:
        chains.append(("prerouting", "raw", "accept", raw))
    return _table(chains)


def host_filter(policy: Policy, instance: str, *, device: str) -> str:
    """The filter of the instance's own machine, on its one device. Neighbour discovery passes (SPEC 3.2)."""
    exempt = "icmpv6 type { 130, 131, 132, 133, 134, 135, 136, 137, 143 } accept"
    chains = []
    for hook, name, ways in (("input", "iifname", ("", None)), ("output", "oifname", (None, ""))):
        lines = [*_isolation(policy, instance, *ways), *_chain(policy, instance, *ways)]
        chains.append((hook, "filter", "drop", [exempt, f'{name} != "{device}" accept', *lines]))
    return _table(chains)


def _table(chains: list[tuple[str, str, str, list[str]]]) -> str:
    """By chain: hook, priority, what becomes of the rest, and lines. As one transaction, whatever was there before."""
    text = "flush ruleset\ntable inet security_groups {\n"
    for hook, priority, rest, lines in chains:
        text += f"  chain {hook} {{\n    type filter hook {hook} priority {priority}; policy {rest};\n"
        text += "".join(f"    {line.strip()}\n" for line in lines)
        text += "  }\n"
    return text + "}\n"


def _isolation(policy: Policy, name: str, inbound: str | None, outbound: str | None) -> list[str]:
    """``inbound`` and ``outbound`` tell a packet's direction, None: none goes that way here."""
    here = policy.instance_by_name[name]

    def isolated(other: Instance) -> bool:
        return other is not here and not policy.connected(here.vpc, other.vpc)

    lines = []
    for way, side in ((inbound, "saddr"), (outbound, "daddr")):
        if way is not None:
            lines += [f"{way} {addresses} drop" for addresses in _owned(policy, isolated, (4, 6), side)]
    return lines


def _is_stateless(policy: Policy, name: str) -> bool:
    return not all(policy.group_by_name[group].stateful for group in policy.instance_by_name[name].security_groups)


def _chain(policy: Policy, name: str, inbound: str | None, outbound: str | None) -> list[str]:
    """Connections, if the groups are stateful, then the rules in order."""
    here = policy.instance_by_name[name]
    vpcs = policy.vpc_by_name
    lines = [f"ct mark {DISCONNECTED} drop", "ct state invalid drop", "ct state established,related accept"]
    if _is_stateless(policy, name):
        lines = []
    groups = [group for group in policy.security_groups if group.name in here.security_groups]
    rules = [rule for group in groups for rule in group.rules]
    for rule in sorted(rules, key=lambda rule: (rule.priority, rule.action != "deny")):
        way, side = (inbound, "saddr") if rule.direction == "inbound" else (outbound, "daddr")
        if way is None:
            continue
        for peer in _peers(policy, rule, here, side, {v: vpcs[v].region for v in vpcs}):
            verdict = "accept" if rule.action == "allow" else "drop"
            lines.append(f"{way} meta nfproto {FAMILY[rule.ethertype]} {_protocol(rule)} {peer} {verdict}")
    return lines


def _protocol(rule: Rule) -> str:
    if rule.protocol is None:
        return ""
    text = f"meta l4proto {rule.protocol}"
    if rule.ports is not None:
        text += " th dport { " + ", ".join(f"{first}-{last}" for first, last in rule.ports) + " }"
    if rule.icmp_type is not None:
        name = "icmp" if rule.ethertype == 4 else "icmpv6"
        text += f" {name} type {rule.icmp_type}"
        if rule.icmp_code is not None:
            text += f" {name} code {rule.icmp_code}"
    return text


def _peers(policy: Policy, rule: Rule, here: Instance, side: str, region: dict[str, str]) -> Iterator[str]:
    match rule.peer:
        case None:
            yield ""
        case GroupPeer(group):

            def is_member(other: Instance) -> bool:
                return (
                    group in other.security_groups
                    and region[other.vpc] == region[here.vpc]
                    and policy.connected(here.vpc, other.vpc)
                )

            yield from _owned(policy, is_member, (rule.ethertype,), side)
        case AddressGroupPeer(name):
            for network in policy.address_group_by_name[name].addresses:
                if network.version == rule.ethertype:
                    yield _within(network, side)
        case network:
            yield _within(network, side)


def _within(network: Network, side: str) -> str:
    # `0.0.0.0/0` is no address to nft.
    return f"{ADDRESS[network.version]} {side} {network}" if network.prefixlen else ""


def _owned(
    policy: Policy, wanted: Callable[[Instance], bool], families: tuple[int, ...], side: str
) -> Iterator[str]:
    """The addresses of the wanted instances: the longest prefix owns an address (SPEC 2.6)."""
    owned = [(network, instance) for instance in policy.instances for network in instance.addresses]
    for network, instance in owned:
        if network.version not in families or not wanted(instance):
            continue
        others = [
            other for other, owner in owned
            if other.version == network.version and other != network and other.subnet_of(network)  # type: ignore[arg-type]
            and not wanted(owner)
        ]  # fmt: skip
        text = f"meta nfproto {FAMILY[network.version]} {_within(network, side)}"
        yield text + "".join(f" {ADDRESS[other.version]} {side} != {other}" for other in others)

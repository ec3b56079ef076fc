"""The keys of the documents that people write, each with what an editor says of it (SPEC 2, 9.5).

The readers accept these keys and no others, and list them in this order. ``schemas`` makes JSON Schemas of them.
"""

from __future__ import annotations

_NAME = "The name, by which the document refers to it: 1 to 64 letters, digits and _ - ."
_ID = "The provider's id for it. Nothing that is judged depends on it."
_LABEL = "The provider's name for it, where that cannot be the name here."
_DESCRIPTION = "For people: up to 255 characters, without < and >."

DOCUMENT_FIELDS = {
    "version": "The version of the format: 1.",
    "quotas": "How many groups an account, and how many rules a group may have.",
    "settings": "How the cloud's filters behave. What is left out has the profile's default.",
    "vpcs": "The virtual networks. Without this section there is one, named default.",
    "peerings": "Pairs of VPCs between which packets may pass.",
    "address_groups": "Named lists of addresses, for rules.",
    "security_groups": "The groups of rules.",
    "instances": "What the groups protect: a network interface each.",
}
QUOTA_FIELDS = {
    "security_groups": "How many security groups the account may have.",
    "rules_per_group": "How many rules a group may have, those of its template included.",
}
SETTING_FIELDS = {
    "profile": "The cloud whose defaults apply to all that is not written here.",
    "timeouts": "After how many seconds without an allowed packet a connection ends.",
    "on_change": "What a change of a group does to its members' connections.",
    "max_connections": "How many connections are remembered.",
    "infrastructure": "Whether rules apply to DHCP, neighbour discovery and multicast listeners.",
    "group_members": "Whether a rule that names a group is for what its members own, or for their addresses.",
}
TIMEOUT_FIELDS = {
    "tcp_established": "Established TCP connections.",
    "tcp_fin_wait": "TCP in the state FIN-WAIT.",
    "tcp_other": "TCP in every other state.",
    "icmp": "ICMP and ICMPv6.",
    "bidirectional": "Other protocols, once packets were allowed in both directions.",
    "unidirectional": "Other protocols, while packets were allowed in one direction only.",
}
VPC_FIELDS = {
    "name": _NAME,
    "id": _ID,
    "label": _LABEL,
    "region": "The region, any word. VPCs without one share one.",
    "vni": "The network identifier, or several, that marks its packets in VXLAN and Geneve.",
    "vlan": "The VLAN, or several, that marks its packets.",
    "interface": "The interface of a pcapng file, or several, that marks its packets: a name or a number.",
    "file": "The capture, or several, that has its packets: a name or a pattern of names.",
}
ADDRESS_GROUP_FIELDS = {
    "name": _NAME,
    "id": _ID,
    "label": _LABEL,
    "addresses": "Its addresses and CIDRs. An empty list is allowed.",
}
GROUP_FIELDS = {
    "name": _NAME,
    "id": _ID,
    "label": _LABEL,
    "description": _DESCRIPTION,
    "stateful": "false: its members' filters remember no connections, so replies need rules, too.",
    "template": "A template, whose rules come first.",
    "fast_add": "Names of common services. The rules that allow them come after those of the template.",
    "rules": "Its rules. Without any, nothing is allowed.",
}
RULE_FIELDS = {
    "direction": "inbound or outbound, as the group's members see it.",
    "ethertype": "IPv4 or IPv6. Left out, it follows the address or the protocol, and is otherwise IPv4.",
    "protocol": "all, a protocol's name, or its number.",
    "ports": 'Destination ports: 22, 22-30 or "22,80,8000-8080". Left out, all of them.',
    "source": "Of an inbound rule: an address, a CIDR, or the name of a group. Left out, any address.",
    "destination": "Of an outbound rule: an address, a CIDR, or the name of a group. Left out, any address.",
    "icmp_type": "The ICMP type. Left out, all of them.",
    "icmp_code": "The ICMP code, with a type. Left out, all of them.",
    "action": "allow or deny. The default is allow.",
    "priority": "1 to 100; 1 is looked at first, and is the default. Of equal ones, deny wins.",
    "description": _DESCRIPTION,
    "id": "The rule's id. Left out, it is GROUP/DIRECTION/NUMBER.",
}
PEER_FIELDS = {
    "cidr": "An address or a CIDR.",
    "group": "The name of a security group.",
    "address_group": "The name of an address group.",
}
INSTANCE_FIELDS = {
    "name": _NAME,
    "id": _ID,
    "device": "The provider's id of the machine that the network interface belongs to.",
    "label": _LABEL,
    "vpc": "The name of its VPC. It may be left out where there is only one.",
    "addresses": "Its addresses. A CIDR stands for a router, or for whatever else has all of these.",
    "security_groups": "The names of its groups. Without any, it is in the group default.",
}

CHANGES_FIELDS = {
    "changes": "What changes while the capture goes on.",
    "version": "The version of the format: 1.",
}
AT = "When: seconds after the first packet, or an instant like 2026-01-31T12:00:00Z."
_GROUP = "The security group, by its name, id or label."
_INSTANCE = "The instance, by its name, id or label, or by its machine's id."
_RULE = "The rule's id."
#: The possible changes: the title of each operation, and its fields. ``a|b`` is one field with two names.
CHANGE_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "add_rule": ("Add a rule to a group.", {"group": _GROUP, "rule": "The new rule."}),
    "remove_rule": ("Remove a rule from a group.", {"group": _GROUP, "rule": _RULE}),
    "modify_rule": (
        "Change fields of a rule.",
        {"group": _GROUP, "rule": _RULE, "set": "The fields that change. null stands for one that is left out."},
    ),
    "add_member": ("Put an instance into a group.", {"group": _GROUP, "instance": _INSTANCE}),
    "remove_member": ("Take an instance out of a group.", {"group": _GROUP, "instance": _INSTANCE}),
    "add_instance": ("Add an instance, written as in a policy.", INSTANCE_FIELDS),
    "remove_instance": ("Remove an instance.", {"instance|name": _INSTANCE}),
    "add_address": (
        "Give an instance another address.", {"instance": _INSTANCE, "address": "The new address or CIDR."},
    ),
    "remove_address": (
        "Take an address from an instance.", {"instance": _INSTANCE, "address": "One of its addresses or CIDRs."},
    ),
    "add_group": ("Add a security group, written as in a policy.", GROUP_FIELDS),
    "remove_group": ("Remove a security group.", {"group|name": _GROUP}),
    "add_peering": ("Peer two VPCs.", {}),
    "remove_peering": ("Peer two VPCs no longer.", {}),
    "set_address_group": (
        "Set the addresses of an address group.",
        {"name|address_group": "The address group, by its name, id or label.", "addresses": "All its new addresses."},
    ),
}  # fmt: skip

EXPECTATIONS_FIELDS = {
    "expect": "What the policy is meant to allow and to deny.",
    "version": "The version of the format: 1.",
}
_END = "a security group, an instance, an address group, a CIDR, an address, internet or any; or a list of these."
EXPECTATION_FIELDS = {
    "from": f"Who opens the connection: {_END}",
    "to": f"To whom: {_END}",
    "service": 'A service such as tcp/443, udp/53, "tcp/80,8000-8080", icmp or all; or a list of these.',
    "verdict": "Whether it is meant to be allowed or denied.",
    "name": "A name for reports, which no other expectation has.",
    "why": "Why, for whoever sees it fail.",
}

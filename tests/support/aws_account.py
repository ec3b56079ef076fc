"""A small AWS account, as ``aws ec2 describe-…`` lists it: a load balancer in the group lb and two servers in web."""

from __future__ import annotations

from typing import Any

LB, WEB, NOBODY = "sg-0000000a", "sg-0000000b", "sg-0000000c"
LB_IPV4, WEB_IPV4, LB_IPV6, WEB_IPV6 = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"


def permission(port: int, group: str = "", **peers: list[dict[str, str]]) -> dict[str, Any]:
    """Return a permission for a TCP port, from or to a group or other peers (``IpRanges``, ``PrefixListIds``)."""
    made: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peers}
    return made | ({"UserIdGroupPairs": [{"GroupId": group}]} if group else {})


def account(
    inbound: list[dict[str, Any]], outbound: list[dict[str, Any]] | None = None, *, dual_stack: bool = True
) -> dict[str, Any]:
    """Return the account. ``inbound``: the permissions of web. ``outbound``: those of lb."""
    rules = {LB: ([], [permission(80, WEB)] if outbound is None else outbound), WEB: (inbound, []), NOBODY: ([], [])}
    groups = [
        {"GroupId": id, "GroupName": name, "VpcId": "vpc-0000000a", "IpPermissions": rules[id][0],
         "IpPermissionsEgress": rules[id][1]}
        for id, name in ((LB, "lb"), (WEB, "web"), (NOBODY, "nobody"))
    ]  # fmt: skip
    addresses = ((LB, LB_IPV4, LB_IPV6), (WEB, WEB_IPV4, WEB_IPV6), (WEB, "10.0.0.3", "2001:db8::3"))
    interfaces = [
        {"NetworkInterfaceId": f"eni-0000000{n}", "VpcId": "vpc-0000000a", "Groups": [{"GroupId": group}],
         "PrivateIpAddresses": [{"PrivateIpAddress": four}],
         "Ipv6Addresses": [{"Ipv6Address": six}] if dual_stack else []}
        for n, (group, four, six) in enumerate(addresses)
    ]  # fmt: skip
    return {"SecurityGroups": groups, "NetworkInterfaces": interfaces}

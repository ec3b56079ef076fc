"""VPCs that reach each other over transit gateways: which pairs become peerings (SPEC 7.2, 10.17)."""

from __future__ import annotations

import random
from ipaddress import ip_network
from itertools import combinations
from typing import Any

import pytest
from effort import some
from test_import_aws import policy_of

from sgfast.base.errors import PolicyError
from sgfast.clouds.aws import transit as aws_transit

HUB, SPOKES = "tgw-rtb-00000000000000aaa", "tgw-rtb-00000000000000bbb"
UNKNOWN = "The files lack routes of a transit gateway, so VPCs may count as reachable over it that are not"
ONE_WAY = "Not peered over a transit gateway, because routes lead only one way and nothing could be answered"

Files = dict[str, Any]


def vpc(name: str, *blocks: str) -> dict[str, Any]:
    """A VPC as ``describe-vpcs`` prints it."""
    fours = [block for block in blocks if ":" not in block]
    return {
        "VpcId": name, "CidrBlock": fours[0],
        "CidrBlockAssociationSet": [
            {"CidrBlock": block, "CidrBlockState": {"State": "associated"}} for block in fours
        ],
        "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": block, "Ipv6CidrBlockState": {"State": "associated"}} for block in blocks if ":" in block
        ],
    }  # fmt: skip


def attached(*vpcs: str, gateway: str = "tgw-1", **more: str) -> list[dict[str, Any]]:
    """Make the output of ``describe-transit-gateway-vpc-attachments``. The attachment of vpc-a is att-a."""
    return [
        {
            "TransitGatewayAttachmentId": f"att-{each[-1]}", "TransitGatewayId": gateway, "VpcId": each,
            "VpcOwnerId": "111122223333", "State": "available", "SubnetIds": ["subnet-1"], "Options": {},
        } | more
        for each in vpcs
    ]  # fmt: skip


def resources(*vpcs: str, state: str) -> list[dict[str, str]]:
    """The objects of ``get-transit-gateway-route-table-associations`` and ``…-propagations``."""
    return [
        {
            "TransitGatewayAttachmentId": f"att-{each[-1]}", "ResourceId": each, "ResourceType": "vpc", "State": state,
        }
        for each in vpcs
    ]  # fmt: skip


def associations(*vpcs: str) -> dict[str, Any]:
    return {"Associations": resources(*vpcs, state="associated")}


def propagations(*vpcs: str) -> dict[str, Any]:
    return {"TransitGatewayRouteTablePropagations": resources(*vpcs, state="enabled")}


def route(cidr: str, to: str = "", kind: str = "static") -> dict[str, Any]:
    """A route as ``search-transit-gateway-routes`` prints it; to no VPC: a blackhole."""
    ends = [{"ResourceId": to, "TransitGatewayAttachmentId": f"att-{to[-1]}", "ResourceType": "vpc"}] if to else []
    state = "active" if to else "blackhole"
    return {"DestinationCidrBlock": cidr, "TransitGatewayAttachments": ends, "Type": kind, "State": state}


def routes(*found: dict[str, Any]) -> dict[str, Any]:
    return {"Routes": [*found], "AdditionalRoutesAvailable": False}


def route_table(of: str, *found: tuple[str, str]) -> dict[str, Any]:
    """A table of ``describe-route-tables`` with routes to gateways, and one that stays in the VPC."""
    return {
        "RouteTableId": f"rtb-{of}", "VpcId": of, "Associations": [],
        "Routes": [
            {"DestinationCidrBlock": "10.1.0.0/16", "GatewayId": "local", "State": "active"},
            *({"DestinationCidrBlock": cidr, "TransitGatewayId": to, "State": "active"} for cidr, to in found),
        ],
    }  # fmt: skip


#: A hub with shared services and two spokes that must not meet.
BASE: Files = {
    "vpcs.json": {
        "Vpcs": [
            vpc("vpc-a", "10.1.0.0/16"), vpc("vpc-b", "10.2.0.0/16", "2001:db8:2::/56"), vpc("vpc-c", "10.3.0.0/16"),
        ],
    },
    "attachments.json": {"TransitGatewayVpcAttachments": attached("vpc-a", "vpc-b", "vpc-c")},
}  # fmt: skip
TABLES: Files = {
    f"associations-{HUB}.json": associations("vpc-a"),
    f"associations-{SPOKES}.json": associations("vpc-b", "vpc-c"),
    f"propagations-{HUB}.json": propagations("vpc-a", "vpc-b", "vpc-c"),
    f"propagations-{SPOKES}.json": propagations("vpc-a"),
    f"{HUB}.json": routes(),
    f"{SPOKES}.json": routes(),
}


def everything() -> list[dict[str, Any]]:
    """The documents of all kinds, in which tables are named beside their content."""
    beside = [
        value | {"TransitGatewayRouteTableId": HUB if HUB in name else SPOKES} for name, value in TABLES.items()
    ]
    beside[4] |= routes(route("10.2.0.0/16", "vpc-b"))
    return [*BASE.values(), *beside, {"RouteTables": [route_table("vpc-a", ("0.0.0.0/0", "tgw-1"))]}]


def found(files: Files) -> tuple[set[str], tuple[str, ...]]:
    """The peered VPCs, as "ab", and the warnings."""
    policy = policy_of(*files.items())
    pairs = {"".join(sorted(name[-1] for name in pair)) for pair in policy.peerings}
    return pairs, tuple(warning for warning in policy.warnings if not warning.startswith("No file holds"))


def test_without_route_tables_all_vpcs_of_a_gateway_reach_each_other() -> None:
    pairs, warnings = found(BASE)
    assert (pairs, warnings) == ({"ab", "ac", "bc"}, (f"{UNKNOWN}: transit gateway tgw-1.",))
    # Associations alone do not say where the tables lead.
    told = {name: value for name, value in TABLES.items() if "associations" in name}
    assert found(BASE | told)[0] == {"ab", "ac", "bc"}
    assert found({"one.json": attached("vpc-a")}) == (set(), ())


def test_gateways_are_apart() -> None:
    two = {"attachments.json": attached("vpc-a", "vpc-b") + attached("vpc-c", gateway="tgw-2")}
    assert found(BASE | two)[0] == {"ab"}


def test_attachments_that_do_not_work_count_for_nothing() -> None:
    for state in ("pendingAcceptance", "deleted", "failed", "rejected"):
        assert found({"attachments.json": attached("vpc-a") + attached("vpc-b", State=state)}) == (set(), ())
    peering = {
        "TransitGatewayAttachmentId": "att-9", "TransitGatewayId": "tgw-1", "ResourceType": "peering",
        "ResourceId": "tgw-2", "State": "available",
    }  # fmt: skip
    pairs, warnings = found({"attachments.json": [*attached("vpc-a", "vpc-b"), peering]})
    assert pairs == {"ab"}
    assert any(warning.startswith("VPCs behind another transit gateway count as not reachable") for warning in warnings)


def test_the_listing_of_all_attachments_has_their_tables() -> None:
    tables = {"vpc-a": HUB, "vpc-b": SPOKES, "vpc-c": SPOKES}
    listed = [
        {
            "TransitGatewayAttachmentId": f"att-{each[-1]}", "TransitGatewayId": "tgw-1", "ResourceOwnerId": "1",
            "ResourceType": "vpc", "ResourceId": each, "State": "available",
            "Association": {"TransitGatewayRouteTableId": table, "State": "associated"},
        }
        for each, table in tables.items()
    ]  # fmt: skip
    files = {name: value for name, value in (BASE | TABLES).items() if "associations" not in name}
    both = files | {"all.json": {"TransitGatewayAttachments": listed}}
    assert found(both) == ({"ab", "ac"}, ())
    del both["attachments.json"]
    assert found(both) == ({"ab", "ac"}, ())
    # One that has no table reaches nothing.
    del listed[0]["Association"]
    assert found(both) == (set(), (f"{ONE_WAY}: VPCs vpc-a and vpc-b, VPCs vpc-a and vpc-c.",))
    # Where its table is only in none of the files, it may reach all.
    files["attachments.json"] = attached("vpc-a", "vpc-b", "vpc-c")
    files |= {name: value for name, value in TABLES.items() if "associations" in name and SPOKES in name}
    assert found(files) == ({"ab", "ac"}, (f"{UNKNOWN}: transit gateway tgw-1.",))


def test_a_gateways_default_table_is_that_of_all_its_attachments() -> None:
    files = {name: value for name, value in (BASE | TABLES).items() if "associations" not in name}
    options = {"DefaultRouteTableAssociation": "enable", "AssociationDefaultRouteTableId": SPOKES}
    arn = "arn:aws:ec2:eu-west-1:111122223333:transit-gateway/tgw-1"
    gateways = {"TransitGateways": [{"TransitGatewayId": "tgw-1", "TransitGatewayArn": arn, "Options": options}]}
    tables = {
        "TransitGatewayRouteTables": [
            {"TransitGatewayRouteTableId": SPOKES, "TransitGatewayId": "tgw-1", "DefaultAssociationRouteTable": True},
            {"TransitGatewayRouteTableId": HUB, "TransitGatewayId": "tgw-1", "DefaultAssociationRouteTable": False},
        ]
    }
    for told in (gateways, tables, gateways["TransitGateways"], tables["TransitGatewayRouteTables"]):
        pairs, warnings = found(files | {"told.json": told})
        # All may send to vpc-a, and it to none.
        assert pairs == set()
        assert warnings == (f"{ONE_WAY}: VPCs vpc-a and vpc-b, VPCs vpc-a and vpc-c.",)


@pytest.mark.parametrize(
    ("spokes", "pairs"),
    [
        ([route("10.3.0.0/16", "vpc-c"), route("10.2.0.0/16", "vpc-b")], {"ab", "ac", "bc"}),
        ([route("10.0.0.0/8", "vpc-c")], {"ab", "ac"}),  # to vpc-c, but not back to vpc-b
        ([route("10.0.0.0/8", "vpc-b"), route("10.3.7.0/24", "vpc-c")], {"ab", "ac", "bc"}),  # a part is enough
        ([route("10.1.0.0/16")], set()),  # a static route beats the propagated one
        ([route("10.1.0.0/17")], {"ab", "ac"}),  # half of it is left
        ([route("10.1.0.0/17"), route("10.1.128.0/17")], set()),
        ([route("10.0.0.0/8")], {"ab", "ac"}),  # less specific than what is propagated
        ([route("10.1.0.0/16", "vpc-c")], set()),
        ([route("2001:db8:2::/64", "vpc-b"), route("10.3.0.0/16", "vpc-c")], {"ab", "ac", "bc"}),
        ([route("2001:db8:3::/64", "vpc-b"), route("10.3.0.0/16", "vpc-c")], {"ab", "ac"}),
    ],
)
def test_the_most_specific_route_counts(spokes: list[Any], pairs: set[str]) -> None:
    assert found(BASE | TABLES | {f"{SPOKES}.json": routes(*spokes)})[0] == pairs


def test_a_vpc_between_all_others_is_told() -> None:
    """The spokes send everything to vpc-a, where a firewall may send it on: they are not peered, and that is told."""
    through = BASE | TABLES | {f"{SPOKES}.json": routes(route("0.0.0.0/0", "vpc-a"), route("2001:db8::/32", "vpc-a"))}
    pairs, warnings = found(through)
    told = "A transit gateway sends a VPC more than its own addresses, and where that goes on to is not followed"
    assert (pairs, warnings) == ({"ab", "ac"}, (f"{told}: VPC vpc-a.",))
    own = BASE | TABLES | {f"{SPOKES}.json": routes(route("10.1.0.0/16", "vpc-a"), route("10.1.7.0/24", "vpc-a"))}
    assert found(own) == ({"ab", "ac"}, ())


def test_a_vpc_sends_only_what_its_own_route_tables_send() -> None:
    def with_tables(*tables: dict[str, Any]) -> set[str]:
        return found(BASE | TABLES | {"tables.json": {"RouteTables": [*tables]}})[0]

    assert with_tables(route_table("vpc-a", ("10.2.0.0/15", "tgw-1"))) == {"ab", "ac"}
    assert with_tables(route_table("vpc-a", ("10.3.1.0/24", "tgw-1"))) == {"ac"}
    assert with_tables(route_table("vpc-a", ("0.0.0.0/0", "tgw-2"))) == set()
    assert with_tables(route_table("vpc-a"), route_table("vpc-a", ("0.0.0.0/0", "tgw-1"))) == {"ab", "ac"}
    gone = route_table("vpc-a", ("0.0.0.0/0", "tgw-1"))
    gone["Routes"][1]["State"] = "blackhole"
    assert with_tables(gone) == set()
    listed = route_table("vpc-a", ("0.0.0.0/0", "tgw-1"))
    listed["Routes"][1] = {"DestinationPrefixListId": "pl-1", "TransitGatewayId": "tgw-1", "State": "active"}
    assert with_tables(listed) == {"ab", "ac"}


def test_a_table_of_which_only_a_part_is_known_is_told() -> None:
    only_static = BASE | TABLES | {f"{HUB}.json": routes(route("10.2.0.0/16", "vpc-b"))}
    del only_static[f"propagations-{HUB}.json"]
    pairs, warnings = found(only_static)
    assert pairs == {"ab"}
    told = "{} of a transit gateway's route table are in none of the files and count as none: route table "
    assert f"The {told.format('propagated routes')}{HUB}." in warnings
    # The active routes say what is propagated.
    active = only_static | {f"{HUB}.json": routes(route("10.2.0.0/16", "vpc-b", "propagated"))}
    assert not any("propagated routes" in warning for warning in found(active)[1])
    del active[f"{HUB}.json"], active[f"{SPOKES}.json"]
    pairs, warnings = found(active)
    assert f"The {told.format('static routes')}{SPOKES}." in warnings


def test_a_table_may_be_named_beside_its_content() -> None:
    beside = {
        f"{n}.json": value | {"TransitGatewayRouteTableId": HUB if HUB in name else SPOKES}
        for n, (name, value) in enumerate(TABLES.items())
    }
    assert found(BASE | beside) == ({"ab", "ac"}, ())
    with pytest.raises(PolicyError, match=r"routes\.json: AWS output: Routes do not name their transit gateway route"):
        found(BASE | {"routes.json": routes(route("10.0.0.0/8", "vpc-a"))})
    bare = BASE | TABLES | {f"{SPOKES}.json": [route("10.3.0.0/16", "vpc-c"), route("10.2.0.0/16", "vpc-b")]}
    assert found(bare) == ({"ab", "ac", "bc"}, ())
    # Another command of AWS prints "associations", too, which say nothing about gateways.
    other = {"associations.json": {"Associations": [{"Name": "AWS-RunPatchBaseline", "AssociationId": "x"}]}}
    other["routes.json"] = {"Routes": [{"DestinationCidrBlock": "10.0.0.0/8", "LocalGatewayRouteTableId": "lgw-rtb-1"}]}
    assert found(BASE | TABLES | other) == ({"ab", "ac"}, ())


def test_more_than_a_policy_should_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_transit, "MOST_PAIRS", 2)
    with pytest.raises(PolicyError, match=r"att-a: the transit gateways join 3 pairs of VPCs, but at most 2 are read"):
        found(BASE)
    monkeypatch.setattr(aws_transit, "MOST_PAIRS", 3)
    monkeypatch.setattr(aws_transit, "MOST_BLOCKS", 1)
    with pytest.raises(PolicyError, match=r"VPC vpc-b: has 2 CIDR blocks, but at most 1 are read"):
        found(BASE)
    monkeypatch.setattr(aws_transit, "MOST_BLOCKS", 2)
    monkeypatch.setattr(aws_transit, "MOST_ENDS", 0)
    with pytest.raises(PolicyError, match=r"leads to 1 attachments, but at most 0 are read"):
        found(BASE | TABLES | {f"{HUB}.json": routes(route("10.2.0.0/16", "vpc-b"))})
    missing = routes() | {"AdditionalRoutesAvailable": True}
    with pytest.raises(PolicyError, match="AdditionalRoutesAvailable is true, so routes are missing"):
        found(BASE | {f"{HUB}.json": missing})


def test_random_tables_lead_where_each_address_goes() -> None:
    """Against a naive walk: for each address of a VPC, the longest route of the table."""
    peered = apart = 0
    for seed in range(some(100, 2000)):
        pick = random.Random(seed)
        print("seed", seed)
        names = ["vpc-a", "vpc-b", "vpc-c", "vpc-d"]
        blocks = {name: f"10.0.0.{16 * n}/{pick.choice((28, 29))}" for n, name in enumerate(names)}
        tables = {HUB: pick.sample(names, 2)}
        tables[SPOKES] = [name for name in names if name not in tables[HUB]]
        files: Files = {
            "vpcs.json": [vpc(name, block) for name, block in blocks.items()], "attachments.json": attached(*names)
        }  # fmt: skip
        leads = {}
        for table, members in tables.items():
            spread = [name for name in names if pick.random() < 0.6]
            fixed: dict[str, str] = {}
            for _ in range(pick.randrange(6)):
                length = pick.choice((24, 26, 27, 28, 29, 30))
                network = ip_network((f"10.0.0.{pick.randrange(64)}", length), strict=False)
                fixed.setdefault(str(network), pick.choice([*names, ""]))
            files[f"a-{table}.json"] = associations(*members)
            files[f"p-{table}.json"] = propagations(*spread)
            files[f"{table}.json"] = routes(*(route(cidr, to) for cidr, to in fixed.items()))
            known = [(ip_network(cidr), 1, to) for cidr, to in fixed.items()]
            known += [(ip_network(blocks[name]), 0, name) for name in spread]
            for target in names:
                for address in ip_network(blocks[target]):
                    fitting = [(net.prefixlen, static, to) for net, static, to in known if address in net]
                    if fitting and max(fitting)[2] == target:
                        leads |= {(name, target): True for name in members}
        expected = {a[-1] + b[-1] for a, b in combinations(names, 2) if (a, b) in leads and (b, a) in leads}
        assert found(files)[0] == expected
        peered += len(expected)
        apart += 6 - len(expected)
    assert peered > 20 and apart > 20

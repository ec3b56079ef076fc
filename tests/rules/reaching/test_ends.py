"""The ends and the services of a question, and what is no end and no service (SPEC 12.2, 12.3)."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.ranges import difference, intersection, union
from sgfast.rules.reaching.ends import NamedEnd, named_end
from sgfast.rules.reaching.services import named_service, openers, services_text
from sgfast.rules.services import KEYS

POLICY = parse_policy(
    """
version: 1
address_groups:
  - {name: offices, addresses: [192.0.2.0/24, "2001:db8:1::/48"]}
security_groups:
  - {name: web, id: sg-1, rules: []}
  - {name: twice, rules: []}
  - {name: any, rules: []}
instances:
  - {name: web-1, id: port-1, device: vm-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, device: vm-1, addresses: [10.0.0.6], security_groups: [web, twice]}
  - {name: twice, label: web, addresses: [10.0.0.7], security_groups: [any]}
"""
)


def test_an_end_is_found_by_every_word_that_means_it() -> None:
    both = frozenset({"web-1", "web-2"})
    assert named_end(POLICY, "web") == named_end(POLICY, "sg-1") == named_end(POLICY, "group:web")
    assert named_end(POLICY, "web") == NamedEnd("group", "web", instances=both)
    assert named_end(POLICY, "port-1") == NamedEnd("instance", "web-1", instances=frozenset({"web-1"}))
    assert named_end(POLICY, "instance:web").instances == {"twice"}
    assert named_end(POLICY, "offices").networks == (ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48"))
    assert named_end(POLICY, "10.0.0.7").networks == (ip_network("10.0.0.7/32"),)
    assert named_end(POLICY, "any").networks == (ip_network("0.0.0.0/0"), ip_network("::/0"))
    assert named_end(POLICY, "group:any").instances == {"twice"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("wbe", "'wbe' is no instance, security group or address group of the policy, no address, no CIDR, and neither "
                "internet nor any (did you mean 'web'?)"),
        ("twice", "'twice' means several things: write instance:twice or group:twice"),
        ("vm-1", "'vm-1' means 2 instances: write the name of one, 'web-1', 'web-2'"),
        ("group:web-1", "'group:web-1': there is no such security group (did you mean 'web'?)"),
        ("10.0.0.1/8", "'10.0.0.1/8': host bits are set: write 10.0.0.0/8 for the network or 10.0.0.1 for the single "
                       "address"),
        ("10.0.0.256", "'10.0.0.256': not an IPv4 address"),
        ("", "'' is no instance, security group or address group of the policy, no address, no CIDR, and neither "
             "internet nor any"),
    ],
)  # fmt: skip
def test_what_is_no_end_is_one_line_that_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(PolicyError) as error:
        named_end(POLICY, text)
    assert str(error.value) == f"<policy>: {says}"


def test_the_internet_is_neither_private_nor_documentation_nor_multicast() -> None:
    internet = named_end(POLICY, "internet")
    assert not internet.owned

    def is_in(address: str) -> bool:
        each = ip_address(address)
        return any(each in network for network in internet.networks) and not any(each in n for n in internet.without)

    public = ("1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "223.255.255.255", "2600::1")
    other = (
        "0.0.0.1", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.0.1", "192.168.0.1", "198.19.0.1",
        "198.51.100.7", "203.0.113.9", "224.0.0.1", "255.255.255.255", "::1", "fd00::1", "fe80::1", "ff02::1",
        "2001:db8::1", "2001::1", "4000::1",
    )  # fmt: skip
    assert [address for address in public if not is_in(address)] == []
    assert [address for address in other if is_in(address)] == []


def test_services_are_read_in_every_way_in_which_reports_write_them() -> None:
    tcp, icmp, icmpv6 = 6 * KEYS, KEYS, 58 * KEYS
    assert named_service("tcp/5432").four == named_service("TCP/5432").six == ((tcp + 5432, tcp + 5432),)
    assert named_service("tcp/80,443,444,1000-2000").four == (
        (tcp + 80, tcp + 80), (tcp + 443, tcp + 444), (tcp + 1000, tcp + 2000),
    )  # fmt: skip
    assert named_service("icmp").four == ((icmp, icmp + 65535),)
    assert named_service("icmp").six == ((icmpv6, icmpv6 + 65535),)
    assert named_service("icmpv6").four == ()
    assert named_service("icmp/8/0").four == named_service("icmp type 8 code 0").four == ((icmp + 2048, icmp + 2048),)
    echo = named_service("icmp echo-request")
    assert echo.four == named_service("icmp/8").four == ((icmp + 2048, icmp + 2303),)
    assert echo.six == named_service("icmpv6/128").six == ((icmpv6 + 32768, icmpv6 + 33023),)
    assert named_service("icmp timestamp-request").six == ()
    assert named_service("gre; tcp/22").four == ((tcp + 22, tcp + 22), (47 * KEYS, 48 * KEYS - 1))
    assert named_service("protocols 254-255").four == named_service("protocol 254; protocol 255").six
    assert named_service("a/n; gre").four == named_service("protocol 107; protocol 47").six
    assert named_service("all").four == ((0, 256 * KEYS - 1),)


@pytest.mark.parametrize(
    "text",
    ["", "tcp/", "tcp/65536", "tcp/9-8", "tcp/a", "gre/1", "icmp/256", "icmp/8/256", "icmp pong", "protocol 256", "tpc",
     "tcp/1; ", "tcp/99999999999", "tcp/-1", "icmp/8/0/0"],
)  # fmt: skip
def test_what_is_no_service_is_one_line_that_quotes_it(text: str) -> None:
    with pytest.raises(ArgumentError) as error:
        named_service(text)
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


def test_services_that_are_written_are_read_as_the_same_services() -> None:
    rng = random.Random(20)
    for n in range(300):
        family = rng.choice((4, 6))
        everything = openers(family, {rng.choice(("exempt", "by-role", "filtered"))})
        edges = sorted(
            rng.choice((6, 17, 1, 58, 47, 200)) * KEYS + rng.choice((0, 1, 80, 2047, 2048, 2303, 2304, 33000, 65535))
            for _ in range(2 * rng.randint(1, 4))
        )
        wanted = intersection(union(zip(edges[::2], edges[1::2], strict=True)), everything)
        # Protocols without ports and types are whole or not there.
        parts = [(p * KEYS, p * KEYS + KEYS - 1) for p in range(256) if p not in (6, 17, 1 if family == 4 else 58)]
        whole = union(part for part in parts if intersection((part,), wanted))
        rest = difference(wanted, union(parts))
        wanted = union((*whole, *rest))
        text = services_text(wanted, family, everything)
        negated = text.startswith("all except ")
        read = intersection(named_service(text.removeprefix("all except ")).of(family), everything) if wanted else ()
        assert (difference(everything, read) if negated else read) == wanted, (n, text)

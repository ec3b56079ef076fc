"""Policy documents for the tests of their reader, and the documents' errors."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy

# The example of SPEC 2, verbatim.
SPEC_EXAMPLE = """\
version: 1
quotas: {security_groups: 100, rules_per_group: 50}   # the defaults ⓢ
settings:                   # all optional; these are the defaults
  profile: otc              # otc | neutron | aws: where the other defaults come from (6.7)
  timeouts: {tcp_established: 600, tcp_fin_wait: 30, tcp_other: 30, icmp: 30, bidirectional: 180, unidirectional: 30}   # seconds ⓢ
  on_change: cut-inbound    # cut-inbound | cut-unmatched | forget-unmatched | keep (6.7)
  max_connections: 4000000
  infrastructure: exempt    # exempt | by-role | filtered (3.2)
  group_members: by-owner   # by-owner | by-address (4.11)
vpcs:                       # may be left out: then there is one VPC, "default"
  - name: vpc-1
  - {name: vpc-2, region: eu-nl}   # region: optional, any word; VPCs without one share a region
peerings:
  - [vpc-1, vpc-2]
address_groups:
  - {name: offices, addresses: [192.0.2.0/24, "2001:db8:1::/48"]}
security_groups:
  - name: sg-AB
    description: The example group of the seed's Table 2
    template: general-purpose-web-server   # optional: these rules first,
    fast_add: [ssh, http]                  # then these (8.4), then the ones below
    rules:
      - {direction: inbound,  ethertype: IPv4, protocol: all, source: sg-AB}
      - {direction: inbound,  ethertype: IPv4, protocol: tcp, ports: 22,   source: 0.0.0.0/0}
      - {direction: inbound,  ethertype: IPv4, protocol: tcp, ports: 3389, source: 0.0.0.0/0}
      - {direction: inbound,  ethertype: IPv4, protocol: tcp, ports: 80,   source: 10.5.6.30/32}
      - {direction: outbound, ethertype: IPv4, protocol: all, destination: 0.0.0.0/0}
      - {direction: outbound, ethertype: IPv6, protocol: all, destination: "::/0"}
instances:
  - {name: web-1, vpc: vpc-1, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [sg-AB]}
"""  # noqa: E501


def error_of(text: str | bytes, origin: str = "p.yaml") -> str:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, origin)
    message = str(caught.value)
    assert message.isprintable(), "one line, nothing for a terminal to act on"
    assert len(message) < 1500
    return message


_VOCABULARY = (
    "version 1 quotas settings vpcs peerings address_groups security_groups instances name rules direction inbound "
    "outbound protocol tcp icmpv6 58 ports 22 22,80 22-30 source destination 10.0.0.0/8 ::/0 ethertype IPv4 IPv6 "
    "addresses default template fast-add fast_add ssh id description timeouts icmp cidr group null ~ 1.5 .nan &a *a "
    "!!str !x << - -- --- ... ? | > % @ ` ' \" # é \u2028 \x85"
)
_WORDS = st.sampled_from(_VOCABULARY.split(" "))
_GLUE = st.sampled_from([": ", ":", ", ", ",", "\n", "\n- ", "\n  ", "\n    - ", "{", "}", "[", "]", " ", "\t", ""])
_YAMLISH = st.lists(st.one_of(_WORDS, _GLUE), max_size=60).map("".join)


def only_policy_errors(text: str | bytes) -> None:
    try:
        parse_policy(text)
    except PolicyError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))

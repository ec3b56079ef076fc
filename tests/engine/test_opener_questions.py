"""A question to the rules alone has the answer that an opener and its first reply get from an engine that has seen
nothing else (SPEC 10.30).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from effort import some
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from traffic import OUTSIDE, PORTS, policies

from sgfast.clouds.loading import parse_policy
from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import REASONS, VERDICTS, Engine
from sgfast.policy.model import PORT_PROTOCOLS, Policy

#: Types that ask, with those of their answers.
ICMP_ANSWERS = {4: {8: 0, 13: 14, 15: 16, 17: 18}, 6: {128: 129}}
#: Protocols without answers (SPEC 9.2).
ONE_WAY = (4, 41, 47, 50, 51)


def header(
    family: int, source: str, destination: str, protocol: int, sport: int = 0, dport: int = 0,
    icmp: tuple[int, int] | None = None, flags: int = 2,
) -> Any:  # fmt: skip
    rows = np.zeros(1, HEADER_DTYPE)
    (row,) = rows
    length = 4 if family == 4 else 16
    row["src"][:length], row["dst"][:length] = (list(ip_address(each).packed) for each in (source, destination))
    row["family"], row["protocol"], row["time_ns"] = family, protocol, 10**18
    row["has_ports"], row["sport"], row["dport"] = protocol in PORT_PROTOCOLS, sport, dport
    row["tcp_flags"] = flags if protocol == 6 else 0
    if icmp is not None:
        row["has_icmp"], row["icmp_type"], row["icmp_code"] = 1, *icmp
    return rows


def reply_to(opener: Any) -> Any:
    reply = opener.copy()
    for one, other in (("src", "dst"), ("dst", "src"), ("sport", "dport"), ("dport", "sport")):
        reply[one] = opener[other]
    reply["tcp_flags"] = np.where(opener["protocol"] == 6, 18, 0)
    if opener["has_icmp"][0]:
        reply["icmp_type"] = ICMP_ANSWERS[int(opener["family"][0])][int(opener["icmp_type"][0])]
    return reply


def spelled(engine: Engine, row: Any) -> tuple[Any, ...]:
    sides = []
    for name in ("egress", "ingress"):
        side = row[name]
        is_judged = side["verdict"] != 255
        rule = engine.rules[side["rule"]].id if is_judged and side["rule"] >= 0 else None
        sides.append((
            engine.instances[side["instance"]].name, VERDICTS[side["verdict"]], REASONS[side["reason"]], rule
        ) if is_judged else None)  # fmt: skip
    return VERDICTS[row["verdict"]], REASONS[row["reason"]], *sides


def asked(engine: Engine, opener: Any) -> tuple[Any, ...]:
    rows, replies = np.zeros(1, RESULT_DTYPE), np.zeros((1, 2), np.int32)
    engine.dataplane.ask(opener, rows, replies)
    return *spelled(engine, rows[0]), [engine.rules[rule].id if rule >= 0 else None for rule in replies[0]]


def judged(policy: Policy, opener: Any) -> tuple[Any, ...]:
    """Return the verdict on the opener, or on its first reply if only that is denied, with the rules that allow the
    reply at filters without connections.
    """
    engine = Engine(policy, mode="verbatim")
    rows = np.zeros(1, RESULT_DTYPE)
    engine.dataplane.process_headers(opener, rows)
    first = spelled(engine, rows[0])
    # No instance may send what a DHCP server answers, whatever its rules.
    if first[0] != "allow" or int(opener["protocol"][0]) in ONE_WAY or int(opener["dport"][0]) in (67, 547):
        return *first, [None, None]
    engine.dataplane.process_headers(reply_to(opener), rows)
    reply = spelled(engine, rows[0])
    stateless = {group.name for group in policy.security_groups if not group.stateful}
    rules = [
        side[3] if side is not None and stateless.intersection(policy.instance_by_name[side[0]].security_groups)
        else None for side in (reply[3], reply[2])
    ]  # fmt: skip
    return (*first, rules) if reply[0] == "allow" else ("deny", reply[1])


@st.composite
def openers(draw: st.DrawFn, policy: Policy) -> Any:
    family = draw(st.sampled_from((4, 4, 6)))
    owned = [
        str(network.network_address + (3 if network.num_addresses > 8 else 0))
        for each in policy.instances for network in each.addresses if network.version == family
    ]  # fmt: skip
    ends = [*owned, *owned, *OUTSIDE[family]]
    source = draw(st.sampled_from(ends))
    destination = draw(st.sampled_from([end for end in ends if end != source or len(owned) == 1]))
    protocol = draw(st.sampled_from((6, 6, 17, 17, 132, 47, 50, 58 if family == 6 else 1, 58 if family == 6 else 1)))
    sport, dport = draw(st.sampled_from((*PORTS, 40000))), draw(st.sampled_from(PORTS))
    # A DHCP client needs no rule at the sender if infrastructure is known by its role (SPEC 3.11).
    stateful = all(group.stateful for group in policy.security_groups)
    if protocol == 17 and stateful and draw(st.booleans()):
        sport, dport = (68, 67) if family == 4 else (546, 547)
    icmp = None
    if protocol in (1, 58):
        icmp = draw(st.sampled_from(tuple(ICMP_ANSWERS[family]))), draw(st.sampled_from((0, 0, 1)))
    return header(family, source, destination, protocol, sport, dport, icmp)


def test_a_question_has_the_answer_of_an_engine_that_has_seen_nothing_else() -> None:
    seen: Counter[Any] = Counter()

    @seed(61)
    @settings(max_examples=some(50, 3000), deadline=None, suppress_health_check=list(HealthCheck), database=None,
              phases=(Phase.generate,))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        policy = data.draw(policies())
        stateless = data.draw(st.booleans())
        policy = replace(
            policy, settings=replace(policy.settings, max_connections=1000),
            peerings=policy.peerings if data.draw(st.booleans()) else frozenset(),
            security_groups=tuple(
                replace(group, stateful=group.stateful and not stateless) for group in policy.security_groups
            ),
        )  # fmt: skip
        # A question changes nothing, so one engine answers them all.
        engine = Engine(policy, mode="verbatim")
        for _ in range(8):
            opener = data.draw(openers(policy))
            expected = judged(policy, opener)
            found = asked(engine, opener)
            seen[expected[:2]] += 1
            assert found[: len(expected)] == expected, (opener, policy)

    run()
    assert {
        ("allow", "rule"), ("deny", "no-rule"), ("deny", "deny-rule"), ("deny", "vpc-isolated"),
        ("deny", "reply-denied"),
    } <= seen.keys(), seen


OUTWARD = """
version: 1
security_groups:
  - name: web
    stateful: false
    rules:
      - {direction: inbound, protocol: all}
      - {id: tcp-4000, direction: outbound, protocol: tcp, ports: 4000}
      - {id: tcp-80, direction: outbound, protocol: tcp, ports: 80}
      - {id: tcp-443, direction: outbound, protocol: tcp, ports: 443}
      - {id: icmp-0-1, direction: outbound, protocol: icmp, icmp_type: 0, icmp_code: 1}
      - {id: icmp-0, direction: outbound, protocol: icmp, icmp_type: 0}
      - {id: icmp-8, direction: outbound, protocol: icmp, icmp_type: 8}
      - {id: icmp-14, direction: outbound, protocol: icmp, icmp_type: 14}
instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]
"""


@pytest.mark.parametrize(
    ("ports", "icmp", "rule"),
    [
        ((4000, 443), None, "tcp-4000"),
        ((0, 0), (8, 0), "icmp-0"),
        ((0, 0), (8, 1), "icmp-0-1"),
        ((0, 0), (13, 0), "icmp-14"),
    ],
)
def test_the_first_reply_of_a_stateless_group_has_the_openers_port_and_the_type_and_code_of_an_answer(
    ports: tuple[int, int], icmp: tuple[int, int] | None, rule: str
) -> None:
    policy = parse_policy(OUTWARD)
    opener = header(4, "198.51.100.7", "10.0.0.5", 1 if icmp else 6, *ports, icmp)
    found = asked(Engine(policy, mode="verbatim"), opener)
    assert found == judged(policy, opener) and found[:2] == ("allow", "rule") and rule in found[-1]


@pytest.mark.parametrize(
    ("infrastructure", "expected"),
    [("exempt", ("exempt", None)), ("by-role", ("exempt", None)), ("filtered", ("deny", "no-rule"))],
)
def test_a_dhcp_client_needs_a_rule_if_infrastructure_is_filtered(
    infrastructure: str, expected: tuple[str, str]
) -> None:
    policy = parse_policy(
        f"version: 1\nsettings: {{infrastructure: {infrastructure}}}\nsecurity_groups: [{{name: web}}]\n"
        "instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]\n"
    )
    opener = header(4, "10.0.0.5", "255.255.255.255", 17, 68, 67)
    found = asked(Engine(policy, mode="verbatim"), opener)
    assert found == judged(policy, opener) and found[:2] == expected

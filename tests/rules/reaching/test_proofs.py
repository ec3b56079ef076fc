"""Expectations are proved for all packets: a proof says what trying every packet of a small universe says (SPEC 10.23).
"""

from __future__ import annotations

from itertools import permutations

import pytest
from checked_policies import policies, views_exist
from effort import some
from expected import files, is_proved_about, packets
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from sgfast import Engine
from sgfast.base.errors import AmbiguousAddress, PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.expectations import expectations_of, parse_expectations
from sgfast.policy.model import Policy
from sgfast.report.expectations import failure_text
from sgfast.rules.reaching import proving, relation
from sgfast.rules.reaching.explaining import Explanation, sentence
from sgfast.rules.reaching.filters import CLIENT_PORT
from sgfast.rules.reaching.proving import Expectations, Outcome, Seen


def judged(policy: Policy, found: Explanation) -> str:
    """By a fresh engine."""
    return Engine(policy, vpc=found.vpc).check(
        found.source.address, found.destination.address, found.protocol,
        sport=None if found.port is None else CLIENT_PORT, dport=found.port, icmp_type=found.icmp_type,
        icmp_code=found.icmp_code,
    ).verdict  # fmt: skip


def test_an_expectation_has_the_same_outcome_alone_and_among_others() -> None:
    """The expectations of a file share the division of addresses, of which only a few are kept."""
    policy = parse_policy(APART.replace("vpc: b, addresses: [10.0", "vpc: b, addresses: [10.3"))
    assert not policy._shares_addresses
    networks = [f"10.{n}.0.0/{length}" for n, length in enumerate((16, 17, 20, 24, 28, 16, 24, 30))]
    ends = ["any", "internet", "in-a", "in-b", "one", "two", *networks]
    asked = [
        {"from": a, "to": b, "service": "all", "verdict": verdict}
        for a, b in permutations(ends, 2) for verdict in ("allow", "deny")
    ]
    together = Expectations(policy, expectations_of(asked)).prove().outcomes
    alone = [Expectations(policy, expectations_of([each])).prove().outcomes[0] for each in asked]
    told = [
        [(each.word, each.elsewhere, each.counterexample and sentence(each.counterexample)) for each in outcomes]
        for outcomes in (together, alone)
    ]
    assert told[0] == told[1] and {word for word, *_ in told[0]} == {"holds", "fails", "empty"}


@seed(20)
@given(data=st.data())
@settings(
    max_examples=some(12, 10_000), database=None, deadline=None, phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_a_proof_says_what_trying_every_packet_says(data: st.DataObject) -> None:
    policy = data.draw(policies())
    assume(views_exist(policy))
    meant = Expectations(policy, parse_expectations(data.draw(files(policy))))
    tried = [*packets(policy)]
    for outcome in meant.prove().outcomes:
        expectation, found = outcome.expectation, outcome.counterexample
        verdicts = {packet.verdict for packet in tried if is_proved_about(policy, expectation, packet)}
        expected = "empty" if not verdicts else "holds" if verdicts == {expectation.verdict} else "fails"
        assert outcome.word == expected, expectation
        if found is None:
            continue
        service = (found.protocol, found.port, found.icmp_type, found.icmp_code)
        assert {found.verdict, expectation.verdict} == {"allow", "deny"}
        packet = Seen(found.source, found.destination, *service, expectation.verdict)
        assert is_proved_about(policy, expectation, packet)
        if found.reason == "vpc-isolated":
            assert found.source.instance is not None and found.destination.instance is not None
            assert not policy.connected(found.source.instance.vpc, found.destination.instance.vpc)
        else:
            assert judged(policy, found) == found.verdict


# By hand -------------------------------------------------------------------------------------------------------------

APART = """
version: 1
vpcs: [{name: a}, {name: b}]
security_groups:
  - name: in-a
    rules: [{direction: outbound, protocol: all}]
  - name: in-b
    rules: [{direction: inbound, protocol: all}]
  - {name: empty}
instances:
  - {name: one, vpc: a, addresses: [10.0.0.5], security_groups: [in-a]}
  - {name: two, vpc: b, addresses: [10.0.0.5], security_groups: [in-b]}
"""


def outcome(policy: str, line: str) -> Outcome:
    (found,) = Expectations(parse_policy(policy), parse_expectations(f"expect: [{line}]")).prove().outcomes
    return found


def test_instances_with_one_address_in_vpcs_that_are_not_peered_are_two_ends() -> None:
    found = outcome(APART, "{from: in-a, to: in-b, service: tcp/80, verdict: allow}").counterexample
    assert found is not None and found.reason == "vpc-isolated"
    assert [end.instance and end.instance.name for end in (found.source, found.destination)] == ["one", "two"]
    assert found.source.address == found.destination.address
    assert outcome(APART, "{from: in-a, to: in-b, service: tcp/80, verdict: deny}").word == "holds"


PEERLESS = """
version: 1
vpcs: [{name: prod}, {name: dev}, {name: shared}]
peerings: [[prod, shared]]
address_groups: [{name: lab, addresses: [10.2.0.0/16]}]
security_groups:
  - name: web
    rules: [{direction: outbound, protocol: all}, {direction: inbound, protocol: tcp, ports: 22}]
instances:
  - {name: web-1, vpc: prod, addresses: [10.1.0.10], security_groups: [web]}
  - {name: dev-1, vpc: dev, addresses: [10.2.0.20], security_groups: [web], id: i-77}
  - {name: db-1, vpc: shared, addresses: [10.3.0.30], security_groups: [web]}
"""
NOTE = (
    "no instance that VPC prod sees has 10.2.0.20: it is dev-1's in VPC dev, which is not peered; it is judged as an "
    "address that no instance owns, and nobody can tell whether it is one (write dev-1 to ask about the instance)"
)


def test_explain_test_and_reach_agree_on_vpcs_that_are_not_peered() -> None:
    """SPEC 12.1"""
    policy = parse_policy(PEERLESS)
    addresses = {"web-1": "10.1.0.10", "dev-1": "10.2.0.20", "db-1": "10.3.0.30"}
    for (one, a), (other, b) in permutations(addresses.items(), 2):
        for source, destination in ((one, other), (one, b), (a, other)):
            told = policy.explain(source, destination, "tcp/22")
            several = policy.explain(source, destination, "tcp/22; icmp")  # one packet stands for all of them
            line = f"{{from: {source}, to: {destination}, service: tcp/22, verdict: VERDICT}}"
            said = {word: outcome(PEERLESS, line.replace("VERDICT", word)) for word in ("allow", "deny")}
            rows = policy.reach(source=source, destination=destination, protocol="tcp/22")
            unsure = told.verdict == "cannot-tell"
            assert (said["allow"].word == "holds", said["deny"].word == "fails") == (told.verdict != "deny",) * 2, line
            assert (said["allow"].is_uncertain, rows.evidence.conclusive == "partly") == (unsure, unsure), line
            assert bool(rows.rows) == (told.verdict != "deny") and told.allowed == (told.verdict == "allow")
            isolated = (source, destination) == (one, other) and "dev-1" in (one, other)
            assert (told.reason == "vpc-isolated", several.reason == "vpc-isolated") == (isolated, isolated)
            is_elsewhere = "dev-1" in (one, other) and not isolated
            of_test = said["allow"].warnings, said["deny"].warnings
            assert not unsure or is_elsewhere
            for warnings in (told.choices, several.choices, rows.warnings, *of_test):
                assert any("which is not peered" in warning for warning in warnings) == is_elsewhere, line
            if not isolated:
                continue
            found = said["allow"].counterexample
            assert found is not None and found.reason == "vpc-isolated" and found.vpc == told.vpc
            assert (found.egress, found.ingress) == (told.egress, told.ingress)


@pytest.mark.parametrize("written", ["10.2.0.20", "10.2.0.0/16", "lab", "[web-1, 10.2.0.20]"])
def test_an_address_that_only_a_vpc_without_peering_has_is_external_and_its_instance_is_named(written: str) -> None:
    held, failed = (
        outcome(PEERLESS, f"{{from: web-1, to: {written}, service: tcp/22, verdict: {verdict}}}")
        for verdict in ("allow", "deny")
    )
    assert held.word == "holds" and held.warnings == [f"<expectations>:1: expect[0]: {NOTE}"]
    found = failed.counterexample
    assert found is not None and found.destination.instance is None and found.vpc == "prod"
    assert "dev-1's in VPC dev" in failure_text(failed, {}) or written in ("10.2.0.0/16", "lab")
    assert any("it is dev-1's" in warning for warning in failed.warnings)


#: Two peers of hub have an address in common.
TWINS = """
version: 1
vpcs: [{name: hub}, {name: a}, {name: b}]
peerings: [[hub, a], [hub, b]]
security_groups:
  - {name: web, rules: [{direction: outbound, protocol: all}, {direction: inbound, protocol: tcp, ports: 443}]}
  - {name: db, rules: [{direction: inbound, protocol: tcp, ports: 5432, source: web}]}
instances:
  - {name: web-1, vpc: hub, addresses: [10.0.0.5], security_groups: [web]}
  - {name: db-1, vpc: a, addresses: [10.1.0.9], security_groups: [db]}
  - {name: twin-a, vpc: a, addresses: [10.1.0.5], security_groups: [db]}
  - {name: twin-b, vpc: b, addresses: [10.1.0.5], security_groups: [web]}
"""


def test_peers_with_one_address_are_an_error_only_if_a_packet_may_go_to_it_and_neither_is_named() -> None:
    """SPEC 7.1, 12.1: what is asked decides, in explain, reach and test alike."""
    policy = parse_policy(TWINS)
    for destination, allowed in (
        ("db-1", "tcp/5432"), ("10.1.0.9", "tcp/5432"), ("twin-a", "tcp/5432"), ("twin-b", "tcp/443"),
        ("198.51.100.7", "all"),
    ):  # fmt: skip
        for service in ("tcp/5432", "tcp/443"):
            told = policy.explain("web-1", destination, service)
            assert told.allowed == (allowed in (service, "all")), (destination, service)
            line = f"{{from: web-1, to: {destination}, service: {service}, verdict: allow}}"
            assert (outcome(TWINS, line).word == "holds") == told.allowed
        assert [row.services for row in policy.reach(source="web-1", destination=destination).rows] == [allowed]
    for destination in ("10.1.0.5", "10.1.0.0/24", "any"):
        with pytest.raises(AmbiguousAddress, match="from VPC 'hub' these two peers cannot be distinguished"):
            policy.reach(source="web-1", destination=destination)
    with pytest.raises(AmbiguousAddress, match="from VPC 'hub' these two peers"):
        policy.explain("web-1", "10.1.0.5", "tcp/443")
    # The peer tells which VPC it is, or nothing does.
    assert policy.explain("10.1.0.5", "10.1.0.9", "tcp/5432").source.instance == policy.instances[2]
    for there in ("198.51.100.7", "web-1"):
        with pytest.raises(AmbiguousAddress, match=r"10.1.0.5 is an address of instance 'twin-a' .* \(--vpc\)"):
            policy.explain("10.1.0.5", there, "tcp/443")


def test_everybody_is_nobody_in_particular_and_names_no_instance_of_another_vpc() -> None:
    for line in ("{from: web-1, to: any, service: tcp/22, verdict: allow}",
                 "{from: web-1, to: internet, service: tcp/22, verdict: allow}"):  # fmt: skip
        assert (outcome(PEERLESS, line).word, outcome(PEERLESS, line).warnings) == ("holds", []), line
    for end in ("dev-1", "i-77", "web", "[any, web]"):
        assert outcome(PEERLESS, f"{{from: web-1, to: {end}, service: tcp/22, verdict: allow}}").word == "fails", end


def test_an_address_that_the_vpc_sees_is_not_told_of_though_another_vpc_has_it_too() -> None:
    policy = PEERLESS.replace("10.3.0.30", "10.2.0.20")
    held = outcome(policy, "{from: web-1, to: 10.2.0.20, service: tcp/22, verdict: allow}")
    assert (held.word, held.warnings) == ("holds", [])


def test_few_addresses_are_told_of() -> None:
    many = "".join(
        f"  - {{name: d{n}, vpc: dev, addresses: [10.2.1.{n}], security_groups: [web]}}\n" for n in range(200)
    )
    held = outcome(PEERLESS + many, "{from: web-1, to: 10.2.0.0/16, service: tcp/22, verdict: allow}")
    assert held.word == "holds" and len(held.warnings) == 1  # one network, which nothing tells apart


def test_nothing_is_proved_about_nobody_and_a_warning_says_so() -> None:
    for line in ("{from: empty, to: in-b, service: all, verdict: allow}",
                 "{from: any, to: empty, service: all, verdict: deny}"):  # fmt: skip
        found = outcome(APART, line)
        assert found.word == "empty" and len(found.warnings) == 1
        assert "no instance or address is in empty" in found.warnings[0]
    found = outcome(APART, "{from: [in-a, empty], to: in-b, service: all, verdict: deny}")
    assert found.word == "holds" and "expect[0].from[1]: no instance or address is in empty" in found.warnings[0]


def test_what_no_filter_judges_is_no_proof_either() -> None:
    for line in ("{from: internet, to: 192.0.2.0/24, service: all, verdict: deny}",   # no instance at either end
                 '{from: "2001:db8::/32", to: in-b, service: all, verdict: deny}',      # no IP version in common
                 "{from: in-b, to: in-b, service: all, verdict: deny}",                # an instance and itself
                 "{from: any, to: in-b, service: icmp echo-reply, verdict: deny}"):    # opens nothing  # fmt: skip
        found = outcome(APART, line)
        assert found.word == "empty" and "no filter judges any packet" in found.warnings[0], line


def test_lists_are_each_of_their_members() -> None:
    holds = "{from: [internet, 192.0.2.7], to: [two], service: [tcp/80, gre], verdict: allow}"
    assert outcome(APART, holds).word == "holds"
    for wrong in (holds.replace("192.0.2.7", "one"), holds.replace("[two]", "[one, two]"),
                  holds.replace("allow", "deny")):  # fmt: skip
        assert outcome(APART, wrong).word == "fails", wrong
    for services in ("[tcp/80, gre]", "[gre, tcp/80]", "tcp/80; gre"):
        line = f"{{from: internet, to: two, service: {services}, verdict: allow}}"
        assert outcome(APART, line).word == "holds"
        assert outcome(APART.replace("inbound, protocol: all", "inbound, protocol: tcp"), line).word == "fails"


def test_a_multicast_address_is_no_instance_although_its_prefix_covers_it() -> None:
    policy = APART + "  - {name: gateway, vpc: a, addresses: [0.0.0.0/0], security_groups: [empty]}\n"
    found = outcome(policy, "{from: one, to: 224.0.0.0/4, service: udp/5353, verdict: deny}").counterexample
    assert found is not None and found.destination.instance is None and found.ingress is None


def test_what_would_take_too_long_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 11.7."""
    policy = parse_policy(APART)
    # Two rules and two addresses of the policy; an instance at each end. The second VPC sees itself, one address and
    # one set of groups (none of the sender's), and the network that rules name in each IP version.
    cost = 2 * (250 + 2 * 10 + 2 + 2) + 2 * (200 + 1 + 10 + 1)
    line = "{from: one, to: two, service: all, verdict: deny}"
    monkeypatch.setattr(proving, "MAX_STEPS", 3 * cost)
    assert len(Expectations(policy, parse_expectations(f"expect: [{line}, {line}, {line}]")).prove().outcomes) == 3
    monkeypatch.setattr(proving, "contradiction", None)
    four = f"expect: [{', '.join([line] * 4)}]"
    with pytest.raises(PolicyError, match=r"^e.yaml: 4 expectations .* 2 rules, 2 addresses and 2 VPCs are too"):
        Expectations(policy, parse_expectations(four, "e.yaml")).prove()
    monkeypatch.setattr(proving, "MAX_STEPS", 3 * 252 - 1)
    with pytest.raises(PolicyError, match=r"^e.yaml: 4 expectations .* 2 rules, 2 addresses and 2 VPCs are too"):
        Expectations(policy, parse_expectations(four, "e.yaml"))  # three different words


def test_one_question_that_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation, "MAX_PAIRS", 0)
    with pytest.raises(PolicyError, match=r"^<expectations>:1: expect\[0\]: .*would take too long"):
        outcome(APART, "{from: any, to: in-b, service: all, verdict: deny}")

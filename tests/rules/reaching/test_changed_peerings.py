"""A comparison of policies that peer other VPCs is about pairs of instances: what an instance may do to another one's
address while nobody has that address is not what it may do to the instance (SPEC 12.6).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from effort import some
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import sgfast as library
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import Row
from sgfast.rules.reaching.services import named_service

SERVICES = ("tcp/80", "tcp/81", "udp/80")


def document(
    *peerings: tuple[str, str], rules: list[dict[str, Any]] | None = None, instances: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Write VPCs a, b and c. By default x in a and y in c may open tcp/80 to each other, and tcp to others."""
    return {
        "version": 1, "vpcs": [{"name": name} for name in "abc"], "peerings": [list(pair) for pair in peerings],
        "security_groups": [
            {"name": "g", "rules": rules or [
                {"direction": "inbound", "protocol": "tcp", "ports": 80, "source": "g"},
                {"direction": "outbound", "protocol": "tcp"},
            ]},
            {"name": "h", "rules": [{"direction": "outbound", "protocol": "tcp", "ports": 80}]},
        ],
        "instances": instances or [instance("x", "a", 1), instance("y", "c", 2)],
    }  # fmt: skip


def policy(*peerings: tuple[str, str], **others: Any) -> library.Policy:
    return library.load(document(*peerings, **others))


def instance(name: str, vpc: str, number: int, group: str = "g") -> dict[str, Any]:
    return {"name": name, "vpc": vpc, "addresses": [f"10.0.0.{number}"], "security_groups": [group]}


def told(rows: tuple[Row, ...]) -> set[tuple[str, str, str]]:
    return {(here.text, there.text, row.services) for row in rows for here in row.sources for there in row.destinations}


APART, PEERED = policy(), policy(("a", "c"))
BETWEEN_INSTANCES = {("x", "y", "tcp/80"), ("y", "x", "tcp/80")}
#: The packets to each other's addresses that x and y may send only while no instance that they see has these.
AS_OF_NOBODY = {("x", "10.0.0.2/32", "tcp/0-79,81-65535"), ("y", "10.0.0.1/32", "tcp/0-79,81-65535")}

ONLY_MEMBERS = [
    {"direction": way, "protocol": "tcp", end: "g"} for way, end in (("inbound", "source"), ("outbound", "destination"))
]


def test_a_new_peering_opens_what_its_instances_may_do_though_their_addresses_could_be_reached_before() -> None:
    found = APART.diff(PEERED)
    assert (told(found.opened), told(found.closed)) == (BETWEEN_INSTANCES, AS_OF_NOBODY)
    assert {each.rule.id for row in found.opened for each in row.rules} == {"g/inbound/1", "g/outbound/1"}


def test_a_peering_that_is_taken_away_closes_what_its_instances_could_do() -> None:
    found = PEERED.diff(APART)
    assert (told(found.opened), told(found.closed)) == (AS_OF_NOBODY, BETWEEN_INSTANCES)


def test_rows_about_an_address_that_an_unpeered_instance_has_say_so() -> None:
    for warnings, policy_word, word in (
        (APART.diff(PEERED).warnings, "OLD", "closed"), (PEERED.diff(APART).warnings, "NEW", "opened")
    ):  # fmt: skip
        assert warnings == tuple(
            f"no instance that VPC {vpc} sees under {policy_word} has {address}: it is {owner}, which is not peered; "
            f"what is {word} from or to this address is {word} only for another machine that has it"
            for vpc, address, owner in (("a", "10.0.0.2", "y's in VPC c"), ("c", "10.0.0.1", "x's in VPC a"))
        )
    many = [instance("x", "a", 1), *(instance(f"y{n}", "c", n) for n in range(2, 9))]
    assert len(policy(instances=many).diff(policy(("a", "c"), instances=many)).warnings) == 3
    # Nothing is uncertain where both peer them, or where x may not send anything to the address of nobody.
    assert PEERED.diff(policy(("a", "c"), ("a", "b"))).warnings == ()
    assert policy(rules=ONLY_MEMBERS).diff(policy(("a", "c"), rules=ONLY_MEMBERS)).warnings == ()


def test_a_new_peering_is_explained_by_all_rules_that_allow_what_it_opens() -> None:
    """Under OLD x may send nothing to the address of y, which is in no group there. That is not what makes y closed."""
    found = policy(rules=ONLY_MEMBERS).diff(policy(("a", "c"), rules=ONLY_MEMBERS))
    assert (told(found.opened), found.closed) == ({("x", "y", "tcp"), ("y", "x", "tcp")}, ())
    assert [[each.rule.id for each in row.rules] for row in found.opened] == [["g/outbound/1", "g/inbound/1"]] * 2


def test_a_pipeline_is_not_green_when_a_peering_opens_an_instance(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = tmp_path / "old.yaml", tmp_path / "new.yaml"
    for file, peerings in zip(files, ([], [("a", "c")]), strict=True):
        file.write_text(json.dumps(document(*peerings)))
    ran = sgfast(capsys, "diff", *files, "--fail-on", "opened", "--json")
    assert ran.status == 1, ran.err
    assert [[part["name"] for part in row["to"]] for row in json.loads(ran.out)["opened"]] == [["y"], ["x"]]
    assert sgfast(capsys, "diff", files[0], files[0], "--fail-on", "opened,closed").status == 0


def test_a_vpc_that_only_new_has_is_opened_in_both_directions() -> None:
    before = library.load({**document(), "vpcs": [{"name": "a"}], "instances": [instance("x", "a", 1)]})
    assert told(before.diff(PEERED).opened) == {*BETWEEN_INSTANCES, ("y", "0.0.0.0/0", "tcp")}
    assert told(PEERED.diff(before).closed) == {*BETWEEN_INSTANCES, ("y", "0.0.0.0/0", "tcp")}


# Every pair of instances by name -------------------------------------------------------------------------------------


@st.composite
def pairs(draw: st.DrawFn) -> tuple[library.Policy, library.Policy]:
    """Two policies with the same instances, and with other peerings and perhaps other rules."""
    vpcs = [draw(st.sampled_from("aabc")) for _ in range(draw(st.integers(2, 4)))]
    instances = [
        instance(f"i{n}", vpc, n, draw(st.sampled_from("ggh"))) for n, vpc in enumerate(vpcs)
    ]

    def rule() -> dict[str, Any]:
        way, end = draw(st.sampled_from((("inbound", "source"), ("outbound", "destination"))))
        made: dict[str, Any] = {"direction": way, "protocol": draw(st.sampled_from(("tcp", "tcp", "udp", "all")))}
        if made["protocol"] != "all" and draw(st.booleans()):
            made["ports"] = draw(st.sampled_from((80, 81)))
        peer = draw(st.sampled_from((None, "g", "h", "10.0.0.0/31", "10.0.0.2/32")))
        if draw(st.integers(0, 4)) == 0:
            made["action"] = "deny"
        return {**made, end: peer} if peer else made

    def rules() -> list[dict[str, Any]]:
        return [{"direction": "outbound", "protocol": "tcp"}, *(rule() for _ in range(draw(st.integers(1, 4))))]

    def peerings() -> list[tuple[str, str]]:
        return [pair for pair in (("a", "b"), ("b", "c"), ("a", "c")) if draw(st.booleans())]

    old = rules()
    return (
        policy(*peerings(), rules=old, instances=instances),
        policy(*peerings(), rules=rules() if draw(st.booleans()) else old, instances=instances),
    )


@seed(4949)
@settings(max_examples=some(30, 5_000), deadline=None, database=None, phases=(Phase.generate,), print_blob=False,
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(pairs())
def test_each_pair_of_instances_is_opened_and_closed_as_it_is_explained(
    pair: tuple[library.Policy, library.Policy]
) -> None:
    old, new = pair
    found = old.diff(new)
    lists = ("deny", "allow", found.opened), ("allow", "deny", found.closed)
    for here in old.instances:
        for there in old.instances:
            for service in SERVICES if here is not there else ():
                verdicts = tuple(each.explain(here.name, there.name, service).verdict for each in (old, new))
                for before, after, rows in lists:
                    is_told = any(
                        is_in(row.sources, here) and is_in(row.destinations, there) and row_has(row, service)
                        for row in rows
                    )
                    assert is_told == (verdicts == (before, after)), (here, there, service, verdicts)


def is_in(parts: tuple[Part, ...], instance: library.Instance) -> bool:
    """Return whether an end of a row has the instance, as that and not as an address."""
    return any(
        part.kind == "any" or part.name in (instance.name, *instance.security_groups)
        or (part.kind == "instances" and not {instance.name, *instance.security_groups} & {*part.without})
        for part in parts
    )  # fmt: skip


def row_has(row: Row, service: str) -> bool:
    negated = row.services.startswith("all except ")
    (wanted,), listed = named_service(service).of(4), named_service(row.services.removeprefix("all except ")).of(4)
    return any(first <= wanted[0] <= last for first, last in listed) != negated

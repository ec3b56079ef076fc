"""A VPC that was only renamed is the same VPC in a comparison, and others are told apart (SPEC 12.6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import SHOP, sgfast

import sgfast as library


def policy(
    name: str, *, id_: str = "", instances: dict[str, str] | None = None, rules: int = 1, marks: str = ""
) -> library.Policy:
    """Make a policy with one VPC, whose instances may open a few ports among each other."""
    numbers = range(1, rules + 1)
    have = instances or {"web": "10.0.0.5", "db": "10.0.0.9"}
    source: dict[str, Any] = {
        "version": 1, "vpcs": [{"name": name, **({"id": id_} if id_ else {}), **({"vnis": [7]} if marks else {})}],
        "security_groups": [{"name": "g", "rules": [
            {"id": f"{way}-{n}", "direction": way, "protocol": "tcp", "ports": n, end: "g"}
            for n in numbers for way, end in (("inbound", "source"), ("outbound", "destination"))
        ]}],
        "instances": [
            {"name": each, "vpc": name, "addresses": [address], "security_groups": ["g"]}
            for each, address in have.items()
        ],
    }  # fmt: skip
    return library.load(source)


PLANNED = policy("aws_vpc.main")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(PLANNED, policy("vpc-0abc", id_="vpc-0abc"), id="the plan has no id yet"),
        pytest.param(
            PLANNED, policy("vpc-0abc", instances={"i-1": "10.0.0.5", "i-2": "10.0.0.9"}), id="all have other names"
        ),
        pytest.param(policy("prod", id_="vpc-1"), policy("live", id_="vpc-1"), id="one id"),
    ],
)
def test_a_vpc_that_was_only_renamed_opens_and_closes_nothing(old: library.Policy, new: library.Policy) -> None:
    for before, after in ((old, new), (new, old)):
        found = before.diff(after)
        assert (found.opened, found.closed) == ((), ())
        assert "NEW opens nothing and closes nothing" in str(found)


def test_beside_a_new_name_only_the_change_is_told() -> None:
    more = {"web": "10.0.0.5", "db": "10.0.0.9", "new": "10.0.0.7"}
    found = PLANNED.diff(policy("vpc-0abc", rules=2))
    assert [row.services for row in found.opened] == ["tcp/2"] and not found.closed
    found = PLANNED.diff(policy("vpc-0abc", instances=more))
    ends = [[{part.name for part in parts} for parts in (row.sources, row.destinations)] for row in found.opened]
    assert ends == [[{"g"}, {"new"}], [{"new"}, {"db", "web"}]] and not found.closed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(policy("a", id_="vpc-1"), policy("b", id_="vpc-2"), id="two ids"),
        pytest.param(
            policy("a"), policy("b", instances={"web": "10.9.0.5", "db": "10.9.0.9"}), id="other addresses"
        ),
        pytest.param(
            policy("a"), policy("b", instances={"x": "10.0.0.5", "db": "10.9.0.9"}), id="another instance's address"
        ),
    ],
)
def test_rows_that_differ_in_the_vpc_alone_name_it(old: library.Policy, new: library.Policy) -> None:
    found = old.diff(new)
    (opened,), (closed,) = found.opened, found.closed
    assert (opened.sources[0].kind, opened.sources[0].name) == (closed.sources[0].kind, closed.sources[0].name)
    assert (opened.sources[0].vpcs, closed.destinations[0].vpcs) == (("b",), ("a",))
    text = " ".join(str(found).split())
    assert "opens tcp/1 (IPv4) of any in VPC b to any in VPC b" in text or "of g in VPC b to g in VPC b" in text
    assert "in VPC a: " in text and "in VPC b" in str(found._repr_html_())


def test_rows_that_differ_in_more_do_not_name_their_vpc() -> None:
    found = policy("a").diff(policy("a", rules=2))
    assert found.opened and "VPC" not in str(found)
    assert {part.vpcs for row in found.opened for part in (*row.sources, *row.destinations)} == {()}


def test_the_json_and_the_page_tell_the_vpcs_apart(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = Path(SHOP[0]).read_text().replace("version: 1\n", "version: 1\nvpcs: [{name: NAME, id: ID}]\n")
    files = []
    for name, id_ in (("blue", "vpc-1"), ("green", "vpc-2")):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text.replace("NAME", name).replace("ID", id_))
    page = tmp_path / "page.html"
    told = json.loads(sgfast(capsys, "diff", *files, "--json", "--report", page).out)
    assert {vpc for row in told["opened"] for part in row["to"] for vpc in part.get("vpcs", ())} == {"green"}
    assert {vpc for row in told["closed"] for part in row["to"] for vpc in part.get("vpcs", ())} == {"blue"}
    assert "in VPC green" in page.read_text() and "in VPC blue" in page.read_text()
    assert sgfast(capsys, "diff", *files, "--fail-on", "opened").status == 1


def test_names_that_two_vpcs_exchanged_are_followed_by_their_ids() -> None:
    def two(first: str, second: str) -> library.Policy:
        return library.load({
            "version": 1, "vpcs": [{"name": first, "id": "vpc-1"}, {"name": second, "id": "vpc-2"}],
            "security_groups": [
                {"name": "g", "rules": [{"direction": "inbound", "protocol": "tcp", "source": "0.0.0.0/0"}]}
            ],
            "instances": [
                {"name": f"i-{n}", "vpc": vpc, "addresses": [f"10.0.0.{n}"], "security_groups": ["g"]}
                for n, vpc in enumerate((first, second), 1)
            ],
        })  # fmt: skip

    found = two("blue", "green").diff(two("green", "blue"))
    assert (found.opened, found.closed) == ((), ())
    # The VPC with the id vpc-1 takes the name that the other one had, which is gone.
    gone = two("blue", "green").diff(two("green", "red"))
    assert (gone.opened, gone.closed) == ((), ())


def test_a_vpc_whose_name_another_one_took_is_called_as_before() -> None:
    def one(id_: str) -> dict[str, Any]:
        return {"name": id_, "vpc": id_, "addresses": ["10.0.0.1"], "security_groups": ["g"]}

    rules = [{"direction": "inbound", "protocol": "tcp", "source": "0.0.0.0/0"}]
    groups = [{"name": "g", "rules": rules}]
    old = library.load({
        "version": 1, "vpcs": [{"name": "prod", "id": "vpc-1"}, {"name": "next", "id": "vpc-2"}],
        "security_groups": groups, "instances": [one("prod"), one("next")],
    })  # fmt: skip
    new = library.load({
        "version": 1, "vpcs": [{"name": "prod", "id": "vpc-2"}, {"name": "third", "id": "vpc-3"}],
        "security_groups": groups, "instances": [{**one("prod"), "name": "next"}, {**one("third"), "name": "prod"}],
    })  # fmt: skip
    found = old.diff(new)
    (opened,), (closed,) = found.opened, found.closed
    assert opened.destinations[0].vpcs == ("third",) and closed.destinations[0].vpcs == ("prod",)


def test_captures_of_a_renamed_vpc_are_judged_by_both_policies() -> None:
    old, new = (library.load(text=Path(SHOP[0]).read_text().replace(
        "version: 1\n", f"version: 1\nvpcs: [{{name: {name}, file: 'shop*'}}]\n")) for name in ("blue", "green"))
    found = old.diff(new, SHOP[1])
    assert found.traffic is not None and not found.opened
    assert not found.newly_denied and not found.newly_allowed and found.traffic.warnings == []
    one = old.diff(new, SHOP[1], vpc="blue")
    assert not one.newly_denied and one.traffic is not None and one.traffic.vpc == "blue"

"""The HTML pages of ``reach`` and ``diff`` as text: what they say is what the answers say (SPEC 10.10, 12.5, 12.6). In
a browser: ``test_page_tables``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, SHOP, sgfast
from diffs import traffic_diff as diff
from effort import some
from test_report_html import HOSTILE, Page, read
from traffic import drawn

from sgfast import Policy
from sgfast.clouds.loading import Lines, load_policy
from sgfast.policy.model import GroupPeer, Instance, Rule, SecurityGroup
from sgfast.policy.ranges import Ranges, intersection, union
from sgfast.policy.ranges import difference as without_these
from sgfast.policy.rule_text import rule_of_id
from sgfast.report.html.diff import diff_html
from sgfast.report.html.page import MOST_BYTES
from sgfast.report.html.reach import reach_html
from sgfast.report.html.tables import MOST_ROWS
from sgfast.report.reach import part_text
from sgfast.rules.reaching.difference import difference
from sgfast.rules.reaching.ends import named_end
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.rows import reach
from sgfast.rules.reaching.services import named_service, openers

Capsys = pytest.CaptureFixture[str]

PROPOSED = PCAPS / "shop.proposed.yaml"


def large_policy(groups: int = 40) -> Policy:
    """Each group is open to those beside it, for another port, and the first one to everybody."""
    names = [f"g{n}" for n in range(groups)]

    def rules(n: int) -> tuple[Rule, ...]:
        name = names[n]
        peers = [names[n - step] for step in range(1, 6)]
        inbound = [
            Rule(f"{name}/in/{peer}", "inbound", 4, 6, ((n * 10 + m, n * 10 + m),), peer=GroupPeer(peer))
            for m, peer in enumerate(peers)
        ]
        ssh = Rule(f"{name}/ssh", "inbound", 4, 6, ((22, 22),), peer=ip_network("10.99.0.0/16"))
        everybody = Rule(f"{name}/all", "inbound", 4, 6, ((443, 443),))
        return (*inbound, ssh, Rule(f"{name}/out", "outbound", 4), *((everybody,) if n == 0 else ()))

    return Policy(
        security_groups=tuple(SecurityGroup(name, rules(n)) for n, name in enumerate(names)),
        instances=tuple(instance(f"i{n}", f"10.0.{n}.1/32", names[n % groups]) for n in range(2 * groups)),
    )


def instance(name: str, address: str, group: str) -> Instance:
    return Instance(name, "default", (ip_network(address),), (group,))


def diff_page(old: object, new: object, *captures: object) -> str:
    lines: dict[str, Lines] = {"old": {}, "new": {}}
    policies = load_policy(str(old), lines["old"]), load_policy(str(new), lines["new"])
    result = diff(*map(str, (old, new)), list(map(str, captures))) if captures else None
    found = difference(*policies)
    return diff_html(found, result, list(found.warnings), lines)


def told(text: str, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table, as the script reads them: parts of both ends, services, lines of rules, cells."""
    data = read(text, "rule-rows")
    return [
        (
            *([data["parts"][n][0] for n in data["ends"][end]] for end in (source, destination)),
            data["services"][services], [data["lines"][n] for n in data["rules"][rules]], data["cells"][cells],
        )
        for source, destination, services, rules, cells in zip(*data["tables"][table], strict=True)
    ]  # fmt: skip


def cells_of(page: Page) -> dict[str, str]:
    """By ``from → to``: what the matrix says."""
    titles = [attributes.get("title") or "" for tag, attributes in page.tags if tag == "a"]
    return dict(title.split(": ", 1) for title in titles if " → " in title)


def test_all_rows_of_reach_are_on_the_page_with_their_rules() -> None:
    found = reach(large_policy(), rules=True)
    text = reach_html(found, {})
    rows = told(text, "rows")
    assert len(rows) == len(found.rows) > MOST_ROWS
    for row, (sources, destinations, services, lines, _) in zip(found.rows, rows, strict=True):
        assert sources == [part_text(part) for part in row.sources]
        assert destinations == [part_text(part) for part in row.destinations]
        assert services.removesuffix(" (IPv4)") == row.services
        assert [line.split(" (")[0] for line in lines] == [each.rule.id for each in row.rules] != []
    page = Page(text)
    assert len(page.tables["rows"]) == MOST_ROWS + 1
    assert f"And {len(rows) - MOST_ROWS} rows more, which a browser with scripts shows." in page.words


@pytest.mark.parametrize("groups", [8, 40])
def test_cells_say_what_instances_may_reach(groups: int) -> None:
    """Each cell of groups that have a row and a column of their own is what ``reach`` says from one to the other."""
    policy = large_policy(groups)
    text = reach_html(reach(policy, rules=True), {})
    cells = cells_of(Page(text))
    shown = {name for each in cells for name in each.split(" → ")} & set(policy.group_by_name)
    assert len(shown) > 7
    assert bool(groups > 15) == any("others" in each for each in cells)
    rows, columns = ({each.split(" → ")[n] for each in cells} & shown for n in (0, 1))
    pairs = sorted((a, b) for a in rows for b in columns if a != b)
    for a, b in pairs[:: max(1, len(pairs) // some(40, 2000))]:
        asked = reach(policy, named_end(policy, f"group:{a}"), named_end(policy, f"group:{b}"))
        said = cells.get(f"{a} → {b}")
        services = {named_service(row.services).four for row in asked.rows}
        assert (said is None) == (not services), (a, b)
        if said is not None:
            told = named_service(said.removeprefix("may be opened: ")).four
            assert told == union(each for ranges in services for each in ranges), (a, b, said)


@drawn(31, some(8, 400))
def test_cells_of_random_policies_say_what_pairs_of_instances_may_do(policy: Policy, case_seed: int) -> None:
    cells = cells_of(Page(reach_html(reach(policy, rules=True), {})))
    groups = {each.name: ", ".join(dict.fromkeys(each.security_groups)) for each in policy.instances}
    everything = {family: openers(family, {policy.settings.infrastructure}) for family in (4, 6)}

    def ranges(text: str, family: int) -> Ranges:
        without = text.removeprefix("all except ")
        found = intersection(everything[family], named_service(without).of(family))
        return found if without == text else without_these(everything[family], found)

    wanted: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for a, b in permutations(groups, 2):
        asked = reach(policy, named_end(policy, f"instance:{a}"), named_end(policy, f"instance:{b}"))
        for row in asked.rows:
            for family in row.families:
                here = wanted.setdefault(f"{groups[a]} → {groups[b]}", {4: [], 6: []})
                here[family] += ranges(row.services, family)
    assert {each for each in cells if set(each.split(" → ")) <= set(groups.values())} == set(wanted), case_seed
    for name, by_family in wanted.items():
        said = cells[name].removeprefix("may be opened: ")
        told = {int(family): text for text, family in re.findall(r"(.*?) \(IPv([46])\)(?:; )?", said)}
        for family, services in by_family.items():
            if services and not said.endswith(" …"):
                assert ranges(told.get(family, said), family) == union(services), (case_seed, name, said)
            assert services or family not in told


def test_an_instance_alone_in_its_group_reaches_nobody_in_it() -> None:
    policy = large_policy(8)
    policy = replace(policy, instances=policy.instances[:8], security_groups=tuple(
        replace(group, rules=(*group.rules, Rule(f"{group.name}/any", "inbound", 4, 6, ((8080, 8080),))))
        for group in policy.security_groups
    ))  # fmt: skip
    cells = cells_of(Page(reach_html(reach(policy, rules=True), {})))
    assert "8080" in cells["g1 → g2"] and "g1 → g1" not in cells
    # Its neighbour has two.
    two = replace(policy, instances=(*policy.instances, instance("more", "10.9.9.9/32", "g1")))
    assert "8080" in cells_of(Page(reach_html(reach(two, rules=True), {})))["g1 → g1"]


def test_a_row_belongs_to_the_cells_that_its_ends_have_in_common() -> None:
    """SPEC 12.5: a click on a cell leaves the rows that it counts."""
    found = reach(large_policy(8), rules=True)
    text = reach_html(found, {})
    page, rows = Page(text), told(text, "rows")
    head, *body = page.tables["matrix"]
    of_groups = {
        (names[0], column): n * (len(head) - 1) + m
        for n, names in enumerate(body) for m, column in enumerate(head[1:])
    }  # fmt: skip
    for sources, destinations, services, _, cells in rows:
        if all(re.fullmatch(r"g\d", part) for part in sources + destinations):
            assert cells == sorted(of_groups[a, b] for a in sources for b in destinations), services
    assert {cell for *_, cells in rows for cell in cells} == {
        place for (name, column), place in of_groups.items() if f"{name} → {column}" in cells_of(page)
    }


def test_reach_rows_name_the_rule_and_its_line(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "reach.html"
    outcome = sgfast(capsys, "reach", SHOP[0], "--report", path)
    assert outcome.status == 0 and "6 rows" in outcome.out
    rows = told(path.read_text(), "rows")
    (found,) = (row for row in rows if row[:2] == (["web"], ["db"]))
    number = 1 + next(n for n, line in enumerate(Path(SHOP[0]).read_text().split("\n")) if "db/inbound/1" in line)
    assert found[3][0] == f"db/inbound/1 (group db, line {number}): allow inbound tcp 5432, 6379 from group web"
    # The page on standard output leaves nothing else there.
    outcome = sgfast(capsys, "reach", SHOP[0], "--report", "-")
    assert outcome.out.startswith("<!DOCTYPE html>") and "6 rows" in outcome.err
    outcome = sgfast(capsys, "reach", SHOP[0], "--report", tmp_path / "nowhere" / "page.html")
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert sgfast(capsys, "reach", SHOP[0], "--port", "x", "--report", tmp_path / "none.html").status == 2
    assert not (tmp_path / "none.html").exists()


def test_an_answer_without_rows_is_a_page_all_the_same() -> None:
    policy = load_policy(SHOP[0])
    text = reach_html(reach(policy, named_end(policy, "internet"), named_end(policy, "db"), rules=True), {})
    page = Page(text)
    assert "Nobody may open a connection from internet to db" in page.words and "matrix" not in page.tables


def test_the_page_of_diff_says_what_opens_and_closes_and_by_which_rules(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "diff.html"
    outcome = sgfast(capsys, "diff", SHOP[0], PROPOSED, SHOP[1], "--report", path)
    assert outcome.status == 0 and "1 row opened" in outcome.out
    text = path.read_text()
    assert [row[:3] for row in told(text, "opened")] == [(["198.51.100.0/24"], ["web"], "tcp/8080")]
    closed = told(text, "closed")
    assert [row[:3] for row in closed] == [
        (["0.0.0.0/0", "web"], ["web"], "tcp/81"), (["web"], ["db"], "tcp/6379 (IPv4)"),
    ]  # fmt: skip
    assert closed[1][3][0].startswith("db/inbound/1 (group db, line 27): allow inbound tcp 5432, 6379")
    page = Page(text)
    assert cells_of(page)["198.51.100.0/24 → web"] == "opened: tcp/8080"
    assert cells_of(page)["web → db"] == "closed: tcp/6379"
    # The page has the findings about captures, too: the rows, and the numbers behind them.
    result = diff(str(SHOP[0]), str(PROPOSED), [str(SHOP[1])])
    for change in ("newly-denied", "newly-allowed"):
        total = result.total(change)
        rows = page.tables[change][1:]
        assert [sum(int(row[n]) for row in rows) for n in (0, 1)] == [total.connections, total.answered]
        kinds = read(text, f"kinds-{change}")["kinds"]
        assert [sum(kinds[name]) for name in ("connections", "answered", "packets", "bytes")] == [
            total.connections, total.answered, total.packets, total.bytes,
        ]  # fmt: skip
    assert [row[0] for row in page.tables["rules"][1:]] == [effect.rule for effect in result.rules]
    assert page.tables["rules"][1][5] == "allow inbound IPv4 tcp 5432,6379 from group web, line 27"
    assert [row[1:] for row in page.tables["moved"][1:]] == [
        [rule_of_id(result.old, move.old_rule), rule_of_id(result.new, move.new_rule)] for move in result.moved
    ]
    (row,) = page.tables["newly-allowed"][1:]
    assert row[4:6] == ["tcp/8080", "deny no-rule "]
    assert row[6:] == ["allow inbound tcp/80,8080 from 198.51.100.0/24 (web-partners in web)"]


def test_policies_that_allow_the_same_are_told_so() -> None:
    page = Page(diff_page(SHOP[0], SHOP[0], SHOP[1]))
    for words in ("NEW opens nothing and closes nothing", "nothing changes for this traffic", "NEW closes nothing."):
        assert words in page.words
    assert set(page.tables) == set()


def test_names_that_look_like_markup_are_text_on_these_pages() -> None:
    names = [f"{n}{word}" for n, word in enumerate(HOSTILE)]
    rules = [Rule(name, "inbound", 4, 6, ((n, n),), peer=GroupPeer(names[n - 1])) for n, name in enumerate(names)]
    groups = tuple(
        SecurityGroup(name, (rule, Rule(f"{name}2", "outbound", 4))) for name, rule in zip(names, rules, strict=True)
    )
    instances = tuple(instance(name, f"10.0.0.{n}/32", name) for n, name in enumerate(names))
    policy = Policy(security_groups=groups, instances=instances, origin=names[0])
    found = reach(policy, rules=True)
    texts = [reach_html(found, {}), diff_html(difference(Policy(), policy), None, names, {"old": {}, "new": {}})]
    for text in texts:
        page = Page(text)
        assert [tag for tag, _ in page.tags].count("script") == 1
        assert not {"img", "iframe"} & {tag for tag, _ in page.tags}
        assert HOSTILE[0] in page.words


def test_a_page_of_too_many_rows_keeps_the_first_ones_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = reach(large_policy(), rules=True)
    whole = reach_html(found, {})
    monkeypatch.setattr("sgfast.report.html.page._LEAST_ROOM", 3000)
    monkeypatch.setattr("sgfast.report.html.page.MOST_BYTES", 0)
    text = reach_html(found, {})
    rows = told(text, "rows")
    kept = len(rows)
    assert 0 < kept < len(found.rows) and len(read_packed(text)) <= 3000 < len(read_packed(whole))
    assert rows == told(whole, "rows")[:kept]
    words = f"The page has room for {kept} of {len(found.rows)} rows, those first that are open to most."
    assert words in Page(text).words
    assert len(whole.encode()) < MOST_BYTES


def test_a_row_too_large_for_the_page_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be tried for ever."""
    names = [f"{n * 0x9E3779B97F4A7C15 % 2**64:x}" for n in range(300)]
    groups = (SecurityGroup("all", (Rule("in", "inbound", 4), Rule("out", "outbound", 4))),)
    instances = [instance(name, f"10.0.{n >> 8}.{n & 255}/32", "all") for n, name in enumerate(names)]
    found = reach(Policy(security_groups=groups, instances=tuple(instances)), rules=True)
    many = replace(found.rows[0], sources=tuple(Part("instance", name) for name in names))
    monkeypatch.setattr("sgfast.report.html.page._LEAST_ROOM", 2000)
    monkeypatch.setattr("sgfast.report.html.page.MOST_BYTES", 0)
    text = reach_html(replace(found, rows=(many,)), {})
    assert told(text, "rows") == [] and "The page has room for 0 of 1 row, " in Page(text).words


def read_packed(text: str) -> str:
    (packed,) = re.findall(r'<template id="rule-rows" [^>]*>([^<]*)</template>', text)
    return str(packed)


def test_rules_that_would_take_too_long_to_find_are_left_out_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = large_policy()
    whole = reach(policy, rules=True)
    with monkeypatch.context() as patched:
        patched.setattr("sgfast.rules.reaching.relation.MAX_SEARCHED", 5000)
        found, changed = reach(policy, rules=True), difference(Policy(), policy)
        assert [replace(row, rules=()) for row in whole.rows] == list(found.rows)
        assert changed.opened and not any(row.rules for row in changed.opened)
        for warnings in (found.warnings, changed.warnings):
            assert len(warnings) == 1 and "the rules that decide are not named" in warnings[0]
        page = Page(reach_html(found, {}))
    assert page.tables["rows"][1][3] == "-" and found.warnings[0] in page.words
    assert whole.warnings == difference(Policy(), policy).warnings == ()


def test_an_answer_is_the_same_whether_its_rules_are_asked_for_or_not() -> None:
    policy = large_policy()
    plain, ruled = reach(policy), reach(policy, rules=True)
    assert [replace(row, rules=()) for row in ruled.rows] == list(plain.rows)
    assert all(row.rules == () for row in plain.rows) and all(row.rules for row in ruled.rows)

"""The HTML page as text: what it says, and that nothing in it is taken for markup. In a browser:
``test_report_page`` (SPEC 10.10).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from command import PCAPS, SHOP, handshake, sgfast, write_capture, write_policy
from effort import some
from kinds import kinds_of
from traffic import NETWORKS, OUTSIDE, PORTS, drawn

from sgfast import Policy, replay
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.engine import REASONS
from sgfast.policy.model import Instance, Rule, SecurityGroup
from sgfast.questions.replaying import (
    Broken,
    ChangeDone,
    CutConnection,
    Denied,
    ReplayResult,
    RuleHits,
    Service,
    Unanswered,
)
from sgfast.questions.replaying.kinds import KIND_DTYPE, Kinds
from sgfast.report import html_report
from sgfast.report.denial_reasons import MAX_FIELDS, Reasons
from sgfast.report.html import Timeline
from sgfast.report.html.answers import LISTS, traffic_columns
from sgfast.report.html.columns import Columns, folded
from sgfast.report.html.matrix import SIDE
from sgfast.report.html.page import MOST_BYTES
from sgfast.report.html.tables import MAX_ROWS, MOST_ROWS
from sgfast.report.html.traffic_matrix import matrix_of, outcomes
from sgfast.report.rollup import Rollup
from sgfast.rules.reaching.explaining import explain

Capsys = pytest.CaptureFixture[str]

#: Names that would be more than text on a page that does not escape them.
HOSTILE = (
    '</script><script>document.title="taken"</script>', '"><img src=x onerror="document.title=1">', "'onfocus='x",
    "</style></title></td></table>", "<!--", "]]>", "&lt;b&gt;", "a\x00b\x1b[31mc\r\nd\u202ee\u2028f", "\udc80\udcff",
    "$style ${script} $$", "{{x}}", "javascript:alert(1)", "https://example.com/x.js",
)  # fmt: skip


class Page(HTMLParser):
    """``tables``: by key, rows of cell texts; ``tags`` with their attributes; ``words``: all text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.cell: list[str] | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(attributes.get("data-table") or attributes.get("id") or "matrix", [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data


def replayed(*paths: object, **options: object) -> tuple[ReplayResult, Timeline]:
    timeline = Timeline()
    policy, *captures = map(str, paths)
    return replay(policy, captures, packets=timeline, **options), timeline  # type: ignore[arg-type]


def hostile_result() -> ReplayResult:
    """Everything that has a name has a hostile one."""
    names = [f"{n}{word}" for n, word in enumerate(HOSTILE)]
    groups, hits = [], []
    for name in names:
        rules = [
            Rule(name, "inbound", 4, 6, ((80, 80),), description=name),
            Rule(name + "2", "outbound", 6, action="deny", peer=ip_network("2001:db8::/32"), description=name),
        ]
        groups.append(SecurityGroup(name, tuple(rules), name))
        hits += [RuleHits(rules[0], name, 1, 2, 3), RuleHits(rules[1], name, 0, 0, 0)]
    policy = Policy(
        security_groups=tuple(groups),
        instances=tuple(
            Instance(name, "default", (ip_network(f"10.0.0.{n}/32"),), (name,)) for n, name in enumerate(names)
        ),
        origin=names[0] + names[1],
    )
    services = [Service(name, 6, 443, None, None) for name in names]
    reasons = ["no-rule", "deny-rule", "vpc-isolated", "invalid", "midstream", "table-full"]
    kinds = kinds_of(
        [Denied(s, "inbound", "198.51.100.7", None, why, 2, 3) for s in services for why in reasons],
        [Broken(s, "outbound", "2001:db8::7", s.instance, why, 2) for s in services for why in reasons],
        [Unanswered(service, "refused", 3) for service in services],
    )
    # Some of the allowed connections were answered. Each has a rule of its own.
    allowed = np.flatnonzero(kinds.rows["refused"])
    kinds.rows["connections"][allowed] += 1
    kinds.rows["rule"][allowed] = np.arange(len(allowed))
    kinds = replace(kinds, rules=[each.rule.id for each in hits if each.packets])
    cuts = tuple(
        CutConnection(6, "2001:db8::1", "2001:db8::2", 1, 2, None, None, False, 3, "back", 5, True, name, name)
        for name in names
    )
    return ReplayResult(
        policy, mode="causal", midstream="infer", vpc=names[2], captures=tuple(names), packets=10, bytes=10,
        verdicts={"allow": 5, "deny": 5, "moot": 0, "out-of-scope": 0, "local": 0, "exempt": 0, "not-ip": 0},
        reasons={"rule": 5, "no-rule": 5}, connections={"opened": 1, "denied": 1, "disconnected": 1, "inferred": 1},
        rules=hits, first_time_ns=0, last_time_ns=10, elapsed_seconds=0.1, warnings=list(names),
        kinds=kinds,
        changes=[ChangeDone(5, name, 1, 1, 0, 3, cuts) for name in names], changes_left=1,
    )  # fmt: skip


def test_names_that_look_like_markup_are_text() -> None:
    result = hostile_result()
    text = html_report(result)
    text.encode()
    beyond = r"[^\n\x20-\x7e\u2026\u2192\u2193\u25b2\u25b8\u25bc\u25be\u2715·]"
    assert not re.search(beyond, text.replace("\u2028", "!"))
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in page.tags].count("style") == 1
    plain = Page(html_report(replace_names(result)))
    # The same elements, with the same attributes, as a page whose names are harmless.
    assert {(tag, *sorted(attributes)) for tag, attributes in page.tags} == {
        (tag, *sorted(attributes)) for tag, attributes in plain.tags
    }
    for word in HOSTILE[:6]:
        assert word in page.words


def test_a_pointer_over_an_instance_shows_what_the_provider_calls_it() -> None:
    """SPEC 2.12. Its words are text, too, whatever they are."""
    result, _ = replayed(*SHOP)
    for label in ("Jump Host", *HOSTILE[:2]):
        named = tuple(
            replace(each, id="eni-1", device="i-1", label=label) if each.name == "web-1" else each
            for each in result.policy.instances
        )
        page = Page(html_report(replace(result, policy=replace(result.policy, instances=named))))
        assert {attributes["title"] for tag, attributes in page.tags if tag == "b" and "title" in attributes} == {
            f"eni-1, i-1, {label}"
        }
        assert [tag for tag, _ in page.tags].count("script") == 1


def replace_names(result: ReplayResult) -> ReplayResult:
    harmless = [f"some-{n}" for n in range(len(result.kinds.instances))]
    return replace(
        result, policy=load_policy(SHOP[0]), captures=("some.pcap",), vpc="some", warnings=["some"],
        kinds=replace(result.kinds, instances=harmless, groups=[("web",)] * len(harmless)),
        changes=[replace(change, text="some") for change in result.changes],
    )  # fmt: skip


def test_what_the_page_may_do_is_its_own_script_and_style() -> None:
    text = html_report(*replayed(*SHOP))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    allowed = dict(part.strip().split(" ", 1) for part in policy.replace("&#x27;", "'").split(";"))
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert set(allowed) == {"default-src", "style-src", "script-src", "base-uri", "form-action"}
    for tag in ("style", "script"):
        (code,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"
    page = Page(text)
    for _, attributes in page.tags:
        assert not {"src", "style", "srcset", "action", "xlink:href"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    # Each link leads somewhere.
    keys = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {(attributes["href"] or "")[1:].partition("?")[0] for tag, attributes in page.tags if tag == "a"} <= keys


def test_it_says_what_the_result_says() -> None:
    result, timeline = replayed(*SHOP, changes=PCAPS / "shop.changes.yaml")
    page = Page(html_report(result, timeline))
    assert "12 connections that worked would break" in page.words
    rollup = Rollup(result.policy, result.kinds)
    for one in LISTS:
        if one.part != "cannot-tell":
            assert sum(int(row[0]) for row in page.tables[one.key][1:]) == rollup.total(one.part) > 0
    used = {row[0]: row[4] for row in page.tables["rules"][1:]}
    assert used == {hits.rule.id: str(hits.packets) for hits in result.rules if hits.packets}
    assert [row[0] for row in page.tables["unused"][1:]] == ["web-ssh"]
    assert [row[2] for row in page.tables["changes"][1:]] == [change.text for change in result.changes]
    assert len(page.tables["cut"]) - 1 == sum(change.disconnected for change in result.changes) == 3
    counted = [sum(int(row[n].replace(",", "")) for row in page.tables["numbers"][1:]) for n in (1, 2, 3)]
    assert counted == [result.verdicts["allow"], result.verdicts["deny"], result.verdicts["moot"]]
    flags = [attributes for tag, attributes in page.tags if tag == "text" and attributes.get("class") == "flag"]
    assert len(flags) == 2


@pytest.mark.parametrize("with_timeline", [True, False])
def test_a_capture_without_packets_is_a_page_all_the_same(tmp_path: Path, with_timeline: bool) -> None:
    result, timeline = replayed(SHOP[0], write_capture(tmp_path))
    page = Page(html_report(result, timeline if with_timeline else None))
    assert "Cannot tell" in page.words and "The captures have no packets" in page.words
    assert "timeline" not in page.words


def test_damage_and_warnings_are_told_first(tmp_path: Path) -> None:
    capture = write_capture(tmp_path, *handshake(1000, 80))
    capture.write_bytes(capture.read_bytes()[:-5])
    result, timeline = replayed(write_policy(tmp_path), capture)
    page = Page(html_report(result, timeline))
    assert result.damaged is not None
    assert page.words.index("Damaged capture") < page.words.index("What would break")


def test_long_lists_end_and_say_how_much_is_missing() -> None:
    result, timeline = replayed(*SHOP)
    denied = [
        Denied(Service("web-1", 6, port, None, None), "inbound", "198.51.100.7", None, "no-rule", 1 + port, 60)
        for port in range(3000)
    ]
    many = replace(
        result, kinds=kinds_of(denied), rules=result.rules * 3000, warnings=["w" * 10_000] * 5000,
        captures=("x" * 4000,) * 3000, changes=[ChangeDone(0, "c" * 300, 1, 1, 0, 3)] * 5000,
    )  # fmt: skip
    text = html_report(many, timeline)
    page = Page(text)
    assert len(text) < 3_000_000
    assert all(len(rows) <= MAX_ROWS + 1 for rows in page.tables.values())
    left = 3000 - MOST_ROWS
    packets = sum(kind.packets for kind in denied[:left])
    assert f"And {left:,} rows more ({packets:,} packets), which a browser with scripts shows." in page.words


# Data for the page's script


def read(text: str, key: str = "kinds") -> dict[str, Any]:
    (packed,) = re.findall(rf'<template id="{key}" [^>]*>([^<]*)</template>', text)
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return found


def random_kinds(seed: int, number: int, *, number_of_groups: int = 20, ports: int = 65_536) -> ReplayResult:
    """A replay of what a cloud has: kinds of everything that can happen, between instances and addresses."""
    random = np.random.default_rng(seed)
    groups, instances = [f"g{n}" for n in range(number_of_groups)], 2 * number_of_groups
    rules = [Rule(f"{group}/inbound/1", "inbound", 4, 6, ((80, 80),)) for group in groups]
    policy = Policy(
        security_groups=tuple(SecurityGroup(group, (rule,)) for group, rule in zip(groups, rules, strict=True)),
        instances=tuple(
            Instance(f"i{n}", "default", (ip_network(f"10.0.{n // 250}.{n % 250}/32"),), (groups[n // 2],))
            for n in range(instances)
        ),
    )  # fmt: skip
    rows = np.zeros(number, dtype=KIND_DTYPE)
    rows["instance"] = random.integers(0, instances, number)
    rows["owner"] = np.where(random.random(number) < 0.4, random.integers(0, instances, number), -1)
    rows["peer"][:, :4] = random.integers(0, 256, (number, 4))
    rows["family"], rows["protocol"], rows["has_ports"] = 4, 6 + 11 * (random.random(number) < 0.2), 1
    rows["port_key"], rows["inbound"] = random.integers(0, ports, number), random.random(number) < 0.8
    denied = random.random(number) < 0.6
    rows["reason"] = np.where(denied, REASONS.index("no-rule"), REASONS.index("rule"))
    rows["rule"] = np.where(denied, -1, random.integers(0, len(rules), number))
    size = random.zipf(1.6, number).clip(1, 100_000)
    rows["connections"], rows["packets"] = size, np.where(denied, size * 3, 0)
    rows["bytes"] = rows["packets"] * random.integers(60, 900, number)
    rows["broken"] = np.where(denied & (random.random(number) < 0.4), size, 0)
    rows["refused"] = np.where(denied | (random.random(number) < 0.9), 0, size)
    rows["silent"] = np.where(denied | (rows["refused"] > 0) | (random.random(number) < 0.9), 0, size)
    rows["first_ns"] = 10**18 + random.integers(0, 3600 * 10**9, number)
    rows["last_ns"], rows["number"] = rows["first_ns"] + 10**9, random.integers(1, 2 * 10**7, number)
    verdicts = dict.fromkeys(("moot", "out-of-scope", "local", "exempt", "not-ip"), 0)
    packets = int(rows["packets"].sum())
    return ReplayResult(
        policy, mode="causal", midstream="infer", vpc=None, captures=("cloud.pcap",), packets=packets,
        verdicts={"allow": 0, "deny": packets} | verdicts,
        rules=[RuleHits(rule, group, 1, 1, 1) for rule, group in zip(rules, groups, strict=True)],
        first_time_ns=10**18, last_time_ns=10**18 + 3600 * 10**9,
        kinds=Kinds(rows, [each.name for each in policy.instances], [rule.id for rule in rules]),
    )  # fmt: skip


def sums_of(result: ReplayResult) -> dict[str, int]:
    rows = result.kinds.rows
    denied = rows["packets"] > 0
    counted = {name: rows[name] for name in ("packets", "bytes", "refused", "silent")}
    counted |= {"breaks": rows["broken"], "attempts": rows["connections"][denied]}
    counted["allowed"] = (rows["connections"] - rows["refused"] - rows["silent"])[~denied]
    return {name: int(numbers.sum()) for name, numbers in counted.items()}


@pytest.mark.parametrize("seed", range(3))
def test_sums_on_the_page_are_those_of_the_kinds(seed: int) -> None:
    result = random_kinds(seed, 3000, number_of_groups=30)
    text = html_report(result)
    data, expected = read(text), sums_of(result)
    assert {name: sum(data["kinds"][name]) for name in expected} == expected
    # So are those of the matrix, which tells groups beyond its size as others.
    cells = [attributes.get("title") or "" for tag, attributes in Page(text).tags if tag == "a"]

    def told(words: str) -> int:
        return sum(int(count.replace(",", "")) for cell in cells for count in re.findall(rf"([\d,]+) {words}", cell))

    unbroken = result.kinds.rows["packets"][result.kinds.rows["broken"] == 0]
    assert told("would break") == expected["breaks"]
    assert told("packets? denied and not answered") == unbroken.sum()
    assert told("not served") == expected["refused"] + expected["silent"]
    assert told("allowed") == expected["allowed"]
    assert any("others" in cell for cell in cells)


@pytest.mark.parametrize(("groups", "rows", "last"), [(13, 15, ""), (14, 16, ""), (15, 16, "2 others")])
def test_the_matrix_ends_where_others_are_fewer_rows(groups: int, rows: int, last: str) -> None:
    result = random_kinds(5, 1000, number_of_groups=groups)
    result.kinds.rows["broken"] = 0
    # Two more rows are what comes from public and from private addresses.
    rollup, lacks = Rollup(result.policy, result.kinds), np.full(len(result.kinds.rows), -1)
    columns = traffic_columns(result, rollup, Reasons(result.policy), {}, lacks)
    matrix = matrix_of(columns, outcomes(answers_unknown=False), SIDE)
    labels = matrix.rows.labels
    assert len(labels) == rows and sum("others" in name for name in labels) == bool(last)
    sizes = [sum(sum(cell.sizes) for (n, _), cell in matrix.cells.items() if n == row) for row in range(rows)]
    assert labels[-1] == (last or min(zip(sizes, labels, strict=True))[1])


@pytest.mark.parametrize(("breaking", "named"), [(0, 0), (1, 1), (10, 10), (12, 10)])
def test_small_groups_whose_connections_would_break_are_not_among_others(breaking: int, named: int) -> None:
    result = random_kinds(6, 6000, number_of_groups=60)
    rows = result.kinds.rows
    rows["broken"] = 0
    group = rows["instance"] // 2
    # One connection in each of the last groups, which have less than all others.
    last = range(60 - breaking, 60)
    for n in last:
        of_group = np.flatnonzero((group == n) & (rows["inbound"] == 1) & (rows["packets"] > 0))
        rows["connections"][group == n], rows["packets"][of_group] = 0, 0
        rows["connections"][of_group[0]] = rows["packets"][of_group[0]] = rows["broken"][of_group[0]] = 1
        rows["refused"][group == n] = rows["silent"][group == n] = 0
    rollup, lacks = Rollup(result.policy, result.kinds), np.full(len(rows), -1)
    columns = traffic_columns(result, rollup, Reasons(result.policy), {}, lacks)
    matrix = matrix_of(columns, outcomes(answers_unknown=False), SIDE)
    own = matrix.columns.labels[: matrix.columns.own]
    assert sum(f"g{n}" in own for n in last) == named and len(own) == SIDE + named
    assert matrix.columns.labels[-1] == f"{60 + 2 - len(own)} others" or breaking > 10
    broken = [cell.sizes[0] for (_, column), cell in matrix.cells.items() if column == matrix.columns.own]
    # The cells of the unnamed groups show how many of their connections would break.
    assert sum(broken) == breaking - named
    marked = [cell.short for cell in matrix.cells.values() if cell.sizes[0]]
    assert len(marked) >= min(breaking, 1) and all(words.startswith("✕ ") for words in marked)


def test_a_page_that_would_be_too_large_folds_the_smallest_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC 10.10: no count is lost, and the page says what it did."""
    number, limit = some(9000, 200_000), some(800_000, MOST_BYTES)
    monkeypatch.setattr("sgfast.report.html.page.MOST_BYTES", limit)
    result = random_kinds(1, number)
    text = html_report(result)
    assert limit * 0.6 < len(text.encode()) <= limit
    data, expected = read(text), sums_of(result)
    kinds = data["kinds"]
    assert {name: sum(kinds[name]) for name in expected} == expected
    found = re.search(r"room for the ([\d,]+) largest kinds of traffic. The other ([\d,]+) are", text)
    assert found is not None
    kept, left = (int(count.replace(",", "")) for count in found.groups())
    assert kept + left == number and 0 < kept < number
    assert "--connections FILE, or --json --by address --top N" in text
    # Kinds that would break are kept, and then the largest ones; the others stand together.
    rows = result.kinds.rows
    sizes = [(each["broken"] > 0, int(each["broken"] + each["packets"] + each["connections"])) for each in rows]
    largest = sorted(size for _, size in sorted(sizes)[-kept:])
    whole = [n for n, end in enumerate(kinds["source"]) if end < data["exact"]]
    counted = ("breaks", "allowed", "refused", "silent", "attempts", "packets")
    assert sorted(sum(kinds[name][n] for name in counted) for n in whole) == largest
    assert kinds["source"][whole[-1] + 1 :] and min(kinds["source"][whole[-1] + 1 :]) >= data["exact"]


@pytest.mark.parametrize("level", ["group", "any"])
def test_folding_all_kinds_keeps_sums_by_reason_and_protocol(level: Literal["group", "any"]) -> None:
    result = random_kinds(2, 4000, ports=100)
    rollup, lacks = Rollup(result.policy, result.kinds), np.full(len(result.kinds.rows), -1)
    columns = traffic_columns(result, rollup, Reasons(result.policy), {}, lacks)
    coarse = folded(columns, 0, level)
    assert len(coarse) < (len(columns) if level == "group" else 100)

    def by(each: Columns) -> Counter[tuple[str, ...]]:
        found: Counter[tuple[str, ...]] = Counter()
        for n in range(len(each)):
            protocol = each.services[each.kinds["service"][n]].partition("/")[0].partition(",")[0]
            found[protocol, str(each.kinds["reason"][n])] += int(each.kinds["packets"][n] + each.kinds["allowed"][n])
        return found

    assert by(coarse) == by(columns)


# Why


def test_the_nearest_rule_is_one_of_those_that_explain_names() -> None:
    policy = load_policy(SHOP[0])
    result, _ = replayed(*SHOP)
    reasons = Reasons(policy)
    compared = 0
    for kind in (*result.broken, *result.denied):
        if kind.reason != "no-rule":
            continue
        found = re.match(r"Nearest: (?:.*\()?(\S+)(?: in \S+\))?, but", reasons.cause(kind).nearest)
        service, version = kind.service, ip_address(kind.peer).version
        own = next(
            str(network.network_address)
            for network in policy.instance_by_name[service.instance].addresses
            if network.version == version
        )
        ends = (kind.peer, own) if kind.direction == "inbound" else (own, kind.peer)
        explained = explain(
            policy, *ends, service.protocol, port=service.port, icmp_type=service.icmp_type,
            icmp_code=service.icmp_code,
        )  # fmt: skip
        side = explained.ingress if kind.direction == "inbound" else explained.egress
        assert side is not None and (side.instance.name, side.reason) == (service.instance, "no-rule")
        near = [miss.rule.id for miss in side.nearest if len(miss.misfits) <= MAX_FIELDS]
        assert found[1] in near if found else not near, (kind, near)
        compared += found is not None
    assert compared >= 15


@drawn(20, some(20, 1000))
def test_kinds_that_share_an_answer_would_each_get_it(policy: Policy, case_seed: int) -> None:
    """In random policies, the nearest rules of a kind are the ones that are found for it alone."""
    random = np.random.default_rng(case_seed)
    shared = Reasons(policy)
    names = [each.name for each in policy.instances]
    for _ in range(80):
        family, protocol = int(random.choice((4, 6))), int(random.choice((6, 6, 17, 47, 1, 58)))
        port = int(random.choice(PORTS)) + int(random.integers(2)) if protocol in (6, 17) else None
        icmp = int(random.choice((8, 9, 13, 128))) if protocol in (1, 58) else None
        service = Service(str(random.choice(names)), protocol, port, icmp, None if icmp is None else 1)
        owner = str(random.choice(names)) if random.random() < 0.4 else None
        peer = str(random.choice([*OUTSIDE[family], *(str(ip_network(each)[-1]) for each in NETWORKS[family])]))
        kind = Denied(service, "inbound" if random.random() < 0.6 else "outbound", peer, owner, "no-rule", 1, 60)
        alone, cause = Reasons(policy), shared.cause(kind)
        assert [each.rule.id for each in cause.rules] == [rule for rule, _ in alone.nearest_rules(kind)], kind
        assert cause == alone.cause(kind), kind


def test_rules_are_told_with_their_line_in_the_document(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert sgfast(capsys, "replay", *SHOP, "--report", path).status == 0
    document = Path(SHOP[0]).read_text().split("\n")
    text = path.read_text()
    data = read(text)
    lines = data["rules"] + data["near"]
    told = [re.match(r"(?:.*\()?(\S+?)(?: in \S+\))? \(group \S+, line (\d+)\): allow", line) for line in lines]
    assert len(told) > 8 and data["near"]
    for line, found in zip(lines, told, strict=True):
        (direction, *_) = re.findall("inbound|outbound", line)
        assert found is not None and f"direction: {direction}" in document[int(found[2]) - 1], line
    rows = Page(text).tables["rules"][1:] + Page(text).tables["unused"][1:]
    assert len(rows) == 9 and {f"{found[1]}, line {found[2]}" for found in told if found} <= {row[0] for row in rows}


def test_reasons_name_what_decided() -> None:
    policy = parse_policy("""
version: 1
vpcs: [{name: a, region: north}, {name: b, region: south}]
security_groups:
  - name: web
    rules:
      - {id: open, direction: inbound, protocol: tcp, ports: "80,443-445", priority: 5}
      - {id: shut, direction: inbound, protocol: tcp, ports: 443, action: deny, priority: 5}
      - {id: later, direction: inbound, protocol: tcp, ports: 443, action: deny, priority: 6}
      - {id: ping, direction: inbound, protocol: icmp, icmp_type: 8, source: web}
instances:
  - {name: one, vpc: a, addresses: [10.0.0.1], security_groups: [web]}
  - {name: two, vpc: b, addresses: [10.0.0.2], security_groups: [web]}
""")
    reasons = Reasons(policy)
    tcp = Service("one", 6, 443, None, None)

    def denied(reason: str, service: Service = tcp, peer: str = "192.0.2.1", name: str | None = None) -> Denied:
        return Denied(service, "inbound", peer, name, reason, 1, 1)

    assert reasons.cause(denied("deny-rule")).why == "A deny rule wins: shut, priority 5."
    assert reasons.cause(denied("vpc-isolated", name="two")).why == "VPC a and VPC b are not peered."
    assert reasons.cause(denied("deny-rule")).nearest == ""
    port = denied("no-rule", Service("one", 6, 22, None, None))
    assert reasons.cause(port).why == "No inbound rule of web matches."
    assert reasons.cause(port).nearest == (
        "Nearest: inbound tcp/80,443-445 from 0.0.0.0/0 (open in web), but its ports are 80, 443-445."
    )
    ping = denied("no-rule", Service("one", 1, None, 8, 0), "10.0.0.2", "two")
    assert reasons.nearest_rules(ping) == [("ping", ["its source is group web, and two is in another region"])]
    ping = denied("no-rule", Service("one", 1, None, 8, 0))
    assert reasons.nearest_rules(ping) == [("ping", ["its source is group web, and 192.0.2.1 is not in that group"])]
    six = denied("no-rule", Service("one", 6, 80, None, None), "2001:db8::1")
    assert reasons.cause(six).nearest == (
        "Nearest: inbound tcp/80,443-445 from 0.0.0.0/0 (open in web), but it is an IPv4 rule."
    )
    gone = denied("no-rule", Service("nobody", 6, 80, None, None))
    assert (reasons.cause(gone).why, reasons.cause(gone).nearest) == ("No inbound rule matches.", "")


def test_peer_that_is_in_the_group_by_another_instances_prefix_is_not_said_to_be_outside() -> None:
    """SPEC 4.14."""
    text = """
version: 1
settings: {group_members: BY}
vpcs: [{name: a, region: north}, {name: b, region: south}]
security_groups:
  - {name: web, rules: [{id: ping, direction: inbound, protocol: icmp, icmp_type: 8, source: g}]}
  - {name: g}
instances:
  - {name: one, vpc: a, addresses: [10.0.0.1], security_groups: [web]}
  - {name: two, vpc: b, addresses: [10.9.0.2], security_groups: [web]}
  - {name: router, vpc: b, addresses: [10.9.0.0/24], security_groups: [g]}
"""
    ping = Denied(Service("one", 1, None, 8, 0), "inbound", "10.9.0.2", "two", "no-rule", 1, 1)
    for by, words in (("by-owner", "not in that group"), ("by-address", "in another region")):
        ((_, said),) = Reasons(parse_policy(text.replace("BY", by))).nearest_rules(ping)
        assert said == [f"its source is group g, and two is {words}"]


def test_a_policy_too_large_to_compare_costs_hints_only() -> None:
    result, _ = replayed(*SHOP)
    reasons = Reasons(load_policy(SHOP[0]))
    reasons._comparisons_left = 3
    told = [reasons.nearest_rules(kind) for kind in result.broken]
    assert told[0] and not any(told[3:])


# The command


def test_report_writes_the_page_of_the_replay(capsys: Capsys, tmp_path: Path) -> None:
    target, lines = tmp_path / "page.html", tmp_path / "lines"
    outcome = sgfast(capsys, "replay", *SHOP, "--report", target, "--verdicts", lines)
    assert outcome.status == 0 and outcome.err == ""
    assert "Would break" in outcome.out
    page = Page(target.read_text(encoding="utf-8"))
    assert "connections that worked would break" in page.words and len(page.tables["numbers"]) > 10
    assert len(lines.read_text().splitlines()) == 261


def test_a_page_on_standard_output_is_alone_there(capsys: Capsys) -> None:
    outcome = sgfast(capsys, "replay", *SHOP, "--report", "-")
    assert outcome.status == 0 and Page(outcome.out).tables and outcome.out.endswith("</html>\n")
    assert "Would break" in outcome.err


def test_the_reference_engine_makes_a_page_that_says_what_it_lacks(capsys: Capsys, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert sgfast(capsys, "replay", *SHOP, "--engine", "reference", "--report", target).status == 0
    page = Page(target.read_text())
    assert "The reference engine keeps no list" in page.words
    assert "broken" not in page.tables and page.tables["rules"] and page.tables["numbers"]


def test_a_replay_that_fails_leaves_no_page(capsys: Capsys, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    broken = tmp_path / "broken.pcap"
    broken.write_bytes(b"no capture at all")
    assert sgfast(capsys, "replay", SHOP[0], broken, "--report", target).status == 2
    assert target.read_text() == "old" and sorted(tmp_path.iterdir()) == [broken, target]
    outcome = sgfast(capsys, "replay", *SHOP, "--report", tmp_path / "nowhere" / "page.html")
    assert outcome.status == 2 and "its directory does not exist" in outcome.one_line()


def test_paths_with_hostile_names_are_text(capsys: Capsys, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>\udc80"
    folder.mkdir()
    policy, target = write_policy(folder), folder / "page.html"
    capture = write_capture(folder, *handshake(1000, 80), name="</title><script>1</script>.pcap".replace("/", "\u2215"))
    assert sgfast(capsys, "replay", policy, capture, "--report", target).status == 0
    page = Page(target.read_text(encoding="utf-8"))
    assert "<img src=x onerror=alert(1)>\\udc80" in page.words
    assert [tag for tag, _ in page.tags].count("script") == 1 and "img" not in {tag for tag, _ in page.tags}

"""Policies and results in notebooks (SPEC 14.11), and the notebook: it runs as it stands."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from workshop import ROOT

import sgfast
from sgfast.policy.expectations import parse_expectations
from sgfast.policy.loaded_policy import having
from sgfast.questions.comparing import run_diff
from sgfast.questions.replaying import ReplayOptions
from sgfast.questions.suggesting.instances import opened
from sgfast.rules.reaching.difference import difference
from sgfast.rules.reaching.explaining import explain
from sgfast.rules.reaching.names import Part
from sgfast.rules.reaching.proving import Expectations
from sgfast.rules.reaching.rows import reach

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
CAPTURE = str(ROOT / "pcaps/shop.pcap")
AWKWARD = "<b onclick='x'>&amp;"


def awkward_policy() -> sgfast.Policy:
    """The shop's, with names that are no HTML, which no policy may have. They are escaped all the same."""
    policy = sgfast.load(ROOT / "pcaps/shop.yaml")
    instances = [replace(one, name=one.name + AWKWARD) for one in policy.instances]
    groups = [
        replace(group, rules=tuple(replace(rule, id=rule.id + AWKWARD) for rule in group.rules))
        for group in policy.security_groups
    ]
    return having(policy, instances=tuple(instances), security_groups=tuple(groups))


class Cells(HTMLParser):
    """The text of the cells of tables. AssertionError for anything but plain tables and paragraphs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        assert tag in ("table", "thead", "tbody", "tr", "th", "td", "p") and not attributes
        self.open.append(tag)
        self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.cells[-1] += data


def shown(result: Any) -> list[str]:
    return Cells(result._repr_html_()).cells


def test_everything_shown_is_escaped_and_has_no_colours_of_its_own() -> None:
    policy = awkward_policy()
    instance, rule = f"web-1{AWKWARD}", f"web-http-4{AWKWARD}"
    result = sgfast.replay(policy, CAPTURE, tables=("packets", "connections"))
    other = sgfast.load(ROOT / "pcaps/shop.proposed.yaml")
    explained = explain(policy, "198.51.100.7", instance, "tcp", port=80)
    assert shown(explained)[-2:][0] == rule
    assert instance in shown(result) and "261" in shown(result)
    assert instance in shown(result.tables.packets) and rule in shown(result.tables.rules)
    assert "… and 251 more" in shown(result.tables.packets)
    found = reach(policy)
    parts = Part("network", AWKWARD, without=("b>",)), Part("instances"), Part("instance", "i", addresses=("<a>",))
    row = replace(found.rows[0], sources=parts)
    assert f"{AWKWARD} except b>, all instances, i (<a>)" in shown(replace(found, rows=(row, *found.rows)))
    assert {"web", "db", "security group"} <= {*shown(policy)}
    changed = run_diff(policy, other, CAPTURE, ReplayOptions())
    assert {"newly-denied", "newly-allowed", "answered"} <= {*shown(changed)}
    assert {"Opened:", "Closed:"} <= {*shown(difference(policy, other))}
    engine = sgfast.Engine(policy)
    assert rule in shown(engine.explain("198.51.100.7", "10.0.0.5", "tcp", dport=80))
    meant = parse_expectations("expect: [{from: internet, to: db, service: tcp/22, verdict: allow}]")
    assert "fails" in shown(Expectations(policy, meant).prove())
    finding = policy.check().findings[0]
    assert AWKWARD in finding.message and AWKWARD in (finding.rule or "")
    assert {finding.code, finding.severity, finding.rule, finding.message} <= {*shown(policy.check())}
    assert {"Opened:", "Closed:"} <= {*shown(policy.diff(other))}
    assert {"Opened:", "newly-denied"} <= {*shown(policy.diff(other, CAPTURE))}
    assert {"web", "tcp/6379 to group db, IPv4"} <= {*shown(sgfast.suggest(CAPTURE, policy=other, allowed_only=False))}


def test_a_replay_in_which_nothing_breaks_says_so() -> None:
    policy = opened(sgfast.load(ROOT / "pcaps/shop.yaml"))
    assert "No connection that was answered in the captures would break." in shown(sgfast.replay(policy, CAPTURE))


def cells_of_notebook() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_runs_and_keeps_its_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="no duckdb here")
    monkeypatch.chdir(NOTEBOOK.parent)
    cells, names = cells_of_notebook(), dict[str, Any]()
    assert len(cells) > 5
    for n, cell in enumerate(cells, 1):
        assert cell["execution_count"] == n
        (output,) = cell["outputs"]
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop()
        assert isinstance(last, ast.Expr)
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        value = eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)
        html = "".join(output["data"]["text/html"])
        # DuckDB's own results look as its version likes.
        if type(value).__module__.startswith("sgfast"):
            assert html == value._repr_html_()
        else:
            assert "<table" in html

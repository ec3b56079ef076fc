"""Reports as Markdown: the numbers of the other formats, a comment that is short, and names that are only names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from command import PCAPS, SHOP, mixture, sgfast, write_capture, write_policy
from effort import EXHAUSTIVE, some
from kinds import kinds_of
from markdown_it import MarkdownIt
from reports import SIZES, check_markdown, replay_markdown, suggestion_markdown
from traffic import Crowd, as_capture, drawn, stateful

from sgfast import Policy, replay
from sgfast.base.names import printable
from sgfast.cli.printing import MARKDOWN_ROWS as TOP
from sgfast.policy.expectations import Expectation, Word
from sgfast.policy.model import Rule
from sgfast.questions.checking import CheckResult, Finding
from sgfast.questions.replaying import Broken, ChangeDone, CutConnection, ReplayResult, RuleHits, Service
from sgfast.questions.replaying.results import Contradicted, Expected
from sgfast.questions.suggesting import Limits, suggest
from sgfast.report.evidence import qualified
from sgfast.report.json.replay import replay_answer
from sgfast.report.json.suggestion import suggestion_answer
from sgfast.report.rollup import BY, By
from sgfast.traffic.capture import Damage

Capsys = pytest.CaptureFixture[str]
CHANGES = ("changes/policy.yaml", "changes/network.pcap", "--changes", "changes/changes.yaml")
#: With rows to leave out.
COMMANDS: dict[str, tuple[str, ...]] = {
    "replay": ("replay", "shop.yaml", "shop.pcap", "--expect", "shop.expect.yaml"),
    "changes": ("replay", *CHANGES),
    "diff": ("diff", "shop.yaml", "shop.proposed.yaml", "shop.pcap"),
    "suggest": ("suggest", "shop.pcap", "--instances", "shop.yaml", "--min-connections", "2"),
    "check": ("check", "shop.yaml", "--traffic", "shop.pcap"),
}


LEFT = r"^and .* more .*: --top (\d+) lists all"


@dataclass
class Section:
    """A heading, and a table and text that follow it. Cells are texts as people see them."""

    heading: str
    head: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    text: str = ""

    def counted(self, name: str) -> int:
        """The sum of a column, with what is left out."""
        left = re.search(r"and [\d,]+ more (?:pair|row)s? \(([\d,]+) ", self.text)
        listed = [number(row[self.head.index(name)]) for row in self.rows]
        return sum(listed) + (number(left[1]) if left is not None else 0)


#: GitHub and GitLab make links, mentions and pictures of these, without any markup; but no picture of a minute (:32:).
LINKED = re.compile(
    r"@\w|://\w|www\.\w|[#!$~%&][\w\"]|\b(gh|gl|ghsa|cve)-\w|[0-9a-f]{7}|:(?!\d\d:)[\w+-]+:", re.IGNORECASE
)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def sections(text: str) -> list[Section]:
    """As GitHub reads it. Nothing but headings, paragraphs, lists, tables and code may be in it."""
    found: list[Section] = []
    where = ""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "inline":
            parts = [each for each in token.children or () if (each.type, each.content) != ("html_inline", "<!-- -->")]
            for part in parts:
                assert part.type in ("text", "text_special", "code_inline", "strong_open", "strong_close"), part
            # Text as it is searched for links once it is read: comments and code part it, backslashes are gone.
            plain = "".join(
                each.content if each.type.startswith("text") else "" if each.type.startswith("strong") else "\0"
                for each in token.children or ()
            )
            assert not LINKED.search(plain), plain
            shown = "".join(part.content for part in parts)
            if where == "heading_open":
                found.append(Section(shown))
            elif where == "th_open":
                found[-1].head.append(shown)
            elif where == "td_open":
                found[-1].rows[-1].append(shown)
            else:
                found[-1].text += f"{shown}\n"
        elif token.nesting == 1:
            where = token.type
            assert token.tag in ("h3", "h4", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"), token
            if where == "table_open" and found[-1].head:
                found.append(Section(found[-1].heading))
            if where == "tr_open" and found[-1].head:
                found[-1].rows.append([])
    assert text.startswith("### ") and text.endswith("\n")
    assert all(len(row) == len(each.head) for each in found for row in each.rows), found
    return found


def test_a_replay_has_the_numbers_of_its_summary_however_it_is_folded(tmp_path: Path) -> None:
    """SPEC 10.24."""
    seen: Counter[str] = Counter()
    ways: Sequence[By] = BY if EXHAUSTIVE else ("group", "rule")
    lists = {"Would break": "would_break", "Allowed by": "unanswered", "Allowed": "allowed"}

    @drawn(20261127, some(2, 60))
    def check(policy: Policy, case_seed: int) -> None:
        capture = as_capture(tmp_path, Crowd(policy, np.random.default_rng(case_seed)).draw(600))
        found = replay(policy, capture)
        for by, top in product(ways, (1, None)):
            told = replay_answer(found, by=by)
            text = replay_markdown(found, by, top)
            first, *rest = sections(text)
            broken = sum(row["connections"] for row in told["would_break"])
            start = f"{broken:,} connection" if broken else "No connection that was answered would break"
            assert first.heading.startswith(qualified(found.evidence, start))
            assert {row[2]: number(row[0]) for row in first.rows if number(row[0])} == {
                verdict: packets for verdict, packets in told["verdicts"].items() if packets
            }
            for each in rest:
                assert len(each.rows) <= (top or TOP)
                for begins, name in lists.items():
                    if each.heading.startswith(begins):
                        total = sum(row["connections"] for row in told[name])
                        assert each.counted("connections") == total, (each, name)
                        seen[name] += total
                        break

    check()
    print(seen)
    assert min(seen[name] for name in lists.values()) > 10


def test_the_wrong_policy_is_the_first_thing_that_the_comment_says() -> None:
    """SPEC 10.24."""
    found = replay(Policy(origin="other.yaml"), SHOP[1])
    assert sections(replay_markdown(found))[0].heading == (
        "Cannot tell: no packet touches an instance's address: is this the right policy?"
    )


def test_what_the_reference_engine_does_not_list_is_said(tmp_path: Path) -> None:
    found = replay(write_policy(tmp_path), write_capture(tmp_path, *mixture()), engine="reference")
    text = replay_markdown(found)
    first, *_ = sections(text)
    denied = found.verdicts["deny"]
    assert first.heading.endswith(f": {denied} packets denied; the reference engine does not follow what would break")
    assert "reference engine" in first.text and "keeps no list of what was denied" in text and denied > 1


def test_what_is_suggested_and_left_out_has_the_numbers_of_its_summary(tmp_path: Path) -> None:
    """SPEC 10.15."""
    seen: Counter[str] = Counter()

    @drawn(20261128, some(1, 30))
    def check(policy: Policy, case_seed: int) -> None:
        capture = as_capture(tmp_path, Crowd(stateful(policy), np.random.default_rng(case_seed)).draw(400))
        found = suggest([capture], instances=policy, limits=Limits(min_connections=3))
        ways: tuple[By, ...] = ("group", "address")
        for by, top in product(ways, (1, None)):
            told = suggestion_answer(found, by)
            parts = {each.heading: each for each in sections(suggestion_markdown(found, by, top))}
            for left in told["left_out"]:
                (part,) = (each for heading, each in parts.items() if heading.endswith(f": {left['reason']}"))
                assert f" {left['connections']:,} connection" in part.heading and len(part.rows) <= (top or TOP)
                assert part.counted("connections") == left["connections"], part
                seen[left["reason"]] += left["connections"]

    check()
    print(seen)
    assert sum(seen.values()) > 50


@pytest.mark.parametrize("name", COMMANDS)
def test_tables_are_cut_and_the_option_that_they_name_lists_the_rest(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """SPEC 10.19."""
    monkeypatch.chdir(PCAPS)
    command = (*COMMANDS[name], "--format", "markdown")
    outcome = sgfast(capsys, *command, "--top", "1")
    assert outcome.status == 0, outcome.err
    cut = [each for each in sections(outcome.out) if " more " in each.text]
    assert cut
    listing = cache(lambda option: sections(sgfast(capsys, *command, "--top", option).out))
    for each in cut:
        assert len(each.rows) <= 1
        for option in re.findall(LEFT, each.text, re.M):
            (whole,) = (other for other in listing(option) if (other.heading, other.head) == (each.heading, each.head))
            # Some lists are no tables.
            assert len(whole.rows) > len(each.rows) or whole.text.count("\n") >= each.text.count("\n")
            assert not re.search(LEFT, whole.text, re.M)


def test_markdown_leads_to_the_status_of_the_other_formats(capsys: Capsys) -> None:
    markdown = ("--format", "markdown")
    assert sgfast(capsys, "replay", *SHOP, *markdown, "--fail-on", "would-break").status == 1
    assert sgfast(capsys, "check", SHOP[0], *markdown, "--fail-on", "note").status == 1
    assert "cannot be combined" in sgfast(capsys, "replay", *SHOP, "--json", *markdown).one_line()


EVIL = [
    "a|b", "`x`|<img src=x>", "[x](https://x.example)", "@everyone|", "https://x.example/|", "www.x.example|",
    "<!--|", "a\nb\n# c", "\x1b[31m|", "*x*|_y_", "![](x)|", "</td></tr></table>|", "a@x.example|", "\\|", "&lt;|",
    "| --- | --- |", "#15|", "GH-12|", "(gh-12)|", "x/y#15|", "!15 ~bug %1 &1 $1|", '~"a bug"|', "x@0a1b2c3|",
    "0123456789abcdef0123456789ABCDEF01234567|", ":tada:|", ":a:+1:|", "_www.x.example|", "GHSA-abcd-efgh-2345|",
    "\\#15|", "&num;15|",
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_is_more_than_a_name(evil: str) -> None:
    word = (Word(evil, evil),)
    rule = Rule(evil, "inbound", 4)
    cut = CutConnection(6, evil, evil, None, None, None, None, False, 1, "back", 1, False, evil, evil)
    damage = Damage(evil, 1, 1, "cause")
    found = ReplayResult(
        Policy(origin=evil), mode="causal", midstream="infer", vpc=evil, captures=(evil,) * 5, packets=3,
        verdicts={"allow": 1, "deny": 2},
        connections=dict.fromkeys(("opened", "denied", "disconnected", "inferred"), 1), damaged=damage,
        kinds=kinds_of(broken=[Broken(Service(evil, 6, 80, None, None), "inbound", "192.0.2.1", evil, "no-rule", 1)]),
        rules=[RuleHits(rule, evil, 1, 1, 1), RuleHits(rule, evil, 0, 0, 0)], warnings=[evil],
        changes=[ChangeDone(1, evil, 2, 1, 1, 1, (cut,))],
        expected=Expected(evil, 1, (Contradicted(Expectation(word, word, word, "deny", evil, evil, 1, evil), 1),)),
    )  # fmt: skip
    told = sections(replay_markdown(found, "instance"))
    begins = [each.heading.partition(" ")[0] for each in told]
    assert begins == ["1", "Changes", "Changes", "Would", "Compared", "Rules:", "Connections", "Notes"]
    assert sum(printable(evil).strip() in " ".join(row) for each in told for row in each.rows) >= 3, told
    finding = Finding("SG001", evil, group=evil, rule=evil)
    checked = CheckResult(Policy(origin=evil), SIZES, (finding,), warnings=(evil,))
    first, *_ = sections(check_markdown(checked, {}))
    assert [len(row) for row in first.rows] == [3] and " is valid; findings: " in first.heading

"""Text reports on terminals of any width: no number is cut or broken, and no list ends in silence (SPEC 10.19)."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from command import PCAPS, sgfast

from sgfast.cli import printing
from sgfast.report.text import NARROWEST, Page

Capsys = pytest.CaptureFixture[str]
SHOP = ("shop.yaml", "shop.pcap")
#: With as many rows at any width. Names are short: a terminal may break them.
COMMANDS: dict[str, tuple[object, ...]] = {
    "replay": ("replay", *SHOP, "--top", 2),
    "rules": ("replay", *SHOP, "--by", "rule", "--top", 2),
    "changes": ("replay", "changes/policy.yaml", "changes/network.pcap", "--changes", "changes/changes.yaml",
                "--top", 2),
    "diff": ("diff", "shop.yaml", "shop.proposed.yaml", "shop.pcap", "--top", 1),
    "suggest": ("suggest", "shop.pcap", "--instances", "shop.yaml", "--min-connections", 2, "--top", 2),
    "check": ("check", "shop.yaml", "--traffic", "shop.pcap"),
    "explain": ("explain", "shop.yaml", "--from", "198.51.100.7", "--to", "web-1", "--protocol", "tcp", "--port", 8080),
    "reach": ("reach", "shop.yaml", "--top", 3),
    "test": ("test", "shop.yaml", "shop.expect.yaml"),
}  # fmt: skip


def on_terminal(capsys: Capsys, monkeypatch: pytest.MonkeyPatch, width: int, *command: object) -> str:
    monkeypatch.chdir(PCAPS)
    monkeypatch.setattr(printing, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    text = re.sub(r"^Speed +.*\n(?: .*\n)*", "", sgfast(capsys, *command).out, flags=re.M)
    assert text
    return text


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_terminal_breaks_or_cuts_a_number(capsys: Capsys, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    wide = on_terminal(capsys, monkeypatch, 200, *COMMANDS[name])
    for width in (40, 60, 79):
        text = on_terminal(capsys, monkeypatch, width, *COMMANDS[name])
        # A terminal breaks a line that is too long wherever its edge is.
        shown = [line[at : at + width] for line in text.splitlines() for at in range(0, max(len(line), 1), width)]
        assert numbers("\n".join(shown)) == numbers(wide), width
        assert all(len(line) <= width or " " not in line.strip() for line in text.splitlines()), text


@pytest.mark.parametrize("name", COMMANDS)
def test_lists_that_are_cut_name_the_option_that_shows_the_rest(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = " ".join(on_terminal(capsys, monkeypatch, 40, *COMMANDS[name]).split())
    cut = re.findall(r"\b[\d,]+ more (?:row|rule|change|connection|pair|finding|warning)s?\b.{,90}", text)
    assert all("--" in words for words in cut), cut
    assert cut or "--top" not in COMMANDS[name]


def test_what_has_no_room_beside_something_comes_below_it() -> None:
    page = Page(10, colour=False)
    assert page.width == NARROWEST == 40
    page.hanging("  a start of thirty characters ", "and what comes behind it, in words")
    page.hanging("      ", "a-name-of-thirty-six-characters-1234")
    page.hanging("  ", "tcp/1001,1003,1005,1007,1009,1011,1013,1015 of one")
    page.table(("connections", "OLD", "NEW"), [("1,234,567", "a-rule-with-a-long-name-of-33-cha", "another-rule")])
    assert page.text().splitlines() == [
        "  a start of thirty characters",
        "      and what comes behind it, in words",
        "    a-name-of-thirty-six-characters-1234",
        "  tcp/1001, 1003, 1005, 1007, 1009,",
        "  1011, 1013, 1015 of one",
        "  connections  OLD              NEW",
        "    1,234,567",
        "       a-rule-with-a-long-name-of-33-cha",
        "               another-rule",
    ]

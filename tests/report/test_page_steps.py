"""The page in a browser as a reader goes through it: Back, a click in the matrix, unfolding, the filter, and paper
(SPEC 10.10).
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from command import SHOP
from test_report_html import random_kinds, replayed
from test_report_page import READY, SUMS, column, counts, go, shown, shown_counts
from test_rule_pages import large_policy, told

from sgfast.report import html_report
from sgfast.report.html.reach import reach_html
from sgfast.rules.reaching.rows import reach

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

#: The state of the page that the browser's history has to bring back.
SEEN = """({
    address: location.hash, y: scrollY, whole: document.querySelectorAll(".matrix")[1]?.checkVisibility() ?? false,
    inputs: [...document.querySelectorAll("input[type=search]")].map((each) => each.value),
    chip: document.querySelector("#broken .chip").checkVisibility(),
    sums: [...document.querySelectorAll(".sum output")].map((each) => each.textContent),
    rows: [...document.querySelectorAll("#broken tbody tr, #rules tbody tr")].map((row) => row.textContent),
    open: [...document.querySelectorAll("details")].map((each) => each.open),
})"""
WHOLE = "document.querySelectorAll('.matrix')[1]"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    http = "{id: web-http-4, "
    described = tmp_path_factory.mktemp("policy") / "described.yaml"
    described.write_text(Path(SHOP[0]).read_text().replace(http, f"{http}description: Only our customers, "))
    return {
        "shop": html_report(*replayed(*SHOP)), "described": html_report(*replayed(described, SHOP[1])),
        "cloud": html_report(random_kinds(1, 3000, number_of_groups=30)),
        "reach": reach_html(reach(large_policy(), rules=True), {}),
    }  # fmt: skip


def seen(browser: Browser) -> Any:
    """Return what a reader sees, as soon as the history keeps how far the page is scrolled."""
    browser.ask("""new Promise((done) => {
        const look = () => (history.state?.y === scrollY ? done() : setTimeout(look, 20));
        look();
    })""")
    return browser.ask(SEEN)


def step(browser: Browser, entries: int) -> Any:
    """Go through the history, and return what is seen there."""
    browser.ask(f"""new Promise((done) => {{
        addEventListener("popstate", () => setTimeout(done), {{once: true}});
        history.go({entries});
    }})""")
    return browser.ask(SEEN)


def reload(browser: Browser) -> None:
    browser.reload()
    browser.ask(READY)


def unfold(browser: Browser) -> None:
    browser.ask(f"""new Promise((done) => {{
        const look = () => ({WHOLE}?.checkVisibility() ? done() : setTimeout(look, 10));
        document.querySelector("#matrix > .all").click();
        look();
    }})""")


def test_back_and_forward_and_a_reload_bring_everything_back(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["cloud"])
    # Text that is typed out of sight would scroll the page before it is there.
    browser.ask("document.querySelector('#matrix input').scrollIntoView({behavior: 'instant', block: 'center'})")
    browser.ask("document.querySelector('#matrix input').focus({preventScroll: true})")
    found = [seen(browser)]
    entries = browser.ask("history.length")
    # Text that goes on is one step, however many keys it takes.
    for letter in "tcp":
        browser.type(letter)
    found.append(seen(browser))
    browser.ask("document.querySelector('#broken th[data-key=service] button').click()")
    browser.ask("document.querySelector('#broken .all').click()")
    browser.ask("document.querySelectorAll('#broken .unfold')[2].click()")
    browser.ask("document.querySelector('#allowed details').open = true")
    unfold(browser)
    browser.ask("scrollTo({top: 2500, behavior: 'instant'})")
    found.append(seen(browser))
    assert found[2]["whole"] and found[2]["y"] == 2500 and any(found[2]["open"])
    assert len(found[2]["rows"]) > 400 and any("Nearest rule" in row for row in found[2]["rows"])
    go(browser, partial(browser.ask, f"{WHOLE}.querySelectorAll('td a')[30].click()"))
    browser.ask("document.querySelector('#rules input').scrollIntoView({behavior: 'instant', block: 'center'})")
    browser.ask("document.querySelector('#rules input').focus({preventScroll: true})")
    found.append(seen(browser))
    browser.type("g7/")
    found.append(seen(browser))
    assert browser.ask("history.length") == entries + 4
    for number in (3, 2, 1, 0):
        assert step(browser, -1) == found[number], number
    assert step(browser, 3) == found[3] and step(browser, 1) == found[4] and step(browser, -2) == found[2]
    reload(browser)
    assert seen(browser) == found[2] and browser.messages == []


def test_what_an_older_page_at_the_same_address_kept_is_not_put_into_a_newer_one(
    browser: Browser, texts: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(texts["cloud"])
    shown(browser, path.as_uri())
    browser.ask("document.querySelector('#rules th[data-key=packets] button').click()")
    browser.ask("document.querySelectorAll('#broken .unfold')[3].click()")
    assert browser.ask("document.querySelectorAll('.unfolded').length") == 1
    path.write_text(texts["shop"])
    reload(browser)
    assert browser.ask("document.title").startswith("shop.pcap")
    assert browser.ask("document.querySelectorAll('.unfolded').length") == 0 and browser.messages == []
    assert browser.ask("document.querySelector('#rules [aria-sort]').dataset.key") == "packets"


def test_a_click_in_the_matrix_leads_to_the_rows_and_shows_a_chip(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"])
    chips = "[...document.querySelectorAll('.chip')].filter((each) => each.checkVisibility())"
    top = "document.getElementById('{}').getBoundingClientRect().top"
    assert browser.ask(f"{chips}.length") == 0
    browser.ask("document.querySelector('#matrix td a[title^=\"web → db\"]').focus()")
    go(browser, partial(browser.press, "Enter", "\r"))
    # One at the matrix, and one in each table that is not folded.
    assert browser.ask(f"{chips}.map((each) => each.textContent)") == ["web → db ✕"] * 4
    assert browser.ask(f"{chips}[1].getAttribute('aria-label')") == "web → db: remove this filter"
    assert abs(browser.ask(top.format("broken"))) < 40
    # The keyboard goes on from there: the next stop is the chip.
    assert browser.ask("document.activeElement.textContent") == "What would break"
    browser.press("Tab")
    assert browser.ask("document.activeElement.textContent") == "web → db ✕"
    browser.press("Enter", "\r")
    assert browser.ask(f"{chips}.length") == 0 and all(" of " not in words for words in browser.ask(SUMS))
    assert browser.ask("document.activeElement.textContent") == "What would break"
    assert "from=" not in browser.ask("location.hash")
    # Where nothing breaks, the rows are further down, and folded.
    only = "document.querySelector('#matrix td a[title^=\"private addresses → web: 1 allowed\"]')"
    go(browser, partial(browser.ask, f"{only}.click()"))
    assert column(browser, "allowed", 0) == ["1"] and browser.ask("document.activeElement.textContent") == "Allowed"


def test_others_unfold_to_all_groups_and_fold_again(
    browser: Browser, pages: dict[str, str], texts: dict[str, str]
) -> None:
    shown(browser, pages["cloud"])
    own = browser.ask("[...document.querySelectorAll('.matrix td a')].map((each) => each.hash)")
    unfold(browser)
    cells = browser.ask(f"[...{WHOLE}.querySelectorAll('td a')].map((each) => [each.hash, each.title])")
    assert not any("=*" in link for link, _ in cells) and any("=*" in link for link in own)
    for link, words in random.Random(8).sample([cell for cell in cells if cell[0] not in own], 9):
        go(browser, partial(browser.ask, f"location.hash = {json.dumps(link)}"))
        there = shown_counts(browser)
        assert there == {key: counts(words)[key] for key in there}, words
        assert browser.ask("document.querySelector('#matrix a[aria-current]').hash") == link
    # Arrow keys go on in the matrix that is seen, of which one cell is a stop of the Tab key.
    beside = browser.ask(f"""(() => {{
        const first = [...{WHOLE}.querySelectorAll("td:has(a)")].find((cell) => cell.matches(":has(+ td a)"));
        first.querySelector("a").focus();
        return first.cellIndex + 1;
    }})()""")
    browser.press("ArrowRight")
    assert browser.ask("document.activeElement.closest('td').cellIndex") == beside
    assert browser.ask(f"[...{WHOLE}.querySelectorAll('a')].filter((each) => each.tabIndex === 0).length") == 1
    button = "document.querySelector('#matrix > .all')"
    assert browser.ask(f"{button}.getAttribute('aria-expanded')") == "true"
    browser.ask(f"{button}.click()")
    are_seen = "[...document.querySelectorAll('.matrix')].map((each) => each.checkVisibility())"
    assert browser.ask(are_seen) == [True, False]
    # In the matrix of rules, too.
    rows = [(row[0], row[1], row[2]) for row in told(texts["reach"], "rows")]
    shown(browser, pages["reach"])
    unfold(browser)
    go(browser, partial(browser.ask, f"{WHOLE}.querySelector('td a[title^=\"g30 → g33:\"]').click()"))
    left = list(zip(*(column(browser, "rows", n) for n in range(3)), strict=True))
    assert left and left == [
        row for row in ((", ".join(a), ", ".join(b), each) for a, b, each in rows)
        if "g30" in row[0].split(", ") and "g33" in row[1].split(", ")
    ]  # fmt: skip


@pytest.mark.parametrize("groups", [60, 110])
def test_a_matrix_with_very_many_groups_stays_folded(browser: Browser, tmp_path: Path, groups: int) -> None:
    path = tmp_path / "page.html"
    path.write_text(html_report(random_kinds(1, 3000, number_of_groups=groups)))
    shown(browser, path.as_uri())
    assert browser.messages == []
    assert browser.ask("document.querySelectorAll('#matrix > .all').length") == (groups < 100)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # The address of an instance. The row itself shows the instance's name only.
        ("10.0.1.9 tcp/6379", {"db-1"}), ("2001:DB8:1::9", {"db-1"}), ("10.0.1.99", set()),
        # The nearest rule, which no packet matched: its id, what it says, and its description.
        ("web-http-4", {"web-1"}), ("tcp/8080 80-81", {"web-1"}), ("customers", {"web-1"}), ("suppliers", set()),
        # HTML around the words is no text.
        ("class", set()), ("span", set()),
    ],
)  # fmt: skip
def test_the_filter_finds_addresses_and_rules(
    browser: Browser, pages: dict[str, str], words: str, expected: set[str]
) -> None:
    shown(browser, pages["described"])
    browser.ask("document.querySelector('#matrix input').focus()")
    assert browser.ask("document.activeElement.placeholder") == "group, instance, address, service, rule"
    browser.type(words)
    found = list(zip(column(browser, "broken", 1), column(browser, "broken", 2), strict=True))
    assert bool(found) == bool(expected) and all(expected & {end.split()[0] for end in row} for row in found), found
    assert browser.messages == []


def test_the_filter_finds_the_rules_of_groups_by_the_address_of_a_member(
    browser: Browser, pages: dict[str, str], texts: dict[str, str]
) -> None:
    shown(browser, pages["reach"])
    browser.ask("document.querySelector('#matrix input').focus()")
    browser.type("10.0.73.1")
    of_group = sum("g33" in (*sources, *destinations) for sources, destinations, *_ in told(texts["reach"], "rows"))
    assert browser.ask(SUMS)[0].startswith(f"{of_group} of ") and of_group > 2


def test_every_number_at_the_top_has_its_unit(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"])
    tiles = browser.ask("[...document.querySelectorAll('.shares dd:not(.soft)')].map((each) => each.innerText)")
    assert tiles[0] == "127 packets, 48.7 %" and tiles[3] == "38 packets, 14.6 %"
    assert sum(int(re.fullmatch(r"(\d+) packets, [\d.]+ %", tile)[1]) for tile in tiles) == 261  # type: ignore[index]
    links = browser.ask("[...document.querySelectorAll('nav a')].map((each) => each.innerText)")
    counted = {link for link in links if re.search(r"\d", link)}
    assert {"Would break 11 connections", "Never hit 1 rule"} <= counted and len(counted) == 6
    # The name of a section may be the unit.
    assert all(re.search(r"\d (packets?|connections?|rules?)$|^Rules hit", link) for link in counted), counted


def test_on_paper_heads_repeat_and_nothing_is_cut_off(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["cloud"] + "#matrix?from=g1&filter=g")
    unfold(browser)
    browser.ask("document.querySelector('#broken .unfold').click()")
    browser.media("print")
    browser.call("Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=1, mobile=False)
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    hidden = "[...document.querySelectorAll('.chip, input')].filter((each) => each.checkVisibility()).length"
    assert browser.ask(hidden) == 0 and browser.ask("document.querySelector('.unfolded').checkVisibility()")
    # Wide matrices scroll on the screen.
    assert browser.ask(f"{WHOLE}.getBoundingClientRect().right") <= 700
    folded = "document.querySelector('.matrix')"
    assert browser.ask(f"{folded}.hidden = false, {folded}.getBoundingClientRect().right") <= 700
    browser.ask(f"{folded}.hidden = true")
    browser.ask("dispatchEvent(new Event('afterprint'))")
    assert len(column(browser, "broken", 0)) < 30
    browser.media("")
    # A colour that nothing else has tells where the names of columns are drawn.
    browser.ask("for (const each of document.querySelectorAll('th button')) each.style.color = 'rgb(1, 2, 3)'")
    paper = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    drawn = [
        zlib.decompressobj().decompress(each) for each in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", paper, re.S)
        if each.startswith(b"x")
    ]  # fmt: skip
    # Sheets with rows of denied packets (page.css: --deny-ground), and those with names of columns.
    rows, heads = ({n for n, each in enumerate(drawn) if colour in each} for colour in (b".9882 .9255", b".0039 .0078"))
    assert len(rows) > 3 and rows <= heads


def test_a_click_on_a_row_that_would_break_shows_the_rules_to_paste(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"])
    browser.ask("document.querySelectorAll('#broken .unfold').forEach((each) => each.click())")
    found = browser.ask("[...document.querySelectorAll('#broken pre')].map((each) => each.textContent)")
    assert len(found) == browser.ask("document.querySelectorAll('#broken .unfold').length") > 3
    assert "add to db:\n  - {direction: inbound, protocol: tcp, ports: 6379, source: 198.51.100.7}" in found[0]

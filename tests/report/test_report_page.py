"""The HTML page in a browser: it is read, sorted and filtered, on a screen, a phone and paper, and reaches nobody
(SPEC 10.10).
"""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from command import PCAPS, SHOP, handshake, write_capture, write_policy
from effort import some
from kinds import kinds_of
from test_report_html import HOSTILE, hostile_result, random_kinds, replayed
from test_rule_pages import diff_page, large_policy

from sgfast.questions.replaying import Denied, ReplayResult, Service
from sgfast.questions.replaying.listed_kinds import peer_of
from sgfast.report import html_report
from sgfast.report.html import Timeline
from sgfast.report.html.reach import reach_html
from sgfast.report.html.tables import MOST_ROWS
from sgfast.rules.reaching.rows import reach

_PACKAGE = find_spec("axe_playwright_python")
AXE = None if _PACKAGE is None or _PACKAGE.origin is None else Path(_PACKAGE.origin).with_name("axe.min.js")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

REPLAYS = ("shop", "changes", "empty", "damaged", "reference", "hostile", "long", "cloud")
PAGES = (*REPLAYS, "reach", "diff", "rules")

#: Elements that stick out to the right, apart from what scrolls in a box of its own.
STICKING_OUT = """
[...document.querySelectorAll("body *")]
  .filter((e) => !e.closest(".scroll, .skip") && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 120))
"""

#: Text whose contrast with what lies behind it is below 4.5:1 (WCAG 2, AA).
FAINT = """
(() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parse(colour).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (parse(colour)[3] !== 0) return colour;
    }
  };
  const found = new Set();
  let compared = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest("script")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(e.closest("svg") ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x);
    compared += 1;
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.add(`${e.outerHTML.slice(0, 80)} ${contrast}`);
  }
  return [compared, ...found];
})()
"""


#: A promise of the time, in milliseconds, at which the script has read all kinds.
READY = """new Promise((done) => {
    const look = () => document.documentElement.classList.contains("ready") && done(performance.now());
    new MutationObserver(look).observe(document.documentElement, {attributes: true});
    look();
})"""


def cloud_kinds() -> ReplayResult:
    """Return kinds between so many groups that the matrix has others."""
    return random_kinds(1, some(8000, 65_536), number_of_groups=30)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The address of each page."""
    folder = tmp_path_factory.mktemp("pages")
    whole = write_capture(folder, *handshake(1000, 80))
    damaged = folder / "damaged.pcap"
    damaged.write_bytes(whole.read_bytes()[:-5])
    shop, timeline = replayed(*SHOP)
    denied = [
        Denied(Service("web-1", 6, n, None, None), "inbound", "198.51.100.7", None, "no-rule", 900 - n, 60)
        for n in range(900)
    ]
    many = replace(
        shop, kinds=kinds_of(denied, shop.broken), rules=shop.rules * 50, captures=("x" * 300,) * 9,
        warnings=["w" * 300, "some words " * 50],
    )  # fmt: skip
    hostile = hostile_result()
    found: dict[str, tuple[Any, Timeline]] = {
        "shop": replayed(*SHOP, changes=PCAPS / "shop.changes.yaml"),
        "changes": replayed(
            PCAPS / "changes/policy.yaml", PCAPS / "changes/network.pcap", changes=PCAPS / "changes/changes.yaml"
        ),
        "empty": replayed(SHOP[0], write_capture(folder, name="empty.pcap")),
        "damaged": replayed(write_policy(folder), damaged),
        "reference": replayed(*SHOP, engine="reference"),
        "hostile": (hostile, timeline),
        "long": (many, timeline),
        "cloud": (cloud_kinds(), timeline),
    }
    assert tuple(found) == REPLAYS
    texts = {name: html_report(*each) for name, each in found.items()}
    texts["reach"] = reach_html(reach(large_policy(), rules=True), {})
    texts["diff"] = diff_page(*SHOP[:1], PCAPS / "shop.proposed.yaml", SHOP[1])
    texts["rules"] = diff_page(*SHOP[:1], PCAPS / "shop.proposed.yaml")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in texts}


def shown(browser: Browser, address: str, **options: Any) -> float:
    """Opens a page, and waits until its script has read all kinds. Returns how long that took, in milliseconds."""
    browser.open(address, **options)
    took: float = browser.ask(READY)
    return took


def column(browser: Browser, table: str, number: int) -> list[str]:
    """The texts of the rows that can be seen."""
    found: list[str] = browser.ask(
        f"[...document.querySelectorAll('[data-table={table}] tbody tr')].filter((row) => row.checkVisibility())"
        f".map((row) => row.cells[{number}].textContent)"
    )
    return found


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_shown_without_complaint_and_asks_for_nothing(
    browser: Browser, pages: dict[str, str], name: str
) -> None:
    shown(browser, pages[name], width=360)
    assert browser.ask("document.readyState") == "complete"
    assert browser.messages == []
    assert browser.requests == [pages[name]]
    assert browser.ask("document.querySelector('h1').textContent")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out_to_the_right(browser: Browser, pages: dict[str, str], name: str) -> None:
    shown(browser, pages[name], width=320)
    browser.ask("for (const each of document.querySelectorAll('details')) each.open = true")
    for width in (320, 768, 1280):
        browser.resize(width)
        # A phone's page that is too wide is shown smaller: then this is more than the screen has.
        assert browser.ask("innerWidth") == width
        assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.ask(STICKING_OUT) == []


@pytest.mark.parametrize("name", PAGES)
def test_on_a_phone_nothing_stands_before_the_answer(browser: Browser, pages: dict[str, str], name: str) -> None:
    shown(browser, pages[name], width=390, height=844)
    before = browser.ask("""(() => {
        const top = document.querySelector("h1").getBoundingClientRect().top;
        return [...document.querySelectorAll("header *, main *")].filter((each) => each.checkVisibility()
            && each.textContent.trim() && each.getBoundingClientRect().bottom <= top).map((each) => each.outerHTML);
    })()""")
    assert before == []
    # The reason is the sentence below the headline. Hostile names are longer than a screen.
    if name != "hostile":
        assert browser.ask("document.querySelector('.lede').getBoundingClientRect().bottom") <= 844
    assert browser.ask("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["shop", "changes", "damaged", "reference", "diff"])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_against_its_ground(
    browser: Browser, pages: dict[str, str], name: str, dark: bool
) -> None:
    shown(browser, pages[name], dark=dark)
    compared, *faint = browser.ask(FAINT)
    assert faint == [] and compared > 80


@pytest.mark.skipif(AXE is None, reason="needs axe-core, which the package axe-playwright-python brings")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
@pytest.mark.parametrize("name", ["changes", "reach", "diff"])
def test_axe_finds_nothing(browser: Browser, pages: dict[str, str], name: str, width: int, dark: bool) -> None:
    """SPEC 10.10: nothing that the accessibility rules of axe-core call a fault, in rows that are unfolded, too."""
    assert AXE is not None
    shown(browser, pages[name], width=width, dark=dark)
    browser.ask("for (const each of document.querySelectorAll('details')) each.open = true")
    browser.ask("document.querySelector('#matrix > .all')?.click()")
    browser.ask("document.querySelector('#matrix td a').click()")
    browser.ask("for (const each of document.querySelectorAll('.list tr:first-child .unfold')) each.click()")
    browser.ask(f"{AXE.read_text()}; 0")
    passed, found = browser.ask("""axe.run().then((results) => [results.passes.length, results.violations.flatMap(
        (rule) => rule.nodes.map((node) => `${rule.id}: ${rule.help}: ${node.html.slice(0, 150)}`))])""")
    assert found == [] and passed > 20


def test_light_and_dark_follow_the_system_and_the_switch(browser: Browser, pages: dict[str, str]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    shown(browser, pages["shop"])
    light = browser.ask(ground)
    browser.media("screen", dark=True)
    dark = browser.ask(ground)
    assert light != dark
    browser.ask("document.getElementById('theme-light').click()")
    assert browser.ask(ground) == light
    shown(browser, pages["shop"], dark=True)
    assert browser.ask(ground) == light, "the choice is kept"
    browser.ask("document.getElementById('theme-dark').click()")
    browser.media("screen")
    assert browser.ask(ground) == dark
    browser.media("print")
    assert browser.ask("getComputedStyle(document.documentElement).colorScheme") == "light"
    browser.media("screen")
    browser.ask("document.getElementById('theme-auto').click()")
    assert browser.ask(ground) == light


# Tables


def test_an_instance_that_a_change_added_stands_with_its_groups(browser: Browser, tmp_path: Path) -> None:
    added = {"name": "new-1", "addresses": ["10.0.0.5"], "security_groups": ["web"]}
    changes = [{"at": 0, "remove_instance": {"instance": "web-1"}}, {"at": 0, "add_instance": added}]
    page = tmp_path / "page.html"
    page.write_text(html_report(*replayed(*SHOP, changes=changes)), encoding="utf-8")
    shown(browser, page.as_uri() + "#broken")
    addresses = {"198.51.100.7", "2001:db8:100::7", "3 public addresses"}
    assert {*column(browser, "broken", 1)} == {"db-1 in db", "new-1 in web"} | addresses


def test_an_address_sorts_and_filters(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"])
    rows = list(zip(column(browser, "broken", 3), column(browser, "broken", 2), strict=True))
    shown(browser, pages["shop"] + "#broken?sort=connections&dir=asc&filter=web-1+8080")
    expected = [service for service, where in rows if service == "tcp/8080" and where == "web-1 in web"]
    assert column(browser, "broken", 3) == expected and len(expected) == 1
    shown(browser, pages["shop"] + "#rules?sort=bytes")
    sizes = [float(row.split()[0]) * (1000 if "kB" in row else 1) for row in column(browser, "rules", 5)]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 9
    assert browser.ask("Math.abs(document.getElementById('rules').getBoundingClientRect().top) < 40")
    # Another address in the same page, as when somebody follows a link.
    go(browser, partial(browser.ask, "location.hash = '#rules?sort=rule&dir=desc'"))
    names = column(browser, "rules", 0)
    assert names == sorted(names, reverse=True)


@pytest.mark.parametrize(
    "words",
    [
        "denied?", "denied?sort=nothing&dir=up", "nowhere?sort=packets", "denied?filter=%3Cimg%3E", "matrix?", "?", "%",
        "matrix?from=nobody", "a?%ff=%",
    ],
)
def test_an_address_that_makes_no_sense_does_no_harm(browser: Browser, pages: dict[str, str], words: str) -> None:
    shown(browser, pages["shop"] + "#" + words)
    assert browser.messages == []
    assert len(column(browser, "denied", 0)) == (0 if "img" in words or "nobody" in words else 4)


def test_tables_are_sorted_and_filtered_by_keyboard(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"])
    browser.ask("document.querySelector('[data-table=rules] th[data-key=packets] button').focus()")
    browser.press("Enter", "\r")
    head = "document.querySelector('[data-table=rules] th[data-key=packets]').getAttribute('aria-sort')"
    packets = [int(row) for row in column(browser, "rules", 4)]
    assert packets == sorted(packets, reverse=True) and browser.ask(head) == "descending"
    browser.press("Enter", "\r")
    assert [int(row) for row in column(browser, "rules", 4)] == sorted(packets) and browser.ask(head) == "ascending"
    assert browser.ask("document.activeElement.textContent") == "Packets"
    browser.ask("document.querySelector('[data-table=rules]').previousElementSibling.querySelector('input').focus()")
    browser.type("DB outbound")
    assert column(browser, "rules", 0) == ["db/outbound/1"]
    assert browser.ask("document.querySelector('#rules output').textContent") == "1 of 9 rows"
    address = browser.ask("location.href")
    assert address.endswith("#rules?sort=packets&dir=asc&filter=DB+outbound")
    shown(browser, address)
    assert column(browser, "rules", 0) == ["db/outbound/1"] and browser.ask(head) == "ascending"


def test_long_tables_begin_short_and_are_searched_whole(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["long"])
    assert len(column(browser, "denied", 0)) == 20
    shown(browser, pages["long"] + "#denied?sort=packets&dir=asc")
    assert column(browser, "denied", 0)[0] == "1"
    for rows in (520, 900):
        browser.ask("document.querySelector('#denied .all').click()")
        assert len(column(browser, "denied", 0)) == rows
    assert not browser.ask("document.querySelector('#denied .all').checkVisibility()")


def test_paper_has_the_largest_denied_rows_and_none_that_is_allowed(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["cloud"])
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    browser.media("print")
    for key in ("broken", "denied"):
        assert len(column(browser, key, 0)) == MOST_ROWS
    printed = "[...document.querySelectorAll('main > section')].filter((e) => e.checkVisibility()).map((e) => e.id)"
    assert browser.ask(printed) == ["matrix", "broken", "denied", "timeline", "unused", "verdicts", "about"]
    assert browser.ask("document.querySelector('.paper').innerText") == (
        "Not printed: Allowed, not served; Allowed; Rules that were hit."
    )
    controls = (
        "[...document.querySelectorAll('nav, .theme, .tools, .all, .unfold')].filter((e) => e.checkVisibility()).length"
    )
    assert browser.ask(controls) == 0
    browser.media("screen")
    assert browser.ask(controls) > 0 and len(browser.ask(printed)) == 10
    assert not browser.ask("document.querySelector('.paper').checkVisibility()")


@pytest.mark.parametrize("name", ["shop", "changes"])
def test_on_paper_dates_do_not_push_tables_off_the_sheet(browser: Browser, pages: dict[str, str], name: str) -> None:
    """A sheet of A4 within its margins is 688 pixels wide."""
    shown(browser, pages[name], width=688)
    browser.media("print")
    assert browser.ask("document.querySelectorAll('#changes .instant').length") > 3
    assert browser.ask(STICKING_OUT) == []
    browser.media("screen")


def test_the_page_is_whole_without_its_script(browser: Browser, pages: dict[str, str]) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["long"], width=360)
        assert len(column(browser, "denied", 0)) == MOST_ROWS
        assert browser.ask("document.querySelectorAll('th button, .tools').length") == 0
        assert browser.ask(STICKING_OUT) == []
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_timeline_tells_its_numbers(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["changes"])
    browser.ask("document.querySelector('.timeline').focus()")
    said = "document.querySelector('.readout').textContent"
    first = browser.ask("[...document.querySelectorAll('#numbers tbody tr:first-child > *')].map((e) => e.textContent)")
    browser.press("ArrowRight")
    assert browser.ask(said) == f"{first[0]}: allowed {first[1]}"
    browser.press("End")
    last = browser.ask("[...document.querySelectorAll('#numbers tbody tr:last-child > *')].map((e) => e.textContent)")
    assert browser.ask(said).startswith(f"{last[0]}: allowed {last[1]}")
    assert browser.ask("document.querySelector('.timeline').getAttribute('aria-valuetext')") == browser.ask(said)
    browser.ask("document.querySelector('.timeline').scrollIntoView({behavior: 'instant'})")
    box = "document.querySelector('.timeline').getBoundingClientRect()"
    place = browser.ask(f"[{box}.left, {box}.top]")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0] + 2, y=place[1] + 60)
    assert browser.ask(said) == f"{first[0]}: allowed {first[1]}"
    # Each lane's bars are there, and a line for each moment of change.
    assert browser.ask("[...document.querySelectorAll('.chart svg path')].every((e) => e.getBBox().width > 0)")
    assert browser.ask("document.querySelectorAll('.chart line.change').length") == 5


# Who talks to whom

ROWS = "[...document.querySelectorAll('#matrix td a')].map((each) => [each.hash, each.title])"
SUMS = "[...document.querySelectorAll('.sum output')].map((each) => each.textContent)"


def go(browser: Browser, act: Callable[[], object]) -> None:
    """Does something that changes the address, and waits until the page has followed."""
    browser.ask("""void (globalThis.went = new Promise((done) => {
        addEventListener("hashchange", () => done(), {once: true});
    }))""")
    act()
    browser.ask("went")


def counts(words: str) -> dict[str, int]:
    """Parse the numbers in a cell of the matrix, by the section that has them."""
    patterns = {
        "broken": "would break", "denied": "packets? denied", "services": "not served", "allowed": "allowed",
    }  # fmt: skip
    found = {key: re.search(rf"([\d,]+) {pattern}", words) for key, pattern in patterns.items()}
    return {key: int(each[1].replace(",", "")) if each else 0 for key, each in found.items()}


def shown_counts(browser: Browser) -> dict[str, int]:
    """The sums of the four tables."""
    words = browser.ask("[...document.querySelectorAll('.sum')].map((e) => [e.closest('section').id, e.textContent])")
    return {key: int(text.split()[0].replace(",", "")) for key, text in words}


@pytest.mark.parametrize("name", ["shop", "cloud"])
def test_a_click_on_the_matrix_leaves_what_its_cell_counts(browser: Browser, pages: dict[str, str], name: str) -> None:
    shown(browser, pages[name])
    cells = browser.ask(ROWS)
    # Among them cells of the groups that share a row or a column.
    others = [cell for cell in cells if "=*" in cell[0]]
    assert (name == "cloud") == bool(others)
    for link, words in random.Random(4).sample(cells, min(len(cells), 9)) + others[::9]:
        go(browser, partial(browser.ask, f"location.hash = {json.dumps(link)}"))
        there = shown_counts(browser)
        assert there == {key: counts(words)[key] for key in there}, words
        assert browser.ask("document.querySelector('#matrix a[aria-current]').hash") == link
    # A row, which is all that comes from a group.
    row = "document.querySelector('#matrix tbody tr')"
    go(browser, partial(browser.ask, f"{row}.querySelector('th a').click()"))
    whole = browser.ask(f"[...{row}.querySelectorAll('td a')].map((each) => each.title)")
    assert shown_counts(browser)["broken"] == sum(counts(words)["broken"] for words in whole)
    # The same link again, or the button, and all is there as before.
    browser.ask(f"{row}.querySelector('th a').click()")
    assert all(" of " not in words for words in browser.ask(SUMS))
    assert "from=" not in browser.ask("location.hash")


def test_the_matrix_is_used_by_keyboard_and_is_one_stop(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"])
    assert browser.ask("[...document.querySelectorAll('#matrix a')].filter((each) => each.tabIndex === 0).length") == 1
    browser.ask("document.querySelector('#matrix tbody td a').focus()")
    first = browser.ask("document.activeElement.hash")
    browser.press("ArrowDown")
    second = browser.ask("document.activeElement.hash")
    assert second != first and second.split("&to=")[1] == first.split("&to=")[1]
    go(browser, partial(browser.press, "Enter", "\r"))
    assert browser.ask("location.hash") == second and " of " in browser.ask(SUMS)[0]
    # Text in the input narrows the list, and stays when a whole row is chosen.
    browser.ask("document.querySelector('#matrix input').focus()")
    browser.type("tcp/443")
    browser.ask("document.querySelector('#matrix a[aria-current]').closest('tr').querySelector('a').focus()")
    go(browser, partial(browser.press, "Enter", "\r"))
    assert "filter=tcp%2F443" in browser.ask("location.hash") and column(browser, "broken", 3) == ["tcp/443"]
    go(browser, partial(browser.ask, f"location.hash = {json.dumps(second)}"))
    # The address alone brings it back.
    sums = browser.ask(SUMS)
    shown(browser, pages["shop"] + second)
    assert browser.ask(SUMS) == sums
    browser.press("Tab")
    browser.ask("document.querySelector('.chip').click()")
    assert all(" of " not in words for words in browser.ask(SUMS))


def test_rows_unfold_to_instances_rules_and_packets(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["shop"] + "#broken?filter=tcp%2F6379+198.51.100.7")
    browser.ask("document.querySelector('#broken .unfold').focus()")
    browser.press("Enter", "\r")
    words = browser.ask("document.querySelector('#broken .unfolded').textContent")
    assert "db/inbound/1 (group db): allow inbound tcp 5432, 6379 from group web" in words
    assert re.search(r"198\.51\.100\.7 → db-1, 1 connection: packet \d+ at 2026-11-25 00:32:\d\d\.\d{3} UTC", words)
    assert browser.ask("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.press("Enter", "\r")
    assert browser.ask("document.querySelectorAll('.unfolded').length") == 0
    # The answer's words are found, too.
    shown(browser, pages["shop"] + "#services?filter=rst+tcp/5432")
    assert column(browser, "services", 3) == ["tcp/5432"]
    shown(browser, pages["shop"])
    browser.ask("document.querySelector('#allowed details').open = true")
    browser.ask("document.querySelector('#allowed .unfold').click()")
    words = browser.ask("document.querySelector('#allowed .unfolded').textContent")
    assert "inbound tcp/80-81 from 0.0.0.0/0 (web-http-4 in web) (group web): allow" in words


def test_a_filter_finds_the_smallest_of_all_kinds(browser: Browser, pages: dict[str, str]) -> None:
    result = cloud_kinds()
    rows = result.kinds.rows[(result.kinds.rows["owner"] < 0) & (result.kinds.rows["broken"] > 0)]
    rows = rows[rows["inbound"] == 1]
    row = rows[np.argmin(rows["broken"])]
    address, instance = peer_of(result.kinds, row)[0], result.kinds.instances[row["instance"]]
    shown(browser, pages["cloud"])
    browser.ask("document.querySelector('#matrix input').focus()")
    browser.type(f"{address} {instance.upper()}")
    assert column(browser, "broken", 2) == [f"{instance} in g{int(instance[1:]) // 2}"]
    assert column(browser, "broken", 0) == [str(row["broken"])]
    assert re.fullmatch(rf"{row['broken']} of [\d,]+ connections, 1 of [\d,]+ rows", browser.ask(SUMS)[0])


def test_a_filter_costs_little_beside_opening_the_page(browser: Browser, pages: dict[str, str]) -> None:
    opened = shown(browser, pages["cloud"])
    filtered = browser.ask("""(() => {
        const input = document.querySelector("#matrix input");
        return Math.min(...["i12", "203.0", "tcp/1", "nothing", "g3 udp", ""].map((words) => {
            const start = performance.now();
            input.value = words;
            input.dispatchEvent(new Event("input"));
            document.body.getBoundingClientRect();
            return performance.now() - start;
        }));
    })()""")
    assert filtered < opened / 3, (filtered, opened)
    # However many rows there are, few of them are drawn.
    assert browser.ask("document.querySelectorAll('[data-answers] tbody tr').length") == 80


def test_an_old_browser_sorts_and_filters_the_largest_rows(browser: Browser, pages: dict[str, str]) -> None:
    old = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete globalThis.DecompressionStream")
    try:
        shown(browser, pages["cloud"] + "#broken?sort=connections&dir=asc")
        assert browser.messages == [] and not browser.ask("document.documentElement.classList.contains('answers')")
        numbers = [int(text.replace(",", "")) for text in column(browser, "broken", 0)]
        assert len(numbers) == 20 and numbers == sorted(numbers)
        assert "more" in browser.ask("document.querySelector('#broken .static').innerText")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=old["identifier"])


# Names, and the network


def test_hostile_names_are_text_in_the_browser_too(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["hostile"])
    # As it was written: nothing that got in has set another.
    assert " against " in browser.ask("document.title")
    words = browser.ask("document.body.textContent")
    for word in (*HOSTILE[:7], "a\\x00b\\x1b[31mc\\r\\nd\\u202ee\\u2028f", "\\udc80\\udcff", *HOSTILE[9:]):
        assert word in words, word
    assert browser.ask("document.querySelectorAll('img, iframe, object, [onerror], [onfocus]').length") == 0
    assert browser.ask("document.scripts.length") == 1
    shown(browser, pages["hostile"] + "#broken?filter=%3C/script%3E")
    assert column(browser, "broken", 0) and browser.messages == []


def test_even_a_script_that_got_in_could_reach_nobody(browser: Browser, pages: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        there = f"http://127.0.0.1:{server.getsockname()[1]}"
        ask_for = f"fetch('{there}/', {{mode: 'no-cors'}}).then(() => 'answered', () => 'refused')"

        def heard() -> bool:
            server.setblocking(False)
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        # The same request succeeds from another page: otherwise this would prove nothing.
        plain = tmp_path / "plain.html"
        plain.write_text("<!DOCTYPE html><title>plain</title>")
        browser.open(plain.as_uri())
        browser.ask(f"void {ask_for}")
        connection, _ = server.accept()
        connection.close()
        while heard():
            pass
        shown(browser, pages["shop"])
        assert browser.ask(ask_for) == "refused"
        browser.ask(f"""new Promise((done) => {{
            let left = 3;
            addEventListener("securitypolicyviolation", () => (left -= 1) || done());
            const [image, script, style] = ["img", "script", "link"].map((name) => document.createElement(name));
            image.src = script.src = style.href = "{there}/";
            style.rel = "stylesheet";
            document.body.append(image, script, style);
        }})""")
        browser.ask("""(() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken'";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=\\"document.title = 'taken'\\">");
        })()""")
        assert browser.ask("document.title") != "taken"
        assert not heard()

"""The tables of pages in a browser: what a click on the matrix, the filter and the address leave of them on the pages
of ``reach`` and ``diff`` (SPEC 12.5, 12.6), and that scripts make the rows that stand in the page (SPEC 10.10).
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from command import PCAPS, SHOP
from diffs import traffic_diff as diff
from test_report_html import Page, replayed
from test_report_page import ROWS, SUMS, column, go, shown
from test_rule_pages import diff_page, large_policy, told

from sgfast.clouds.loading import load_policy
from sgfast.engine import VERDICTS
from sgfast.report import html_report
from sgfast.report.html.diff import diff_html
from sgfast.report.html.reach import reach_html
from sgfast.rules.reaching.difference import difference
from sgfast.rules.reaching.rows import reach

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

PROPOSED = PCAPS / "shop.proposed.yaml"


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {
        "shop": html_report(*replayed(*SHOP)),
        "reach": reach_html(reach(large_policy(), rules=True), {}),
        "diff": diff_page(SHOP[0], PROPOSED, SHOP[1]),
        "verdicts": page_of_two_verdicts(),
    }


def page_of_two_verdicts() -> str:
    """Write a page about packets that NEW denies, and that passed OLD in two ways: as allowed, and as not filtered."""
    policies = load_policy(SHOP[0]), load_policy(PCAPS / "shop.proposed.yaml")
    result = diff(*policies, [str(SHOP[1])])
    kinds = result.kinds["newly-denied"]
    rows = np.concatenate([kinds.rows, kinds.rows])
    rows["passes"][len(kinds.rows) :] = VERDICTS.index("out-of-scope")
    rows["passing_rule"][len(kinds.rows) :] = -1
    result.kinds["newly-denied"] = replace(kinds, rows=rows)
    return diff_html(difference(*policies), result, [], {"old": {}, "new": {}})


def test_times_are_dates_and_those_of_logs_have_no_decimals(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "month.html"
    result, timeline = replayed(SHOP[0], PCAPS / "shop.month.log.gz")
    page.write_text(html_report(result, timeline))
    shown(browser, page.as_uri())
    browser.ask("document.querySelector('#broken .unfold').click()")
    words = browser.ask("document.querySelector('#broken .unfolded').textContent")
    second = r"00:32:\d\d"
    assert re.search(rf"connections: at 2026-11-25 {second}, the last at 2026-12-25 {second} UTC", words), words
    first = browser.ask("document.querySelector('#numbers tbody th').textContent")
    assert re.fullmatch(rf"2026-11-25 {second}", first)
    assert f"counts from {first} UTC" in browser.ask("document.querySelector('#timeline .intro').textContent")


@pytest.mark.parametrize("name", ["shop", "diff", "verdicts"])
def test_rows_that_the_script_makes_say_what_those_of_the_page_say(
    browser: Browser, pages: dict[str, str], texts: dict[str, str], name: str
) -> None:
    page = Page(texts[name])
    shown(browser, pages[name])
    browser.ask("for (const each of document.querySelectorAll('details')) each.open = true")
    keys = browser.ask("[...document.querySelectorAll('[data-answers]')].map((each) => each.dataset.table)")
    assert len(keys) == 4
    for key in keys:
        head, *rows = page.tables[key]
        made = zip(*(column(browser, key, n) for n in range(len(head))), strict=True)
        assert sorted(map(list, made)) == sorted(rows), key


def test_a_click_on_a_matrix_of_rules_leaves_the_rows_that_its_cell_counts(
    browser: Browser, pages: dict[str, str], texts: dict[str, str]
) -> None:
    rows = [(row[0], row[1], row[2]) for row in told(texts["reach"], "rows")]
    shown(browser, pages["reach"])
    for link, words in [*random.Random(5).sample(browser.ask(ROWS), 6), browser.ask(ROWS)[-1]]:
        go(browser, partial(browser.ask, f"location.hash = {json.dumps(link)}"))
        browser.ask("for (let n = 0; n < 9; n += 1) document.querySelector('#rows .all')?.click()")
        (source, destination), services = words.split(": ")[0].split(" → "), words.split(": ")[-1]
        left = list(zip(*(column(browser, "rows", n) for n in range(3)), strict=True))
        if "others" not in source + destination and source.startswith("g") and destination.startswith("g"):
            assert left == [
                row for row in ((", ".join(a), ", ".join(b), each) for a, b, each in rows)
                if source in row[0].split(", ") and destination in row[1].split(", ")
            ]  # fmt: skip
        assert left and all(service.split()[0] in services or "services" not in services for *_, service in left)
        assert browser.ask(SUMS)[0] == f"{len(left)} of {len(rows)} rows"


def test_the_filter_finds_the_last_of_all_rows_and_the_address_keeps_it(
    browser: Browser, pages: dict[str, str], texts: dict[str, str]
) -> None:
    rows = told(texts["reach"], "rows")
    sources, destinations, services, lines, _ = rows[-1]
    shown(browser, pages["reach"])
    browser.ask("document.querySelector('#matrix input').focus()")
    browser.type(f"{lines[0].split()[0]} {services}".upper())
    cells = [column(browser, "rows", n) for n in range(3)]
    assert (", ".join(sources), ", ".join(destinations), services) in zip(*cells, strict=True)
    browser.ask("document.querySelector('#rows th[data-key=service] button').click()")
    address = browser.ask("location.href")
    assert "#rows?filter=" in address and address.endswith("&sort=service&dir=asc")
    shown(browser, address)
    assert sorted(zip(*(column(browser, "rows", n) for n in range(3)), strict=True)) == sorted(zip(*cells, strict=True))
    # All rows are sorted, not only those that are shown.
    shown(browser, pages["reach"] + "#rows?sort=to&dir=desc")
    ends = sorted((", ".join(row[1]) for row in rows), key=lambda end: [int(n) for n in re.findall(r"\d+", end)])
    assert column(browser, "rows", 1)[0] == ends[-1]
    browser.ask("document.querySelector('#rows .unfold').click()")
    assert "(group g" in browser.ask("document.querySelector('#rows .unfolded').textContent")


def test_the_matrix_of_changed_rules_chooses_traffic_too(browser: Browser, pages: dict[str, str]) -> None:
    shown(browser, pages["diff"] + "#matrix?from=web&to=db")
    assert [column(browser, key, 1) for key in ("opened", "closed")] == [[], ["db"]]
    assert (column(browser, "newly-denied", 4), column(browser, "newly-allowed", 4)) == (["tcp/6379"], [])
    shown(browser, pages["diff"] + "#newly-denied?sort=answered&dir=asc")
    assert column(browser, "newly-denied", 1) == ["0", "2"]
    assert column(browser, "newly-denied", 5)[1] == "allow db/inbound/1"
    browser.ask("document.querySelector('#newly-denied tr:nth-child(2) .unfold').click()")
    words = browser.ask("document.querySelector('#newly-denied .unfolded').textContent")
    old = "Rule of OLD: db/inbound/1 (group db, line 27): allow inbound tcp 5432, 6379 from group web"
    assert old in words and "Nearest rule: db/inbound/1 (group db, line 26)" in words
    assert len(re.findall(r"web-1 → db-1, 1 connection: packet \d+ at 2026-11-25 00:32:\d\d\.\d{3}", words)) == 2

"""Makes the pictures of this folder from pcaps/shop: ``python docs/pictures/make.py``. Needs Chromium.

terminal.svg is the beginning of the report of ``sgfast replay``, page.png what ``--report`` writes.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path += [str(ROOT), str(ROOT / "tests/support")]

from browser import Browser  # noqa: E402

import sgfast  # noqa: E402
from sgfast.report.html import Timeline, html_report  # noqa: E402
from sgfast.report.replay import replay_document  # noqa: E402
from sgfast.report.text import to_text  # noqa: E402

POLICY, CAPTURE = "pcaps/shop.yaml", "pcaps/shop.pcap"
COMMAND = f"sgfast replay {POLICY} {CAPTURE}"
LINES = 30      # of the report: down to where the list of what would break ends

#: In pixels: a character, a line, the margin and the bar at the top.
COLUMN, LINE, MARGIN, BAR = 8.4, 19, 18, 34
#: What the report's styles look like, by their numbers in escape sequences.
STYLES = {"1": 'font-weight="bold" fill="#fff"', "31": 'fill="#ff7b72"', "33": 'fill="#e3b341"', "32": 'fill="#7ee787"'}

_STYLED = re.compile(r"\x1b\[(\d+)m(.*?)\x1b\[0m")


def terminal() -> str:
    """An SVG of the command and the beginning of its report, at 80 columns. Any monospace font fits."""
    report = to_text(replay_document(sgfast.replay(POLICY, [CAPTURE])), colour=True)
    lines = [f"\x1b[32m$\x1b[0m {COMMAND}", *report.splitlines()[:LINES]]
    width, height = 80 * COLUMN + 2 * MARGIN, BAR + len(lines) * LINE + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'font-family="ui-monospace, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14" fill="#d1d7e0">',
        f'<title>{escape(COMMAND)}</title>',
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#151b23"/>',
        *(f'<circle cx="{20 + 20 * n}" cy="17" r="6" fill="#3d444d"/>' for n in range(3)),
    ]
    for number, line in enumerate(lines):
        if plain := _STYLED.sub(r"\2", line):
            text = _STYLED.sub(lambda match: f"<tspan {STYLES[match[1]]}>{match[2]}</tspan>", escape(line))
            parts.append(
                f'<text x="{MARGIN}" y="{BAR + (number + 0.75) * LINE:g}" textLength="{len(plain) * COLUMN:.1f}" '
                f'xml:space="preserve">{text}</text>'
            )
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    os.chdir(ROOT)
    (HERE / "terminal.svg").write_text(terminal())
    timeline = Timeline()
    result = sgfast.replay(POLICY, [CAPTURE], packets=timeline)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "shop.html")
        page.write_text(html_report(result, timeline))
        browser = Browser(Path(folder, "profile"))
        browser.open(page.as_uri(), width=1100, height=855)
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        browser.screenshot(HERE / "page.png")
        browser.close()


if __name__ == "__main__":
    main()

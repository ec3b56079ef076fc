"""Results as HTML for notebooks (``_repr_html_``, SPEC 14.11).

Plain tables without colours of their own: Jupyter gives them those of its theme, light or dark. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

#: The most rows of a table that a notebook shows.
SHOWN_ROWS = 10


def html_table(head: Iterable[object], rows: Iterable[Iterable[object]], total: int | None = None) -> str:
    """``rows``: those to show. ``total``: how many there are, if there may be more."""
    shown = [_row("td", row) for row in rows]
    table = f"<table><thead>{_row('th', head)}</thead><tbody>{''.join(shown)}</tbody></table>"
    left = 0 if total is None else total - len(shown)
    return table + (f"<p>… and {left:,} more</p>" if left else "")


def html_text(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def _row(cell: str, values: Iterable[object]) -> str:
    # None is an empty cell.
    texts = ("" if value is None else escape(str(value)) for value in values)
    return f"<tr>{''.join(f'<{cell}>{text}</{cell}>' for text in texts)}</tr>"

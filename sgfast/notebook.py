"""Results as text for ``print``, and as HTML in notebooks (``_repr_html_``, SPEC 14.11).

Tables have no colours of their own: Jupyter uses those of its theme, light or dark. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from sgfast.evidence import Evidence

#: The most rows of a table that a notebook shows.
SHOWN_ROWS = 10


class Shown:
    """A result whose text is the output of its command, 80 columns wide and without colours."""

    __slots__ = ()

    #: The function that writes the text. ``sgfast.answers`` sets it, because this module must not import reports.
    text_of: ClassVar[Callable[[Any], str]] = repr

    def __str__(self) -> str:
        return Shown.text_of(self)


def html_table(head: Iterable[object], rows: Iterable[Iterable[object]], total: int | None = None) -> str:
    """Return a table. ``rows``: the rows to show. ``total``: the number of all rows, if there may be more."""
    shown = [_row("td", row) for row in rows]
    table = f"<table><thead>{_row('th', head)}</thead><tbody>{''.join(shown)}</tbody></table>"
    unlisted = 0 if total is None else total - len(shown)
    return table + (f"<p>… and {unlisted:,} more</p>" if unlisted else "")


def html_text(text: str) -> str:
    """Return a paragraph of text as HTML."""
    return f"<p>{escape(text)}</p>"


def html_doubts(evidence: Evidence) -> str:
    """Return paragraphs on why an answer is not conclusive; "" if it is. They stand above the answer."""
    return "".join(map(html_text, evidence.sentences))


def _row(cell: str, values: Iterable[object]) -> str:
    # None becomes an empty cell.
    texts = ("" if value is None else escape(str(value)) for value in values)
    return f"<tr>{''.join(f'<{cell}>{text}</{cell}>' for text in texts)}</tr>"

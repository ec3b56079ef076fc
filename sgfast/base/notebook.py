"""Results as text for ``print``, as JSON (SPEC 14.20), and as HTML in notebooks (``_repr_html_``, SPEC 14.11).

Tables have no colours of their own: Jupyter uses those of its theme, light or dark. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sgfast.base.json_types import json_text

if TYPE_CHECKING:
    from sgfast.base.evidence import Evidence

#: The most rows of a table that a notebook shows.
SHOWN_ROWS = 10


class AsJson:
    """A dataclass that programs pass on as JSON."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain dictionaries, lists, texts and numbers."""
        return asdict(cast(Any, self))

    def to_json(self) -> str:
        """Return ``to_dict()`` as text, indented as commands print JSON."""
        return json_text(self.to_dict())


class Shown(AsJson):
    """A result whose text is the output of its command, 80 columns wide and without colours."""

    __slots__ = ()

    #: The functions that write the text and the JSON object. ``sgfast.answers`` sets them, because this module must not
    #: import reports.
    _text_of: ClassVar[Callable[[Any], str]] = repr
    _dict_of: ClassVar[Callable[[Any], dict[str, Any]]]

    def __str__(self) -> str:
        return Shown._text_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that the command of the same name prints, as plain dictionaries (SPEC 14.20)."""
        return Shown._dict_of(self)


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

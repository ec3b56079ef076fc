"""A report independent of its format: sections of paragraphs, tables and items. ``text.py`` writes it as text, and
``markdown.py`` as Markdown. For a new section, write one function that returns a ``Section``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sgfast.base.names import printable
from sgfast.report.amounts import plural

if TYPE_CHECKING:
    from sgfast.report.rollup import RollupRow
    from sgfast.traffic.capture import Damage

#: The number of rows of a list in a text without ``--top``.
TOP = 10

#: The width of labels at the end of a report. It is the same in all reports, so that they look alike.
NOTES_WIDTH = 13

REMINDER = "A capture taken behind today's security groups cannot show what they already block."


class Name(str):
    """Text from outside, such as a name in a policy, or an option. Markdown shows it as code."""

    __slots__ = ()


#: A sentence, or part of one.
Words = str | Sequence[str]
Style = Literal["", "bold", "red", "yellow"]


@dataclass(frozen=True, slots=True)
class Paragraph:
    words: Words
    style: Style = ""


@dataclass(frozen=True, slots=True)
class TableBlock:
    """``numbers``: how many of the first columns are numbers. ``styles``: one for each row, if rows differ.
    ``is_wrapped``: whether its cells are long lists, which are wrapped.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Words]]
    numbers: int = 1
    styles: Sequence[Style] = ()
    is_wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """``below``: items on lines of their own under this item."""

    label: Words
    words: Words
    style: Style = ""
    below: Sequence[Item] = ()


@dataclass(frozen=True, slots=True)
class Items:
    """``width``: the width of the labels in text, if they are at its left edge; 0: they are indented."""

    items: Sequence[Item]
    width: int = 0


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """One row of traffic: who reaches whom with which service (SPEC 10.24). ``notes``: one by ``Traffic.heads``.
    ``lines``: lines below the row that people copy, so they are never broken.
    """

    row: RollupRow
    amount: int
    notes: Sequence[str] = ()
    style: Style = ""
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rows of traffic. ``measure``: the unit of their amounts. ``heads``: the columns of their notes."""

    measure: str
    rows: Sequence[TrafficRow]
    heads: Sequence[str] = ()


Block = Paragraph | TableBlock | Items | Traffic


@dataclass(frozen=True, slots=True)
class Section:
    heading: Words
    blocks: Sequence[Block] = ()
    #: Whether the section begins a part of the report, as the first section does.
    is_headline: bool = False
    #: Whether the section continues the section before it, and therefore has no heading.
    goes_on: bool = False


#: The first section is the headline.
Document = Sequence[Section]


def more(unlisted: str, every: int, lists: str = "all") -> list[Paragraph]:
    """Return a note with ``unlisted``, such as ``3 more rows``, and the option that lists them; none if it is ""."""
    return [Paragraph(("and ", unlisted, ": ", Name(f"--top {every}"), f" lists {lists}"))] if unlisted else []


def more_of(number: int, most: int, noun: str) -> list[Paragraph]:
    """Return a note on how many of ``number`` things are left out of a list of ``most``."""
    return more(plural(number - most, f"more {noun}") if number > most else "", number)


def notes(items: Sequence[Item]) -> list[Section]:
    """Return the section at the end of a report; none if there are no items."""
    return [Section("", [Items(items, NOTES_WIDTH)])] if items else []


def names(texts: Iterable[str]) -> list[str]:
    """Join names with commas, each marked as a ``Name``."""
    words: list[str] = []
    for text in texts:
        words += [", ", Name(text)]
    return words[1:]


def capture_names(captures: Sequence[str]) -> list[str]:
    """Return the names of the first captures, and the number of the other ones."""
    unlisted = len(captures) - 3
    return names(captures[:3]) + ([f" and {plural(unlisted, 'more capture')}"] if unlisted > 0 else [])


def warning_items(warnings: Sequence[str], most: int) -> list[Item]:
    items = [Item("Warning", printable(warning), "yellow") for warning in warnings[:most]]
    if (unlisted := len(warnings) - most) > 0:
        words = (f"and {plural(unlisted, 'more warning')}: ", Name("--json"), " has all")
        items.append(Item("Warning", words, "yellow"))
    return items


def damage_items(damage: Damage | None) -> list[Item]:
    if damage is None:
        return []
    return [Item("Damage", f"{printable(str(damage))}; what comes after that was not read", "red")]

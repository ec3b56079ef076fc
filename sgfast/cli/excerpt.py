"""Show the lines of a document that have errors, with carets under the place of each error (SPEC 11.8)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable

from sgfast.base.errors import Place, PolicyError

#: The ends of lines in YAML 1.1, by which libyaml counts lines.
_LINE_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]|\\Z")
#: The least part of the width that is kept for text before the place, if a line is too long and is cut at both sides.
_PART_BEFORE = 1 / 3
#: The most characters in a column. Characters without a width are drawn over others.
_CHARACTERS_PER_COLUMN = 4


def error_lines(error: PolicyError, width: int) -> list[str]:
    """Return the lines that show all errors of a document on a screen of ``width`` columns. Lines after the first begin
    with "sgfast: ", or with spaces if they show a line of the document.
    """
    shown = _lines_shown([policy_error.place for policy_error in error.errors if policy_error.place is not None])
    lines: list[str] = []
    for message, policy_error in zip(str(error).split("\n"), (*error.errors, None), strict=False):
        lines.append(("sgfast: " if lines else "") + message)
        place = policy_error.place if policy_error is not None else None
        if place is not None and place in shown:
            lines += excerpt(shown[place], place, width)
    return lines


def _lines_shown(places: Iterable[Place]) -> dict[Place, str]:
    """Return the document's lines at the places. Only regular files are read, as they can be read a second time."""
    by_file: dict[str, list[Place]] = {}
    for place in places:
        by_file.setdefault(place.file, []).append(place)
    shown: dict[Place, str] = {}
    for file, places_in_file in by_file.items():
        lines = _lines_of(file, {place.line for place in places_in_file})
        shown.update((place, lines[place.line]) for place in places_in_file if place.line in lines)
    return shown


def _lines_of(file: str, numbers: Collection[int]) -> dict[int, str]:
    from sgfast.policy.yaml_nodes import MAX_BYTES

    try:
        if file == "-" or not stat.S_ISREG(os.stat(file).st_mode):     # "-" is standard input
            return {}
        with open(file, "rb") as stream:
            text = stream.read(MAX_BYTES).decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return {}
    lines: dict[int, str] = {}
    begin = 0
    for number, end in enumerate(_LINE_ENDS.finditer(text), 1):
        if number in numbers:
            lines[number] = text[begin : end.start()]
            if len(lines) == len(numbers):
                break
        begin = end.end()
    return lines


def excerpt(line: str, place: Place, width: int) -> list[str]:
    """Return the line with its number, and a line with carets under the place. Both fit into ``width`` columns."""
    from rich.cells import cell_len

    number = f"  {place.line} | "
    room = max(width - len(number) - 1, 10)     # one column is for a caret behind the line
    first = min(place.column - 1, len(line))
    length = max(place.end - 1 - first, 1)
    # A line may have millions of characters, and is shown once for each error. Therefore only a part is examined.
    near = room * _CHARACTERS_PER_COLUMN + 1
    before, behind = _shown(line[max(first - near, 0) : first]), _shown(line[first : first + near])
    marked = behind[:length]
    kept_before = _fitting(before[::-1], max(int(room * _PART_BEFORE), room - cell_len(behind[:room])))
    if kept_before < len(before):
        before = "…" + before[len(before) - kept_before + 1 :]
    fitting = _fitting(behind, room - cell_len(before))
    if fitting < len(behind):
        behind = behind[: fitting - 1] + "…"
        marked = marked[:fitting]
    return [
        (number + before + behind).rstrip(),
        " " * (len(number) - 2) + "| " + " " * cell_len(before) + "^" * max(cell_len(marked), 1),
    ]


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in text)


def _fitting(text: str, room: int) -> int:
    """Return how many characters at the beginning fit into ``room`` columns."""
    from rich.cells import cell_len

    most = room * _CHARACTERS_PER_COLUMN
    for n, c in enumerate(text):
        room -= cell_len(c)
        if room < 0 or n >= most:
            return n
    return len(text)

"""Show where the errors of a document are: the line, and carets under the place (SPEC 11.8)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable

from sgfast.errors import Place, PolicyError

#: As in YAML 1.1, where libyaml counts lines.
_LINE_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]|\\Z")
#: A longer line is cut at both sides of the place. At least this part of the width stands before it.
_PART_BEFORE = 1 / 3
#: Limit of characters without a width, which stand over others, in a column.
_CHARACTERS_PER_COLUMN = 4


def error_lines(error: PolicyError, width: int) -> list[str]:
    """Return the lines that tell all errors of a document, for a screen of ``width`` columns. Those after the first begin with
    "sgfast: " or, if they show a line of the document, with spaces.
    """
    shown = _lines_shown([each.place for each in error.errors if each.place is not None])
    lines: list[str] = []
    for message, each in zip(str(error).split("\n"), (*error.errors, None), strict=False):
        lines.append(("sgfast: " if lines else "") + message)
        place = each.place if each is not None else None
        if place is not None and place in shown:
            lines += excerpt(shown[place], place, width)
    return lines


def _lines_shown(places: Iterable[Place]) -> dict[Place, str]:
    """Return the lines at the places, as far as they are in regular files, which can be read once more."""
    by_file: dict[str, list[Place]] = {}
    for place in places:
        by_file.setdefault(place.file, []).append(place)
    shown: dict[Place, str] = {}
    for file, those in by_file.items():
        lines = _lines_of(file, {place.line for place in those})
        shown.update((place, lines[place.line]) for place in those if place.line in lines)
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
    found: dict[int, str] = {}
    begin = 0
    for number, end in enumerate(_LINE_ENDS.finditer(text), 1):
        if number in numbers:
            found[number] = text[begin : end.start()]
            if len(found) == len(numbers):
                break
        begin = end.end()
    return found


def excerpt(line: str, place: Place, width: int) -> list[str]:
    """Return the line with its number, and below it carets under the place. Both fit into ``width`` columns."""
    from rich.cells import cell_len

    number = f"  {place.line} | "
    room = max(width - len(number) - 1, 10)     # one column is for a caret behind the line
    first = min(place.column - 1, len(line))
    length = max(place.end - 1 - first, 1)
    # A line may have millions of characters, and as many errors as are listed.
    near = room * _CHARACTERS_PER_COLUMN + 1
    before, behind = _shown(line[max(first - near, 0) : first]), _shown(line[first : first + near])
    marked = behind[:length]
    kept = _fitting(before[::-1], max(int(room * _PART_BEFORE), room - cell_len(behind[:room])))
    if kept < len(before):
        before = "…" + before[len(before) - kept + 1 :]
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
    """Count the first characters that fit into ``room`` columns."""
    from rich.cells import cell_len

    most = room * _CHARACTERS_PER_COLUMN
    for n, c in enumerate(text):
        room -= cell_len(c)
        if room < 0 or n >= most:
            return n
    return len(text)

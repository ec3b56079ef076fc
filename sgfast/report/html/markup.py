"""HTML as values: what is not ``Markup`` is escaped, so whatever a name holds, it is text on the page."""

from __future__ import annotations

from html import escape
from typing import Any

from sgfast.capture.names import printable

#: Elements without an end tag. Those of SVG all have one.
_VOID = frozenset({"br", "hr", "input", "meta"})

#: Characters of one piece of text, at most.
LONGEST = 600


class Markup(str):
    """Text that is HTML already. Only this module and the files beside it make it."""

    __slots__ = ()


Content = str | int | None


def text(value: Content) -> Markup:
    """Safe between tags and in an attribute's quotes; control characters and bytes that are no text stand escaped."""
    if value is None or value == "":
        return Markup()
    if isinstance(value, Markup):
        return value
    plain = str(value)
    if len(plain) > LONGEST:
        plain = plain[:LONGEST] + "…"
    return Markup(escape(printable(plain), quote=True))


def joined(*parts: Content) -> Markup:
    return Markup("".join(map(text, parts)))


def tag(name: str, *content: Content, **attributes: Any) -> Markup:
    """An element. Attributes: ``class_`` is class, ``data_label`` data-label; True stands alone, None and False are
    left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{text(value)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{joined(*content)}</{name}>")

"""HTML as values. Every text that is not ``Markup`` is escaped, so a name cannot inject HTML into the page."""

from __future__ import annotations

from html import escape
from typing import Any

from sgfast.base.names import printable

#: Elements without an end tag. All SVG elements have one.
_VOID = frozenset({"br", "hr", "input", "meta"})

#: Maximum number of characters of a text.
MAX_LENGTH = 600
#: Texts up to this number of characters have no line break, even on a phone.
_WHOLE = 22


class Markup(str):
    """Text that is already HTML. Only this module and its siblings create it."""

    __slots__ = ()


Content = str | int | None


def text(value: Content) -> Markup:
    """Escape a value for use between tags or in a quoted attribute. Control characters and undecodable bytes become
    visible escapes.
    """
    if value is None or value == "":
        return Markup()
    if isinstance(value, Markup):
        return value
    return Markup(escape(plain(str(value)), quote=True))


def plain(words: str, most: int = MAX_LENGTH) -> str:
    """Return a text as the page shows it, with visible escapes for unprintable characters; at most ``most`` characters.
    """
    return printable(words if len(words) <= most else words[:most] + "…") if words else ""


def joined(*parts: Content) -> Markup:
    return Markup("".join(map(text, parts)))


def tag(name: str, *content: Content, **attributes: Any) -> Markup:
    """Return an element. The attribute ``class_`` becomes class, and ``data_label`` becomes data-label. An attribute
    that is True has no value; None and False are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{text(value)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{joined(*content)}</{name}>")


def code(words: str) -> Markup:
    return tag("span", words, class_="code whole" if len(words) <= _WHOLE else "code")

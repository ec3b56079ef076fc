"""Write names into messages: on one line, and without the secrets of a URL (SPEC 11)."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: The most names that a message lists.
LISTED = 5
#: The user name and password of a URL stand between ``://`` and ``@``. They may have all characters except those that
#: end the host: ``/``, ``?``, ``#`` and white space.
_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: The part of a URL before the path, with a user name and a port, and without a password.
_USER_AND_PORT = re.compile(r"[^:@]*@[^:@]*:[0-9]*")
_PORT = re.compile(r"[^:@]*:[0-9]+")
#: The query or the fragment of a URL, which may hold a signature, quotes and spaces.
_QUERY = re.compile(r"([?#])[^…].*", re.DOTALL)
#: The query of a URL in a message, which ends with a word. A word with ``&`` belongs to a query that has a space.
_QUERY_IN_MESSAGE = re.compile(r"([?#])[^…\s]\S*(?:\s+\S*&\S*)*")


def printable(name: str) -> str:
    """Return the name on one line and without credentials; control characters and undecodable bytes are escaped."""
    if not name:
        return "''"
    name = without_credentials(name)
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``, or ``a, b, c, d, e and 7 more``, each as ``printable`` returns it."""
    shown = [printable(name) for name in names[:LISTED]]
    if len(names) > LISTED:
        return f"{', '.join(shown)} and {len(names) - LISTED:,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def count(number: int, noun: str) -> str:
    """Return ``1 packet`` or ``2 packets``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def without_user(text: str) -> str:
    """Replace the user name and the password of each well-formed URL in the text by dots."""
    return _CREDENTIALS.sub(r"\1…@", text) if "://" in text else text


def without_credentials(text: str) -> str:
    """Replace the user name, the password, the query and the fragment of each URL in the text by dots.

    The text is a name or a message. A URL at its beginning ends at ``: ``, so the URL may have spaces. Users type
    passwords with characters that URLs do not allow. In doubt, too much is replaced rather than too little.
    """
    if "://" not in text:
        return text
    if _URL.match(text):
        name, colon, message = text.partition(": ")
        return _hide(_without_users(name), _QUERY) + colon + _message(message)
    return _message(text)


def is_host_doubtful(url: str) -> bool:
    """Return whether a library may mistake part of the user name or password for the host, and show it in messages."""
    parts = url.split("://")
    authorities = ["://".join(parts[n:]) for n in range(1, len(parts))]
    hosts = ((text, _host(text)) for text in authorities)
    return any(_end_of_user(text) > len(host) and not _PORT.fullmatch(host) for text, host in hosts)


def _message(text: str) -> str:
    words = [_without_users(word) for word in re.split(r"(\s+)", text)]
    return _hide("".join(words), _QUERY_IN_MESSAGE)


def _hide(text: str, query: re.Pattern[str]) -> str:
    before, mark, after_scheme = text.partition("://")
    return before + mark + query.sub(r"\1…", after_scheme)


def _without_users(text: str) -> str:
    """Replace the users in a text. ``text``: a URL, or several without white space between them."""
    shown, remaining = "", text
    while (scheme_end := remaining.find("://")) >= 0:
        begin = scheme_end + len("://")
        shown, remaining = shown + remaining[:begin], remaining[begin:]
        end = _end_of_user(remaining)
        if end >= 0 and re.search("[?#]", remaining[:end]):
            # The @ may be part of a query, so the rest of the text may belong to this query, too.
            return f"{shown}…"
        if end >= 0:
            shown, remaining = f"{shown}…@", remaining[end + 1 :]
    return shown + remaining


def _host(authority: str) -> str:
    """Return the part of a URL between ``://`` and the path: the host, with user, password and port."""
    return re.split("[/?#]", authority, maxsplit=1)[0]


def _end_of_user(authority: str) -> int:
    """Return the position of the ``@`` behind the user name and password, in the text after ``://``; -1: no ``@``."""
    host = _host(authority)
    has_password = ":" in host and not _USER_AND_PORT.fullmatch(host)
    return authority.rfind("@") if has_password else host.rfind("@")

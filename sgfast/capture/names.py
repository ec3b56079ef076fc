"""Formats names for messages."""

import re

from sgfast.core.wire.link import LINK_TYPE_NAMES

#: The user name and password in a URL, before its host. Both may have any character that ends neither the host nor the
#: line.
_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
#: The query of a URL. It may hold a signature, and quotes.
_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^?#\s]*)\?[^#\s]*")


def without_user(text: str) -> str:
    """Replace the user name and the password of each URL in the text by dots."""
    return _CREDENTIALS.sub(r"\1…@", text) if "://" in text else text


def without_credentials(text: str) -> str:
    """Replace the user name, the password and the query of each URL in the text by dots."""
    return _QUERY.sub(r"\1?…", without_user(text)) if "://" in text else text


def printable(name: str) -> str:
    """Return the name on one line and without credentials; control characters and undecodable bytes are escaped."""
    if not name:
        return "''"
    name = without_credentials(name)
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def link_type_name(link_type: int) -> str:
    """``LINKTYPE_RAW (101)``, or just the number if the link type has no name here."""
    name = LINK_TYPE_NAMES.get(link_type)
    return f"LINKTYPE_{name} ({link_type})" if name else str(link_type)

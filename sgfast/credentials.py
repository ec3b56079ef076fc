"""Takes what is secret out of the URLs in names (SPEC 11)."""

from __future__ import annotations

import re

#: The user name and password of a URL stand between ``://`` and ``@``. They may have all characters but those that end
#: the host: ``/``, ``?``, ``#`` and white space.
_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
#: The query of a URL. It may hold a signature, and quotes.
_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^?#\s]*)\?[^#\s]*")


def without_user(text: str) -> str:
    """Replace the user name and the password of each URL in the text by dots."""
    return _CREDENTIALS.sub(r"\1…@", text) if "://" in text else text


def without_credentials(text: str) -> str:
    """Replace the user name, the password and the query of each URL in the text by dots."""
    return _QUERY.sub(r"\1?…", without_user(text)) if "://" in text else text

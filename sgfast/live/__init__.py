"""Read an account through its cloud's API, as the documents that ``sgfast.policy.formats`` imports (SPEC 10.17).

Every call only reads. What a call does not return is an error, so that no policy lacks a part of the account.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sgfast.policy.formats.sources import Source

__all__ = ["Account", "Progress"]

#: Called after each answer with the name of the listing, and how many objects it has brought.
Progress = Callable[[str, int], None]


class Account(NamedTuple):
    #: A name for people: ``AWS (eu-central-1, us-east-1)``.
    called: str
    sources: list[Source]

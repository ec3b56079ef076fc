"""A format of exports, and the keys by which it is detected. Each provider has its own, in ``provider.py``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sgfast.clouds.importing.draft import Draft
    from sgfast.clouds.importing.sources import Source

#: The keys next to the list in a page of OpenStack's and OTC's APIs.
API_PAGING = frozenset(("page_info", "request_id", "count", "total_count"))


class Format(NamedTuple):
    """A format of exports."""

    name: str
    #: The module of ``sgfast.clouds`` that reads the format.
    module: str
    title: str
    #: The format's line in ``sgfast import --help``.
    help: str
    #: Top-level keys. Every file of this format, or every item of a file that is a list, has at least one of them.
    sections: frozenset[str]
    #: Keys within the top three levels that no other format with the same sections has. "section.key" means a key of
    #: the objects in a section.
    own: frozenset[str]
    #: Keys that a page of a listing may have next to its sections.
    paging: frozenset[str] = frozenset()
    #: The commands or lists that have the security groups and their rules, for an export that lacks them.
    lists_groups: str = ""
    #: Whether the output of ``aws ec2 get-managed-prefix-list-entries`` may be among the files.
    takes_entries: bool = False

    def read(self, sources: Sequence[Source]) -> Draft:
        """Read files into one draft. The format's module is imported only here, because it is large."""
        draft: Draft = import_module(f"sgfast.clouds.{self.module}").read(sources)
        return draft


def singular_and_plural(*sections: str) -> frozenset[str]:
    """Return the keys of an API that lists objects of a kind under their plural, and has one under the singular."""
    return frozenset(f"{section}{plural}" for section in sections for plural in ("", "s"))

"""The errors that sgfast raises deliberately. Each message is one line with file, location, cause and remedy. A message
about a document with several errors has a line for each error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SgfastError(Exception):
    """Base class of all errors that sgfast raises deliberately. ``str(error)`` is the line to show.

    For example:

        try:
            sgfast.replay("pcaps/shop.yaml", "no-such.pcap")
        except sgfast.SgfastError as error:
            print(error)
    """


class ArgumentError(SgfastError, ValueError):
    """An argument of a public call with an impossible value, or with a value that conflicts with another argument."""


class ArgumentTypeError(SgfastError, TypeError):
    """An argument of a public call with a wrong type."""


class Place(NamedTuple):
    """Characters of one line of a file.

    ``file``: the name under which the file was read.
    ``line``: the line, from 1.
    ``column``: the column of the first character, from 1.
    ``end``: the column behind the last character.
    """

    file: str
    line: int
    column: int
    end: int


class PolicyError(SgfastError):
    """A policy that cannot be used (SPEC 2, 7.1, 8.5, 11.8); exit status 2.

    ``errors``: the first 20 errors of a document, in the order of its lines; a single error lists itself. ``place``:
    the error's place in a document; None for several errors, and for an error that is in no document. ``field``: the
    wrong field of a document, such as ``security_groups[0].rules[2].ports``; None for several errors, and for an error
    that is in no field.

    For example:

        try:
            sgfast.load({"version": 1, "security_groups": [{"nane": "web"}]})
        except sgfast.PolicyError as error:
            assert error.field == "security_groups[0]" and "did you mean 'name'?" in error.message
    """

    def __init__(
        self, message: str = "", place: Place | None = None, errors: Sequence[PolicyError] = (), *,
        field: str | None = None, cause: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.place: Place | None = place
        self.field: str | None = field
        self._errors = tuple(errors)
        self._cause = cause

    @property
    def message(self) -> str:
        """The cause and what to do, without file, line and field if the error is in a field; else the whole text."""
        return str(self) if self._cause is None else self._cause

    @property
    def errors(self) -> tuple[PolicyError, ...]:
        """The errors one by one."""
        return self._errors or (self,)


class LiveError(SgfastError):
    """A cloud account that cannot be read, or only in part (SPEC 10.17); exit status 2."""


class TooMuch(PolicyError):
    """A question about all packets that would take too long (SPEC 11.1); exit status 2."""


class ExportError(SgfastError):
    """A policy that a target cannot express exactly (SPEC 13); exit status 2.

    ``problems``: one line for each problem.
    """

    def __init__(self, origin: str, *problems: str) -> None:
        """``origin``: the policy's name in messages."""
        super().__init__(origin, *problems)      # pickling needs the arguments
        self.problems: list[str] = [f"{origin}: {problem}" for problem in problems]

    def __str__(self) -> str:
        return "; ".join(self.problems)


class AmbiguousAddress(PolicyError):
    """Two VPCs that a capture may show own the same address (SPEC 7.1); exit status 2 for a replay."""


class CaptureError(SgfastError):
    """A capture that cannot be opened, or whose format is not supported (SPEC 10.5); exit status 2."""


class ReadingError(SgfastError):
    """An invalid selection of packets to read, such as a wrong filter or an end before the start; exit status 2."""


class NoCapture(CaptureError):
    """A file that is not a capture. In a directory of captures it is skipped."""


class TableError(SgfastError):
    """A table in memory that was not kept, that would be too large, or that needs another library (SPEC 14.9)."""


class OutputError(SgfastError):
    """An output that cannot be written (SPEC 10.5); exit status 2."""


class SnapshotError(SgfastError):
    """A snapshot that cannot be read or does not belong to this replay; exit status 2."""


class FlowLogError(SgfastError):
    """A file that cannot be read or is not a flow log (SPEC 10.5); exit status 2."""


class ClusterError(SgfastError):
    """A cluster or its storage that fails a replay running on it; exit status 2."""


class SandboxError(SgfastError):
    """A sandbox that the system cannot provide (SPEC 11.4); exit status 2."""


def pip_install(extra: str) -> str:
    """Return the command that installs the packages of an extra, for messages about a package that is missing."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        installed = distribution("sgfast")
    except PackageNotFoundError:
        return f"pip install -e '.[{extra}]' in the source folder"
    # pip notes the folder that it was given. Without a wheel, sgfast runs in its source folder.
    folder = json.loads(installed.read_text("direct_url.json") or "{}").get("dir_info")
    if installed.read_text("WHEEL") is None:
        folder = {"editable": True}
    if folder is None:
        return f"pip install 'sgfast[{extra}]'"
    return f"pip install {'-e ' if folder.get('editable') else ''}'.[{extra}]' in the source folder"

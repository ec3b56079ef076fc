"""What a command reads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Inputs:
    """The inputs that the command line names. None stands for an option that is not given."""

    #: Documents, exports, and directories of exports.
    policies: Sequence[str | None] = ()
    #: Captures, and directories and patterns that stand for captures.
    captures: Sequence[str] = ()
    others: Sequence[str | None] = ()

    @functools.cached_property
    def files(self) -> list[str]:
        """All of them, and the files in the directories. Raises PolicyError for a directory without exports."""
        from sgfast.capture.directories import with_files_in
        from sgfast.policy.formats.sources import files_of

        exports = [file for policy in self.policies if policy is not None for file in files_of(policy)]
        return [*exports, *with_files_in(self.captures), *(path for path in self.others if path is not None)]

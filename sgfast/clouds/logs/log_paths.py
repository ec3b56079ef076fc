"""The times that the paths of a provider's logs say, by which files and whole folders can be left unread."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from re import Pattern

#: Years that may be those of a log.
_YEARS = range(1970, 9000)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPaths:
    """The names that a provider gives to files of logs and to their folders."""

    #: The pattern of a file's name. Its group is the time in the name, in ``time_form`` of strptime.
    file_name: Pattern[str]
    time_form: str
    #: Patterns of folders with a date. Their groups are year, month, day and hour, and only the year must be there.
    folders: tuple[Pattern[str], ...]
    #: The most that a record may begin before the time in the path, or after it.
    older: timedelta
    newer: timedelta
    #: The longest interval of a record. A file has records that ended soon after the time in its name.
    longest_interval: timedelta

    def time_in_name(self, path: str) -> datetime | None:
        """Return the time in a file's name, or None if it is no name of this provider's."""
        named = self.file_name.search(path)
        if named is None:
            return None
        try:
            written = datetime.strptime(named[1], self.time_form).replace(tzinfo=UTC)
        except ValueError:
            return None
        return written if written.year in _YEARS else None

    def begin(self, path: str) -> datetime | None:
        """Return the time at which the records of a file may begin, or None if its name does not say."""
        written = self.time_in_name(path)
        return None if written is None else written - self.longest_interval

    def span(self, path: str) -> tuple[datetime, datetime] | None:
        """Return the times between which records of files with this path begin, or None if the path does not say."""
        written = self.time_in_name(path)
        span = self._span_of_folder(path) if written is None else (written, written)
        return None if span is None else (span[0] - self.older, span[1] + self.newer)

    def _span_of_folder(self, path: str) -> tuple[datetime, datetime] | None:
        dated = next((date for pattern in self.folders if (date := pattern.search(f"/{path}"))), None)
        if dated is None:
            return None
        year, month, day, hour = (None if part is None else int(part) for part in dated.groups())
        try:
            begin = datetime(year or 0, month or 1, day or 1, hour or 0, tzinfo=UTC)
        except ValueError:
            return None
        # A month has at most 31 days, and a year 366.
        length = timedelta(days=366 if month is None else 31 if day is None else 1)
        return (begin, begin + (length if hour is None else timedelta(hours=1))) if begin.year in _YEARS else None

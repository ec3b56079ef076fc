"""The times in the paths of a provider's logs. Files and folders of other times need not be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from re import Pattern

#: Years that may be those of a log.
_YEARS = range(1970, 9000)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPaths:
    """The names that a provider gives to its logs and to the folders of logs."""

    #: The pattern of a file's name. Its only group is a time.
    file_name: Pattern[str]
    #: The format of this time, as ``strptime`` takes it.
    time_format: str
    #: Patterns of folders. Their groups are year, month, day and hour; all but the year may be left out.
    folders: tuple[Pattern[str], ...]
    #: The longest time from the start of a record to its end.
    longest_interval: timedelta
    #: A record of a file ends at most this long before or after the time in the file's path.
    tolerance: timedelta

    def time_in_name(self, path: str) -> datetime | None:
        """Return the time in a file's name, or None if it is no name of this provider's."""
        name_match = self.file_name.search(path)
        if name_match is None:
            return None
        try:
            name_time = datetime.strptime(name_match[1], self.time_format).replace(tzinfo=UTC)
        except ValueError:
            return None
        return name_time if name_time.year in _YEARS else None

    def first_start(self, path: str) -> datetime | None:
        """Return the time at which the records of a file usually begin, or None if its name has no time."""
        name_time = self.time_in_name(path)
        return None if name_time is None else name_time - self.longest_interval

    def start_range(self, path: str) -> tuple[datetime, datetime] | None:
        """Return the times between which all records of a file or folder begin, or None if its path has no time."""
        name_time = self.time_in_name(path)
        times = self._folder_times(path) if name_time is None else (name_time, name_time)
        if times is None:
            return None
        return times[0] - self.longest_interval - self.tolerance, times[1] + self.tolerance

    def _folder_times(self, path: str) -> tuple[datetime, datetime] | None:
        folder_match = next((match for pattern in self.folders if (match := pattern.search(f"/{path}"))), None)
        if folder_match is None:
            return None
        year, month, day, hour = (None if part is None else int(part) for part in folder_match.groups())
        try:
            begin = datetime(year or 0, month or 1, day or 1, hour or 0, tzinfo=UTC)
        except ValueError:
            return None
        # A month has at most 31 days, and a year 366.
        length = timedelta(days=366 if month is None else 31 if day is None else 1)
        return (begin, begin + (length if hour is None else timedelta(hours=1))) if begin.year in _YEARS else None

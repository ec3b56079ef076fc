"""Fixtures of the tests of captures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from parted import Seen

from sgfast.capture import gzip_files, parallel, parts


@pytest.fixture
def threads() -> Iterator[Callable[[], list[threading.Thread]]]:
    """The threads that have begun since. None may be left at the end."""
    before = set(threading.enumerate())

    def begun() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before]

    yield begun
    assert not begun()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    decompress, begin, take = parts.decompress, gzip_files.InflatedFile.begin, gzip_files.InflatedFile.take

    def decompressed(*arguments: Any) -> Any:
        found.parts += 1
        found.threads.add(threading.current_thread())
        return decompress(*arguments)

    def begun(*arguments: Any) -> Any:
        made = begin(*arguments)
        found.begun += made is not None
        return made

    def taken(self: Any, *, wait: bool) -> Any:
        output = take(self, wait=wait)
        found.made += sum(map(len, output or ()))
        found.whole += self.ended and self.beginning.at > 0
        return output

    monkeypatch.setattr(parallel, "decompress", decompressed)
    monkeypatch.setattr(gzip_files.InflatedFile, "begin", begun)
    monkeypatch.setattr(gzip_files.InflatedFile, "take", taken)
    return found

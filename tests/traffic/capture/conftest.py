"""Fixtures of the tests of captures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from packed import Seen

from sgfast.base.streams import decompressed


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
    begin, take = decompressed._Inflating.begin, decompressed._Inflating.take

    def begun(file: Any) -> Any:
        made = begin(file)
        found.begun += made is not None
        return made

    def taken(self: Any, *, wait: bool) -> Any:
        piece = take(self, wait=wait)
        if piece is not None:
            found.made += piece.size
            found.whole += piece.ended
        return piece

    monkeypatch.setattr(decompressed._Inflating, "begin", begun)
    monkeypatch.setattr(decompressed._Inflating, "take", taken)
    return found

"""Fixtures of the tests of captures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def threads() -> Iterator[Callable[[], list[threading.Thread]]]:
    """The threads that have begun since. None may be left at the end."""
    before = set(threading.enumerate())

    def begun() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before]

    yield begun
    assert not begun()

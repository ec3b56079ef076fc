"""Objects of extension classes that were made without their constructor, made twice, or copied: no crash (SPEC 11)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from copy import copy
from pathlib import Path

import odd_objects
import pytest
from command import DEADLINE_SECONDS, environment

from sgfast.traffic.capture import CaptureReader
from sgfast.traffic.preprocess.selection import Dedup, Window
from sgfast.traffic.preprocess.vpcs import Dealer

TESTS = Path(__file__).parents[1]
#: The extension modules of each folder. One process tries them all, as its start takes longer than trying a module.
BY_FOLDER: dict[str, list[str]] = {}
for _name in odd_objects.extension_modules():
    BY_FOLDER.setdefault(_name.rpartition(".")[0], []).append(_name)


@pytest.mark.parametrize("folder", BY_FOLDER)
def test_no_object_crashes_the_interpreter(folder: str) -> None:
    path = os.pathsep.join([str(TESTS / "support"), str(TESTS)])
    ended = subprocess.run(
        [sys.executable, odd_objects.__file__, *BY_FOLDER[folder]], env=environment(PYTHONPATH=path),
        capture_output=True, text=True, timeout=5 * DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr[-5000:]
    assert ended.stdout.split() == [cls.__name__ for name in BY_FOLDER[folder] for cls in odd_objects.classes_of(name)]


def test_all_classes_are_tried() -> None:
    modules = odd_objects.extension_modules()
    assert len(modules) > 20
    assert {"sgfast.traffic.capture.reader", "sgfast.core.dataplane", "sgfast.report.rows"} < {*modules}


def test_a_reader_needs_its_constructor() -> None:
    with pytest.raises(TypeError):
        CaptureReader.__new__(CaptureReader)


def test_what_cannot_be_copied_says_so() -> None:
    for copied in (copy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            copied(Window(None, None))


def test_states_and_secrets_of_another_length_are_refused() -> None:
    for length in (0, 3, 5):
        with pytest.raises(ValueError, match="values to unpack"):
            Dedup([1] * length)
    for length in (6, 7, 9):
        with pytest.raises(ValueError, match="impossible clock state"):
            Dealer(1).go_on((0,) * length)

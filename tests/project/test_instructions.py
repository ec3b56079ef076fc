"""The check of instruction counts fails where it should. Valgrind is not run here; ``.ci/run`` runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType

import pytest

FIGURES = {"opener": {"all": 2000.0}, "denied": {"all": 1500.0}}
MADE_WITH = {"compiler": "cc 1"}


class History:
    """A repository with recorded figures. ``counted``: those of each tree that is measured."""

    def __init__(self, folder: Path, instructions: ModuleType, patch: pytest.MonkeyPatch) -> None:
        self.root, self.instructions = folder, instructions
        self.built: list[str] = []
        self.counted = {"here": FIGURES, "before": FIGURES}
        self.toml = folder / instructions.IN_GIT
        self.toml.parent.mkdir()
        patch.setattr(instructions, "ROOT", folder)
        patch.setattr(instructions, "FIGURES", self.toml)
        patch.setattr(instructions, "made_with", lambda: MADE_WITH)
        patch.setattr(instructions, "table", lambda columns: "")
        patch.setattr(instructions, "measured", lambda tree: self.counted["here" if tree == self.root else "before"])
        history = self

        class OtherTree:
            def __init__(self, folder: Path) -> None:
                self.folder = folder

            def go(self, commit: str) -> Path:
                history.built.append(commit)
                return self.folder

        patch.setattr(instructions, "OtherTree", OtherTree)
        self._git("init", "-q")

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, source: str) -> str:
        (self.root / "sgfast").mkdir(exist_ok=True)
        (self.root / "sgfast/core.pyx").write_text(source)
        self._git("add", ".")
        self._git("commit", "-qm", "m")
        return self._git("rev-parse", "HEAD")

    def record(self, figures: dict[str, dict[str, float]], **why: str) -> None:
        self.toml.write_text(self.instructions.document(figures, why))

    def check(self) -> int:
        return self.instructions.check()


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    import instructions

    return History(tmp_path, instructions, monkeypatch)


def with_opener(instructions: float) -> dict[str, dict[str, float]]:
    return {**FIGURES, "opener": {"all": instructions}}


@pytest.mark.parametrize(("opener", "status"), [(2040, 0), (2041, 1), (1000, 0)])
def test_a_figure_that_has_grown_by_more_than_two_percent_fails(
    opener: float, status: int, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    history.record(FIGURES)
    history.commit("1")
    history.commit("2")
    history.counted["here"] = with_opener(opener)
    assert history.check() == status
    assert ("opener: grown" in capsys.readouterr().out) == bool(status)


def test_figures_that_are_recorded_anew_need_a_reason_for_growth(history: History) -> None:
    history.record(FIGURES)
    history.commit("1")
    history.counted["here"] = with_opener(2100)
    history.record(with_opener(2100))
    assert history.check() == 1
    history.commit("2")
    assert history.check() == 1
    history.record(with_opener(2100), opener="it counts origins")
    assert history.check() == 0
    history.commit("2")
    assert history.check() == 0


def test_the_reason_of_an_earlier_growth_explains_no_other_one(history: History) -> None:
    history.record(FIGURES, opener="it counts origins")
    history.commit("1")
    history.counted["here"] = with_opener(2100)
    history.record(with_opener(2100), opener="it counts origins")
    assert history.check() == 1


def test_with_another_compiler_the_commit_that_recorded_is_measured_too(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.record(FIGURES)
    recorded = history.commit("1")
    history.commit("2")
    history.commit("3")
    monkeypatch.setattr(history.instructions, "made_with", lambda: {"compiler": "cc 2"})
    history.counted = {"here": with_opener(900), "before": with_opener(800)}
    assert history.check() == 1
    assert history.built == [recorded]
    history.counted["before"] = with_opener(890)
    assert history.check() == 0


def test_with_another_compiler_a_new_reason_explains_growth_since_the_commit_before(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.record(FIGURES)
    before = history.commit("1")
    history.record(with_opener(2100), opener="it counts origins")
    history.commit("2")
    monkeypatch.setattr(history.instructions, "made_with", lambda: {"compiler": "cc 2"})
    history.counted = {"here": with_opener(900), "before": with_opener(800)}
    assert history.check() == 0
    assert history.built == [before]
    history.counted["here"] = with_opener(900) | {"denied": {"all": 2000.0}}
    assert history.check() == 1


def test_without_a_history_nobody_can_tell(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    history.record(FIGURES)
    history.commit("1")
    assert history.check() == 0
    assert "nothing to compare with" in capsys.readouterr().out


def test_instructions_of_called_functions_are_counted_once(history: History, tmp_path: Path) -> None:
    dump = tmp_path / "counts"
    dump.write_text(
        "desc: Trigger: Client Request: opener-1\n\nfn=(1) __pyx_f_6sgfast_4core_8pipeline_5batch_judge_batch\n"
        "0 10\ncfn=(2) memcpy\ncalls=3 0\n0 900\n0 5\n\nfn=(2)\n0 900\n\n"
        "fn=(3) __pyx_f_6sgfast_4core_8pipeline_5batch_guess_batch\n0 7\n"
    )
    ((name, stages),) = history.instructions._counts(dump)
    assert name == "opener-1"
    assert stages == {"judging": 15, "the rest": 900, "look-up": 7}

"""The library as a user meets it: its names and its types (SPEC 14.1, 14.8)."""

from __future__ import annotations

import inspect
import pydoc
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from typed_program import ask, change_and_hand_on, embed, fail, load, replay

import sgfast
from sgfast import types
from sgfast.base.errors import pip_install
from sgfast.base.evidence import CODES as EVIDENCE_CODES
from sgfast.clouds.providers import FORMATS
from sgfast.policy.profiles import PROFILES
from sgfast.questions.checking import CODES as FINDING_CODES
from sgfast.traffic.flow_logs.log_records import NOT_TRAFFIC
from sgfast.traffic.flow_logs.record_packets import LEFT_OUT, UNDECIDED

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("typed_program.py")
MISUSE = Path(__file__).with_name("misused_library.py")


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"WHEEL": ""}, "pip install 'sgfast[aws]'"),
        ({"WHEEL": "", "direct_url.json": '{"url": "https://x/y.whl"}'}, "pip install 'sgfast[aws]'"),
        (
            {"WHEEL": "", "direct_url.json": '{"url": "file:///x", "dir_info": {"editable": true}}'},
            "pip install -e '.[aws]' in the source folder",
        ),
        (
            {"WHEEL": "", "direct_url.json": '{"url": "file:///x", "dir_info": {}}'},
            "pip install '.[aws]' in the source folder",
        ),
        ({}, "pip install -e '.[aws]' in the source folder"),
    ],
    ids=["index", "wheel", "editable", "folder", "in place"],
)
def test_the_command_for_a_missing_package_is_true_for_the_way_of_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], command: str
) -> None:
    """SPEC 10.26."""
    folder = tmp_path / "sgfast-0.1.0.dist-info"
    folder.mkdir()
    for name, text in {"METADATA": "Name: sgfast\nVersion: 0.1.0\n", **files}.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert pip_install("aws") == command


def test_every_public_name_is_there_for_programs_and_for_type_checkers() -> None:
    """The stub is what type checkers read, and what names are imported by."""
    for module in (sgfast, types):
        assert dir(module) == module.__all__ and len(set(module.__all__)) == len(module.__all__)
        assert all(getattr(module, name) is not None for name in module.__all__)
    starred: dict[str, object] = {}
    exec("from sgfast import *", starred)
    assert sgfast.__all__ == sorted(starred.keys() - {"__builtins__"})
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        sgfast.lode  # noqa: B018


def test_the_contract_lists_every_public_name_and_no_other() -> None:
    """SPEC 10.20, 14.1."""
    contract = (ROOT / "docs" / "spec.md").read_text()
    clauses = [contract.partition(f"\n**{number}** ")[2].partition("\n**")[0] for number in ("10.20", "14.1")]
    rows = re.findall(r"^\| (`.*?) \|", "".join(clauses), flags=re.M)
    assert sorted({name for row in rows for name in re.findall(r"`(\w+)", row)}) == dir(sgfast)


def test_asking_for_one_thing_does_not_import_all_others() -> None:
    code = (
        "import sys, sgfast; assert not {'sgfast.policy', 'numpy', 'yaml'} & sys.modules.keys(); "
        "sgfast.load(text='version: 1'); assert not {'sgfast.engine', 'sgfast.rules', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_is_a_page_that_names_everything_and_not_a_listing_of_every_method() -> None:
    """SPEC 14.1."""
    page = pydoc.plain(pydoc.render_doc(sgfast))
    assert len(page.splitlines()) < 130 and "CLASSES" not in page
    assert page.index("sgfast.load(") < page.index("policy.explain(") < page.index("policy.replay(")
    contents = page.partition("PACKAGE CONTENTS")[0]
    assert [name for name in sgfast.__all__ if f"``{name}``" not in contents] == []
    for name in re.findall(r"\bpolicy\.(\w+)\(", contents):
        assert callable(getattr(sgfast.Policy, name)), name
    for name in ("load", "replay", "diff", "export", "suggest", "Engine", "Policy"):
        assert (getattr(sgfast, name).__doc__ or "")[:1].isupper()


def test_the_program_that_uses_everything_runs() -> None:
    pcaps = ROOT / "pcaps"
    policy = load(pcaps)
    ask(policy)
    replay(policy, pcaps / "shop.pcap")
    embed(policy)
    change_and_hand_on(policy, pcaps / "shop.pcap")
    fail()


def type_checked(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy")
    # Elsewhere, so that the checker sees the package as it is installed.
    shutil.copy2(program, folder)
    command = [sys.executable, "-m", "mypy", "--strict", "--enable-error-code", "truthy-bool"]
    command += ["--cache-dir", str(ROOT / "build" / "mypy"), program.name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_type_checkers_know_every_value_of_a_program_that_uses_everything(tmp_path: Path) -> None:
    told = type_checked(PROGRAM, tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr


def test_type_checkers_refuse_misuse_and_check_what_follows_it(tmp_path: Path) -> None:
    told = type_checked(MISUSE, tmp_path)
    found = re.findall(r"^\w+\.py:(\d+): error: .* \[([\w-]+)\]$", told.stdout, flags=re.M)
    lines = enumerate(MISUSE.read_text().splitlines(), 1)
    meant = [(str(number), line.rpartition("  # ")[2]) for number, line in lines if "  # " in line]
    assert found == meant, told.stdout + told.stderr


def test_an_editable_install_is_a_path_that_type_checkers_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is a finder, which runs code. mypy and pyright then say that there is no such package."""
    monkeypatch.chdir(ROOT)
    given: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    runpy.run_path("setup.py")
    assert given["options"]["editable_wheel"] == {"mode": "compat"}
    assert (ROOT / "sgfast" / "py.typed").exists()


def test_what_is_asked_of_captures_that_were_not_given_is_none_and_no_empty_answer() -> None:
    """SPEC 14.4."""
    difference = sgfast.load(ROOT / "pcaps" / "shop.yaml").diff({"version": 1})
    assert difference.closed and difference.traffic is None
    assert difference.newly_denied is None and difference.newly_allowed is None
    both = sgfast.load(ROOT / "pcaps" / "shop.yaml").diff({"version": 1}, ROOT / "pcaps" / "shop.pcap")
    assert both.traffic is not None and both.traffic.packets == 261 and both.newly_allowed


def _annotated(value: Any) -> Iterator[Any]:
    """Yield what has the annotations that users see: a function, or a class with its methods and properties."""
    if inspect.isfunction(value):
        yield value
    if isinstance(value, type):
        yield value
        for base in value.__mro__:
            for name, member in vars(base).items() if base.__module__.startswith("sgfast.") else ():
                places = (getattr(member, at, None) for at in ("fget", "__func__", "func"))
                inner = next(filter(None, places), member)
                # A dataclass's __init__ is generated. The class itself has the annotations.
                is_init = name == "__init__" and not is_dataclass(base)
                if inspect.isfunction(inner) and (is_init or not name.startswith("_")):
                    yield inner


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, list):
        yield from chain.from_iterable(map(_classes, hint))
    yield from chain.from_iterable(map(_classes, get_args(hint)))
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and kind.__module__.startswith("sgfast."):
        yield kind


#: Classes of the engine's and of results' constructors, which programs do not call with them.
INTERNAL = {
    "ChangeFile", "ChangedKinds", "Compiler", "ExpectationsFile", "KeptRows", "Kinds", "LoadedPolicy", "Numbering",
    "Observed", "UnreadFiles",
}  # fmt: skip


def test_every_type_in_a_public_signature_can_be_resolved_and_imported_by_name() -> None:
    public = [getattr(module, name) for module in (sgfast, types) for name in dir(module)]
    told = []
    for member in chain.from_iterable(map(_annotated, public)):
        try:
            hints = get_type_hints(member)
        except NameError as error:
            told.append(f"{member.__module__}.{member.__qualname__}: {error}")
        else:
            kinds = {kind.__name__ for kind in _classes([*hints.values()]) if kind not in public}
            told += [f"{member.__module__}.{member.__qualname__}: {name}" for name in kinds - {"Policy"} - INTERNAL]
    assert not told, "\n".join(told)


def test_one_thing_has_one_name() -> None:
    """SPEC 14.1."""
    packet, question = {"src", "dst", "dport"}, {"source", "destination", "service"}
    public = [getattr(module, name) for module in (sgfast, types) for name in dir(module)]
    of_packets = set()
    for member in chain.from_iterable(map(_annotated, public)):
        is_class = isinstance(member, type)
        names = set(getattr(member, "__annotations__", {}) if is_class else inspect.signature(member).parameters)
        assert not (names & packet and names & question), member.__qualname__
        if names & packet:
            of_packets.add(member.__qualname__)
        told = {name for name in names if re.search("^(first|last)_ns$|dest$|^(src|dst)_|timestamp", name)}
        assert not told, (member.__qualname__, told)
    assert of_packets == {"Engine.check", "Engine.explain", "header"}


def test_the_words_that_type_checkers_know_are_those_that_answers_have() -> None:
    for words, found in (
        (types.VerdictWord, sgfast.VERDICTS), (types.ReasonWord, sgfast.REASONS[1:]),
        (types.FindingCode, tuple(FINDING_CODES)), (types.EvidenceCode, tuple(EVIDENCE_CODES)),
        (types.ProfileName, tuple(PROFILES)), (types.ExportFormat, ("auto", *FORMATS)),
        (types.UndecidedCause, UNDECIDED[1:]), (types.LeftOutCause, (*LEFT_OUT, *NOT_TRAFFIC)),
    ):
        assert get_args(words) == found

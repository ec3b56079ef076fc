"""Who may import whom: downwards only, and never in a circle. A newcomer can trust the folders, and names."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
TABLE = ROOT / "docs" / "imports.md"
BEGIN, END = "<!-- imports: begin -->", "<!-- imports: end -->"
PICTURE = ROOT / "docs/pictures/imports.svg"

#: The boxes of the picture of imports, as docs/pictures/draw.py reads them: the words are the parts in a box. ``core``
#: stands for all parts of the data plane.
BOXES = """
0 0 1.3 tests | Tests of policies | testing pytest_plugin
0 1.3 1.9 library | import sgfast | sgfast
0 3.2 1.9 commands | Commands | cli __main__
1 1.3 3.8 api | Policy, questions, answers | api answers types
2 0 4.2 report | Text, JSON, HTML, files of rows | report
3 0.9 3.3 questions | Questions about traffic | questions
4 1.3 1.7 engine | Engine, its state in files | engine
4 3.3 0.9 reference | Oracle | reference
5 0 1.2 traffic | Captures, flow logs | traffic
6 1.3 1.7 clouds | Clouds | clouds
7 1.3 1.7 rules | What rules mean | rules
8 1.9 0.95 rows | Verdicts, rows | rows
9 0.3 1.6 core | Data plane | core
9 2.3 2.8 policy | The policy document | policy
10 0 5.1 base | For everybody | base version
"""


def imported(path: Path) -> set[tuple[str, str]]:
    """Imports and cimports of a file from sgfast, wherever in it: module and name, "" for the module itself."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        return {(name, "") for name in re.findall(r"^\s*(?:from|c?import) (sgfast[\w.]*)", text, flags=re.M)}
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "sgfast"}


@cache
def modules() -> dict[str, set[str]]:
    """By module, the modules it imports. A .pyx and its .pxd are one module."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted((ROOT / "sgfast").rglob("*")):
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.setdefault(name, set()).update(imported(path))
    # "from package import name" imports a module of the package if there is one of that name.
    resolved = {
        name: {f"{module}.{what}" if f"{module}.{what}" in found else module for module, what in others} - {name}
        for name, others in found.items()
    }
    # Only type checkers see this one: a policy has questions, and their answers have policies.
    resolved["sgfast.policy.model"].remove("sgfast.api")
    return {name: others & found.keys() for name, others in resolved.items()}


def part_of(module: str) -> str:
    """The folder a module belongs to; within the data plane, ``core/...``."""
    parts = module.split(".")
    if parts[1:2] == ["core"]:
        return "core/" + parts[2] if len(parts) > 2 else "core"
    return parts[1] if len(parts) > 1 else "sgfast"


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, others in modules().items():
        found.setdefault(part_of(name), set()).update(part_of(other) for other in others)
    return {part: others - {part} for part, others in found.items()}


def table() -> str:
    """The table of imports.md: those that import nothing first, then those above them."""
    found = arrows()
    order = list(TopologicalSorter({part: sorted(others) for part, others in sorted(found.items())}).static_order())
    rows = [
        f"| `{part}` | {', '.join(f'`{other}`' for other in sorted(found[part], key=order.index)) or 'nothing'} |"
        for part in order
    ]
    return "\n".join(["| part | imports |", "|---|---|", *rows])


def picture() -> str:
    """The picture of architecture.md. An arrow that others imply is left out."""
    boxes = [line.split("|") for line in BOXES.strip().splitlines()]
    box_of = {part: place.split()[-1] for place, _, parts in boxes for part in parts.split()}
    row_of = {place.split()[-1]: float(place.split()[0]) for place, *_ in boxes}
    direct: dict[str, set[str]] = {name: set() for name in row_of}
    for part, others in arrows().items():
        box = box_of[part.partition("/")[0]]
        direct[box] |= {box_of[other.partition("/")[0]] for other in others} - {box}
    below: dict[str, set[str]] = {}     # all that a box needs, directly or not
    for box in sorted(direct, key=row_of.__getitem__, reverse=True):
        assert all(row_of[other] > row_of[box] for other in direct[box]), f"{box} imports what is beside it or above"
        below[box] = direct[box].union(*(below[other] for other in direct[box]))
    drawn = [
        f"{box} > {other}"
        for box, others in direct.items()
        for other in sorted(others)
        if not any(other in below[between] for between in others)
    ]
    maker = runpy.run_path(str(ROOT / "docs/pictures/draw.py"))
    lines = [f"{place}|{title}| {', '.join(parts.split())}" for place, title, parts in boxes]
    return str(maker["picture"]("Who imports whom in sgfast", "\n".join([*lines, *drawn])))


def longest_chain() -> list[str]:
    """Folders and loose modules, each importing the next; all parts of the data plane are one."""
    needs: dict[str, set[str]] = {}
    for part, others in arrows().items():
        room = part.partition("/")[0]
        needs.setdefault(room, set()).update({other.partition("/")[0] for other in others} - {room})
    chains: dict[str, list[str]] = {}
    for part in TopologicalSorter(needs).static_order():
        chains[part] = [part, *max((chains[other] for other in sorted(needs[part])), key=len, default=[])]
    return max(chains.values(), key=len)


def test_no_module_imports_itself_in_a_circle() -> None:
    try:
        TopologicalSorter(modules()).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_no_folder_imports_itself_in_a_circle() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_the_house_stays_small_enough_to_keep_in_mind() -> None:
    entries = [path for path in (ROOT / "sgfast").iterdir() if path.name != "__pycache__"]
    folders = [path.name for path in entries if path.is_dir()]
    loose_modules = [path.name for path in entries if path.suffix == ".py"]
    assert len(folders) <= 13, folders
    assert len(loose_modules) <= 10, loose_modules
    assert len(longest_chain()) <= 13, longest_chain()


def test_table_and_picture_have_every_arrow_between_folders() -> None:
    """After a change that is meant: ``python tests/.../test_layers.py`` writes table and picture anew."""
    text = TABLE.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == table()
    assert PICTURE.read_text() == picture()


def test_the_reference_shares_nothing_with_what_it_checks() -> None:
    known = {other for name, others in modules().items() if part_of(name) == "reference" for other in others}
    assert {name for name in known if part_of(name) != "reference"} == {
        "sgfast.base.errors", "sgfast.policy.changed_policy", "sgfast.policy.changes", "sgfast.policy.model",
    }  # fmt: skip


def test_the_data_plane_knows_no_policy_and_captures_know_no_engine() -> None:
    found = arrows()
    for part, others in found.items():
        if part.startswith("core"):
            assert all(other.startswith("core") for other in others), part
    assert not {"engine", "core/dataplane", "core/pipeline"} & found["traffic"]
    captures = (others for name, others in modules().items() if name.startswith("sgfast.traffic.capture"))
    assert "policy" not in {part_of(other) for others in captures for other in others}
    # Look-ups and the connection table do not know of each other, nor does either know frames.
    for part in ("core/classify", "core/conntrack", "core/wire", "core/fragments"):
        assert found[part] == {"core/base"}


def product() -> list[Path]:
    """List Python and Cython modules but those of the reference model, whose names are those of what it checks."""
    files = (path for path in (ROOT / "sgfast").rglob("*.py*") if path.suffix in (".py", ".pyx"))
    return [path for path in sorted(files) if path.parent.name != "reference"]


def test_a_public_class_name_stands_once() -> None:
    found = Counter(
        name
        for path in product()
        for name in re.findall(r"^(?:cdef )?class ([A-Z]\w*)", path.read_text(), flags=re.M)
    )
    assert [name for name, times in found.items() if times > 1] == []


def test_no_module_is_a_snippet() -> None:
    """Leave out Cython modules, which may be short, as their ``.pxd`` has the code that others inline."""
    faces = {"__init__.py", "profile.py", "provider.py", "providers.py", "types.py", "version.py"}
    files = [path for path in product() if path.suffix == ".py" and path.name not in faces]
    assert [path.name for path in files if path.read_text().count("\n") < 30] == []


if __name__ == "__main__":
    text = TABLE.read_text()
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    TABLE.write_text(f"{head}\n{table()}\n{tail}")
    PICTURE.write_text(picture())
    print(" imports ".join(longest_chain()))
    sys.exit(0)

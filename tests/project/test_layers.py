"""Who may import whom: downwards only. A newcomer can trust the folders."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sgfast"

#: Each part of the package, and the parts it may know.
MAY_KNOW: dict[str, set[str]] = {
    "errors": set(),
    "signals": set(),
    "policy": {"errors"},
    "core": set(),
    "capture": {"core.frames", "core.intrinsics", "errors"},
    "compiler": {"core", "policy", "errors"},
    "engine": {"compiler", "core", "policy", "errors"},
    "explaining": {"engine", "policy", "errors"},
    "output": {"capture.names", "errors"},
    "snapshot": {"engine", "compiler", "core", "policy", "capture.names", "output", "errors"},
    # The oracle shares nothing with what it checks but the policy's values, and changes of them.
    "reference": {"reference_fragments", "reference_link", "policy.model", "policy.changes", "errors"},
    "reference_fragments": set(),
    "reference_link": set(),
    "stages": {
        "core.clock", "core.frames", "core.link", "core.wire", "core.types", "core.intrinsics", "capture.names",
        "errors",
    },
    "replaying": {
        "engine", "snapshot", "output", "compiler", "capture", "stages", "core", "policy", "reference", "errors", "",
    },
    "comparing": {"replaying", "engine", "capture", "stages", "core", "policy", "errors"},
    "flow_logs": {"compiler", "policy", "capture.compression", "capture.names", "errors"},
    "suggesting": {"replaying", "engine", "capture", "policy", "errors"},
    "checking": {"replaying", "compiler", "policy"},
    "report": {
        "comparing", "suggesting", "flow_logs", "replaying", "explaining", "checking", "engine", "capture", "compiler",
        "core", "policy", "errors", "",
    },
    "cli": {
        "comparing", "suggesting", "flow_logs", "replaying", "explaining", "checking", "report", "output", "engine",
        "stages", "capture", "compiler", "policy", "errors", "signals", "",
    },
    "__main__": {"cli", "errors", "signals"},
}

#: Within the data plane: what its look-ups and its table must not know of each other.
CORE_IS_BLIND_TO: dict[str, set[str]] = {
    "link": {"classifier", "conntrack", "judge", "passage", "dataplane", "plane", "wire"},
    "wire": {"classifier", "conntrack", "judge", "passage", "dataplane", "plane"},
    "classifier": {"conntrack", "judge", "passage", "dataplane", "plane", "wire"},
    "cidr_trie": {"classifier", "conntrack", "judge", "dataplane", "wire"},
    "conntrack": {"classifier", "judge", "passage", "dataplane", "plane", "wire"},
    "timer_wheel": {"conntrack", "classifier", "judge", "dataplane"},
    "judge": {"passage", "dataplane", "wire"},
    "passage": {"dataplane"},
    "dataplane": {"accounting", "merge", "beside", "changed", "single", "address_text", "capi"},
    "address_text": {"classifier", "conntrack", "judge", "passage", "dataplane", "plane", "wire"},
}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".pyx", ".pxd", ".pyi"))


def imports(path: Path) -> set[str]:
    """Modules of sgfast a file imports, without the leading ``sgfast.``."""
    text = path.read_text()
    if path.suffix in (".pyx", ".pxd"):
        names = set(re.findall(r"^\s*from (sgfast[\w.]*) c?import", text, flags=re.M))
        names |= set(re.findall(r"^\s*c?import (sgfast[\w.]*)", text, flags=re.M))
    else:
        names = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sgfast":
                names.add(node.module or "")
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "sgfast"}
    return {name.removeprefix("sgfast").removeprefix(".") for name in names}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0].split(".")[0]
    if part == "__init__":
        return
    for name in imports(path):
        if name.split(".")[0] == part:
            continue
        allowed = MAY_KNOW[part]
        assert any(name == other or (other and name.startswith(other + ".")) for other in allowed), (
            f"{path.relative_to(PACKAGE)} imports {name}; {part} may know {sorted(allowed)}"
        )


@pytest.mark.parametrize("name", sorted(CORE_IS_BLIND_TO))
def test_parts_of_the_data_plane_do_not_know_each_other(name: str) -> None:
    known = set()
    for path in (PACKAGE / "core").glob(f"{name}.p*"):
        known |= {module.removeprefix("core.") for module in imports(path)}
    assert known & CORE_IS_BLIND_TO[name] == set()

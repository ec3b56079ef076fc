"""Public names change only on purpose (SPEC 14.30). ``python tests/project/test_promise.py`` writes their list anew."""

from __future__ import annotations

import ast
from pathlib import Path
from types import FunctionType

from public_names import assignment, definition, maker, members, public, signature

LIST = Path(__file__).with_name("public_names.txt")
HEAD = "# What is public. A change of this list needs a line in CHANGELOG.md (docs/promise.md).\n"


def public_lines() -> str:
    """Return each public name with its signature, and the members of each public class, a line each."""
    lines = []
    for name, (module, value) in sorted(public().items()):
        full = f"{module}.{name}"
        node = maker(value) if isinstance(value, type) else None
        if isinstance(value, FunctionType):
            node = definition(value)
        if isinstance(node, ast.FunctionDef):
            lines.append(signature(node, full, bound=isinstance(value, type)))
        elif isinstance(value, type) or name == "__version__":
            lines.append(full)
        else:
            is_type = module == "sgfast.types" or name == "Change"
            lines.append(f"{full} = {assignment(name)[1] if is_type else repr(value)}")
        lines += [f"{full}.{member.said}" for member in members(value)] if isinstance(value, type) else []
    return HEAD + "".join(f"{' '.join(line.split())}\n" for line in lines)


def test_what_is_public_changes_only_on_purpose() -> None:
    """A name that is renamed by accident breaks the programs of others."""
    told = "run tests/project/test_promise.py, and say in CHANGELOG.md what changed"
    assert public_lines() == LIST.read_text(), told


def test_the_list_tells_a_default_and_a_field_that_changed() -> None:
    lines = LIST.read_text()
    assert "sgfast.load( source: PolicySource | None = None, *, text: str | bytes | None = None, " in lines
    assert "sgfast.types.Broken.connections: int\n" in lines and "sgfast.VERDICTS = ('allow', 'deny', " in lines
    assert "sgfast.Policy.holders" not in lines and len(lines.splitlines()) > 600


if __name__ == "__main__":
    LIST.write_text(public_lines())

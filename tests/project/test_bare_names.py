"""Names say what they hold: a bare participle, pronoun or adverb says nothing.

``python tests/project/test_bare_names.py`` lists those of them that stand in the product.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())

#: Words that are no whole name of a local, an argument of a private function or a private attribute.
BARE_WORDS = """
alone again apart asked both called done each found given has held kept known lacks left made matters meant met
more needs one other others own rest said says seen since taken there through together told two until wanted wants
what where which who
"""
BARE = frozenset(BARE_WORDS.split())

#: A name that a line of Cython assigns or declares, or over which it loops.
BOUND_IN_CYTHON = re.compile(
    r"^\s*(?:cdef (?:[\w.\[\], *&:]+[ *&])?)?(\w+) *=(?!=)|\bfor (\w+)(?:, (\w+))* in\b"
    r"|^\s*cdef [\w.\[\]:, ]+?[ *&](\w+)(?:, (\w+))*$"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Binding = tuple[int, str, bool]
"""The line of a binding, the name, and whether it is private: a local, or of a private function, class or attribute."""


def arguments(function: Function) -> list[ast.arg]:
    """Return a function's arguments. Operands of methods such as ``__eq__`` are left out, as Python names them."""
    if getattr(function, "name", "").startswith("__"):
        return []
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def bindings(node: ast.AST, *, is_private: bool = False) -> Iterator[Binding]:
    """Yield the names that a syntax tree binds. ``is_private``: whether ``node`` is within something private."""
    for child in ast.iter_child_nodes(node):
        inside = is_private
        if isinstance(child, Function):
            inside = is_private or getattr(child, "name", "_").startswith("_")
            yield from ((argument.lineno, argument.arg, inside) for argument in arguments(child))
            inside = True
        elif isinstance(child, ast.ClassDef):
            inside = child.name.startswith("_")
        elif isinstance(child, ast.comprehension):
            inside = True
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.lineno, child.id, is_private or child.id.startswith("_")
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            yield child.lineno, child.attr, child.attr.startswith("_")
        yield from bindings(child, is_private=inside)


def cython_bindings(text: str) -> Iterator[Binding]:
    for number, line in enumerate(text.splitlines(), 1):
        for match in BOUND_IN_CYTHON.finditer(line):
            yield from ((number, name, True) for name in match.groups() if name)


def product() -> Iterator[tuple[Path, list[Binding]]]:
    for path in sorted((ROOT / "sgfast").rglob("*.p*")):
        if path.suffix == ".py":
            yield path, list(bindings(ast.parse(path.read_text())))
        elif path.suffix in (".pyx", ".pxd"):
            yield path, list(cython_bindings(path.read_text()))


def bare_names() -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, names in product()
        for line, name, is_private in names
        if is_private and name.lstrip("_") in BARE
    ]


def words_per_name() -> float:
    counts = [len(name.strip("_").split("_")) for _, names in product() for _, name, _ in names]
    return sum(counts) / len(counts)


def test_no_bare_word_is_a_name() -> None:
    assert bare_names() == []


if __name__ == "__main__":
    print(*bare_names(), f"{words_per_name():.3f} words on average", sep="\n")
    sys.exit(bool(bare_names()))

"""The public names of sgfast as its source has them: their signatures, members and meanings."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import FunctionType, ModuleType
from typing import NamedTuple

import sgfast
import sgfast.testing
import sgfast.types
from sgfast.report import captures, html, lines

ROOT = Path(__file__).resolve().parents[2]
WRITERS = (
    (lines, ("VerdictLines", "ConnectionLines", "VerdictCsv", "ConnectionCsv")),
    (captures, ("PcapngWriter", "PcapWriter")),
    (html, tuple(html.__all__)),
)
#: Members and parameters that other parts of sgfast need. Nothing is promised of them.
INTERNAL = {
    "Column.json_schema", "Engine.compiled", "Engine.dataplane", "Engine.keep_flows", "Engine.keeps_events",
    "Engine.reporting", "Evidence.accepting", "Evidence.of", "FrameBatch.copied", "FrameBatch.fill_positions",
    "FrameBatch.lasting", "FrameBatch.vpcs", "Names.of", "Oddities.warn", "Policy.also_called",
    "Policy.group_of_rule", "Policy.is_mapped", "Policy.owners", "Policy.twins", "ReplayResult.kept",
    "ReplayResult.kinds", "ReplayResult.observed", "SecurityGroup.numbers", "Suggestion.cautions",
    "TrafficDiff.kinds", "TrafficDiff.observed", "TrafficTotals.add", "Type.json",
}  # fmt: skip

Function = ast.FunctionDef


class Member(NamedTuple):
    """A field, a property or a method of a class. ``said``: its type or its signature, with its name."""

    name: str
    kind: str
    said: str
    doc: str


def public() -> dict[str, tuple[str, object]]:
    """Return each public name's module and value, in the order of ``help(sgfast)``; types come last."""
    listed = [name for name in re.findall(r"``(\w+)``", sgfast.__doc__ or "") if name in dir(sgfast)]
    modules: list[tuple[ModuleType, tuple[str, ...]]] = [
        (sgfast, tuple(listed)), *WRITERS, (sgfast.testing, tuple(sgfast.testing.__all__)),
        (sgfast.types, tuple(dir(sgfast.types))),
    ]  # fmt: skip
    found: dict[str, tuple[str, object]] = {}
    for module, names in modules:
        for name in names:
            found.setdefault(name, (module.__name__, getattr(module, name)))
    return found


def source(module: str) -> list[str]:
    """Return the lines of a module. For a Cython module, they are those of its stub."""
    path = ROOT / module.replace(".", "/")
    paths = path.with_suffix(".pyi"), path.with_suffix(".py"), path / "__init__.pyi", path / "__init__.py"
    return next(path for path in paths if path.exists()).read_text().splitlines()


def definition(value: type | FunctionType) -> ast.ClassDef | Function | None:
    """Return the definition of a class or a function; None for a class that a stub leaves out."""
    nodes = ast.walk(ast.parse("\n".join(source(value.__module__))))      # those of the module itself come first
    found = (node for node in nodes if isinstance(node, ast.ClassDef | Function) and node.name == value.__name__)
    return next(found, None)


def documentation(value: object) -> str:
    """Return a docstring without the signature that Cython puts before it."""
    return re.sub(r"\A[\w.]+\(.*\)(\n+|\Z)", "", inspect.getdoc(getattr(value, "func", value)) or "")


def maker(value: type) -> Function | None:
    """Return the constructor of a class that users make themselves: the example of its docstring calls it."""
    node = definition(value)
    if node is None or f"{value.__name__}(" not in documentation(value).partition("For example:")[2]:
        return None
    return next((each for each in node.body if isinstance(each, Function) and each.name == "__init__"), None)


def assignment(name: str) -> tuple[str, str]:
    """Return the comment above a type or a value, and what is assigned to it, in the module that defines it."""
    stubs = [*source("sgfast.types"), *source("sgfast")]
    module = next(line.split()[1] for line in stubs if line.split()[3] == name)
    lines = source(module)
    at = next((number for number, line in enumerate(lines) if re.match(rf"{name}\b.*=", line)), 0)
    first = at
    while lines[first - 1].startswith("#:"):
        first -= 1
    nodes = (each for each in ast.parse("\n".join(lines)).body if isinstance(each, ast.Assign | ast.AnnAssign))
    value = next((plain(each.value) for each in nodes if each.lineno == at + 1), "")
    return " ".join(line[2:].strip() for line in lines[first:at]), value


def plain(node: ast.AST | None) -> str:
    """Return a type or a default as users write it."""
    words = re.sub(r"\btypes\.|\breplaying\.", "", ast.unparse(node)).replace("'", '"') if node is not None else ""
    return re.sub(r"\bRows\b", "NDArray[Any]", words)


def signature(node: Function, name: str, *, bound: bool = False) -> str:
    """Return a signature, one parameter a line if it is long. ``bound``: leave out the first parameter. Parameters
    that begin with an underscore are left out, too.
    """
    given = node.args
    parameters = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(parameters) - len(given.defaults)) + [*map(plain, given.defaults)]
    shown = [_parameter(*each) for each in zip(parameters, defaults, strict=True)][bound:]
    if given.vararg is not None:
        shown.append(f"*{_parameter(given.vararg, None)}")
    elif given.kwonlyargs:
        shown.append("*")
    shown += [
        _parameter(each, plain(value) if value is not None else None)
        for each, value in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        if not each.arg.startswith("_")
    ]
    result = f" -> {plain(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    line = f"{name}({', '.join(shown)}){result}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in shown), f"){result}"])


def _parameter(parameter: ast.arg, default: str | None) -> str:
    said = parameter.arg if parameter.annotation is None else f"{parameter.arg}: {plain(parameter.annotation)}"
    return said if default is None else f"{said} = {default}"


def members(value: type) -> Iterator[Member]:
    """Yield the public members of a class, those that it inherits last."""
    seen: set[str] = set()
    for base in value.__mro__:
        node = definition(base) if base.__module__.startswith("sgfast.") and base.__name__ != "LoadedPolicy" else None
        for member in chain.from_iterable(_members(value, each) for each in node.body) if node is not None else ():
            hidden = member.name.startswith("_") or f"{value.__name__}.{member.name}" in INTERNAL
            if not hidden and member.name not in seen:
                seen.add(member.name)
                yield member


def _members(value: type, node: ast.AST) -> Iterator[Member]:
    if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
        name, given = ast.unparse(node.target).removeprefix("self."), plain(node.value)
        default = f" = {given}" if given and "field(" not in given and "self." not in ast.unparse(node.target) else ""
        yield Member(name, "field", f"{name}: {plain(node.annotation)}{default}", "")
    elif isinstance(node, Function) and node.name == "__init__":
        for each in node.body:
            if isinstance(each, ast.AnnAssign):
                yield from _members(value, each)
    elif isinstance(node, Function):
        found = inspect.getattr_static(value, node.name)
        doc = documentation(getattr(found, "__func__", found))
        decorators = {ast.unparse(each) for each in node.decorator_list}
        if decorators & {"property", "cached_property"}:
            yield Member(node.name, "property", f"{node.name}: {plain(node.returns)}", doc)
        else:
            yield Member(node.name, "method", signature(node, node.name, bound="staticmethod" not in decorators), doc)
    elif isinstance(node, ast.Assign):      # a function of the same name, as in Policy
        name = ast.unparse(node.targets[0])
        function = getattr(value, name, None)
        found = definition(function) if isinstance(function, FunctionType) else None
        if isinstance(found, Function):
            yield Member(name, "method", signature(found, name, bound=True), documentation(function))

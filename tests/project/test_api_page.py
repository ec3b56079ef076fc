"""docs/api.md says of a public name what the code says. ``python tests/project/test_api_page.py`` writes it anew."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import sgfast

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Pages that a name's entry leads to, the most general one first.
PAGES = [DOCS / "python.md", DOCS / "tables.md", DOCS / "testing.md", *sorted((DOCS / "how-to").glob("*.md"))]
INTRODUCTION = """\
# The Python API

All that `import sgfast` offers, in the words of the code's docstrings. [From Python](python.md) shows how the names
work together, and [the contract](spec.md) promises them. `help(sgfast.Engine)` says more about a name, and so does
[the API in full](api-in-full.md) on the site of this documentation.
"""


def linked(words: str) -> str:
    """Words of a docstring as Markdown. The contract's clauses become links to their sections."""
    sections = re.findall(r"^## (\d+)( .*)", (DOCS / "spec.md").read_text(), re.M)
    anchors = {number: number + re.sub(r"[^\w ]", "", title).lower().replace(" ", "-") for number, title in sections}
    words = words.replace("``", "`")
    return re.sub(r"SPEC (\d+)(\.\d+)?", lambda cited: f"[{cited[0]}](spec.md#{anchors[cited[1]]})", words)


def meaning(value: object) -> str:
    """The first paragraph of a docstring as one line, without the signature that Cython puts before it."""
    text = re.sub(r"\A[\w.]+\(.*\)\n?", "", inspect.getdoc(value) or "")
    return " ".join(text.split("\n\n")[0].split())


def definition(value: object) -> tuple[ast.ClassDef | ast.FunctionDef, list[str]]:
    """A class or function as it is defined, and the lines of that file. For a Cython module, this is its stub."""
    module = ROOT / value.__module__.replace(".", "/")
    paths = module.with_suffix(".py"), module.with_suffix(".pyi"), module / "__init__.py"
    path = next(path for path in paths if path.exists())
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return next(node for node in nodes if node.name == value.__name__), path.read_text().splitlines()


def head(node: ast.ClassDef | ast.FunctionDef, lines: list[str]) -> list[str]:
    """The source from ``def`` or ``class`` to the colon, and what a stub has after it."""
    last, is_function = node.body[0].lineno - 1, isinstance(node, ast.FunctionDef)
    found = lines[node.lineno - 1 : last + (is_function and lines[last].endswith(": ..."))]
    return [*found[:-1], found[-1].removesuffix(" ...") + " ..." * is_function]


def members(value: type, node: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    """The public fields, properties and methods of a class, as its source has them, with what is said of them."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_"):
            first = each.lineno - 1
            while lines[first - 1].lstrip().startswith("#:"):
                first -= 1
            yield from lines[first : each.end_lineno]
        elif isinstance(each, ast.FunctionDef) and (each.name == "__init__" or not each.name.startswith("_")):
            said = meaning(getattr(value, each.name)) if each.name != "__init__" else ""
            yield from [f"    # {said}"] if said else []
            yield from (f"    @{ast.unparse(decorator)}" for decorator in each.decorator_list)
            yield from head(each, lines)
        elif isinstance(each, ast.Assign):  # a function of the same name, as in Policy
            function = getattr(value, ast.unparse(each.targets[0]))
            yield f"    # {meaning(function)}"
            yield from (f"    {line}" for line in head(*definition(function)))


def entry(name: str, said: str) -> Iterator[str]:
    """Write one name's part of the page. ``said``: what the list says of it, for values without a docstring."""
    value = getattr(sgfast, name)
    yield f"## `{name}`"
    if isinstance(value, type) or inspect.isfunction(value):
        yield linked(meaning(value))
        node, lines = definition(value)
        shown = head(node, lines)
        if isinstance(node, ast.ClassDef) and isinstance(value, type):
            for kind in (each for each in value.__mro__ if each is value or each.__module__ == "sgfast.policy.model"):
                shown += members(kind, *definition(kind))
        shown[-1] += " ..." * (len(shown) == 1 and isinstance(value, type))
        yield "\n".join(["```py", *shown, "```"])
    else:
        yield said[0].upper() + said[1:]
        if name.endswith("_DTYPE"):
            yield f"Its fields are {', '.join(f'`{field}`' for field in value.names)}."
        elif isinstance(value, int | tuple):
            yield f"`{value}`"
    pages = [page for page in PAGES if re.search(rf"sgfast\.{name}\b|`{name}`", page.read_text())]
    links = [f"[{page.read_text().partition(chr(10))[0][2:]}]({page.relative_to(DOCS)})" for page in pages[:3]]
    yield from [f"Used in {', '.join(links)}."] if links else []


def page() -> str:
    listed = re.findall(r"^- (.*?)(?=^- |\Z)", sgfast.__doc__ or "", re.M | re.S)
    parts, contents, anchors = [], [], Counter[str]()
    for item in (" ".join(each.split()) for each in listed):
        for name in re.findall(r"``(\w+)``", item):
            link = f"[`{name}`](#{name.lower()}{'-1' if anchors[name.lower()] else ''})"
            if name in dir(sgfast) and f"## `{name}`" not in parts:
                anchors[name.lower()] += 1
                parts += entry(name, item.partition("``: ")[2])
                item = item.replace(f"``{name}``", link)
        contents.append(f"- {item.replace('``', '`')}")
    return "\n\n".join([INTRODUCTION.rstrip(), "\n".join(contents), *parts]) + "\n"


def test_the_page_says_what_the_code_says_of_every_public_name() -> None:
    assert page() == (DOCS / "api.md").read_text(), "run tests/project/test_api_page.py"
    assert sorted(re.findall(r"^## `(\w+)`", page(), re.M)) == sorted(dir(sgfast))


if __name__ == "__main__":
    (DOCS / "api.md").write_text(page())

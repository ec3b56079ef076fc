"""docs/api says of each public name what the code says. ``python tests/project/test_api_page.py`` writes it anew.

A docstring ends with "For example:" and an example, which ``test_readme_and_pages.py`` runs: the examples of a
page are one program, which begins with the page's own block.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path
from types import FunctionType
from typing import NamedTuple, get_args

from public_names import INTERNAL, Member, assignment, definition, documentation, maker, members, public, signature
from test_spec import _CITATION

import sgfast

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
API = DOCS / "api"
#: Pages that a name's entry leads to, the most general one first.
GUIDES = [DOCS / "python.md", DOCS / "tables.md", DOCS / "testing.md", *sorted((DOCS / "how-to").glob("*.md"))]


class Page(NamedTuple):
    """A page. Of ``sgfast.types`` it has the names that modules below ``modules`` define. ``code`` begins its program.
    """

    title: str
    words: str
    names: str
    modules: tuple[str, ...] = ()
    code: str = ""


SHOP = 'policy = sgfast.load("pcaps/shop.yaml")'
PAGES = {
    "policy": Page(
        "Policies", "A policy is a value: it never changes, and two policies that say the same are equal.",
        "load policy_from_boto3 Policy SecurityGroup Rule GroupPeer AddressGroupPeer AddressGroup Instance",
        ("clouds.loading", "policy.export_files", "policy.gaps", "policy.model", "policy.profile_data"),
        "from ipaddress import ip_network\n\nimport boto3\n\nimport sgfast",
    ),
    "questions": Page(
        "Questions", "Questions about a policy. Each question is a function or a method that takes anything that "
        "[`load`](policy.md#load) takes as a policy.",
        "Policy.explain Policy.reach Policy.test Policy.check replay diff export suggest ReadOptions Limits EndWord "
        "CapturePaths Progress",
        ("clouds", "policy.change_file", "policy.expectations", "traffic.preprocess", "questions.replaying.options"),
        f"import sgfast\n\n{SHOP}",
    ),
    "answers": Page(
        "Answers", "The answers to [questions](questions.md), and what they consist of. `print` shows an answer as the "
        "command of the same name does. Answers are made by sgfast alone.",
        "Explanation ReachResult ExpectationsResult CheckResult DiffResult TrafficDiff Suggestion",
        ("questions", "base.evidence", "policy.matching", "rules"),
    ),
    "replay": Page(
        "Results of a replay", "The result of [`replay`](questions.md#replay), what it consists of, and the sinks that "
        "get every packet or connection.", "ReplayResult", ("base.streams", "traffic", "questions.replaying"),
        "import sgfast",
    ),
    "files": Page(
        "Writers of files", "Sinks for [`replay`](questions.md#replay) that write the files of the command, and the "
        "page that it writes.",
        "VerdictLines ConnectionLines VerdictCsv ConnectionCsv PcapngWriter PcapWriter Timeline html_report", (),
        """import sgfast
from sgfast.report.captures import PcapngWriter, PcapWriter
from sgfast.report.html import Timeline, html_report
from sgfast.report.lines import ConnectionCsv, ConnectionLines, VerdictCsv, VerdictLines""",
    ),
    "engine": Page(
        "The engine", "The filter itself. It judges packets one after another and remembers connections. Packets are "
        "NumPy rows or frames.",
        "Engine header FrameBatch Verdict Side ApplyResult ConnectionEvent save_snapshot load_snapshot HEADER_DTYPE "
        "RESULT_DTYPE RESOLVED_DTYPE VERDICTS REASONS PENDING NO_SIDE __version__",
        ("engine", "rows", "core"),
        "import numpy as np\n\nimport sgfast",
    ),
    "changes": Page(
        "Changes", "Changes of a policy, for [`Engine.apply`](engine.md#engineapply) and for `changes` of "
        "[`replay`](questions.md#replay).",
        "Change AddGroup RemoveGroup AddRule ModifyRule RemoveRule AddInstance RemoveInstance AddMember RemoveMember "
        "AddAddress RemoveAddress AddPeering RemovePeering SetAddressGroup", (),
        '''from ipaddress import ip_network

import sgfast

engine = sgfast.Engine({
    "version": 1,
    "vpcs": [{"name": "prod"}, {"name": "test"}, {"name": "dev"}],
    "peerings": [["prod", "dev"]],
    "address_groups": [{"name": "offices", "addresses": ["203.0.113.0/28"]}],
    "security_groups": [
        {"name": "web", "rules": [
            {"id": "web-http", "direction": "inbound", "protocol": "tcp", "ports": 80, "source": "0.0.0.0/0"},
            {"id": "web-ssh", "direction": "inbound", "protocol": "tcp", "ports": 22, "source": "offices"},
        ]},
        {"name": "db", "rules": []},
        {"name": "old", "rules": []},
    ],
    "instances": [
        {"name": "web-1", "vpc": "prod", "addresses": ["10.0.0.5"], "security_groups": ["web"]},
        {"name": "web-2", "vpc": "prod", "addresses": ["10.0.0.6", "10.0.0.9"], "security_groups": ["web", "db"]},
        {"name": "db-1", "vpc": "prod", "addresses": ["10.0.1.9"], "security_groups": ["db"]},
    ],
})''',
    ),
    "tables": Page(
        "Tables", "Rows of answers for pandas, polars, DuckDB and pyarrow. [Tables](../tables.md) shows how they are "
        "used, and lists all columns.", "Table table", ("tables",),
        'import sgfast\n\nengine = sgfast.Engine("pcaps/shop.yaml")',
    ),
    "errors": Page(
        "Errors", "All that sgfast raises on purpose is a `SgfastError`. Its text is one line: place, cause, remedy. "
        "[Errors](../errors.md) explains the most frequent ones.",
        "SgfastError PolicyError CaptureError SnapshotError OutputError ArgumentError ArgumentTypeError ReadingError "
        "ClusterError ExportError LiveError TableError", ("base.errors",), "import sgfast",
    ),
    "testing": Page(
        "Assertions", "Assertions for tests, proved for all packets. pytest also has the fixture `sgfast_load`: "
        "[Testing a policy in pytest](../testing.md).", "assert_allows assert_denies", (),
        f"import sgfast\nfrom sgfast.testing import assert_allows, assert_denies\n\n{SHOP}",
    ),
}  # fmt: skip
INDEX = """\
# The Python API

All public names by purpose, in the words of the code's docstrings. `help(sgfast.Engine)` says the same about a name.
[From Python](../python.md) shows how the names work together, and [what stays](../promise.md) says what is promised of
them. Names of `sgfast.types`, `sgfast.testing` and `sgfast.report` have the line that imports them; all others are
names of `sgfast`.
"""
ROWS = {
    "HEADER_DTYPE": "A packet as a row: time in nanoseconds since the Unix epoch, addresses, and the header's fields.",
    "RESULT_DTYPE": "A result as a row.",
    "RESOLVED_DTYPE": "The later result of a packet that was ``PENDING`` (SPEC 9.4).",
    "__version__": "The version of sgfast.",
    "time_ns": "nanoseconds since the Unix epoch",
    "src": "source in network byte order; IPv4 in the first four bytes", "dst": "destination in the same form",
    "wire": "length on the wire in bytes", "sport": "source port", "dport": "destination port",
    "family": "4 or 6; 0: no addresses", "protocol": "IP protocol number",
    "tcp_flags": "FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32", "icmp_type": "ICMP type", "icmp_code": "ICMP code",
    "has_ports": "1 if the packet has ports", "has_icmp": "1 if the ICMP fields mean something",
    "icmp_id": "identifier of an ICMP query", "verdict": "index into `VERDICTS`; of a side also `NO_SIDE`",
    "reason": "index into `REASONS`", "egress": "the sender's side", "ingress": "the receiver's side",
    "instance": "index into `Engine.instances`; -1: no such side", "rule": "index into `Engine.rules`; -1: none",
    "number": "the packet's number, from 1", "result": "a row of `RESULT_DTYPE`", "spare": "unused",
}  # fmt: skip


@cache
def names_of(page: str) -> tuple[str, ...]:
    """Return the names of a page in order. A type is on the page of the longest prefix of its module."""
    listed = {name for each in PAGES.values() for name in each.names.split()}
    found = []
    for module, name in re.findall(r"^from sgfast\.(\S+) import (\w+)", (ROOT / "sgfast/types.pyi").read_text(), re.M):
        fitting = [(each, key) for key, value in PAGES.items() for each in value.modules if module.startswith(each)]
        if name not in listed and max(fitting, key=lambda each: len(each[0]))[1] == page:
            found.append(name)
    return (*PAGES[page].names.split(), *found)


@cache
def places() -> dict[str, str]:
    """Return where each name is explained: its page and the anchor of its heading there."""
    found = {}
    for page in PAGES:
        seen = Counter[str]()
        for name in names_of(page):
            anchor = re.sub(r"[^\w-]", "", name.lower())
            found[name] = f"{page}.md#{anchor}{'-1' if seen[anchor] else ''}"
            seen[anchor] += 1
    return found


@cache
def sections() -> dict[str, str]:
    headings = re.findall(r"^## (\d+)( .*)", (DOCS / "spec.md").read_text(), re.M)
    return {number: number + re.sub(r"[^\w ]", "", title).lower().replace(" ", "-") for number, title in headings}


def linked(words: str) -> str:
    """Return words of a docstring as Markdown. Clauses of the contract become links to their sections."""
    words = re.sub(r":\w+:`([^`]+)`", r"`\1`", words.replace("``", "`"))

    def link(cited: re.Match[str]) -> str:
        number = cited[0].removeprefix("SPEC ")
        return f"[{cited[0]}](../spec.md#{sections()[number.partition('.')[0]]})"

    return _CITATION.sub(lambda cited: re.sub(r"(SPEC )?\d+(\.\d+)?", link, " ".join(cited[0].split())), words)


def fenced(language: str, text: str) -> list[str]:
    return [f"```{language}\n{text}\n```"] if text else []


def first_sentence(doc: str) -> str:
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join(doc.split("\n\n")[0].split()), maxsplit=1)[0]


def parts(doc: str, known: str) -> tuple[list[str], dict[str, str], str]:
    """Divide a docstring into its paragraphs, what it says of names, and its example. ``known``: a text with "NAME:"
    for each parameter or field.
    """
    text, _, example = doc.partition("For example:\n\n")
    paragraphs, said = [], {}
    for paragraph in text.strip().split("\n\n"):
        words = " ".join(paragraph.split())
        named = "|".join(re.findall(r"\w+(?=:)", known)) or "(?!)"
        items = re.split(rf"(?:^|(?<=\. ))((?:``(?:{named})``(?:, | and )?)+): ", words)
        if len(items) > 1 and not items[0]:
            for names, meaning in zip(items[1::2], items[2::2], strict=True):
                meaning, *rest = re.split(r" (?=Raises |Returns )", meaning.strip(), maxsplit=1)
                said[names.replace("``", "`")] = meaning
                paragraphs += rest
        else:
            paragraphs.append(words)
    return [each for each in paragraphs if each], said, textwrap.dedent(example).strip()


def explained(doc: str, known: str) -> list[str]:
    paragraphs, said, example = parts(doc, known)
    first, rest = paragraphs[:1], paragraphs[1:]
    items = ["\n".join(f"- {names}: {linked(meaning)}" for names, meaning in said.items())] if said else []
    return [*map(linked, first), *items, *map(linked, rest), *fenced("python", example)]


def types_in(text: str, name: str) -> list[str]:
    """Return a line that leads to the public types of a signature."""
    found = [each for each in dict.fromkeys(re.findall(r"\b[A-Z]\w+", text)) if each in places() and each != name]
    return [f"It uses the types {', '.join(f'[`{each}`]({places()[each]})' for each in found)}."] if found else []


def item(member: Member, said: dict[str, str]) -> str:
    told = said.get(f"`{member.name}`") or " ".join(member.doc.split())
    call = re.sub(r"\(\n +", "(", member.said).replace(",\n)", ")")
    return f"- `{' '.join(call.split())}`" + (f": {linked(told)}" if told else "")


def used_in(name: str) -> list[str]:
    guides = [page for page in GUIDES if re.search(rf"sgfast\.{name}\b|`{name}`", page.read_text())][:3]
    links = [f"[{page.read_text().partition(chr(10))[0][2:]}](../{page.relative_to(DOCS)})" for page in guides]
    return [f"These pages use it: {', '.join(links)}."] if links else []


def class_entry(name: str, value: type) -> list[str]:
    found = [*members(value)]
    methods = {each.name for each in found if name == "Policy"}
    asked = [each for each in PAGES["questions"].names.split() if each.rpartition(".")[2] in methods]
    found = [each for each in found if each.name not in " ".join(asked).replace(".", " ").split()]
    long = [each for each in found if each.kind == "method" and parts(each.doc, each.said)[2]]
    made = maker(value)
    call = signature(made, name, bound=True) if made is not None else ""
    # The pages do not show what docstrings say about internal fields.
    internal = [f"{each.partition('.')[2]}:" for each in INTERNAL if each.startswith(f"{value.__name__}.")]
    known = "\n".join([call, *(each.said for each in found), *internal])
    said = {}
    for base in reversed(value.__mro__):
        paragraphs, named, example = parts(documentation(base), known)
        said.update({f"`{each}`": words for names, words in named.items() for each in re.findall(r"`(\w+)`", names)})
    text = []
    if call:
        parameters = {names: words for names, words in named.items() if f"{names.split('`')[1]}:" in call}
        text = [*fenced("py", call), *types_in(call, name)]
        text += ["\n".join(f"- {names}: {linked(words)}" for names, words in parameters.items())] if parameters else []
        said = {names: words for names, words in said.items() if names not in " ".join(parameters)}
    for title, kind in (("Fields", "field"), ("Properties", "property"), ("Methods", "method")):
        rows = [item(each, said) for each in found if each.kind == kind and each not in long]
        text += [f"{title}:", "\n".join(rows)] if rows else []
    text += types_in(" ".join(each.said for each in found if each not in long), name)
    if asked:
        links = ", ".join(f"[`{each.rpartition('.')[2]}`]({places()[each]})" for each in asked)
        text.append(f"Methods that ask: {links}.")
    text = [*map(linked, paragraphs), *text, *fenced("python", example), *used_in(name)]
    for each in long:
        text += [f"### `{name}.{each.name}`", *fenced("py", each.said), *types_in(each.said, name)]
        text += explained(each.doc, each.said)
    return text


def row_fields(name: str) -> str:
    """Return a table of the fields of a NumPy type, those of the fields within it included."""
    lines = ["| field | NumPy type | meaning |", "|---|---|---|"]

    def add(kind: object, prefix: str) -> None:
        for field, (inner, *_) in kind.fields.items():  # type: ignore[attr-defined]
            shape = f", {inner.shape}" if inner.shape else ""
            shown = "row" if inner.fields else f"{inner.base.str}{shape}"
            lines.append(f"| `{prefix}{field}` | `{shown}` | {ROWS[field]} |")
            if inner.fields and field != "result":
                add(inner, f"{field}.")

    add(getattr(sgfast, name), "")
    return "\n".join(lines)


def found(name: str) -> tuple[str, object]:
    """Return the module and the value of a public name, or of a method of ``Policy``."""
    return public()[name] if "." not in name else ("sgfast", getattr(sgfast.Policy, name.partition(".")[2]))


def meaning(name: str) -> str:
    """Return all that the code says of a name."""
    _, value = found(name)
    return documentation(value) if isinstance(value, type | FunctionType) else ROWS.get(name) or assignment(name)[0]


def entry(name: str) -> list[str]:
    """Return one name's part of a page."""
    module, value = found(name)
    said = meaning(name)
    text = [f"## `{name}`"] + ([f"`from {module} import {name}`"] if module != "sgfast" else [])
    if isinstance(value, type):
        text += class_entry(name, value)
    elif isinstance(value, FunctionType):
        node = definition(value)
        assert isinstance(node, ast.FunctionDef)
        call = signature(node, name.rpartition(".")[2], bound="." in name)
        text += [*fenced("py", call), *types_in(call, name), *explained(said, call)]
    else:
        text.append(linked(said))
        if name.endswith("_DTYPE"):
            text.append(row_fields(name))
        elif name != "__version__":
            shown = assignment(name)[1] if module == "sgfast.types" or name == "Change" else repr(value)
            text += [*fenced("py", f"{name} = {shown}"), *types_in(shown, name)]
    return text if isinstance(value, type) else [*text, *used_in(name)]


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    index, written = [INDEX.rstrip()], {}
    for page, (title, words, _, _, code) in PAGES.items():
        names = names_of(page)
        text = [f"# {title}", words, *fenced("python", code), *chain.from_iterable(map(entry, names))]
        written[f"{page}.md"] = "\n\n".join(text) + "\n"
        lines = [f"- [`{name}`]({places()[name]}): {linked(first_sentence(meaning(name)))}" for name in names]
        index += [f"## [{title}]({page}.md)", words, "\n".join(lines)]
    return {"index.md": "\n\n".join(index) + "\n", **written}


def test_the_pages_say_what_the_code_says_of_every_public_name() -> None:
    assert pages() == {path.name: path.read_text() for path in API.glob("*.md")}, "run tests/project/test_api_page.py"
    listed = [name for page in PAGES for name in names_of(page) if "." not in name]
    assert sorted(listed) == sorted(public())


def test_no_text_of_a_class_is_about_a_field_or_parameter_that_the_page_does_not_have() -> None:
    told = []
    for name, (_, value) in public().items():
        if isinstance(value, type):
            made = maker(value)
            call = signature(made, name, bound=True) if made is not None else ""
            known = {each.name for each in members(value)} | set(re.findall(r"\w+(?=:)", call))
            text = "\n".join(class_entry(name, value)).partition("\n### ")[0]
            said = re.findall(r"(?:^|\. )`(\w+)`(?:: | lists )", text, re.M)
            told += [f"{name}.{word}" for word in said if word not in known]
    assert told == []


def test_help_explains_every_public_class_and_each_of_its_fields_properties_and_methods() -> None:
    """SPEC 14.31. Comments beside fields do not reach ``help``."""
    classes = {name: value for name, (_, value) in public().items() if isinstance(value, type)}
    told = [name for name, value in classes.items() if not inspect.getdoc(value)]
    for name, value in classes.items():
        said = inspect.getdoc(value) or ""
        for member in members(value):
            if f"``{member.name}``" not in said and not member.doc:
                told.append(f"{name}.{member.name}")
    assert told == []


def test_help_has_an_example_of_every_call() -> None:
    """SPEC 14.31. ``test_readme_and_pages.py`` runs the examples, as they stand on the pages, too."""
    calls = {name: value for name, (_, value) in public().items() if isinstance(value, FunctionType)}
    calls |= {name: getattr(sgfast.Policy, name) for name in ("explain", "reach", "test", "check")}
    calls |= {change.__name__: change for change in get_args(sgfast.Change)}
    calls |= {name: getattr(sgfast.Engine, name) for name in ("process", "process_frames", "apply", "resolved")}
    calls |= {name: public()[name][1] for name in ("Engine", "ReadOptions", *PAGES["files"].names.split())}
    assert [name for name, value in calls.items() if "For example:\n\n    " not in documentation(value)] == []


def test_a_clause_in_a_docstring_is_a_link_and_a_word_with_a_colon_is_no_parameter() -> None:
    said = "Load it (SPEC 14.3,\n14.4).\n\n``kind``: one of two. ``error``: raise an error. ``jobs``: threads."
    assert explained(said, "kind: str, jobs: int") == [
        "Load it ([SPEC 14.3](../spec.md#14-from-python), [14.4](../spec.md#14-from-python)).",
        "- `kind`: one of two. `error`: raise an error.\n- `jobs`: threads.",
    ]


if __name__ == "__main__":
    API.mkdir(exist_ok=True)
    for file, text in pages().items():
        (API / file).write_text(text)

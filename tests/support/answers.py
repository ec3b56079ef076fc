"""Record the output of every command in every format for some hundred inputs, and compare two such records.

    python tests/support/answers.py prepare DIR             # copies the inputs and writes the list of commands
    python tests/support/answers.py run DIR RECORD [WORD]   # runs the commands with the sgfast that Python imports
    python tests/support/answers.py compare RECORD RECORD   # exits with 1 if an output differs

To show that a change does not affect users, run the program before and after it, on the same DIR. The inputs are the
recordings in pcaps/, the logs of simulated worlds and, if present, the corpus (``SGFAST_CORPUS``). Each capture of the
corpus is replayed under the policy that ``suggest`` finds, complete and without every third rule. A record omits
durations and names of temporary files.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from corpus import DOCUMENT, ROOT
from simulated_worlds.judging import write_world
from simulated_worlds.worlds import draw

PCAPS = Path(__file__).parents[2] / "pcaps"
SEED = 20_261_130

#: The name of an input, and the arguments of a command. Names of files that the command writes begin with ``OUT/``.
Case = tuple[str, list[str]]

CAPTURES = 160
LARGEST_CAPTURE = 400_000
WORLDS = 24
MANGLED = 60

#: Patterns of text that differs between runs, with their replacements.
UNSTEADY = (
    (re.compile(r'("(?:elapsed_seconds|packets_per_second|ended_ns)": )[-+0-9.e]+'), r"\1_"),
    (re.compile(r"\b[0-9.,]+ (?:[mun]?s|min|million/s|M/s)\b"), "_"),
    (re.compile(r"[0-9,.]+ (?:million )?packets(?: per second|/s)"), "_"),
    # A digest of a page, which names durations.
    (re.compile(r'(?<=data-content=")[0-9a-f]+'), "_"),
)


# Inputs --------------------------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    folder.mkdir(parents=True)
    from_files = [*_policies(folder), *_captures(folder), *_logs(folder), *_worlds(folder)]
    cases = [*from_files, *_mangled(folder), *_wrong_usage()]
    (folder / "cases.json").write_text(json.dumps(cases, indent=0))
    print(f"{len({name for name, _ in cases})} inputs, {len(cases)} commands")


def _policies(folder: Path) -> Iterator[Case]:
    for path in sorted(PCAPS.rglob("*.yaml")):
        copied = _copy(path, folder / "policies" / path.relative_to(PCAPS))
        yield from _of_policy(folder, copied)
    exports = [[path] for path in sorted((ROOT / "kubernetes").rglob("*.yaml"))[::4]]
    exports += [[path] for path in sorted((ROOT / "rules").rglob("*.json"))]
    exports += [sorted(f.glob("*.json")) for f in sorted((ROOT / "network-acls").glob("*")) if f.is_dir()]
    exports.append(sorted((PCAPS / "export").glob("*.json")))
    for number, paths in enumerate(filter(None, exports)):
        home = folder / "exports" / f"{number:03}"
        names = [str(_copy(path, home / path.name).relative_to(folder)) for path in paths]
        imported = home / "policy.yaml"
        for form in ("auto", "aws", "openstack"):
            yield names[0], ["import", form, *names]
        if _run_forked(str(folder), ["import", "auto", *names, "-o", str(imported.relative_to(folder))])["status"] == 0:
            yield from _of_policy(folder, imported)
        else:
            yield names[0], ["check", str(home.relative_to(folder))]


def _of_policy(folder: Path, path: Path) -> Iterator[Case]:
    name = str(path.relative_to(folder))
    for form in ("text", "json", "sarif", "markdown"):
        yield name, ["check", name, "--format", form]
    yield name, ["check", name, "--top", "3", "--fail-on", "warning"]
    yield name, ["reach", name]
    yield name, ["reach", name, "--json"]
    yield name, ["reach", name, "--protocol", "tcp", "--port", "22,443", "--top", "5", "--report", "OUT/reach.html"]
    ends = ["198.51.100.7", "10.0.0.5", "2001:db8::1", *_instances(path)][:6]
    for from_, to in zip(ends, [*ends[3:], *ends[:3]], strict=True):
        yield name, ["explain", name, "--from", from_, "--to", to, "--protocol", "tcp", "--port", "443"]
        yield name, ["explain", name, "--from", to, "--to", from_, "--protocol", "icmp", "--json"]
    for target in ("terraform", "aws", "openstack", "otc"):
        yield name, ["export", name, "--to", target]
    yield name, ["export", name, "--to", "openstack", "--format", "json"]
    yield name, ["export", name, "--to", "nftables", "-o", "OUT/nft"]
    less = path.with_suffix(".less.yaml")
    if _leave_out(path, less):
        changed = str(less.relative_to(folder))
        for form in ("text", "json", "markdown"):
            yield name, ["diff", name, changed, "--format", form]
        yield name, ["diff", changed, name, "--report", "OUT/diff.html", "--top", "3"]
        yield name, ["export", changed, "--since", name, "--to", "openstack"]
        yield name, ["export", changed, "--since", name, "--to", "nftables", "-o", "OUT/nft"]


def _captures(folder: Path) -> Iterator[Case]:
    shop = _copy(PCAPS / "shop.pcap", folder / "captures" / "shop.pcap")
    shop_policy = _copy(PCAPS / "shop.yaml", folder / "captures" / "shop.yaml")
    shop_changes = _copy(PCAPS / "shop.changes.yaml", folder / "captures" / "shop.changes.yaml")
    shop_expect = _copy(PCAPS / "shop.expect.yaml", folder / "captures" / "shop.expect.yaml")
    yield from _of_capture(folder, shop, shop_policy, shop_policy)
    a, b, c, d = (str(path.relative_to(folder)) for path in (shop_policy, shop, shop_changes, shop_expect))
    for form in ("text", "json", "markdown"):
        yield b, ["replay", a, b, "--changes", c, "--format", form]
        yield b, ["replay", a, b, "--expect", d, "--format", form]
        yield b, ["check", a, "--traffic", b, "--expect", d, "--format", form]
    for form in ("text", "json", "junit"):
        yield b, ["test", a, d, "--format", form]
    corpus = folder / "captures" / "corpus.yaml"
    corpus.write_text(DOCUMENT)
    files = [
        path
        for path in sorted((ROOT / "pcaps").rglob("*"))
        if path.is_file() and path.suffix in (".pcap", ".pcapng", ".cap") and path.stat().st_size < LARGEST_CAPTURE
    ]
    for number, path in enumerate(random.Random(SEED).sample(files, min(CAPTURES, len(files)))):
        capture = _copy(path, folder / "captures" / f"{number:03}{path.suffix}")
        found = capture.with_suffix(".found.yaml")
        arguments = ["suggest", capture, "--instances", corpus, "--from", "all", "-o", found]
        done = _run_forked(
            str(folder), [str(each.relative_to(folder)) if isinstance(each, Path) else each for each in arguments]
        )
        yield from _of_capture(folder, capture, corpus, found if done["status"] == 0 else corpus)


def _of_capture(folder: Path, capture: Path, policy: Path, other: Path) -> Iterator[Case]:
    less = other.with_suffix(".less.yaml")
    third = less if other.exists() and _leave_out(other, less) else other
    name, a, b, c = (str(path.relative_to(folder)) for path in (capture, policy, other, third))
    for chosen in (a, c):
        for form in ("text", "json", "markdown"):
            yield name, ["replay", chosen, name, "--format", form]
        yield name, ["replay", chosen, name, "--mode", "verbatim", "--midstream", "deny", "--by", "address"]
        yield name, ["replay", chosen, name, "--top", "3", "--by", "rule", "--json", "--jobs", "2"]
        yield name, ["replay", chosen, name, "--verdicts", "OUT/v.csv", "--connections", "OUT/c.csv"]
        yield name, [
            "replay", chosen, name, "--verdicts", "OUT/v.jsonl", "--connections", "OUT/c.jsonl", "--report",
            "OUT/page.html", "--midstream", "allow", "--dedup", "--decap", "vxlan,gre",
        ]  # fmt: skip
    yield name, [
        "replay", c, name, "--write", "OUT/w.pcapng", "--write-denied", "OUT/d.pcap", "--write-allowed", "OUT/a.pcap",
        "--flow-log", "OUT/flow.log", "--fail-on", "would-break",
    ]  # fmt: skip
    yield name, ["replay", c, name, "--engine", "reference", "--json"]
    yield name, ["replay", c, name, "--filter", "tcp or icmp", "--fail-on", "denied"]
    for form in ("text", "json", "markdown"):
        yield name, ["diff", a, c, name, "--format", form]
        yield name, ["suggest", name, "--instances", a, "--from", "all", "--format", form]
    yield name, ["diff", c, b, name, "--report", "OUT/diff.html", "--by", "service"]
    yield name, ["suggest", name, "--policy", c, "--min-connections", "2", "--max-prefix", "24,64", "--per", "instance"]
    yield name, ["check", c, "--traffic", name]
    yield name, ["check", c, "--traffic", name, "--json"]
    yield name, ["test", c, name, "--init"]


def _logs(folder: Path) -> Iterator[Case]:
    policy = folder / "logs" / "corpus.yaml"
    policy.parent.mkdir()
    policy.write_text(DOCUMENT)
    logs = [PCAPS / "shop.aws.log", *(path for path in sorted((ROOT / "flow-logs").rglob("*")) if path.is_file())]
    shop = _copy(PCAPS / "shop.yaml", folder / "logs" / "shop.yaml")
    for number, path in enumerate(logs):
        name = str(_copy(path, folder / "logs" / f"{number:03}-{path.name}").relative_to(folder))
        for judged in (policy, shop):
            for form in ("text", "json"):
                yield name, ["replay", str(judged.relative_to(folder)), name, "--format", form]


def _worlds(folder: Path) -> Iterator[Case]:
    for seed in range(WORLDS):
        home = folder / "worlds" / f"{seed:02}"
        home.mkdir(parents=True)
        write_world(draw(seed), home)
        _leave_out(home / "policy.yaml", home / "less.yaml")
        policy, less, logs = (str((home / name).relative_to(folder)) for name in ("policy.yaml", "less.yaml", "logs"))
        for form in ("text", "json", "markdown"):
            yield logs, ["replay", policy, logs, "--format", form]
            yield logs, ["replay", less, logs, "--format", form, "--compare-actions"]
            yield logs, ["diff", policy, less, logs, "--format", form]
            yield logs, ["suggest", logs, "--policy", policy, "--format", form]
            yield logs, ["suggest", logs, "--policy", policy, "--remove", "30d", "--format", form]
            yield logs, ["check", policy, "--traffic", logs, "--format", form]
        yield logs, ["replay", less, logs, "--report", "OUT/page.html", "--connections", "OUT/c.jsonl"]
        yield logs, ["suggest", logs, "--policy", less, "--keep"]
        yield logs, ["suggest", logs, "--policy", less, "--keep", "--to", "aws", "-o", "OUT/script.sh"]


def _mangled(folder: Path) -> Iterator[Case]:
    """Write documents and captures with some bytes changed, and yield a command for each."""
    chosen = random.Random(SEED)
    home = folder / "mangled"
    home.mkdir()
    for number in range(MANGLED):
        for original in ("shop.yaml", "shop.expect.yaml", "shop.changes.yaml", "shop.pcap", "export/ports.json"):
            data = bytearray((PCAPS / original).read_bytes())
            for _ in range(chosen.choice((1, 1, 2, 5))):
                at = chosen.randrange(len(data))
                if original.endswith(".pcap"):
                    data[at] = chosen.randrange(256)
                else:
                    instead = chosen.choice((b"", b"x", b"-1", b": ", b'"', b"[", b"0"))
                    data[at : at + chosen.choice((0, 1, 4))] = instead
            path = home / f"{number:02}-{Path(original).name}"
            path.write_bytes(data)
            name = str(path.relative_to(folder))
            good, capture = "captures/shop.yaml", "captures/shop.pcap"
            commands = {
                "shop.yaml": ["check", name],
                "shop.expect.yaml": ["test", good, name],
                "shop.changes.yaml": ["replay", good, capture, "--changes", name],
                "shop.pcap": ["replay", good, name],
                "export/ports.json": ["import", "auto", name],
            }
            yield name, commands[original]


def _wrong_usage() -> Iterator[Case]:
    shop, capture = "captures/shop.yaml", "captures/shop.pcap"
    for command in (
        "check", "completion", "diff", "explain", "export", "import", "reach", "replay", "schema", "suggest",
        "template", "test",
    ):  # fmt: skip
        for arguments in (
            [], ["--help"], ["--no-such"], ["missing.yaml"], [shop, "missing.pcap"], [shop, capture, "--top", "0"],
            [shop, capture, "--format", "xml"], [capture, shop], [shop, "--policy-format", "aws"],
        ):  # fmt: skip
            yield f"usage of {command}", [command, *arguments]
    yield "usage", ["--help"]
    yield "usage", ["no-such-command"]
    for name in (
        "policy", "changes", "expectations", "replay", "diff", "check", "reach", "explain", "suggest", "test",
    ):  # fmt: skip
        yield "schemas", ["schema", name]
    yield "schemas", ["schema"]
    yield "templates", ["template", "--list"]


def _copy(path: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
    return to


def _leave_out(path: Path, to: Path) -> bool:
    """Write the policy without every third rule. Return False if that is not possible."""
    try:
        document = yaml.safe_load(path.read_text())
        groups = [group for group in document["security_groups"] if group.get("rules")]
    except (yaml.YAMLError, UnicodeError, TypeError, KeyError, AttributeError):
        return False
    number = 0
    for group in groups:
        kept = []
        for rule in group["rules"]:
            number += 1
            if number % 3:
                kept.append(rule)
        group["rules"] = kept
    to.write_text(yaml.safe_dump(document, sort_keys=False))
    return number > 2


def _instances(path: Path) -> list[str]:
    try:
        return [str(each["name"]) for each in yaml.safe_load(path.read_text())["instances"][:4]]
    except (yaml.YAMLError, UnicodeError, TypeError, KeyError, AttributeError):
        return []


# Runs ----------------------------------------------------------------------------------------------------------------


def _answer(folder: str, arguments: list[str]) -> dict[str, Any]:
    from sgfast.__main__ import run

    os.chdir(folder)
    os.environ["COLUMNS"] = "100"
    files = {}
    with tempfile.TemporaryDirectory() as written:
        given = [written + each[3:] if each.startswith("OUT/") else each for each in arguments]
        # Some commands write bytes directly to the stream's buffer.
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape") for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err):
            status = run(given)
        texts = []
        for stream in (out, err):
            stream.flush()
            text = stream.buffer.getvalue().decode("utf-8", "surrogateescape")  # type: ignore[attr-defined]
            texts.append(text.replace(written, "OUT"))
        for path in sorted(Path(written).rglob("*")):
            if path.is_file():
                text = path.read_bytes().decode("utf-8", "backslashreplace")
                files[str(path.relative_to(written))] = text.replace(written, "OUT")
    return {"status": status, "out": texts[0], "err": texts[1], "files": files}


def _answers(given: tuple[str, list[Case]]) -> list[bytes]:
    folder, cases = given
    return [zlib.compress(json.dumps(_run_forked(folder, arguments)).encode()) for _, arguments in cases]


def _run_forked(folder: str, arguments: list[str]) -> dict[str, Any]:
    """Run one command in a child process, so that no caches or once-only warnings affect later commands."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            done = _answer(folder, arguments)
        except BaseException as error:
            done = {"status": f"{type(error).__name__}: {error}", "out": "", "err": "", "files": {}}
        with os.fdopen(writing, "wb") as stream:
            stream.write(json.dumps(done).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        reply = stream.read()
    os.waitpid(pid, 0)
    return json.loads(reply) if reply else {"status": "killed", "out": "", "err": "", "files": {}}


def run_all(folder: Path, record: Path, word: str | None = None) -> None:
    """Record the answers of all commands, or of those with ``word`` among their arguments."""
    import sgfast.cli

    cases: list[Case] = [tuple(case) for case in json.loads((folder / "cases.json").read_text())]  # type: ignore[misc]
    cases = [case for case in cases if word is None or word in case[1]]
    # Import all commands once, before child processes are forked.
    sgfast.cli.main.make_context("sgfast", ["replay", "--help"], resilient_parsing=True)
    for command in sgfast.cli.main.list_commands(None):  # type: ignore[arg-type]
        sgfast.cli.main.get_command(None, command)  # type: ignore[arg-type]
    parts = [cases[at : at + 20] for at in range(0, len(cases), 20)]
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
        answers = [
            each for part in pool.map(_answers, [(str(folder.resolve()), part) for part in parts]) for each in part
        ]
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("wb") as stream:
        for case, answer in zip(cases, answers, strict=True):
            head = json.dumps([*case, len(answer)]).encode()
            stream.write(head + b"\n" + answer)
    print(f"{len(cases)} answers in {record}")


# Comparing -----------------------------------------------------------------------------------------------------------


def read(record: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each command line with its answer."""
    with record.open("rb") as stream:
        while head := stream.readline():
            _, arguments, length = json.loads(head)
            yield " ".join(arguments), json.loads(zlib.decompress(stream.read(length)))


def compare(old: Path, new: Path) -> int:
    before, after = dict(read(old)), dict(read(new))
    differ = 0
    both = [command for command in before if command in after]
    for command in both:
        texts = [_spelled(record[command]) for record in (before, after)]
        if texts[0] != texts[1]:
            differ += 1
            print(f"\n$ sgfast {command}")
            lines = list(difflib.unified_diff(*(text.split("\n") for text in texts), "old", "new", lineterm="", n=1))
            print("\n".join(line[:240] for line in lines[2:40]))
    print(f"\n{len(before)} and {len(after)} answers; of {len(both)} that both have, {differ} differ")
    return 1 if differ else 0


def _steady(text: str) -> str:
    for pattern, instead in UNSTEADY:
        text = pattern.sub(instead, text)
    return text


def _spelled(answer: dict[str, Any]) -> str:
    files = "".join(f"\n== {name}\n{text}" for name, text in answer["files"].items())
    return _steady(f"exit status {answer['status']}\n{answer['out']}\n== standard error\n{answer['err']}{files}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", folder]:
            prepare(Path(folder))
        case ["run", folder, record, *words] if len(words) < 2:
            run_all(Path(folder), Path(record), *words)
        case ["compare", old, new]:
            sys.exit(compare(Path(old), Path(new)))
        case _:
            sys.exit(__doc__)

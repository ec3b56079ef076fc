"""Fuzzes what sgfast reads: libFuzzer, steered by coverage, with the address and undefined behaviour sanitizers.

    python tests/fuzz/run.py captures --minutes 30      pcap and pcapng files, against a plain reader
    python tests/fuzz/run.py frames                     frames of every link type, against the reference model
    python tests/fuzz/run.py documents                  policies, exports of clouds, change files
    python tests/fuzz/run.py logs                       flow logs of every format
    python tests/fuzz/run.py sequences                  policy, packets and changes, against the reference model
    python tests/fuzz/run.py frames FILE...             these inputs once each, such as one that was found

How: a copy of the package is built with clang, which counts edges for libFuzzer and has its sanitizers look at every
access. libFuzzer comes with atheris (from PyPI; installed into the folder below if it is not there), which calls
``targets.py`` and, for documents and logs, counts what is reached in Python. Its library that holds both libFuzzer and
the address sanitizer is loaded before Python is. Needs clang; nothing else on the machine changes.

All is kept in ``build/fuzz``: the build, which is made again when the sources change; ``corpus``, which grows from run
to run, and begins with what ``seeds.py`` makes (and the small files of SGFAST_CORPUS); ``findings``. A finding
becomes a test of its own in ``tests/fuzz/test_fuzz_targets.py``, with what was wrong in its name.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "support")]

from fuzz.seeds import real_files, seeds  # noqa: E402
from workshop import ROOT, Failure, Workshop, is_translated, status_of  # noqa: E402

FOLDER = ROOT / "build" / "fuzz"
PACKAGES = FOLDER / "packages"

#: Python's own flags make signed integers wrap; here an overflow is a finding.
FLAGS = (
    "-O1 -g1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined "
    f"-fsanitize-ignorelist={HERE / 'ignored.txt'} -fno-wrapv"
)

#: Bytes of the longest input: more would only make each run slower.
LONGEST = {"captures": 8192, "frames": 2048, "documents": 8192, "logs": 8192, "sequences": 1024}

#: A run of an input that takes longer is a finding, and so is one that takes more memory.
SECONDS_AT_MOST = 10
MEGABYTES_AT_MOST = 4096


def clang() -> str:
    names = [os.environ.get("CC", ""), "clang", *(f"clang-{version}" for version in range(30, 11, -1))]
    for name in names:
        if "clang" in name and (found := shutil.which(name)):
            return found
    raise Failure("there is no clang: install one (Debian: apt-get install clang), or name it in CC")


def fuzzer_library() -> tuple[Path, Path]:
    """Where atheris is imported from, and its library of libFuzzer and the address sanitizer."""
    sys.path.append(str(PACKAGES))
    if importlib.util.find_spec("atheris") is None:
        print(f"installing atheris into {PACKAGES.relative_to(ROOT)}", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(PACKAGES), "atheris"]
        if subprocess.run(command, check=False).returncode:
            raise Failure(f"atheris cannot be installed: {' '.join(command)}")
        importlib.invalidate_caches()
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None:
        raise Failure(f"atheris is not importable from {PACKAGES}: remove that folder and start again")
    place = Path(found.origin).parent.parent
    return place, place / "asan_with_fuzzer.so"


def built(compiler: str, jobs: int) -> Path:
    """The tree with the package, made of the sources as they are now."""
    digest = hashlib.sha256(f"{FLAGS} {compiler} {sys.version}".encode())
    for path in sorted([ROOT / "setup.py", *(ROOT / "sgfast").rglob("*.p*")]):
        if path.suffix in (".py", ".pyx", ".pxd"):
            digest.update(path.read_bytes())
    folder, stamp = FOLDER / "built", FOLDER / "built" / "sources"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        print("building; this takes a few minutes", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        building = {"CC": compiler, "LDSHARED": f"{compiler} -shared"}
        Workshop(folder, jobs, flags=FLAGS, translated=is_translated(), building=building)
        stamp.write_text(digest.hexdigest())
    return folder / "tree"


def corpus_of(target: str) -> Path:
    corpus = FOLDER / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in (*seeds(target), *real_files(target)):
        (corpus / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)
    return corpus


def fuzz(target: str, inputs: Sequence[Path], minutes: float, jobs: int) -> int:
    compiler = clang()
    packages, library = fuzzer_library()
    tree = built(compiler, jobs)
    findings = FOLDER / "findings" / target
    findings.mkdir(parents=True, exist_ok=True)
    options = [
        f"-timeout={SECONDS_AT_MOST}", f"-rss_limit_mb={MEGABYTES_AT_MOST}", f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
    ]  # fmt: skip
    if inputs:
        options += map(str, inputs)
    else:
        options += [
            f"-max_total_time={round(minutes * 60)}", f"-max_len={LONGEST[target]}", "-use_value_profile=1",
            f"-dict={HERE / 'dictionaries' / target}.dict", str(corpus_of(target)),
        ]  # fmt: skip
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # Each object an allocation of its own, or reading past its end would go unseen.
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(tree), str(packages)]),
    }
    command = [sys.executable, str(HERE / "loop.py"), target, *options]
    status = subprocess.run(command, env=environment, cwd=FOLDER, check=False).returncode
    if status:
        print(f"what made it end is in {findings}: python tests/fuzz/run.py {target} FILE runs it again")
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes what sgfast reads.")
    parser.add_argument("target", choices=list(LONGEST))
    parser.add_argument("inputs", nargs="*", type=Path, metavar="FILE", help="run these once, and fuzz nothing")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    options = parser.parse_args()
    inputs = [path.resolve() for path in options.inputs]
    return status_of(lambda: fuzz(options.target, inputs, options.minutes, options.jobs))


if __name__ == "__main__":
    sys.exit(main())

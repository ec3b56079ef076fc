"""Imports of commands: what one does not need makes every start of it slower, and nobody notices."""

from __future__ import annotations

import compileall
import subprocess
import sys
from pathlib import Path

import pytest
from command import PCAPS, SHOP, environment

from sgfast.clouds.providers import FORMATS

POLICY, CAPTURE = SHOP
PROPOSED, EXPECTED = str(PCAPS / "shop.proposed.yaml"), str(PCAPS / "shop.expect.yaml")

#: Modules that take long to import, or stand for some that do. A module stands for those below it, too.
PARTS = {
    "numpy", "rich", "xml", "sgfast.traffic.capture.reader", "sgfast.questions.checking",
    "sgfast.questions.checking.unmet", "sgfast.questions.checking.usage", "sgfast.questions.comparing",
    "sgfast.rules.compiler", "sgfast.engine", "sgfast.clouds.exporting", "sgfast.clouds.terraform.export",
    "sgfast.traffic.flow_logs.traffic", "sgfast.policy.changes", "sgfast.clouds.importing.reading",
    *(f"sgfast.clouds.{each.module}" for each in FORMATS.values()), "sgfast.policy.value_checks",
    "sgfast.traffic.preprocess.filter_text", "sgfast.rules.reaching.explaining", "sgfast.rules.reaching.proving",
    "sgfast.rules.reaching.relation", "sgfast.reference", "sgfast.questions.replaying.cluster",
    "sgfast.questions.replaying.results", "sgfast.questions.replaying.run", "sgfast.questions.replaying.vpc_runner",
    "sgfast.report.html", "sgfast.report.rollup", "sgfast.engine.snapshot", "sgfast.questions.suggesting",
}  # fmt: skip
COMPILER = {"numpy", "sgfast.rules.compiler"}
ENGINE = COMPILER | {"sgfast.engine"}
REPLAY = ENGINE | {
    "sgfast.traffic.capture.reader", "sgfast.questions.replaying.results", "sgfast.questions.replaying.run",
    "sgfast.report.rollup",
}  # fmt: skip
REACHING = {"numpy", "sgfast.rules.reaching.relation"}

#: The parts that commands need.
NEEDED = {
    ("check", POLICY): ENGINE | {"sgfast.questions.checking"},
    ("explain", POLICY, "--from", "web-1", "--to", "db-1", "--protocol", "tcp", "--port", "5432"): COMPILER
    | {"sgfast.rules.reaching.explaining"},
    ("reach", POLICY): REACHING,
    ("diff", POLICY, PROPOSED): ENGINE | REACHING,
    ("test", POLICY, EXPECTED): ENGINE
    | REACHING
    | {"sgfast.rules.reaching.explaining", "sgfast.rules.reaching.proving"},
    ("import", "auto", str(PCAPS / "export")): {"sgfast.clouds.importing.reading", "sgfast.clouds.openstack.account"},
    ("export", POLICY, "--to", "openstack"): {"sgfast.clouds.exporting"},
    ("export", POLICY, "--to", "aws"): {"sgfast.clouds.exporting"},
    ("replay", POLICY, CAPTURE): REPLAY,
    ("suggest", CAPTURE): REPLAY | {"sgfast.questions.suggesting"},
}


@pytest.mark.parametrize("arguments", NEEDED, ids=lambda arguments: arguments[0])
def test_a_command_imports_what_it_needs_and_no_more(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from sgfast.__main__ import run; status = run(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, text=True)
    assert ended.returncode in (0, 1) and ended.stdout
    modules = ended.stderr.splitlines()[-1].split()
    parts = {part for part in PARTS if any(f"{module}.".startswith(f"{part}.") for module in modules)}
    assert parts == NEEDED[arguments]


def test_every_part_can_be_imported() -> None:
    """A part of another name would never be found."""
    package = Path(__file__).parents[2]
    for part in PARTS - {"numpy", "rich", "xml"}:
        path = package.joinpath(*part.split("."))
        assert path.is_dir() or list(path.parent.glob(f"{path.name}.*")), part


@pytest.mark.parametrize(
    ("package", "first", "second"),
    [
        ("sgfast.questions.checking", "policy.check()", "sgfast.CheckResult"),
        ("sgfast.questions.suggesting", "sgfast.suggest(capture)", "policy.check(captures=capture)"),
    ],
)
def test_threads_whose_first_questions_meet_in_a_package_do_not_deadlock(
    package: str, first: str, second: str
) -> None:
    """Two requests of a web service that has just started. Python takes the lock of a module before it imports the
    package, and raises an error if another thread has the package's lock and wants that of the module."""
    program = f"""
import importlib.machinery, sys, threading
import sgfast
policy, capture = sgfast.load({SHOP[0]!r}), {SHOP[1]!r}
engine = sgfast.Engine(policy, events=True)
def is_waiting(thread):
    locks = importlib._bootstrap._blocking_on.get(thread.ident, ())
    locks = locks if isinstance(locks, list | tuple) else [locks]
    return any(lock.owner == threading.get_ident() for lock in locks)
def meet(spec):
    other.start()
    while other.is_alive() and not is_waiting(other):
        pass
class Finder:
    def find_spec(name, path, target=None):
        if name == {package!r}:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader.create_module = meet
            return spec
other = threading.Thread(target=lambda: {second})
sys.meta_path.insert(0, Finder)
{first}
other.join()        # an error if it was never started
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


def test_names_are_found_where_only_compiled_modules_are(tmp_path: Path) -> None:
    """As some packagers leave them."""
    package = tmp_path / "offers"
    package.mkdir()
    offers = "from sgfast.base.lazy import on_demand\n__getattr__, __dir__ = on_demand(__name__)\n"
    (package / "__init__.py").write_text(offers)
    (package / "__init__.pyi").write_text("from offers.home import NAME as NAME\n")
    (package / "home.py").write_text("NAME = 5\n")
    compileall.compile_dir(package, quiet=1, legacy=True)
    for source in package.glob("*.py"):
        source.unlink()
    program = "import offers; assert offers.__file__.endswith('.pyc'); print(offers.NAME)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (told.stdout, told.stderr) == ("5\n", "")

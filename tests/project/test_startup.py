"""Imports of commands: what one does not need makes every start of it slower, and nobody notices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import PCAPS, SHOP, environment

from sgfast.importing.formats import FORMATS

POLICY, CAPTURE = SHOP
PROPOSED, EXPECTED = str(PCAPS / "shop.proposed.yaml"), str(PCAPS / "shop.expect.yaml")

#: Modules that take long to import, or stand for some that do. A module stands for those below it, too.
PARTS = {
    "numpy", "rich", "xml", "sgfast.capture.reader", "sgfast.checking", "sgfast.checking.unmet",
    "sgfast.checking.usage", "sgfast.comparing", "sgfast.compiler", "sgfast.engine",
    "sgfast.exporting", "sgfast.exporting.terraform", "sgfast.flow_logs", "sgfast.policy.changes",
    *(f"sgfast.importing.{name}" for name in ("reading", *FORMATS)),
    "sgfast.policy.value_checks", "sgfast.preprocess.filter_text", "sgfast.reaching.explaining",
    "sgfast.reaching.proving", "sgfast.reaching.relation", "sgfast.reference", "sgfast.replaying.cluster",
    "sgfast.replaying.results", "sgfast.replaying.run", "sgfast.replaying.vpc_runner", "sgfast.report.html",
    "sgfast.report.rollup", "sgfast.snapshot", "sgfast.suggesting",
}  # fmt: skip
COMPILER = {"numpy", "sgfast.compiler"}
ENGINE = COMPILER | {"sgfast.engine"}
REPLAY = ENGINE | {
    "sgfast.capture.reader", "sgfast.replaying.results", "sgfast.replaying.run", "sgfast.report.rollup",
}  # fmt: skip
REACHING = {"numpy", "sgfast.reaching.relation"}

#: The parts that commands need.
NEEDED = {
    ("check", POLICY): ENGINE | {"sgfast.checking"},
    ("explain", POLICY, "--from", "web-1", "--to", "db-1", "--protocol", "tcp", "--port", "5432"): COMPILER
    | {"sgfast.reaching.explaining"},
    ("reach", POLICY): REACHING,
    ("diff", POLICY, PROPOSED): ENGINE | REACHING,
    ("test", POLICY, EXPECTED): ENGINE | REACHING | {"sgfast.reaching.explaining", "sgfast.reaching.proving"},
    ("import", "auto", str(PCAPS / "export")): {"sgfast.importing.reading", "sgfast.importing.neutron"},
    ("export", POLICY, "--to", "openstack"): {"sgfast.exporting"},
    ("export", POLICY, "--to", "aws"): {"sgfast.exporting"},
    ("replay", POLICY, CAPTURE): REPLAY,
    ("suggest", CAPTURE): REPLAY | {"sgfast.suggesting"},
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

"""Requirements of ``sgfast import --live``, and options that do not go together with it (SPEC 10.17, 10.19)."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Sequence

import pytest
from command import PCAPS, sgfast

from sgfast.base.errors import pip_install
from sgfast.clouds.aws import live as live_aws
from sgfast.clouds.importing.sources import Account, Progress, Source
from sgfast.report import progress

Capsys = pytest.CaptureFixture[str]
EXPORT = PCAPS / "export"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("aws", "name the FILEs of an export, or read the account itself with --live"),
        ("aws --live x.json", "--live and FILEs cannot be combined: an account is read as a whole"),
        ("auto --live", "--live cannot read auto: choose aws, openstack or otc"),
        ("terraform --live", "--live cannot read terraform: choose aws, openstack or otc"),
        ("aws --live --os-cloud x", "--os-cloud is for openstack and otc; aws has --aws-profile and --region"),
        ("otc --live --region x", "--aws-profile and --region are for aws; openstack and otc have --os-cloud"),
        ("openstack --live --aws-profile x", "--aws-profile and --region are for aws; openstack and otc have"),
        ("aws x.json --region eu-central-1", "--aws-profile, --region and --os-cloud need --live"),
        ("aws --live --sandbox", "--live and --sandbox cannot be combined: a sandbox has no network"),
    ],
)
def test_what_does_not_go_together_is_refused(capsys: Capsys, arguments: str, said: str) -> None:
    done = sgfast(capsys, "import", *arguments.split())
    assert done.status == 2 and done.one_line().startswith(f"sgfast: {said}")


@pytest.mark.parametrize(("form", "library"), [("aws", "boto3"), ("openstack", "openstack"), ("otc", "openstack")])
def test_a_library_that_is_not_there_is_named_with_its_extra(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, form: str, library: str
) -> None:
    # Python finds no module in place of None.
    monkeypatch.setitem(sys.modules, library, None)  # type: ignore[arg-type]
    line = sgfast(capsys, "import", form, "--live").one_line()
    assert f"{pip_install('aws' if form == 'aws' else 'openstack')}, or import files" in line


def test_openstack_means_neutron_for_files_too(capsys: Capsys) -> None:
    assert sgfast(capsys, "import", "openstack", EXPORT).out == sgfast(capsys, "import", "neutron", EXPORT).out != ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_long_read_shows_what_comes_in(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def read_account(profile: str | None, regions: Sequence[str], told: Progress) -> Account:
        for objects in (1000, 2000):
            told("describe-subnets (eu-central-1)", objects)
        return Account("AWS (eu-central-1)", [Source("describe-subnets (eu-central-1)", {"Subnets": []})])

    terminal, seconds = Terminal(), itertools.count(0, 10)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(live_aws, "read_account", read_account)
    from sgfast.__main__ import run

    assert run(["import", "aws", "--live", "-o", "/dev/null", *["--quiet"] * quiet]) == 0
    assert ("2,000 objects, describe-subnets (eu-central-1)" in terminal.getvalue()) is not quiet

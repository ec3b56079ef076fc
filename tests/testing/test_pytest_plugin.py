"""The plugin of pytest and the assertions: what fails must say why, and who does not use it must not pay
(SPEC 15.1 to 15.3).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from sgfast import PolicyError
from sgfast.base.errors import ArgumentError, ArgumentTypeError
from sgfast.clouds import loading
from sgfast.clouds.loading import load_policy
from sgfast.policy.model import Instance, Vpc
from sgfast.testing import assert_allows, assert_denies

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "sgfast.pytest_plugin"
ACCEPTED = "sgfast_accept_evidence=about-nobody"
POLICY = """\
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}
      - {direction: outbound, protocol: all}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web}
  - {name: empty}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
  - {name: db-1, addresses: [10.0.1.9], security_groups: [db]}
"""
EXPECTED = """\
expect:
  - {from: web, to: db, service: tcp/5432, verdict: allow}
  - {from: web, to: db, service: tcp/22, verdict: allow, why: Admins jump.}
  - {from: empty, to: db, service: all, verdict: deny}
  - {from: [web, empty], to: db, service: udp, verdict: deny, name: no datagrams}
  - {from: webb, to: db, service: udp, verdict: deny}
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    # Without the plugins that are installed here, this one among them.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    folder = pytester.mkdir("policies")
    (folder / "today.yaml").write_text(POLICY)
    (folder / "tomorrow.yaml").write_text(POLICY.replace("5432", "5433"))
    (pytester.path / "shop.expect.yaml").write_text(EXPECTED)
    return pytester


def run(project: pytest.Pytester, *arguments: str, policies: str = "policies/today.yaml") -> pytest.RunResult:
    return project.runpytest_inprocess("-p", PLUGIN, "-o", f"sgfast_policy={policies}", *arguments)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("policies") / "policy.yaml"
    path.write_text(POLICY)
    return load_policy(path)


def message(check: Callable[..., None], *arguments: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        check(*arguments)
    return str(caught.value)


def test_what_holds_for_all_packets_passes(policy: Any) -> None:
    assert_allows(policy, "web", "db", "tcp/5432")
    assert_allows(policy, ip_address("10.0.0.5"), "db-1", "tcp/5432")
    assert_allows(policy, ["internet", ip_network("192.0.2.0/24")], "web", ["tcp/443"])
    assert_denies(policy, "internet", ["db", "10.0.1.9"], "all")


def test_a_cidr_with_one_address_that_is_denied_is_not_allowed(policy: Any) -> None:
    """10.0.0.5 and .6 are web servers, .4 and .7 are nobody's."""
    said = message(assert_allows, policy, ip_network("10.0.0.4/30"), "db", "tcp/5432")
    assert said.startswith("10.0.0.4/30 to db: tcp/5432 should be allowed, but tcp/5432 from 10.0.0.")
    assert "denied: no inbound rule of db-1 matches; the nearest is db/inbound/1, which misses on source\n" in said
    assert "  db/inbound/1  tcp/5432 from group web, IPv4  (source: wants group web, the packet has " in said


def test_a_denial_that_fails_names_the_rule_that_allows(policy: Any) -> None:
    said = message(assert_denies, policy, "internet", "web-1", "tcp")
    assert said.startswith("internet to web-1: tcp should be denied, but tcp/443 from ")
    assert said.endswith("is allowed by web/inbound/1\n  web/inbound/1  tcp/443 from 0.0.0.0/0")


def test_an_assertion_about_nobody_does_not_pass(policy: Any) -> None:
    said = "source: no instance or address is in empty, so nothing is proved about it"
    assert message(assert_allows, policy, "empty", "db", "tcp/5432") == f"assert_allows: {said}"
    assert message(assert_denies, policy, ["web", "empty"], "db", "udp") == f"assert_denies: {said}"
    assert "no filter judges any packet" in message(assert_denies, policy, "192.0.2.1", "192.0.2.2", "all")


def test_an_assertion_about_an_address_of_a_vpc_that_is_not_peered_warns_and_names_the_instance(policy: Any) -> None:
    """SPEC 12.1"""
    vpcs = (Vpc("default"), Vpc("dev"))
    stranger = Instance("dev-1", "dev", (ip_network("10.99.0.1"),), ("web",))
    apart = replace(policy, vpcs=vpcs, instances=(*policy.instances, stranger))
    assert_denies(apart, "web-1", "dev-1", "all")
    with pytest.raises(AssertionError, match=r"\(dev-1\) is denied: VPC default and VPC dev are not peered"):
        assert_allows(apart, "web-1", "dev-1", "tcp/443")
    with pytest.warns(UserWarning, match=r"has 10.99.0.1: it is dev-1's in VPC dev, which is not peered") as told:
        assert_allows(apart, "web-1", "10.99.0.1", "tcp/443")
    assert [each.filename for each in told] == [__file__]
    with pytest.raises(AssertionError, match=r"10.99.0.1 \(no instance in VPC default; dev-1's in VPC dev, "):
        assert_denies(apart, "web-1", "10.99.0.1", "tcp/443")


def test_what_is_wrong_with_an_argument_is_said_in_one_line(policy: Any) -> None:
    for error, arguments, said in (
        (PolicyError, (policy, "webb", "db", "all"), "assert_allows: source: 'webb' is no instance"),
        (PolicyError, (policy, "web", "db", "tcp/http"), "assert_allows: service: 'tcp/http' is no service"),
        (ArgumentError, (policy, "web", [], "all"), "assert_allows: destination: is an empty list"),
        (ArgumentError, (policy, "web", "", "all"), "assert_allows: destination: must be a printable text"),
        (ArgumentTypeError, (policy, "web", 7, "all"), "assert_allows: destination: must be a name"),
        (ArgumentTypeError, (policy, "web", "db", 443), "assert_allows: service: must be a text like tcp/443, not int"),
        (ArgumentTypeError, (policy, "web", "db", [ip_address("10.0.0.1")]), "assert_allows: service: must be a text"),
        (ArgumentTypeError, ("policy.yaml", "web", "db", "all"), "assert_allows: needs a policy, not str: use"),
    ):
        with pytest.raises(error) as caught:
            assert_allows(*arguments)  # type: ignore[arg-type]
        assert str(caught.value).startswith(said) and str(caught.value).isprintable()


def test_each_expectation_is_a_test(project: pytest.Pytester) -> None:
    result = run(project, "--junitxml=junit.xml", "-rA")
    result.assert_outcomes(passed=2, failed=3, warnings=1)
    result.stdout.fnmatch_lines([
        "shop.expect.yaml:3: expect[[]1[]]: web to db: tcp/22 should be allowed because: Admins jump., "
        "but tcp/22 from 10.0.0.5 (web-1) to 10.0.1.9 (db-1) is denied: no inbound rule of db-1 matches; *",
        "  policies/today.yaml:9: db/inbound/1  tcp/5432 from group web, IPv4  (ports: wants 5432, the packet has 22)",
        "shop.expect.yaml:6: expect[[]4[]].from: 'webb' is no instance*",
        "*no instance or address is in empty, so nothing is proved about it",
        "PASSED shop.expect.yaml::web to db: tcp/5432 allow",
        "PASSED shop.expect.yaml::no datagrams",
    ])  # fmt: skip
    assert "Traceback" not in str(result.stdout) and "def runtest" not in str(result.stdout)
    cases = {case.get("name"): case for case in ElementTree.parse(project.path / "junit.xml").iter("testcase")}
    assert cases.keys() == {
        "web to db: tcp/5432 allow", "web to db: tcp/22 allow", "empty to db: all deny", "no datagrams",
        "webb to db: udp deny",
    }  # fmt: skip
    failure = cases["web to db: tcp/22 allow"].find("failure")
    assert failure is not None and "policies/today.yaml:9: db/inbound/1" in (failure.text or "")


def test_an_expectation_about_nobody_fails_unless_the_settings_accept_it(project: pytest.Pytester) -> None:
    """SPEC 10.27, 15.3: nobody looks at skipped tests."""
    result = run(project, "-k", "empty")
    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(["shop.expect.yaml:4: expect[[]2[]].from: no instance or address is in empty*"])
    run(project, "-k", "empty", "-o", ACCEPTED).assert_outcomes(skipped=1, deselected=4)
    wrong = run(project, "-o", "sgfast_accept_evidence=about-nobdy")
    wrong.assert_outcomes(errors=1)
    wrong.stdout.fnmatch_lines(["sgfast_accept_evidence: 'about-nobdy' is not one of *about-nobody*"])


def test_several_policies_are_each_held_against_the_file_and_names_choose(project: pytest.Pytester) -> None:
    both = "policies/today.yaml policies/tomorrow.yaml"
    result = run(project, "-rA", "-k", "5432", policies=both)
    result.assert_outcomes(passed=1, failed=1, deselected=8)
    result.stdout.fnmatch_lines(["PASSED shop.expect.yaml::web to db: tcp/5432 allow [[]today.yaml[]]"])
    result.stdout.fnmatch_lines(["FAILED shop.expect.yaml::web to db: tcp/5432 allow [[]tomorrow.yaml[]]*"])


def test_policies_of_one_file_name_are_told_apart_by_their_folders(project: pytest.Pytester) -> None:
    (project.mkdir("new") / "today.yaml").write_text(POLICY)
    result = run(project, "-rA", "-k", "5432", policies="policies/today.yaml new/today.yaml policies/tomorrow.yaml")
    for name in ("policies/today.yaml", "new/today.yaml", "tomorrow.yaml"):
        assert f"shop.expect.yaml::web to db: tcp/5432 allow [{name}]" in result.stdout.str()


@pytest.mark.parametrize("text", [POLICY, "version: 2\n"])
def test_a_policy_is_read_once_for_all_expectations(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (project.path / "policies" / "today.yaml").write_text(text)
    read = []
    monkeypatch.setattr(loading, "load_policy", lambda path, lines: read.append(path) or load_policy(path, lines))
    assert run(project).parseoutcomes()["failed"] > 1 and len(read) == 1


def test_a_policy_with_an_error_fails_its_tests_and_no_others(project: pytest.Pytester) -> None:
    (project.path / "policies" / "today.yaml").write_text("version: 2\n")
    project.makepyfile("def test_of_something_else(): pass")
    result = run(project)
    result.assert_outcomes(passed=1, failed=5)
    result.stdout.fnmatch_lines(["*today.yaml:1: version: must be 1, not the number 2"])


def test_a_file_with_an_error_names_its_line(project: pytest.Pytester) -> None:
    (project.path / "shop.expect.yaml").write_text("expect:\n  - {from: web}\n")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["shop.expect.yaml:2: expect[[]0[]].to: is missing: write any for all addresses"])


def test_without_the_setting_no_file_is_a_test(project: pytest.Pytester) -> None:
    assert project.runpytest_inprocess("-p", PLUGIN).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_fixture_reads_from_the_tests_folder_and_failures_end_at_the_assertion(project: pytest.Pytester) -> None:
    folder = project.mkdir("deep")
    (folder / "test_policy.py").write_text("""\
import pytest
from sgfast.testing import assert_allows, assert_denies

@pytest.fixture(scope="module")
def policy(sgfast_load):
    return sgfast_load("../policies/today.yaml")

def test_that_holds(policy):
    assert_allows(policy, "web", "db", "tcp/5432")

def test_that_fails(policy):
    assert_denies(policy, "web", "db", "tcp/5432")
""")
    result = run(project, "deep")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        '>       assert_denies(policy, "web", "db", "tcp/5432")',
        "E       AssertionError: web to db: tcp/5432 should be denied, but tcp/5432 from 10.0.0.5 (web-1) to *",
        "deep/test_policy.py:12: AssertionError",
    ])  # fmt: skip
    assert "sgfast/testing.py" not in str(result.stdout)


def test_who_does_not_use_it_does_not_load_the_engine(project: pytest.Pytester) -> None:
    """As pip installs it: by the entry point that pyproject.toml declares."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = project.mkdir("installed")
    (installed / "declared-1.dist-info").mkdir()
    (installed / "declared-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1\n")
    (installed / "declared-1.dist-info" / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{name} = {module}\n" for name, module in declared.items())
    )
    project.makepyfile("""
        import sys

        def test_modules(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("sgfast")
            mine = {name for name in sys.modules if name.startswith("sgfast.")}
            assert mine == {"sgfast.base", "sgfast.base.lazy", "sgfast.version", "sgfast.pytest_plugin"}
            assert not {"numpy", "yaml", "click", "rich"} & sys.modules.keys()
    """)
    path = os.pathsep.join((str(installed), str(ROOT)))
    others = [f"-pno:{name}" for name in ("xdist", "hypothesispytest", "benchmark", "anyio", "typeguard")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *others, "-q"], cwd=project.path, text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | {"PYTHONPATH": path},
        capture_output=True, check=False,
    )  # fmt: skip
    assert "1 passed" in run.stdout, run.stdout + run.stderr

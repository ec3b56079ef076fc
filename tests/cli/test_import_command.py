"""``sgfast import``, and exports in place of a POLICY (SPEC 2.11, 10.17)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import PCAPS, SHOP, sgfast
from exports import imported
from neutron import WEB_1, group, groups, port, ports, rule, tcp

import sgfast as package
from sgfast.base.errors import PolicyError
from sgfast.cli.policies import SYNONYMS
from sgfast.clouds.providers import FORMATS

Capsys = pytest.CaptureFixture[str]
EXPORT = PCAPS / "export"
FILES = [EXPORT / f"{name}.json" for name in ("security-groups", "address-groups", "ports")]


def test_files_or_their_directory_make_one_policy(capsys: Capsys, tmp_path: Path) -> None:
    out = tmp_path / "policy.yaml"
    assert sgfast(capsys, "import", "auto", *FILES, "-o", out).status == 0
    text = out.read_text()
    assert text.startswith("# 2 security groups with 10 rules, 1 address group, 3 instances, 1 VPC, imported by sgfast")
    assert "(OpenStack Neutron)" in text
    printed = sgfast(capsys, "import", "neutron", EXPORT)
    assert printed.status == 0 and printed.err == ""
    first, second = package.load(out), package.load(text=printed.out)
    assert first.instances == second.instances and first.security_groups == second.security_groups
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_is_a_policy_for_every_command(capsys: Capsys, tmp_path: Path) -> None:
    out = tmp_path / "policy.yaml"
    sgfast(capsys, "import", "auto", EXPORT, "-o", out)
    counts = [
        json.loads(sgfast(capsys, "replay", policy, SHOP[1], "--json").out)["verdicts"] for policy in (out, EXPORT)
    ]
    assert counts[0] == counts[1] and counts[0]["allow"] > 100
    checked = sgfast(capsys, "check", EXPORT)
    assert checked.status == 0 and str(EXPORT) in checked.out
    assert package.Engine(EXPORT).check("198.51.100.7", "10.0.0.5", "tcp", dport=80).verdict == "allow"


def test_one_file_from_standard_input(capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = groups(group("sg-web", "web", rule("sg-web", **tcp(80)))) | ports(WEB_1)
    path = tmp_path / "all.json"
    path.write_text(json.dumps(whole))
    with path.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        outcome = sgfast(capsys, "import", "auto", "-")
    assert outcome.status == 0 and "from <stdin>" in outcome.out
    assert len(package.load(path).instances) == 1
    assert "only once" in sgfast(capsys, "import", "auto", "-", "-").one_line()


def test_what_should_be_known_is_a_warning_and_a_comment(capsys: Capsys, tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    web = groups(group("sg-web", "web", rule("sg-web")))
    path.write_text(json.dumps(web | ports(WEB_1, port("p2", "bare\x1b[31m"))))
    outcome = sgfast(capsys, "import", "auto", path)
    assert outcome.one_line().startswith("sgfast: warning: Left out because it has no address of its own: port 'bare")
    assert "# Left out because it has no address of its own: port 'bare\\x1b[31m' (p2)." in outcome.out
    assert sgfast(capsys, "import", "auto", path, "--quiet").err == ""


def test_an_error_leaves_no_file_and_the_old_one_alone(capsys: Capsys, tmp_path: Path) -> None:
    out = tmp_path / "policy.yaml"
    out.write_text("old")
    (tmp_path / "bad.json").write_text(json.dumps(ports(WEB_1)))
    outcome = sgfast(capsys, "import", "neutron", tmp_path / "bad.json", "-o", out)
    assert outcome.status == 2 and "has instances, but no security group" in outcome.one_line()
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_outputs_are_not_written_over_what_is_read(capsys: Capsys, tmp_path: Path) -> None:
    shutil.copytree(EXPORT, tmp_path / "export")
    into = tmp_path / "export" / "ports.json"
    before = into.read_bytes()
    assert "is also an input" in sgfast(capsys, "import", "auto", tmp_path / "export", "-o", into).one_line()
    assert "is also an input" in sgfast(capsys, "replay", tmp_path / "export", SHOP[1], "--verdicts", into).one_line()
    suggested = sgfast(capsys, "suggest", SHOP[1], "--policy", tmp_path / "export", "-o", into)
    assert "is also an input" in suggested.one_line()
    assert into.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "not a known export"),
        ("[]", "not a known export"),
        ("x", "not a known export"),
        ('{"version": 1, "quotas": {}}', "is already a policy document"),
        ('{"address_groups": []}', "the format is ambiguous, otc"),
        ('{"security_groups": [}', "1: not JSON: "),
        ("", "the document is empty"),
    ],
)
def test_what_is_no_export_is_said(capsys: Capsys, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.json").write_text(text)
    outcome = sgfast(capsys, "import", "auto", tmp_path / "x.json")
    assert outcome.status == 2 and said in outcome.one_line() and outcome.out == ""


def test_two_clouds_are_not_one_policy(capsys: Capsys, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"vpcs": []}))
    (tmp_path / "b.json").write_text(json.dumps({"routers": []}))
    outcome = sgfast(capsys, "import", "auto", tmp_path)
    assert "b.json: has another format than the files before it" in outcome.one_line()
    (tmp_path / "empty").mkdir()
    assert "without files that end in .json" in sgfast(capsys, "check", tmp_path / "empty").one_line()


@pytest.mark.parametrize(
    "text",
    [
        "security_groups:\n  - name: web\n    rules: [{id: r, direction: inbound, protocol: tcp}]\n",
        "address_groups:\n  - {name: a, addresses: [10.0.0.0/8]}\n",
        "vpcs: [{name: a}]\npeerings: []\n",
        '{"security_groups": [{"name": "web", "rules": [{"id": "r"}]}]}',
    ],
)
def test_a_policy_that_forgot_its_version_is_told_so(text: str) -> None:
    with pytest.raises(PolicyError, match="version: is missing: write version: 1"):
        package.load(text=text)


def test_errors_of_the_document_name_the_object_not_a_line() -> None:
    """Errors of the document reader name the exported object, because an export has no document lines."""
    both = [group("a", "a", stateful=False), group("b", "b")]
    made = imported(groups(*both), ports(port("p1", "odd", "10.0.0.5", groups=("a", "b"))))
    with pytest.raises(PolicyError, match=r"^b\.json: port 'odd' \(p1\): .*stateless"):
        made.policy()


def test_other_words_for_formats_stand_for_one_that_is_known() -> None:
    assert set(SYNONYMS.values()) <= FORMATS.keys()

"""Files that users give by mistake: the message says what the file is and what to do (SPEC 2.11)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import SHOP, sgfast

Capsys = pytest.CaptureFixture[str]

INTERFACES = {
    "NetworkInterfaces": [
        {
            "NetworkInterfaceId": "eni-1", "VpcId": "vpc-1", "Groups": [{"GroupId": "sg-1", "GroupName": "web"}],
            "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.5", "Primary": True}],
        }
    ]
}  # fmt: skip
GROUPS = {
    "SecurityGroups": [
        {"GroupId": "sg-1", "GroupName": "web", "VpcId": "vpc-1", "IpPermissions": [], "IpPermissionsEgress": []}
    ]
}
PORTS = [
    {
        "ID": "p1", "Name": "web", "MAC Address": "fa:16:3e:00:00:01", "Security Groups": ["g1"],
        "Fixed IP Addresses": [{"subnet_id": "s", "ip_address": "10.0.0.5"}], "Device Owner": "compute:nova",
    }
]  # fmt: skip
GOOGLE = [
    {
        "kind": "compute#firewall", "id": "123", "name": "default-allow-ssh", "direction": "INGRESS",
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}], "sourceRanges": ["0.0.0.0/0"],
    }
]  # fmt: skip
AZURE = [
    {
        "id": "/subscriptions/1/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/web", "name": "web",
        "securityRules": [], "defaultSecurityRules": [], "type": "Microsoft.Network/networkSecurityGroups",
    }
]  # fmt: skip
AWS_TEXT = "SECURITYGROUPS\tdefault VPC security group\tsg-1\tdefault\t1234\tvpc-1\nIPPERMISSIONS\t-1\n"
AWS_TABLE = f"{30 * '-'}\n|   DescribeSecurityGroups   |\n+{28 * '-'}+\n"
OPENSTACK_TABLE = "+----+---------+\n| ID | Name    |\n+----+---------+\n| 1  | default |\n+----+---------+\n"


def told(capsys: Capsys, path: object) -> str:
    """Return the one line of check, which is that of import, too."""
    checked, imported = (sgfast(capsys, *command, path) for command in (["check"], ["import", "auto"]))
    assert checked.status == imported.status == 2 and checked.err == imported.err
    return checked.one_line()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(INTERFACES), "no security group: put it into one directory with the output of aws ec2 descri"),
        (json.dumps(PORTS), "no security group: put it into one directory with the output of openstack security group"),
        (AWS_TEXT, "a table for people, as aws ... --output text prints: run the command again with --output json"),
        (AWS_TABLE, "a table for people, as aws ... --output table prints: run the command again with --output json"),
        (OPENSTACK_TABLE, "a table for people, as openstack ... list or show prints: run the command again with -f"),
        (json.dumps(GOOGLE), "is an export of Google Cloud, which sgfast does not read (it reads otc, neutron, aws,"),
        (json.dumps(AZURE), "is an export of Azure, which sgfast does not read"),
        (json.dumps({"value": AZURE, "nextLink": None}), "is an export of Azure, which sgfast does not read"),
    ],
    ids=["interfaces", "ports", "text", "table", "openstack", "google", "azure", "azure-api"],
)  # fmt: skip
def test_a_file_that_is_no_policy_is_called_what_it_is(capsys: Capsys, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "given"
    path.write_text(text)
    line = told(capsys, path)
    assert line.startswith(f"sgfast: {path}: ") and said in line


def test_interfaces_beside_their_groups_are_a_policy(capsys: Capsys, tmp_path: Path) -> None:
    """As the message says. A file of another cloud and a policy document in the directory are passed over."""
    for name, value in {"a": INTERFACES, "b": GROUPS, "c": GOOGLE, "d": {"version": 1, "security_groups": []}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    outcome = sgfast(capsys, "check", tmp_path)
    assert outcome.status == 0 and "1 security group, 0 rules, 1 instance" in outcome.out
    assert "Passed over because it is no export of aws ec2 describe-...: file c.json, file d.json" in outcome.err


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("command", ["check", "json", "changes", "test", "instances", "log", "directory"])
def test_utf_16_of_powershell_is_named(capsys: Capsys, tmp_path: Path, command: str, encoding: str) -> None:
    path = tmp_path / "given.json"
    text = {"json": json.dumps(GROUPS), "log": "2 1 eni-1 10.0.0.5 10.0.0.6 1 2 6 1 1 1 2 ACCEPT OK\n"}
    path.write_text("\ufeff" + text.get(command, "version: 1"), encoding)
    given = {
        "check": ("check", path), "json": ("check", path), "changes": ("replay", *SHOP, "--changes", path),
        "test": ("test", SHOP[0], path), "instances": ("suggest", SHOP[1], "--instances", path),
        "log": ("replay", SHOP[0], path), "directory": ("check", tmp_path),
    }  # fmt: skip
    (tmp_path / "other.json").write_text("{}")
    outcome = sgfast(capsys, *given[command])
    assert outcome.status == 2
    assert f"{path}: is UTF-16 text, as PowerShell's > writes it: convert it to UTF-8" in outcome.one_line()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.json": '{"a": 1}', "b.yaml": "b: 2"}, "has 2 files (a.json, ...), but no known export; known are"),
        ({"a.json": '{"a": 1}'}, "has 1 file (a.json), but no known export; known are otc"),
        ({"a.json": "{}", "p.yaml": "version: 1\nsecurity_groups: []\n"}, "p.yaml: is already a policy document, not"),
        ({"a.json": "{}", "g.json": json.dumps(GOOGLE)}, "g.json: is an export of Google Cloud"),
    ],
    ids=["unknown", "one", "document", "google"],
)  # fmt: skip
def test_a_directory_without_an_export_is_named(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("given")
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    line = told(capsys, folder)
    assert line.startswith("sgfast: given") and said in line

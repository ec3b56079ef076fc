"""Files that an export may consist of: directories, pages, one object a line, files about something else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from command import sgfast
from exports import policy_of
from neutron import WEB_1, group, groups, port, ports, rule, tcp

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing import sources
from sgfast.clouds.importing.reading import load
from sgfast.clouds.loading import load_policy, parse_policy
from sgfast.policy import export_files

Capsys = pytest.CaptureFixture[str]
WEB = groups(group("sg-web", "web", rule("sg-web", **tcp(80))))
DB = groups(group("sg-db", "db", rule("sg-db", **tcp(5432))))


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_directory_is_read_with_those_below_it_and_what_is_about_something_else_is_named(tmp_path: Path) -> None:
    write(tmp_path, {
        "eu/groups.json": WEB, "us/deep/groups.json": DB, "us/ports.json": ports(WEB_1),
        "buckets.json": {"Buckets": [{"Name": "x"}]}, "us/empty.json": "", "notes.yaml": "a: [1]\n",
        ".git/x.json": "{broken", "readme.txt": "{broken",
    })  # fmt: skip
    policy = load_policy(tmp_path)
    assert sorted(each.name for each in policy.security_groups) == ["db", "web"] and len(policy.instances) == 1
    (warning,) = policy.warnings
    assert warning.startswith("Passed over because it is no export of OpenStack Neutron: ")
    assert all(name in warning for name in ("buckets.json", "empty.json", "notes.yaml"))


@pytest.mark.parametrize(
    ("second", "form", "said"),
    [
        ({"Buckets": []}, "named", r"b\.json: not a known export"),     # files that are named are never passed over
        ('{"security_groups": [', "auto", r"b\.json:1"),
        ({"SecurityGroups": []}, "auto", r"b\.json: has another format than the files before it"),
        (None, "auto", "no known export|no file in it is a"),
        (None, "aws", "no file (of the directory|in it) is a"),
    ],
)
def test_what_is_no_export_of_one_cloud_is_an_error(tmp_path: Path, second: Any, form: str, said: str) -> None:
    write(tmp_path, {"a.json": {"Buckets": []}} if second is None else {"a.json": WEB, "b.json": second})
    paths = [tmp_path / "a.json", tmp_path / "b.json"] if form == "named" else [tmp_path]
    with pytest.raises(PolicyError, match=said):
        load(paths, "auto" if form == "named" else form)


def pages_of(*documents: Any) -> dict[str, str]:
    return {
        "a list": json.dumps(documents),
        "one after the other": "\n".join(json.dumps(each, indent=1) for each in documents),
        "one a line": "".join(f"{json.dumps(each)}\r\n" for each in documents),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["a list", "one after the other", "one a line"])
def test_pages_in_one_file_are_one_listing(form: str, tmp_path: Path) -> None:
    more = {"security_groups_links": [{"rel": "next", "href": "https://example.org/?marker=x"}]}
    policy = parse_policy(pages_of(WEB | more, DB, ports(WEB_1))[form])
    assert [each.name for each in policy.security_groups] == ["web", "db"] and len(policy.instances) == 1
    with pytest.raises(PolicyError, match="shows that there are more pages"):
        parse_policy(pages_of(WEB, DB | more, ports(WEB_1))[form])


def test_pages_of_aws_end_with_the_one_that_has_no_token() -> None:
    everywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    first, second = (
        {"SecurityGroups": [{"GroupId": f"sg-{n}", "GroupName": f"g{n}", "IpPermissions": everywhere}]} for n in (1, 2)
    )
    made = policy_of([first | {"NextToken": "x"}, second])
    assert [each.name for each in made.security_groups] == ["g1", "g2"]
    with pytest.raises(PolicyError, match="NextToken is set"):
        policy_of([first, second | {"NextToken": "x"}])


def test_rows_and_objects_of_openstack_in_any_mixture() -> None:
    rows = [
        {"ID": "sg-web", "Name": "web", "Description": "", "Project": "p"},
        {"ID": "r1", "IP Protocol": "tcp", "Ethertype": "IPv4", "IP Range": "0.0.0.0/0", "Port Range": "80:80",
         "Direction": "ingress", "Remote Security Group": None, "Security Group": "sg-web"},
        {"ID": "ag-1", "Name": "offices", "Addresses": ["192.0.2.0/24"]},
        {"ID": "srv-1", "Name": "jump", "Networks": {"net": ["10.0.0.5"]}},
    ]  # fmt: skip
    shown = [
        {"id": "p1", "name": "", "device_id": "srv-1", "fixed_ips": [{"ip_address": "10.0.0.5"}],
         "security_group_ids": ["sg-web"]},
        {"id": "sg-db", "name": "db", "rules": [rule("sg-db", **tcp(5432), remote_address_group_id="ag-1")]},
    ]  # fmt: skip
    policy = policy_of([*rows, *shown])
    assert {each.name: len(each.rules) for each in policy.security_groups} == {"web": 1, "db": 1}
    assert [each.name for each in policy.instances] == ["jump"]


@pytest.mark.parametrize("addresses", [{"net": ["10.0.0.5", "2001:db8::5"]}, "net=10.0.0.5, 2001:db8::5"])
@pytest.mark.parametrize("groups", [[{"name": "web"}], "name='web'"])
def test_a_server_that_openstack_shows_is_an_instance_of_its_groups(addresses: Any, groups: Any) -> None:
    server = {"id": "s1", "name": "web-1", "status": "ACTIVE", "addresses": addresses, "security_groups": groups}
    web = {"id": "sg-web", "name": "web", "rules": [rule("sg-web", **tcp(80))]}
    (instance,) = policy_of([server, web]).instances
    assert (instance.name, len(instance.addresses), instance.security_groups) == ("web-1", 2, ("web",))


def test_what_comes_out_empty_is_told() -> None:
    assert policy_of(groups(), form="neutron").warnings == (
        "No file holds a security group, so that nothing is allowed.",
        "No file holds an instance with an address, so that nothing is filtered.",
    )
    bare = groups(group("sg-1", "bare"), group("sg-2", "web", rule("sg-2", **tcp(80))))
    assert policy_of(bare | ports(port("p1", "a", "10.0.0.5", groups=("sg-2",)))).warnings == (
        "Has no rules, so that it allows nothing: security group 'bare' (sg-1).",
    )


def test_the_files_of_a_directory_stay_within_the_limits_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a.json": WEB, "b.json": DB})
    sizes = [len((tmp_path / name).read_bytes()) for name in ("a.json", "b.json")]
    values = sum(sources.json_values((tmp_path / name).read_bytes()) for name in ("a.json", "b.json"))
    for limit, most in (("MAX_BYTES", sum(sizes)), ("MAX_NODES", values)):
        with monkeypatch.context() as patch:
            patch.setattr(sources, limit, most)
            assert len(load([tmp_path]).policy().security_groups) == 2
            patch.setattr(sources, limit, most - 1)
            with pytest.raises(PolicyError, match="its files together have more than"):
                load([tmp_path])


def test_a_directory_with_more_files_below_it_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    write(tmp_path, {f"{n}/groups.json": WEB for n in range(4)})
    monkeypatch.setattr(export_files, "_MAX_DIRECTORIES", 3)
    assert "more than 3 directories" in sgfast(capsys, "import", "auto", tmp_path).one_line()


def test_a_linked_folder_is_read_like_any_other_and_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"groups.json": WEB})
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "eu").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "all")
    assert [Path(file).name for file in export_files.files_of(tmp_path / "all")] == ["groups.json"]
    assert len(load([tmp_path / "all"]).policy().security_groups) == 1


def test_every_file_that_is_passed_over_is_named(tmp_path: Path) -> None:
    others = {f"other-{n}.json": {"Buckets": []} for n in range(20)}
    notes = load([write(tmp_path, {"a.json": WEB, **others})]).draft.made.notes
    (warning,) = (note for note in notes if note.startswith("Passed over"))
    assert all(name in warning for name in others)


def test_a_pipe_in_a_directory_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": WEB})
    os.mkfifo(tmp_path / "b.json")
    assert len(load([tmp_path]).policy().security_groups) == 1


def test_one_value_a_line_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_NODES", 100)
    assert len(sources.json_value(b"{}\n" * 100, "x")) == 100  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="more than 100 values"):
        sources.json_value(b"{}\n" * 101, "x")

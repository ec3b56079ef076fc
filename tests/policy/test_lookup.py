"""Things are found by their provider's words, and by nothing that could mean another thing (SPEC 2.12)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from command import SHOP
from diffs import traffic_diff as diff

from sgfast import Engine, load_snapshot, save_snapshot
from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import parse_changes
from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.changes import AddInstance
from sgfast.policy.lookup import find
from sgfast.policy.model import Instance, Policy
from sgfast.questions.checking import check_policy
from sgfast.questions.replaying import ReplayOptions, run_replay
from sgfast.questions.suggesting import suggest
from sgfast.questions.suggesting.document import document
from sgfast.report.explain import explain_document
from sgfast.report.json.check import check_answer
from sgfast.report.json.diff import capture_diff
from sgfast.report.json.explain import explain_answer
from sgfast.report.json.suggestion import suggestion_answer
from sgfast.report.text import to_text
from sgfast.rules.reaching.explaining import explain

DOCUMENT = """
version: 1
vpcs:
  - {name: main, id: vpc-01, label: Main VPC}
  - {name: other, id: vpc-02}
address_groups:
  - {name: offices, id: pl-01, label: All offices, addresses: [192.0.2.0/24]}
security_groups:
  - name: web
    id: sg-01
    label: Web servers
    rules: [{direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0, id: sgr-1}]
  - {name: db, id: sg-02, rules: []}
instances:
  - {name: jump, id: eni-1, device: i-1, label: Jump Host, vpc: main, addresses: [10.0.0.1], security_groups: [db]}
  - {name: web-1, id: eni-2, device: i-2, label: web, vpc: main, addresses: [10.0.0.2], security_groups: [web]}
  - {name: web-2, id: eni-3, device: i-2, label: web, vpc: main, addresses: [10.0.0.3], security_groups: [web]}
  - {name: eni-9, id: jump, device: web-1, label: eni-1, vpc: other, addresses: [10.0.0.1], security_groups: [db]}
"""
POLICY = parse_policy(DOCUMENT)


def changed(text: str, policy: Policy = POLICY) -> Policy:
    made = parse_changes(f"changes: [{{at: 0, {text}}}]", "changes.yaml").resolve(policy, 0)
    return apply_changes(policy, [timed.change for timed in made]).policy


@pytest.mark.parametrize(("word", "name"), [
    ("web-1", "web-1"), ("eni-2", "web-1"), ("i-1", "jump"), ("Jump Host", "jump"),
    ("jump", "jump"), ("eni-1", "jump"), ("web-3", None), ("", None), ("vpc-01", None), ("sg-01", None),
])  # fmt: skip
def test_a_name_comes_before_an_id_a_device_and_a_label(word: str, name: str | None) -> None:
    """The last instance of the policy has the words of others: it is never taken for them."""
    assert find(POLICY, "instance", word) == name


def test_an_id_comes_before_a_device_and_a_device_before_a_label() -> None:
    def with_words(*words: dict[str, str]) -> Policy:
        instances = [Instance(f"vm-{n}", "main", (), (), **each) for n, each in enumerate(words)]
        return replace(POLICY, instances=tuple(instances))

    by_all = {"label": "x"}, {"device": "x"}, {"id": "x"}
    assert [find(with_words(*by_all[:n]), "instance", "x") for n in (1, 2, 3)] == ["vm-0", "vm-1", "vm-2"]
    assert find(with_words(*reversed(by_all)), "instance", "x") == "vm-0"


@pytest.mark.parametrize("word", ["i-2", "web"])
def test_a_word_that_means_several_instances_is_never_guessed(word: str) -> None:
    choose = f"'{word}' means 2 instances: write the name of one, 'web-1', 'web-2'"
    with pytest.raises(PolicyError, match=choose):
        explain(POLICY, word, "198.51.100.7", "tcp", port=80, vpc="main")
    with pytest.raises(PolicyError, match=f"changes.yaml:1: changes.0..remove_instance.instance: {choose}"):
        changed(f"remove_instance: {{instance: {word}}}")


def test_a_list_of_names_to_choose_from_is_short() -> None:
    many = tuple(Instance(f"vm-{n}", "main", (), (), label="same") for n in range(2000))
    with pytest.raises(PolicyError, match=r"'same' means 2000 instances: .* 'vm-4' and 1995 more$"):
        find(replace(POLICY, instances=many), "instance", "same")


@pytest.mark.parametrize("word", ["jmp", "Jump-Host", "eni_1", "jump host"])
def test_a_word_that_is_nearly_right_is_suggested(word: str) -> None:
    with pytest.raises(PolicyError, match=r"did you mean '(jump|Jump Host|eni-1)'\?"):
        explain(POLICY, word, "198.51.100.7", "tcp", port=80, vpc="main")
    with pytest.raises(PolicyError, match=r"did you mean '(jump|Jump Host|eni-1)'\?"):
        changed(f"remove_instance: {{instance: {word}}}")


@pytest.mark.parametrize(("by_words", "by_names"), [
    ("add_member: {group: Web servers, instance: Jump Host}", "add_member: {group: web, instance: jump}"),
    ("remove_rule: {group: sg-01, rule: sgr-1}", "remove_rule: {group: web, rule: sgr-1}"),
    ("add_address: {instance: i-1, address: 10.9.0.1}", "add_address: {instance: jump, address: 10.9.0.1}"),
    ("remove_instance: {instance: eni-3}", "remove_instance: {instance: web-2}"),
    ("add_peering: [vpc-01, vpc-02]", "add_peering: [main, other]"),
    ("set_address_group: {name: All offices, addresses: []}", "set_address_group: {name: offices, addresses: []}"),
    ("add_rule: {group: sg-02, rule: {direction: inbound, protocol: tcp, source: sg-01}}",
     "add_rule: {group: db, rule: {direction: inbound, protocol: tcp, source: web}}"),
    ("add_rule: {group: db, rule: {direction: inbound, protocol: tcp, source: {address_group: pl-01}}}",
     "add_rule: {group: db, rule: {direction: inbound, protocol: tcp, source: offices}}"),
    ("add_group: {name: new, rules: [{direction: inbound, protocol: tcp, source: sg-02}]}",
     "add_group: {name: new, rules: [{direction: inbound, protocol: tcp, source: db}]}"),
    ("add_instance: {name: new, vpc: vpc-02, addresses: [10.9.0.1], security_groups: [Web servers]}",
     "add_instance: {name: new, vpc: other, addresses: [10.9.0.1], security_groups: [web]}"),
])  # fmt: skip
def test_changes_take_every_word(by_words: str, by_names: str) -> None:
    """SPEC 9.5."""
    assert changed(by_words) == changed(by_names) != POLICY


def test_words_survive_changes_of_what_they_belong_to() -> None:
    policy = POLICY
    for change in ("add_member: {group: web, instance: i-1}", "add_address: {instance: i-1, address: 10.9.0.1}",
                   "set_address_group: {name: pl-01, addresses: []}", "remove_rule: {group: sg-01, rule: sgr-1}",
                   "remove_instance: {instance: eni-9}"):  # fmt: skip
        policy = changed(change, policy)
    policy = changed("add_instance: {name: i-3, id: eni-5, label: New one, vpc: main, addresses: [10.0.0.9]}", policy)
    assert find(policy, "instance", "Jump Host") == find(policy, "instance", "eni-1") == "jump"
    assert find(policy, "instance", "New one") == "i-3"
    assert find(policy, "address group", "All offices") == "offices"
    assert find(policy, "security group", "sg-01") == "web"


def test_a_change_cannot_give_an_id_away_twice() -> None:
    with pytest.raises(PolicyError, match="instance 'jump' already has the id 'eni-1'"):
        changed("add_instance: {name: new, id: eni-1, vpc: main, addresses: [10.0.0.9], security_groups: [db]}")
    with pytest.raises(PolicyError, match="security group 'web' already has the id 'sg-01'"):
        changed("add_group: {name: new, id: sg-01}")
    machine = replace(POLICY.instances[0], name="new", addresses=(ip_network("10.0.0.9"),))
    with pytest.raises(PolicyError, match="instance 'jump' already has the id 'eni-1'"):
        Engine(POLICY, vpc="main").apply(AddInstance(machine), 0)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("id: eni-3", "id: eni-2", "instances[2].id: duplicate id 'eni-2', already that of 'web-1'"),
    ("id: sg-02", "id: sg-01", "security_groups[1].id: duplicate id 'sg-01', already that of 'web'"),
    ("id: vpc-02", "id: vpc-01", "vpcs[1].id: duplicate id 'vpc-01', already that of 'main'"),
    ("id: eni-3", 'id: "a\\tb"', "instances[2].id: must be a printable text of 1 to 255 characters"),
    ("id: eni-3", "id: " + 256 * "x", "instances[2].id: must be a printable text of 1 to 255 characters"),
    ("id: eni-3", 'id: ""', "instances[2].id: must be a printable text of 1 to 255 characters"),
    ("id: eni-3", "id: 17", "instances[2].id: must be a printable text of 1 to 255 characters, not the number"),
    ("label: Jump Host", "label: []", "instances[0].label: must be a printable text of 1 to 255 characters, not a"),
    ("id: sg-02", "device: sg-02", "security_groups[1]: unknown key 'device'"),
])  # fmt: skip
def test_a_word_that_cannot_be_one_is_an_error_with_its_field(old: str, new: str, message: str) -> None:
    assert DOCUMENT.count(old) == 1
    with pytest.raises(PolicyError) as caught:
        parse_policy(DOCUMENT.replace(old, new), "p.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("p.yaml:")


def test_words_outlive_a_snapshot_and_a_suggested_policy(tmp_path: Path) -> None:
    """SPEC 9.14 and 10.15."""
    save_snapshot(Engine(POLICY, vpc="main"), tmp_path / "state")
    assert load_snapshot(tmp_path / "state").policy == POLICY
    empty = tuple(replace(group, rules=()) for group in POLICY.security_groups)
    bare = replace(POLICY, security_groups=empty, address_groups=(), origin="bare")
    assert parse_policy(document(bare, (), ()), "bare") == bare


@pytest.mark.parametrize("word", ["vpc-01", "Main VPC", "main"])
def test_a_vpc_is_named_by_every_word_wherever_one_is_named(word: str) -> None:
    """Its instances are seen, and those of the other VPC with the same addresses are not (SPEC 7.1)."""
    assert Engine(POLICY, vpc=word).vpc == "main"
    assert Engine(POLICY, vpc=word).check("198.51.100.7", "10.0.0.2", "tcp", dport=80).reason == "rule"
    explained = explain(POLICY, "198.51.100.7", "i-1", "tcp", port=80, vpc=word)
    assert (explained.vpc, explained.destination.instance) == ("main", POLICY.instances[0])
    for options in (ReplayOptions(vpc=word), ReplayOptions(vpc=word, engine="reference")):
        assert run_replay(POLICY, SHOP[1], options).vpc == "main"
    assert diff(POLICY, POLICY, SHOP[1], vpc=word).vpc == "main"
    assert check_policy(POLICY, vpc=word).warnings == ()  # no warning that VPCs have the same addresses


def test_an_unknown_vpc_is_answered_with_those_there_are() -> None:
    with pytest.raises(PolicyError, match=r"unknown VPC 'vpc-1': the policy has main, other \(did you mean 'vpc-01'\?"):
        Engine(POLICY, vpc="vpc-1")
    twice = replace(POLICY, vpcs=tuple(replace(vpc, label="same") for vpc in POLICY.vpcs))
    with pytest.raises(PolicyError, match=r"^<policy>: 'same' means 2 VPCs: write the name of one, 'main', 'other'$"):
        Engine(twice, vpc="same")


def test_an_explanation_shows_what_people_call_the_machine() -> None:
    """A name such as eni-0123 tells nobody which machine it is (SPEC 10.13)."""
    explained = explain(POLICY, "i-1", "198.51.100.7", "tcp", port=80, vpc="main")
    assert '10.0.0.1 (Jump Host (jump))' in to_text(explain_document(explained, {}))
    found = explain_answer(explained, {})
    assert found["from"] == {
        "address": "10.0.0.1", "instance": "jump", "vpc": "main", "id": "eni-1", "device": "i-1", "label": "Jump Host",
        "assumed": False,
    }  # fmt: skip
    answer = explain_answer(explain(POLICY, "198.51.100.7", "web-1", "tcp", port=80, vpc="main"), {})
    assert (answer["ingress"]["winner"]["rule"], answer["ingress"]["winner"]["group_id"]) == ("sgr-1", "sg-01")


def test_reports_have_the_ids_beside_the_names() -> None:
    """SPEC 10.12, 10.14 and 10.15."""
    findings = check_answer(check_policy(POLICY), {})["findings"]
    assert {(each["group"], each["group_id"]) for each in findings} >= {("db", "sg-02")}
    ids = {None: None} | {instance.name: instance.id for instance in POLICY.instances}
    assert findings and all(each["instance_ids"] == [ids[name] for name in each["instances"]] for each in findings)
    old = parse_policy(Path(SHOP[0]).read_text().replace("name: web-1,", "name: web-1, id: eni-1,"))
    new = parse_policy(Path(SHOP[0]).read_text().replace("ports: 80-81", "ports: 81").replace(
        "name: web\n", "name: web\n    id: sg-1\n"
    ))  # fmt: skip
    told = capture_diff(diff(old, new, SHOP[1]), by="instance")
    ends = [end for row in told["newly_denied"]["rows"] for end in (row["from"], row["to"])]
    of_instances = {end["name"]: end["id"] for end in ends}
    assert of_instances["web-1"] == "eni-1" and {*of_instances.values()} <= {"eni-1", None}
    assert {(each["group"], each["group_id"]) for each in told["rules"]} >= {("web", "sg-1")}
    suggestion = suggestion_answer(suggest([SHOP[1]], instances=new))
    assert {(each["group"], each["group_id"]) for each in suggestion["rules"]} == {("web", "sg-1"), ("db", None)}

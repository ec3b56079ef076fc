"""A group in the place of peers lets its other members in, too (SPEC 10.15)."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest
from command import handshake, sgfast, write_capture, write_policy
from effort import some
from flow_logs import record

from sgfast import load
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS
from sgfast.questions.suggesting import suggest
from sgfast.questions.suggesting.covers import Covers, _greedy
from sgfast.questions.suggesting.denials import Denials
from sgfast.questions.suggesting.needs import Need, NeededService
from sgfast.rules.reaching.explaining import explain

DB = "10.0.0.9"
#: Everybody is in `base`. app and worker may ask db, and web may not.
POLICY = """
version: 1
security_groups:
  - {{name: base, rules: [{{direction: outbound, protocol: all, destination: 0.0.0.0/0}}]}}
  - {{name: app, rules: []}}
  - {{name: worker, rules: []}}
  - {{name: web, rules: []}}
  - {{name: db, rules: [{rules}]}}
instances:
  - {{name: app-1, addresses: [10.0.0.1], security_groups: [base{app}]}}
  - {{name: worker-1, addresses: [10.0.0.2], security_groups: [base{worker}]}}
  - {{name: web-1, addresses: [10.0.0.3], security_groups: [base, web]}}
  - {{name: db-1, addresses: [10.0.0.9], security_groups: [base, db]}}
"""
ALLOWED = ", ".join(
    f"{{direction: inbound, protocol: tcp, ports: 5432, source: {peer}}}" for peer in ("10.0.0.1/32", "10.0.0.2/32")
)
EXACT = POLICY.format(rules=ALLOWED, app=", app", worker=", worker")
#: app-1 and worker-1 have no group of their own.
COARSE = POLICY.format(rules=ALLOWED, app="", worker="")
SILENT = POLICY.format(rules="", app="", worker="")


def asked(folder: Path) -> Path:
    frames = [handshake(4000 + n, 5432, client=f"10.0.0.{n}", server=DB) for n in (1, 2)]
    return write_capture(folder, *frames[0], *frames[1])


def rules_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "5432" in line and "inbound" in line]


def test_exact_groups_come_before_one_that_everybody_is_in(tmp_path: Path) -> None:
    found = suggest([asked(tmp_path)], policy=load(text=EXACT))
    assert [str(line).split("source: ")[1] for line in rules_of(found.text)] == ["app}", "worker}"]
    assert [each.denied_members for each in found.rules] == [()] * len(found.rules)
    assert found.check.matches and found.difference is not None and found.difference.opened == ()


def test_a_group_that_lets_in_whom_the_policy_denies_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = asked(tmp_path)
    found = suggest([capture], policy=load(text=COARSE))
    assert [(each.group, each.denied_members) for each in found.rules if each.rule.direction == "inbound"] == [
        ("db", ("web-1",))
    ]
    # `base` lets web-1 out to everybody, so that a rule of `base` opens nothing that its own filter denied.
    outbound = [each for each in found.rules if each.rule.direction == "outbound"]
    assert [(each.group, each.denied_members) for each in outbound] == [("base", ())]
    assert not found.check.matches and found.difference is not None and len(found.difference.opened) == 1
    told = sgfast(capsys, "suggest", capture, "--policy", write_policy(tmp_path, COARSE))
    assert told.status == 1
    text = " ".join((told.out + told.err).split())
    assert "of the group db is also for web-1, although the given policy denies this" in text
    assert "Connections that only the suggested policy allows" in text and "tcp/5432 (IPv4) of db to" in text
    assert "rules that are also for instances to whom --policy denies this: see the warnings" in text
    assert "does not allow exactly" not in text


def test_with_keep_addresses_take_the_place_of_such_a_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = asked(tmp_path)
    found = suggest([capture], policy=load(text=SILENT), keep=True)
    assert sorted(line.split("source: ")[1] for line in rules_of(found.text)) == ["10.0.0.1}", "10.0.0.2}"]
    assert found.text.count("# The group base would also let in web-1.") == 2
    assert found.check.matches and found.difference is not None
    told = sgfast(capsys, "suggest", capture, "--policy", write_policy(tmp_path, SILENT), "--keep")
    assert told.status == 0 and "Connections that only the suggested policy allows" in told.out


def test_members_without_an_address_of_the_version_are_let_in_nowhere(tmp_path: Path) -> None:
    """web-1 has IPv4 only, and what was asked has IPv6."""
    text = COARSE.replace("0.0.0.0/0", "'::/0'")
    for old, new in (("10.0.0.1", "2001:db8::1"), ("10.0.0.2", "2001:db8::2"), ("10.0.0.9", "2001:db8::9")):
        text = text.replace(f"{old}/32", f"{new}/128").replace(old, new)
    frames = [handshake(4000 + n, 5432, client=f"2001:db8::{n}", server="2001:db8::9") for n in (1, 2)]
    found = suggest([write_capture(tmp_path, *frames[0], *frames[1])], policy=load(text=text))
    assert [each.denied_members for each in found.rules] == [(), ()] and found.check.matches


def test_nine_of_ten_members_are_the_group(tmp_path: Path) -> None:
    text = "version: 1\nsecurity_groups: [{name: web, rules: []}, {name: db, rules: []}]\ninstances:\n"
    text += "".join(f"  - {{name: w{n}, addresses: [10.0.1.{n}], security_groups: [web]}}\n" for n in range(10))
    text += "  - {name: db-1, addresses: [10.0.0.9], security_groups: [db]}\n"
    frames = [frame for n in range(9) for frame in handshake(4000, 5432, client=f"10.0.1.{n}", server=DB)]
    instances = tmp_path / "instances.yaml"
    instances.write_text(text)
    found = suggest([write_capture(tmp_path, *frames)], instances=instances)
    assert [line.split("source: ")[1] for line in rules_of(found.text)] == ["web}"]


def test_what_the_cloud_rejected_is_not_opened_without_a_word(tmp_path: Path) -> None:
    """web → db was rejected in the same log. The suggestion has no group for app-1 but everybody's."""
    lines = []
    for n in range(30):
        for ends in (("10.0.0.1", DB, 40000 + n, 5432), (DB, "10.0.0.1", 5432, 40000 + n)):
            lines.append(record(*ends, start=1000 + n, interface="db-1"))
        lines.append(record("10.0.0.3", DB, 41000 + n, 5432, action="REJECT", start=1000 + n, interface="db-1"))
    log = tmp_path / "flow.log"
    log.write_text("\n".join((" ".join(DEFAULT_FIELDS), *lines, "")))
    wide = POLICY.format(rules="", app="", worker="")
    instances = tmp_path / "instances.yaml"
    instances.write_text(wide)
    found = suggest([log], instances=instances)
    assert not found.check.matches and any("30 attempts that the cloud rejected" in each for each in found.warnings)
    exact = suggest([log], instances=_written(tmp_path, EXACT))
    assert exact.check.matches and not any("rejected" in each for each in exact.warnings)


def _written(folder: Path, text: str) -> Path:
    path = folder / "exact.yaml"
    path.write_text(text)
    return path


def test_no_other_groups_are_better() -> None:
    for seed in range(some(400, 20_000)):
        assert_best(random.Random(seed), seed)


def assert_best(draw: random.Random, seed: int) -> None:
    names = [f"i{n}" for n in range(draw.randint(2, 8))]
    groups = [f"g{n}" for n in range(draw.randint(1, 6))]
    # Small groups, and one that most are in: exact groups are more than one.
    member_of = {name: draw.sample(groups, min(len(groups), draw.choice((1, 2, 2)))) for name in names}
    for groups_of in member_of.values():
        if groups[0] not in groups_of and draw.random() < 0.7:
            groups_of.append(groups[0])
    text = "version: 1\nsecurity_groups:\n" + "".join(f"  - {{name: {group}, rules: []}}\n" for group in groups)
    text += "instances:\n" + "".join(
        f"  - {{name: {name}, addresses: [10.0.0.{n}], security_groups: [{', '.join(member_of[name])}]}}\n"
        for n, name in enumerate(names)
    )
    covers = Covers(load(text=text))
    wanted = {*draw.sample(names, draw.randint(1, len(names)))}
    denied = {*draw.sample(names, draw.randint(0, len(names)))}

    def cost(chosen: list[str] | tuple[str, ...]) -> tuple[int, int, int]:
        others = set().union(*(covers.members[group] for group in chosen)) - wanted
        return len(others & denied), len(others), len(chosen)

    all_covers = [
        chosen for number in range(1, len(groups) + 1) for chosen in combinations(groups, number)
        if all({*member_of[name]} & {*chosen} for name in wanted)
    ]  # fmt: skip
    best = covers.best(wanted, member_of, denied.__contains__)
    assert cost(best) == min(map(cost, all_covers)), f"seed {seed}"


def test_many_groups_are_chosen_one_after_another() -> None:
    """Twelve groups of one each are better than one of all with a thirteenth member."""
    members = [*(1 << n for n in range(12)), (1 << 13) - 1]
    assert _greedy(members, (1 << 12) - 1, 1 << 12, 0) == [*range(12)]
    # A group that later ones make unnecessary is left out.
    assert _greedy([0b0011, 0b0110, 0b1001], 0b1111, 0, 0) == [1, 2]


def small_policy(draw: random.Random) -> str:
    """Return a policy of some groups, with rules about groups, prefixes and single addresses, in one or two VPCs."""
    peers = ["a", "b", "c", "10.0.0.0/29", "10.0.0.0/30", "10.0.0.2/32", "0.0.0.0/0"]
    text = "version: 1\nvpcs: [{name: one}, {name: two}]\nsecurity_groups:\n"
    for group in "abc":
        rules = ", ".join(
            f"{{direction: {way}, protocol: tcp, ports: '{draw.choice(('22', '80', '22,80'))}', "
            f"{'source' if way == 'inbound' else 'destination'}: {draw.choice(peers)}, "
            f"action: {draw.choice(('allow', 'allow', 'deny'))}, priority: {draw.randint(1, 3)}}}"
            for way in draw.choices(("inbound", "outbound"), k=draw.randint(1, 5))
        )
        text += f"  - {{name: {group}, rules: [{rules}]}}\n"
    return text + "instances:\n" + "".join(
        f"  - {{name: i{n}, vpc: {draw.choice(('one', 'one', 'one', 'two'))}, addresses: [10.0.0.{n}], "
        f"security_groups: [{', '.join(draw.sample('abc', draw.randint(1, 2)))}]}}\n"
        for n in range(1, 9)
    )  # fmt: skip


def test_denials_are_those_that_explain_tells() -> None:
    for seed in range(some(150, 5000)):
        assert_explained(random.Random(seed), seed)


def assert_explained(draw: random.Random, seed: int) -> None:
    policy = load(text=small_policy(draw))
    denials = Denials(policy)
    address = {each.name: each.addresses[0].network_address.packed for each in policy.instances}
    names, ports = [*address], [22, 80]

    def is_denied(source: str, target: str, port: int) -> bool:
        told = explain(policy, source, target, "tcp", port=port)
        own_end = told.egress if service.direction == "outbound" else told.ingress
        ends = {policy.instance_by_name[name].vpc for name in (source, target)}
        return source != target and len(ends) == 1 and own_end is not None and own_end.verdict == "deny"

    service = draw.choice([NeededService(way, 4, 6, port) for way in ("inbound", "outbound") for port in ports])
    pairs = [draw.sample(names, 2) for _ in range(draw.randint(1, 4))]
    needs = [Need(own, service, address[peer], peer) for own, peer in pairs]
    of_peers, of_instances = denials.of_peers(needs), denials.of_instances(needs)
    for name in names:
        at_peer, at_instance = [(own, name) for own, _ in pairs], [(name, peer) for _, peer in pairs]
        for found, ends in ((of_peers(name), at_peer), (of_instances(name), at_instance)):
            turned = [end if service.direction == "outbound" else end[::-1] for end in ends]
            assert found == any(is_denied(*end, service.port or 0) for end in turned), f"seed {seed}: {name}, {needs}"

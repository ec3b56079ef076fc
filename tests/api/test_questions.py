"""Methods of a policy answer like the commands (SPEC 14.3, 14.4), and engines take names (SPEC 14.5, 14.7)."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import random
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, SHOP, sgfast
from effort import some

import sgfast as library
from sgfast.clouds.linux.nftables import zones
from sgfast.rules.reaching.contradiction import first_contradiction
from sgfast.rules.reaching.ends import named_end
from sgfast.rules.reaching.explaining import explain
from sgfast.rules.reaching.services import named_service, single_service

POLICY = library.load(SHOP[0])
EXPECTATIONS = """
expect:
  - {from: web, to: db, service: tcp/5432, verdict: allow}
  - {from: internet, to: db, service: all, verdict: deny}
"""


def without_speed(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("Speed")]


ANSWERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "explain": (
        lambda path: POLICY.explain("web-1", "db-1", "tcp/5432"),
        f"explain {SHOP[0]} --from web-1 --to db-1 --protocol tcp --port 5432",
    ),
    "explain a ping": (
        lambda path: POLICY.explain(ip_address("198.51.100.7"), "db-1", "icmp"),
        f"explain {SHOP[0]} --from 198.51.100.7 --to db-1 --protocol icmp",
    ),
    "explain as if": (
        lambda path: POLICY.explain("10.9.9.9", "web-1", "tcp/80", as_if_in=["db"]),
        f"explain {SHOP[0]} --from 10.9.9.9 --to web-1 --protocol tcp --port 80 --as-if-in db",
    ),
    "reach": (lambda path: POLICY.reach(destination="db"), f"reach {SHOP[0]} --to db"),
    "reach a port": (lambda path: POLICY.reach(port=53), f"reach {SHOP[0]} --port 53"),
    "test": (lambda path: POLICY.test(path), f"test {SHOP[0]} EXPECTATIONS"),
    "check": (lambda path: POLICY.check(), f"check {SHOP[0]}"),
    "check all": (
        lambda path: POLICY.check(expect=path, captures=SHOP[1]),
        f"check {SHOP[0]} --expect EXPECTATIONS --traffic {SHOP[1]}",
    ),
    "check as if": (
        lambda path: POLICY.check(as_if_in=["db=10.9.9.9"]), f"check {SHOP[0]} --as-if-in db=10.9.9.9",
    ),
    "diff": (lambda path: POLICY.diff(PCAPS / "export"), f"diff {SHOP[0]} {PCAPS / 'export'}"),
    "diff of traffic": (
        lambda path: library.diff(SHOP[0], str(PCAPS / "export"), SHOP[1]),
        f"diff {SHOP[0]} {PCAPS / 'export'} {SHOP[1]}",
    ),
    "replay": (lambda path: POLICY.replay(SHOP[1]), f"replay {SHOP[0]} {SHOP[1]}"),
    "suggest": (lambda path: library.suggest(SHOP[1], policy=POLICY), f"suggest --policy {SHOP[0]} {SHOP[1]}"),
    "suggest all": (
        lambda path: library.suggest(SHOP[1], policy=POLICY, allowed_only=False),
        f"suggest --policy {SHOP[0]} --from all {SHOP[1]}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_prints_as_its_command_prints_it(
    question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "expectations.yaml"
    path.write_text(EXPECTATIONS)
    ask, command = ANSWERS[question]
    told = sgfast(capsys, *command.replace("EXPECTATIONS", str(path)).split())
    answer = ask(path)
    assert without_speed(str(answer) + "\n") == without_speed(told.out) and told.out
    assert repr(answer)[0] == "<" and repr(answer).isprintable() and len(repr(answer)) < 300
    # Another process gets the same answer.
    again = pickle.loads(pickle.dumps(answer))
    assert str(again) == str(answer) and repr(again) == repr(answer)


#: Fields that only the run knows that found an answer.
SPEED = {"elapsed_seconds", "packets_per_second"}


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_is_the_json_of_its_command(
    question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SPEC 14.20."""
    path = tmp_path / "expectations.yaml"
    path.write_text(EXPECTATIONS)
    ask, command = ANSWERS[question]
    told = sgfast(capsys, *command.replace("EXPECTATIONS", str(path)).split(), "--json").out
    answer: Any = ask(path)
    expected, found = json.loads(told), answer.to_dict()
    # No tuple and no key that is not a text, as neither is what JSON has.
    assert found == json.loads(answer.to_json()) and found.keys() == expected.keys()
    assert {key: found[key] for key in found.keys() - SPEED} == {key: expected[key] for key in found.keys() - SPEED}
    assert without_lines(answer.to_json() + "\n", SPEED) == without_lines(told, SPEED)
    # A change of the dictionary does not reach the answer.
    found.clear()
    assert answer.to_dict().keys() == expected.keys()


def without_lines(text: str, words: set[str]) -> list[str]:
    return [line for line in text.split("\n") if not any(f'"{word}"' in line for word in words)]


def test_what_an_engine_answers_is_json_for_a_web_service() -> None:
    engine = library.Engine(POLICY)
    verdict = engine.check("web-1", "db-1", "tcp", dport=5432)
    egress, ingress = verdict.egress, verdict.ingress
    assert egress is not None and ingress is not None
    assert verdict.to_dict() == {
        "verdict": "allow", "reason": "rule", "egress": egress.to_dict(), "ingress": ingress.to_dict(),
    }  # fmt: skip
    assert ingress.to_dict() == {
        "instance": "db-1", "verdict": "allow", "reason": "rule", "rule": "db/inbound/1",
    }  # fmt: skip
    done = engine.apply(library.RemoveRule("db", "db/inbound/1"), now_ns=1)
    assert json.loads(done.to_json())["rule_tables_built"] == done.rule_tables_built > 0
    assert json.loads(verdict.to_json()) == verdict.to_dict()
    denied = engine.check("8.8.8.8", "9.9.9.9", "tcp", dport=1).to_dict()
    assert denied["egress"] is denied["ingress"] is None


def test_a_check_reads_the_part_of_the_captures_that_it_is_told_to() -> None:
    checked = POLICY.check(captures=SHOP[1], reading=library.ReadOptions(filter="tcp"))
    assert checked.traffic is not None and 0 < checked.traffic.packets < 261
    assert checked.traffic.left_out is not None


def test_warnings_of_policies_and_captures_reach_the_answer() -> None:
    old, new = (dataclasses.replace(POLICY, warnings=(f"Mind the {word}.",)) for word in ("old", "new"))
    twice = [SHOP[1], SHOP[1]]
    assert old.check().warnings == ("Mind the old.",)
    own, other = old.check(captures=twice).warnings
    assert own == "Mind the old." and other.startswith("260 packets with a timestamp up to")
    meant = [{"from": "web", "to": "group:nobody", "service": "tcp/1", "verdict": "deny"}]
    nobody = dataclasses.replace(old, security_groups=(*old.security_groups, library.SecurityGroup("nobody")))
    assert "no instance or address is in group:nobody" in nobody.check(expect=meant).warnings[1]
    assert old.diff(new).warnings == ("Mind the old.", "Mind the new.")
    *own, backwards = old.diff(new, twice).warnings
    assert own == ["OLD, shop.yaml: Mind the old.", "NEW, shop.yaml: Mind the new."]
    assert backwards.startswith("260 packets with a timestamp up to")


def test_a_class_that_a_program_derives_from_an_answer_prints_as_it_does() -> None:
    class Mine(library.ReachResult):
        pass

    found = POLICY.reach(destination="db")
    assert str(Mine(*(getattr(found, each.name) for each in dataclasses.fields(found)))) == str(found)


def test_one_of_several_is_told_in_the_singular() -> None:
    proof = POLICY.test([{"from": "web", "to": "db", "service": "tcp/5432", "verdict": "allow"}])
    assert repr(proof) == "<ExpectationsResult of <expectations>: 0 hold, 1 fails, 0 are about no packet>"
    assert repr(POLICY.reach(source="web", destination="db", port=5432)).endswith(": 1 row>")


def test_a_proof_is_true_only_if_all_expectations_are_proved() -> None:
    """SPEC 14.4: `if policy.test(...)` must not pass whatever is found."""
    holds = {"from": "internet", "to": "web", "service": "tcp/80", "verdict": "allow"}
    fails = {**holds, "verdict": "deny"}
    about_nobody = {"from": "192.0.2.1", "to": "192.0.2.2", "service": "all", "verdict": "deny"}
    asked = ([holds], [holds, fails], [holds, about_nobody], [about_nobody])
    assert [bool(POLICY.test(each)) for each in asked] == [True, False, False, False]
    accepted = [bool(POLICY.test(each, accept_evidence=["about-nobody"])) for each in asked]
    assert accepted == [True, False, True, True]
    with pytest.raises(library.ArgumentError, match=r"^'nobody' is not one of "):
        POLICY.test([holds], accept_evidence="nobody")


def test_findings_are_asked_for_by_a_severity_or_a_code_and_other_words_are_refused() -> None:
    checked = POLICY.check()
    code = checked.findings[0].code
    assert {finding.code for finding in checked.matching(code)} == {code}
    assert checked.matching("note") == list(checked.findings)
    with pytest.raises(library.ArgumentError, match=rf"^'warnings' is neither a severity \(error, .*{code}"):
        checked.matching("warnings")


def test_exports_are_the_texts_that_the_command_writes(capsys: pytest.CaptureFixture[str]) -> None:
    exported = library.load(PCAPS / "export")
    for to, form in (("openstack", "script"), ("openstack", "json"), ("terraform", "script")):
        options = [] if form == "script" else ["--format", form]
        told = sgfast(capsys, "export", PCAPS / "export", "--to", to, *options)
        assert exported.export(to, form=form) == told.out and told.status == 0  # type: ignore[arg-type]
    told = sgfast(capsys, "export", SHOP[0], "--to", "nftables", "--interface", "web-1=tap0")
    assert library.export(SHOP[0], "nftables", interfaces={"web-1": "tap0"}) == told.out
    wrong: list[dict[str, Any]] = [
        {"to": "azure"}, {"to": "terraform", "form": "json"}, {"to": "aws", "provider": "aws"},
        {"to": "aws", "instance": "web-1"}, {"to": "nftables"}, {"to": "aws", "form": "yaml"},
        {"to": "nftables", "instance": "web-1", "connections": "x"}, {"to": "nftables", "interfaces": {}},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(library.ArgumentError, match=r"^[^\n]+$"):
            POLICY.export(**options)


def test_exports_of_a_change_are_the_texts_that_the_command_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    new, old, listed = PCAPS / "shop.proposed.yaml", SHOP[0], tmp_path / "list"
    zone = next(iter(zones(POLICY, {"web-1": "tap0"}).values()))
    # Port 81 is closed.
    listed.write_text(f"ipv4 2 tcp 6 599 src=192.0.2.7 dst=10.0.0.5 sport=1234 dport=81 mark=0 zone={zone} use=1\n")
    command = ("export", new, "--since", old, "--to", "nftables", "--interface", "web-1=tap0")
    options: dict[str, Any] = {"since": old, "interfaces": {"web-1": "tap0"}}
    change = sgfast(capsys, *command)
    # Only the command names the policy file that the export is undone with (SPEC 13.1).
    lines = [line for line in change.out.splitlines(keepends=True) if not line.startswith("# To take this back")]
    assert library.export(new, "nftables", **options) == "".join(lines) and "flush chain" in change.out
    fates = sgfast(capsys, *command, "--connections", listed)
    assert library.export(new, "nftables", connections=listed, **options) == fates.out and "conntrack -D" in fates.out


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"instance": ["web-1"]}, r"an instance must be a text, not \['web-1'\]"),
        ({"interfaces": "web-1=tap0"}, "interfaces must be a mapping, such as"),
        ({"interfaces": 5}, "interfaces must be a mapping, such as"),
        ({"interfaces": {"web-1": 5}}, "the interface of instance 'web-1' must be a text, not 5"),
        ({"instance": "web-1", "since": POLICY, "connections": 5}, "connections must be the path of a list, not 5"),
    ],
)
def test_arguments_of_an_export_of_the_wrong_type_are_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(library.ArgumentTypeError, match=f"^{error}[^\n]*$"):
        POLICY.export("nftables", **options)


@pytest.mark.parametrize("name", ["replay", "diff", "export"])
def test_a_method_has_the_options_of_its_function_and_their_defaults(name: str) -> None:
    methods = inspect.signature(getattr(library.Policy, name)).parameters
    function = inspect.signature(getattr(library, name)).parameters
    options = {each.name: each.default for each in function.values() if each.kind is each.KEYWORD_ONLY}
    assert {each.name: each.default for each in methods.values() if each.kind is each.KEYWORD_ONLY} == options


# Packets that stand for others ----------------------------------------------------------------------------------------

ENDS = ("web", "db", "web-2", "internet", "any", "administrators", "10.0.0.0/24", "2001:db8::5", "group:web")
SERVICES = ("all", "tcp", "tcp/5432", "tcp/79-82", "udp", "icmp", "icmpv6/128; udp/53", "protocol 50")


def test_a_packet_that_stands_for_many_is_denied_if_one_of_them_is() -> None:
    questions = [*product(ENDS, ENDS, SERVICES)]
    told: set[str] = set()
    for source, destination, service in random.Random(1).sample(questions, some(40, len(questions))):
        ends = named_end(POLICY, source), named_end(POLICY, destination)
        is_one = single_service(service) and all(
            end.kind == "instance" or (end.kind == "network" and end.networks[0].num_addresses == 1) for end in ends
        )
        if is_one:
            continue
        wanted = named_service(service)
        allowed, denied = (first_contradiction(POLICY, *ends, wanted, verdict) for verdict in ("deny", "allow"))
        try:
            answer = POLICY.explain(source, destination, service)
        except library.PolicyError as error:
            assert allowed is denied is None and "no filter judges any packet" in str(error)
            told.add("nothing")
            continue
        assert answer.allowed == (denied is None)
        every = "all of these packets are " + ("allowed" if allowed else "denied")
        words = "some of these packets are allowed, and some are denied" if allowed and denied else every
        assert words in answer.choices[0]
        told.add(words)
    assert len(told) == 4, told


UNPEERED = """
version: 1
vpcs: [{name: red}, {name: blue}]
security_groups:
  - {name: app, rules: [{direction: inbound, protocol: tcp, ports: 80}, {direction: outbound, protocol: all}]}
instances:
  - {name: a, vpc: red, addresses: [10.0.0.1], security_groups: [app]}
  - {name: b, vpc: red, addresses: [10.0.0.2], security_groups: [app]}
  - {name: c, vpc: blue, addresses: [10.0.1.1], security_groups: [app]}
"""


@pytest.mark.parametrize(
    ("source", "verdict", "level"), [("10.0.0.0/16", "allow", "partly"), ("10.0.1.0/24", "cannot-tell", "no")]
)
def test_a_packet_that_stands_for_some_that_nobody_can_tell_says_so(source: str, verdict: str, level: str) -> None:
    policy = library.load(text=UNPEERED)
    answer = policy.explain(source, "a", "tcp/80")
    assert (answer.verdict, answer.evidence.conclusive) == (verdict, level)
    assert "all of these packets are allowed, unless an instance of a VPC that is not peered" in answer.choices[0]
    assert "it is c's in VPC blue, which is not peered" in answer.choices[1]
    accepted = policy.explain(source, "a", "tcp/80", accept_evidence=["other-vpc"])
    assert accepted.allowed and accepted.evidence.conclusive == "yes"
    assert "all of these packets are allowed. This is one" in accepted.choices[0]
    assert policy.explain(source, "a", "tcp/22", accept_evidence=["other-vpc"]).verdict == "deny"
    assert policy.explain("10.0.0.0/24", "a", "tcp/80").evidence.conclusive == "yes"


def test_one_packet_is_the_one_that_the_words_mean() -> None:
    for service, fields in {
        "tcp/5432": {"protocol": "tcp", "port": 5432},
        "icmp": {"protocol": "icmp"},
        "icmp echo-request": {"protocol": "icmp"},
        "icmp/3/4": {"protocol": "icmp", "icmp_type": 3, "icmp_code": 4},
        "icmp/13": {"protocol": "icmp", "icmp_type": 13},
        "gre": {"protocol": "gre"},
        "protocol 200": {"protocol": 200},
    }.items():
        assert POLICY.explain("web-1", ip_network("10.0.1.9/32"), service) == explain(
            POLICY, "web-1", "10.0.1.9", **fields  # type: ignore[arg-type]
        )
    assert POLICY.explain("web-1", "db-1", "icmpv6") == explain(POLICY, "web-1", "db-1", "icmpv6")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (("web-9", "db-1", "tcp/1"), "'web-9' is no instance, security group or address group .*did you mean 'web-"),
        (("web-1", "db-1", "http"), "'http' is no service: write tcp/443"),
        (("web-1", "db-1", 5432), "'5432' is no service: write tcp/443"),
        ((5, "db-1", "tcp"), "'5': not an IPv4 address"),
        (("internet", "192.0.2.0/24", "all"), "no filter judges any packet for all from internet to 192.0.2.0/24"),
    ],
)
def test_a_question_without_sense_is_an_error_of_one_line(question: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(library.SgfastError, match=message) as raised:
        POLICY.explain(*question)
    assert str(raised.value).isprintable()
    with pytest.raises(library.ArgumentError, match="are for one packet"):
        POLICY.explain("web", "db", "tcp/1", vpc="default")


# Engines --------------------------------------------------------------------------------------------------------------


def test_a_name_stands_for_the_only_address_of_its_version() -> None:
    engine, same = library.Engine(POLICY), library.Engine(POLICY)
    for names, addresses, protocol in (
        (("web-1", "db-1"), ("10.0.0.5", "10.0.1.9"), "tcp"),
        (("web-1", "db-1"), ("2001:db8::5", "2001:db8:1::9"), "icmpv6"),
        (("web-1", "db-1"), ("2001:db8::5", "2001:db8:1::9"), "ICMPv6"),
        (("web-1", "db-1"), ("2001:db8::5", "2001:db8:1::9"), "ipv6-icmp"),
        (("web-1", "db-1"), ("2001:db8::5", "2001:db8:1::9"), 58),
        (("2001:db8:100::7", "web-1"), ("2001:db8:100::7", "2001:db8::5"), "tcp"),
        (("web-1", ip_address("10.0.1.9")), ("10.0.0.5", "10.0.1.9"), "udp"),
    ):
        for sport in (40000, 40001):
            fields: Any = {"sport": sport, "dport": 5432} if protocol in ("tcp", "udp") else {"icmp_id": sport}
            found = engine.check(*names, protocol, **fields)  # type: ignore[arg-type]
            assert found == same.check(*addresses, protocol, **fields)
        asked: Any = {"dport": 22} if protocol in ("tcp", "udp") else {}
        assert engine.explain(*names, protocol, **asked) == engine.explain(*addresses, protocol, **asked)  # type: ignore[arg-type]
    assert engine.dataplane.connections == same.dataplane.connections > 0


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (("several", "web"), "<policy>: instance 'several' has several IPv4 addresses: write one of 10.0.0.8, "
         "10.0.0.9, an address in 10.0.2.0/30"),
        (("wide", "web"), "<policy>: instance 'wide' has several IPv4 addresses: write an address in 10.0.1.0/24"),
        (("wbe", "web"), "<policy>: 'wbe' is neither an address nor an instance of the policy (did you mean 'web'?)"),
        (("six", "web"), "six and web have no IP version in common"),
        (("10.0.0.300", "web"), "<policy>: '10.0.0.300' is neither an address nor an instance of the policy"),
        (("eni", "web"), "<policy>: 'eni' means 2 instances: write the name of one, 'several', 'wide'"),
    ],
)  # fmt: skip
def test_a_name_that_is_not_one_address_is_an_error_that_says_which_there_are(
    ends: tuple[str, str], message: str
) -> None:
    engine = library.Engine({
        "version": 1,
        "security_groups": [{"name": "g"}],
        "instances": [
            {"name": "web", "addresses": ["10.0.0.5"], "security_groups": ["g"], "id": "i-1"},
            {"name": "several", "addresses": ["10.0.0.8", "10.0.0.9", "10.0.2.0/30"],
             "security_groups": ["g"], "device": "eni"},
            {"name": "wide", "addresses": ["10.0.1.0/24"], "security_groups": ["g"], "device": "eni"},
            {"name": "six", "addresses": ["2001:db8::6"], "security_groups": ["g"]},
        ],
    })  # fmt: skip
    for call in (engine.check, engine.explain):
        with pytest.raises(library.SgfastError) as raised:
            call(*ends, "tcp", dport=80)  # type: ignore[operator]
        assert str(raised.value).startswith(message)
    assert engine.check("198.51.100.7", "i-1", "tcp", dport=1).verdict == "deny"


@pytest.mark.parametrize("protocol", ["icmp", "ICMP", "icmpv6", "icmp echo-request", "tcp; icmp", "gre", "all"])
def test_a_port_is_no_icmp_type_and_no_port_of_several_services(protocol: str) -> None:
    """SPEC 12.5."""
    with pytest.raises(library.ArgumentError, match=r"is not one protocol with ports.*leave the port out") as raised:
        POLICY.reach(protocol=protocol, port=80)
    assert "\n" not in str(raised.value)
    assert POLICY.reach(protocol=" TCP", port=80).rows == POLICY.reach(protocol="tcp/80").rows


def test_an_engine_for_captures_judges_as_a_replay_and_a_plain_one_does_not() -> None:
    engines = library.Engine.for_captures(POLICY), library.Engine(POLICY)
    seen: list[list[int]] = [[], [], []]

    class Both:
        def begin(self, names: Any) -> None:
            pass

        def write(self, batch: Any, first: int, headers: Any, results: Any) -> None:
            batch = batch.copied(first, len(results))
            for verdicts, found in zip(seen, (results, *(engine.process(batch) for engine in engines)), strict=True):
                verdicts += found["verdict"].tolist()

    POLICY.replay(SHOP[1], frames=Both())
    replayed, judged, live = seen
    assert judged == replayed != live and len(live) == 261

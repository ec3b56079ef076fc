"""The text report: what it says first, that it fits, and that no name can disturb it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from command import CLIENT, SERVER, SHOP, handshake, mixture, sgfast, write_capture, write_policy
from effort import EXHAUSTIVE, some
from frames import ethernet, ip, tcp, udp
from kinds import kinds_of
from reports import SIZES, replay_markdown, text_report

from sgfast import Policy, replay
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Rule
from sgfast.questions.checking import CheckResult, Finding
from sgfast.questions.replaying import Broken, Denied, ReplayResult, RuleHits, Service, Unanswered
from sgfast.report.amounts import human_bytes, human_seconds, instant
from sgfast.report.check import check_document
from sgfast.report.document import TOP
from sgfast.report.names import service_name
from sgfast.report.rollup import BY
from sgfast.report.text import to_text
from sgfast.traffic.capture import Damage

T = TypeVar("T")
VERDICTS = ("allow", "deny", "moot", "out-of-scope", "local", "exempt", "not-ip")


def result(**fields: Any) -> ReplayResult:
    """Make the result of a replay of a few allowed packets, with the given fields changed."""
    given: dict[str, Any] = {
        "packets": 4,
        "verdicts": dict.fromkeys(VERDICTS, 0) | {"allow": 4},
        "reasons": {"rule": 1, "established": 3},
        "connections": {"opened": 1, "denied": 0, "disconnected": 0, "inferred": 0},
        "first_time_ns": 0,
        "last_time_ns": 10**9,
        "elapsed_seconds": 0.5,
    }
    policy = Policy(origin="policy.yaml")
    return ReplayResult(
        policy, mode="causal", midstream="infer", vpc=None, captures=("some.pcap",), **(given | fields)
    )


def denial(packets: int = 1, *, instance: str = "web-1", peer: str = CLIENT, peer_name: str | None = None) -> Denied:
    return Denied(Service(instance, 6, 8080, None, None), "inbound", peer, peer_name, "no-rule", packets, 60 * packets)


def denying(*kinds: Denied, **fields: Any) -> ReplayResult:
    packets = sum(kind.packets for kind in kinds)
    verdicts = dict.fromkeys(VERDICTS, 0) | {"deny": packets}
    given = {"packets": packets, "verdicts": verdicts, "reasons": {"no-rule": packets}, "kinds": kinds_of(kinds)}
    return result(**(given | fields))


def rule(rule_id: str, group: str, packets: int) -> RuleHits:
    return RuleHits(Rule(rule_id, "inbound", 4), group, packets // 2, packets, packets * 100)


def test_the_shop_in_the_order_of_what_matters() -> None:
    text = text_report(replay(*SHOP[:1], SHOP[1:]))
    order = [
        "would break", " allow ", " deny ", "Would break", "nobody answered: ", "not served by the instance",
        "Rules: 8 of 9 were hit", "Connections", "began before the capture", "First packet", "Last packet",
        "cannot show", "packets/s",
    ]  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    never = "Never hit: inbound tcp/22 from address group administrators, IPv4 (web-ssh in web)"
    assert never in " ".join(text.split())
    assert "  2  web-1 -> db-1: tcp/5432 (refused: RST or ICMP unreachable)" in text
    assert "  1  198.51.100.7 -> web-2: tcp/80 (no answer)" in text
    assert "  1  db-1 -> 198.51.100.53: tcp/53 (no-rule)" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text and text.endswith("\n") and not any(line != line.rstrip() for line in text.splitlines())


def test_the_report_is_the_same_every_time() -> None:
    # The tables behind it have a random hash key.
    reports = set()
    for _ in range(5):
        found = replay(SHOP[0], [SHOP[1]])
        found.elapsed_seconds = 1.0
        reports.add(text_report(found))
    assert len(reports) == 1


def test_colours_change_nothing_but_colours() -> None:
    """SPEC 10.19."""
    found = replay(SHOP[0], [SHOP[1]])
    coloured = text_report(found, colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == text_report(found)


def test_nothing_denied_is_said() -> None:
    assert "Nothing was denied" in text_report(result())


def test_the_rest_of_a_long_list_is_counted_and_how_to_see_it_is_said() -> None:
    kinds = [denial(2, instance=f"web-{n}", peer=f"192.0.2.{n}") for n in range(TOP + 3)]
    text = text_report(denying(*kinds), by="instance", top=TOP)
    assert "and 3 more pairs (6 packets): --top 13 lists all" in text
    assert len([line for line in text.splitlines() if "-> web-" in line]) == TOP
    found = denying(*kinds, kinds=kinds_of(kinds, others=7))
    text = text_report(found, by="instance", top=1)
    assert "  7  other instances -> other addresses" in text and "and 13 more pairs (26 packets)" in text
    assert "and 4 more pairs (8 packets)" in text_report(found, by="instance", top=TOP)
    broken = [Broken(kind.service, "inbound", kind.peer, None, "no-rule", 2) for kind in kinds]
    text = text_report(result(kinds=kinds_of(broken=broken)), by="instance", top=TOP)
    assert "and 3 more pairs (6 connections)" in text
    unanswered = [Unanswered(Service(f"web-{n}", 6, 80, None, None), "silent", 1) for n in range(TOP + 1)]
    text = text_report(result(kinds=kinds_of(unanswered=unanswered)), by="instance", top=TOP)
    assert "and 1 more pair (1 connection): --top 11 lists all" in text


def some_of(usual: Sequence[T], exhaustive: Sequence[T]) -> Sequence[T]:
    return exhaustive if EXHAUSTIVE else usual


def large(rng: np.random.Generator) -> tuple[str, list[bytes]]:
    """A policy and traffic of which the most has rows of its own. Nearly half of what is denied was answered."""
    groups = [f"group-{n}-of-{rng.choice(('web', 'a-team-with-a-long-name', 'x'))}" for n in range(30)]
    hosts = [f"10.{n // 200}.{n % 200}.7" for n in range(150)]
    lines = ["version: 1", "security_groups:"]
    for name in groups:
        rules = [
            f"{{direction: inbound, protocol: tcp, ports: {port}-98, source: {rng.choice([*groups, '10.0.0.0/8'])}}}"
            for port in rng.integers(1, 99, 12).tolist()
        ]
        lines += [f"  - {{name: {name}, rules: [{', '.join(rules)}, {{direction: outbound, protocol: all}}]}}"]
    lines += ["instances:"]
    for n, host in enumerate(hosts):
        of = rng.choice(groups, int(rng.integers(1, 4)), replace=False).tolist()
        lines += [f"  - {{name: host-{n}, addresses: [{host}], security_groups: [{', '.join(of)}]}}"]
    frames = []
    for n, answer in enumerate(rng.choice(("SA", "RA", ""), some(400, 3000)).tolist()):
        client, server = rng.choice([*hosts, "192.0.2.1", "198.51.100.1"], 2, replace=False).tolist()
        port = int(rng.integers(1, 99))
        frames.append(ethernet(ip(client, server, tcp(1024 + n, port, "S"))))
        if answer:
            frames.append(ethernet(ip(server, client, tcp(port, 1024 + n, answer))))
    return "\n".join(lines), frames


@pytest.mark.parametrize("seed", range(some(1, 10)))
def test_what_is_cut_is_counted_and_can_be_had_at_every_width(tmp_path: Path, seed: int) -> None:
    """SPEC 10.19, 10.24."""
    rng = np.random.default_rng(20261127 + seed)
    text, frames = large(rng)
    found = replay(parse_policy(text), write_capture(tmp_path, *frames))
    totals: dict[str, int] = {}
    for width in some_of((40, 60), (40, 45, 52, 60, 70, 80, 120)):
        for by in some_of(("group", "rule"), BY):
            report = text_report(found, width=width, by=by)
            print(seed, width, by, report, sep="\n")
            for heading, listed, left, option in lists(report):
                total = sum(listed) + left
                assert totals.setdefault(heading, total) == total and (option > 0) == (left > 0)
                assert len(listed) <= TOP
            assert " of 390 were hit" in " ".join(report.split())
    assert len(totals) == 4 and min(totals.values()) > 10
    for by in some_of(("group",), BY):
        for heading, _, _, option in lists(text_report(found, by=by)):
            if option:
                every = {told[0]: told for told in lists(text_report(found, by=by, top=option))}
                assert every[heading][2] == 0 and len(every[heading][1]) <= option, (by, heading, option)


def lists(report: str) -> list[tuple[str, list[int], int, int]]:
    """Parse each list: its heading's beginning, its rows' counts, the amounts left out, and the option for all rows."""
    found = []
    for section in report.split("\n\n"):
        text = " ".join(section.split())
        if begins := re.match("Would break|Denied pack|Allowed by |Allowed", text):
            # An amount stands alone if the names behind it are too long.
            rows = [number(each) for each in re.findall(r"^ {2,4}([\d,]+)(?:  \S|$)", section, re.M)]
            left = re.search(r"more (?:pair|row)s? \(([\d,]+) (?:connection|packet)s?\): --top (\d+) lists all", text)
            found.append((begins[0].lower(), rows, *(map(number, left.groups()) if left is not None else (0, 0))))
    return found


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_groups_come_with_most_connections_first() -> None:
    """SPEC 10.24. By rule."""
    rules = [rule("a-1", "a", 6), rule("b-1", "b", 8), rule("c-1", "c", 4), rule("c-2", "c", 6), rule("d-1", "d", 0)]
    text = text_report(result(rules=rules), by="rule")
    assert re.findall(r"B  inbound all from 0.0.0.0/0 \((\w-\d) in \w\)$", text, re.M) == ["c-2", "c-1", "b-1", "a-1"]


def test_what_was_denied_without_an_address_may_have_been_answered() -> None:
    """SPEC 10.24."""
    broken = [Broken(Service("web-2", 6, 80, None, None), "inbound", CLIENT, None, "no-rule", 3)]
    for answered, reason in (([], "(no-rule)"), (broken, "(no-rule, perhaps answered)")):
        found = denying(denial(2), denial(7), kinds=kinds_of([denial(2)], answered, others=7))
        text = " ".join(text_report(found).split())
        assert f"7 other instances -> other addresses: hopopt {reason}" in text and "malformed" not in text, text
    heading = replay_markdown(found).partition("\n")[0]
    assert heading == "### 3 connections would break, nobody answered 2 denied packets (and perhaps 7 more)"


def test_denials_without_an_instance_are_not_lost() -> None:
    text = text_report(denying(denial(2), verdicts=dict.fromkeys(VERDICTS, 0) | {"deny": 5}))
    assert "3 denied packets without readable addresses (malformed)" in text


def test_the_wrong_policy_is_suspected_when_no_instance_is_seen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = write_policy(tmp_path)
    strangers = write_capture(tmp_path, ethernet(ip(CLIENT, "203.0.113.9", udp(1, 2))))
    assert "is this the right policy" in sgfast(capsys, "replay", policy, strangers).out
    known = write_capture(tmp_path, ethernet(ip(CLIENT, SERVER, udp(1, 2))))
    assert "is this the right policy" not in sgfast(capsys, "replay", policy, known).out


def test_every_rule_is_named_hit_or_not() -> None:
    rules = [rule("a/inbound/1", "a", 4), rule("a/inbound/2", "a", 0), rule("b/inbound/1", "b", 0),
             rule("b/inbound/2", "b", 0), rule("c/inbound/1", "c", 0)]  # fmt: skip
    text = " ".join(text_report(result(rules=rules)).split())
    assert "Rules: 1 of 5 were hit" in text and " 2 4 400 B a/inbound/1 " in text
    assert "Never hit: a/inbound/2, b/inbound/1, b/inbound/2, c/inbound/1" in text
    text = " ".join(text_report(result(rules=rules), top=3).split())
    assert "Never hit: a/inbound/2, b/inbound/1, b/inbound/2 and 1 more rule: --top 4 lists all" in text


@pytest.mark.parametrize("width", [0, 80, 100, 200])
def test_long_names_fit_or_stand_alone(width: int) -> None:
    long = "n" * 64
    text = text_report(
        denying(
            kinds=kinds_of(
                [denial(10**12, instance=long, peer="2001:db8:1111:2222:3333:4444:5555:6666", peer_name=long),
                 denial()],
                unanswered=[Unanswered(Service(long, 58, None, 134, 255), "refused", 10**9)],
            ),
            rules=[rule(f"{long}/inbound/1", long, 10**9), rule(f"{long}/inbound/2", long, 0), rule("x", long, 1)],
            warnings=["word " * 50],
            damaged=Damage("/" + "d/" * 60, 10**12, 10**12, "cause " * 20),
        ),
        width=width,
    )
    for line in text.splitlines():
        assert len(line) <= min(max(width, 80), 120) or long in line or "/d/d/" in line, line


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "\x1b[31mred", "new\nline", "\udcff", "\u202egnp.exe", "a\rb\tc"])
def test_no_name_disturbs_the_screen(name: str) -> None:
    text = text_report(
        replace(
            denying(
                kinds=kinds_of(
                    [denial(instance=name, peer_name=name)],
                    [Broken(Service(name, 6, 80, None, None), "outbound", CLIENT, name, "no-rule", 1)],
                    [Unanswered(Service(name, 6, 80, None, None), "silent", 1)],
                ),
                rules=[rule(name, name, 1), rule(name, name, 0)],
            ),
            policy=Policy(origin=name), vpc=name, captures=(name,) * 5,
            warnings=[name], damaged=Damage(name, 1, 1, "cause"),
        )
    )  # fmt: skip
    assert all(line.isprintable() for line in text.splitlines())
    text.encode("utf-8")
    if name.isprintable():
        assert name in text


def test_warnings_and_damage_are_part_of_the_report() -> None:
    text = text_report(result(warnings=["careful"], damaged=Damage("some.pcap", 24, 7, "the file ends")))
    assert "careful" in text and "some.pcap: damaged at byte 24, packet 7: the file ends" in text


def test_connections_nobody_saw_begin_are_mentioned(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    capture = write_capture(tmp_path, *handshake(1000, 80)[2:], *handshake(1001, 80)[2:])
    inferred = text_report(replay(policy, [capture]))
    assert "2 connections began before the capture" in inferred
    denied = text_report(replay(policy, [capture], midstream="deny"))
    assert "2 denied packets belonged to TCP connections that the filter does not know" in denied
    assert "midstream deny" in denied


def test_the_reference_engine_admits_what_it_does_not_list(tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *mixture())
    text = text_report(replay(policy, [capture], engine="reference"))
    assert "reference engine" in text and "without readable" not in text


def test_services_have_the_names_people_use() -> None:
    for service, name in (
        (Service("x", 6, 8080, None, None), "tcp/8080"),
        (Service("x", 17, 0, None, None), "udp/0"),
        (Service("x", 6, None, None, None), "tcp"),
        (Service("x", 1, None, 8, 0), "icmp echo-request"),
        (Service("x", 1, None, 3, 3), "icmp unreachable/3"),
        (Service("x", 1, None, 200, 1), "icmp type 200/1"),
        (Service("x", 58, None, 129, 0), "icmpv6 echo-reply"),
        (Service("x", 47, None, None, None), "gre"),
        (Service("x", 253, None, None, None), "protocol 253"),
    ):
        assert service_name(service) == name


def test_numbers_and_times() -> None:
    assert [human_bytes(n) for n in (0, 999, 1000, 999_949, 999_950, 10**9, 10**22)] == [
        "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.0 GB", "10000.0 EB"
    ]  # fmt: skip
    assert [human_seconds(s) for s in (0, 0.0123, 1, 119.94, 3600, 90061)] == [
        "0 ms", "12.3 ms", "1.0 s", "119.9 s", "1:00:00 h", "1 d 1:01:01 h"
    ]  # fmt: skip
    assert instant(0) == "1970-01-01 00:00:00.000000"
    assert [instant(-1, n) for n in (0, 3, 9)] == [
        "1969-12-31 23:59:59", "1969-12-31 23:59:59.999", "1969-12-31 23:59:59.999999999"
    ]  # fmt: skip
    for extreme in (-(2**63), 2**63 - 1):
        assert instant(extreme)


def test_check_fits() -> None:
    evil = Finding("SG001", "evil\x1b message " * 20, group="g\n", rule="r\x1b" * 5)
    silent = Finding("SG008", "nothing", group="g", instances=("i\x1b", "j"), instance_count=2)
    findings = (evil, silent, *[silent] * 200)
    checked = CheckResult(Policy(origin="evil\x1b.yaml"), SIZES, findings, ("One thing was left out.",))
    text = to_text(check_document(checked, {}))
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text and "1.0 GB" in text
    assert "and 102 more findings" in text and "One thing was left out" in text
    assert "SG008  note      i\\x1b: nothing" in text

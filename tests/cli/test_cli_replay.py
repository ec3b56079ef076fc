"""``sgfast replay``, ``check`` and ``template``: what they print where, and their exit statuses."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from captures import enhanced, interface, option, section
from command import (
    CLIENT,
    SERVER,
    SHOP,
    environment,
    handshake,
    mixture,
    process,
    sgfast,
    shell,
    valid,
    write_capture,
    write_policy,
)
from frames import ethernet, ip, udp

from sgfast.report import SCHEMAS, schema

Capsys = pytest.CaptureFixture[str]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replay_json(capsys: Capsys, *arguments: object) -> dict[str, Any]:
    outcome = sgfast(capsys, "replay", "--format", "json", *arguments)
    assert outcome.status == 0
    found: dict[str, Any] = valid("summary", json.loads(outcome.out))
    return found


# Agreement between the outputs


@pytest.mark.parametrize("options", [(), ("--mode", "verbatim"), ("--midstream", "deny")])
def test_totals_are_those_of_the_verdict_lines(capsys: Capsys, tmp_path: Path, options: tuple[str, ...]) -> None:
    target = tmp_path / "verdicts"
    found = replay_json(capsys, *SHOP, "--verdicts", target, *options)
    packets = [valid("verdict", line) for line in lines(target)]
    assert [packet["packet"] for packet in packets] == list(range(1, found["packets"] + 1))
    counted = Counter(packet["verdict"] for packet in packets)
    assert {word: n for word, n in found["verdicts"].items() if n} == counted
    reasons = Counter(packet["reason"] for packet in packets)
    del reasons[None]
    assert found["reasons"] == reasons
    hits = Counter(
        side["rule"] for packet in packets for side in (packet["egress"], packet["ingress"]) if side and side["rule"]
    )
    assert {rule["rule"]: rule["packets"] for rule in found["rules"] if rule["packets"]} == hits
    assert (packets[0]["time"], packets[-1]["time"]) == (found["first_time"], found["last_time"])


def test_totals_are_those_of_the_connection_lines(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 10.2, 10.7."""
    target = tmp_path / "connections"
    found = replay_json(capsys, *SHOP, "--connections", target)
    flows = [valid("connection", line) for line in lines(target)]
    began = Counter(
        "denied" if flow["verdict"] == "deny" else "inferred" if flow["reason"] == "inferred" else "opened"
        for flow in flows
    )
    assert began == {word: n for word, n in found["connections"].items() if n}


def test_the_reference_engine_prints_the_same(capsys: Capsys, tmp_path: Path) -> None:
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    # Without the last, which is exempt: the data plane does not spell the ports of those.
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *mixture())
    one = replay_json(capsys, policy, capture, "--verdicts", fast)
    other = replay_json(capsys, policy, capture, "--verdicts", slow, "--engine", "reference")
    assert fast.read_bytes() == slow.read_bytes()
    for found in (one, other):
        del found["elapsed_seconds"], found["packets_per_second"]
    lists = ("would_break", "denied", "cannot_tell", "unanswered", "allowed")
    assert all(one.pop(name) and other.pop(name) == [] for name in lists if name != "unanswered")
    assert one == other


def test_several_captures_are_one_replay(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    first = write_capture(tmp_path, *handshake(1000, 80)[:2], name="a")
    second = write_capture(tmp_path, *handshake(1000, 80)[2:], name="b", first_second=1001)
    target = tmp_path / "verdicts"
    replay_json(capsys, policy, first, second, "--verdicts", target)
    assert [(line["packet"], line["reason"]) for line in lines(target)] == [
        (1, "rule"), (2, "established"), (3, "established")
    ]  # fmt: skip


# Exit statuses and streams


def test_denied_packets_fail_only_on_request(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    denied = write_capture(tmp_path, *handshake(1000, 8080), name="denied")
    allowed = write_capture(tmp_path, *handshake(1000, 80), name="allowed")
    assert sgfast(capsys, "replay", policy, denied).status == 0
    assert sgfast(capsys, "replay", policy, denied, "--fail-on", "denied").status == 1
    assert sgfast(capsys, "replay", policy, allowed, "--fail-on", "denied").status == 0


def test_damage_is_3_with_all_that_came_before(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 8080))
    capture.write_bytes(capture.read_bytes()[:-5])
    target = tmp_path / "verdicts"
    outcome = sgfast(capsys, "replay", policy, capture, "--fail-on", "denied", "--verdicts", target, "--format", "json")
    assert outcome.status == 3
    found = valid("summary", json.loads(outcome.out))
    assert found["packets"] == 2 == len(lines(target))
    assert (found["damaged"]["file"], found["damaged"]["packet"]) == (str(capture), 3)
    assert str(capture) in outcome.one_line()
    text = sgfast(capsys, "replay", policy, capture)
    assert text.status == 3 and "Damage" in text.out and str(capture) in text.one_line()


def test_captures_that_damage_leaves_unread_are_named(capsys: Capsys, tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), tmp_path / "captures"
    folder.mkdir()
    names = [
        str(write_capture(folder, *handshake(1000, 80), name=f"{n}.pcap", first_second=1000 + 10 * n)) for n in range(9)
    ]
    Path(names[1]).write_bytes(Path(names[1]).read_bytes()[:-5])
    warning = f"not read, because a capture before is damaged: {', '.join(names[2:7])} and 2 more"
    for captures in (names, [folder], [*names, "--merge"]):
        outcome = sgfast(capsys, "replay", policy, *captures, "--json")
        found = json.loads(outcome.out)
        assert outcome.status == 3 and found["packets"] == 5 and found["damaged"]["file"] == names[1]
        assert found["warnings"] == [warning] and f"sgfast: warning: {warning}\n" in outcome.err
    # The same holds for captures that overlap.
    overlapping = write_capture(tmp_path, *handshake(2000, 80) * 9999, name="long.pcap")
    outcome = sgfast(capsys, "replay", policy, overlapping, names[1], "--merge", "--json")
    assert json.loads(outcome.out)["warnings"][0] == f"not read, because a capture before is damaged: {overlapping}"


def test_a_capture_without_packets(capsys: Capsys, tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path)
    found = replay_json(capsys, policy, capture)
    assert found["packets"] == 0 and found["first_time"] is None and found["last_time"] is None
    target = tmp_path / "verdicts"
    outcome = sgfast(capsys, "replay", policy, capture, "--verdicts", target)
    assert outcome.status == 0 and target.read_bytes() == b""
    assert outcome.out.startswith("Cannot tell: the captures have no packets\n")


def test_standard_input_for_either(tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *handshake(1000, 80))
    for arguments, file in (((policy, "-"), capture), (("-", capture), policy)):
        with open(file) as given:
            outcome = process("replay", *arguments, "--format", "json", stdin=given)
        assert outcome.status == 0 and json.loads(outcome.out)["packets"] == 3 and outcome.err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_standard_output_holds_nothing_but_lines(capsys: Capsys, form: str) -> None:
    """SPEC 10.1, 10.19."""
    outcome = sgfast(capsys, "replay", *SHOP, "--verdicts", "-", "--format", form)
    packets = [valid("verdict", json.loads(line)) for line in outcome.out.splitlines()]
    if form == "json":
        assert valid("summary", json.loads(outcome.err))["packets"] == len(packets)
    else:
        assert f"{len(packets)} packets" in outcome.err


def test_dev_stdout_is_standard_output(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with open(target, "w") as out:
        outcome = process("replay", *SHOP, "--verdicts", "/dev/stdout", stdout=out)
    assert outcome.status == 0 and "packets" in outcome.err
    assert [line["packet"] for line in lines(target)] == list(range(1, len(lines(target)) + 1))


def test_pipes_are_written_through(tmp_path: Path) -> None:
    policy, capture = write_policy(tmp_path), write_capture(tmp_path, *mixture())
    outcome = shell(
        'mkfifo "$fifo"; cat "$fifo" & $sgfast replay "$policy" "$capture" --connections "$fifo" >/dev/null; '
        'status=$?; wait; test -p "$fifo" && exit $status',
        fifo=tmp_path / "fifo", policy=policy, capture=capture,
    )  # fmt: skip
    assert outcome.status == 0 and outcome.err == ""
    assert all(valid("connection", json.loads(line)) for line in outcome.out.splitlines())
    outcome = shell(
        '$sgfast replay "$policy" "$capture" --verdicts >(cat >&2) >/dev/null; wait', policy=policy, capture=capture
    )
    assert len(outcome.err.splitlines()) == len(mixture())


def test_warnings_are_on_standard_error_and_in_the_report(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    capture = write_capture(tmp_path, *handshake(1000, 80))
    earlier = write_capture(tmp_path, ethernet(ip(CLIENT, SERVER, udp(1, 2))), name="earlier", first_second=10)
    outcome = sgfast(capsys, "replay", policy, capture, earlier, "--format", "json")
    (warning,) = json.loads(outcome.out)["warnings"]
    assert outcome.one_line() == f"sgfast: warning: {warning}"
    assert "Warning" in sgfast(capsys, "replay", policy, capture, earlier).out


# Output files


@pytest.mark.parametrize("seconds", [-(2**40), 2**40])
def test_times_the_clock_does_not_reach_are_told(capsys: Capsys, tmp_path: Path, seconds: int) -> None:
    policy, capture = write_policy(tmp_path), tmp_path / "far.pcapng"
    records = b"".join(enhanced(frame, ticks=n) for n, frame in enumerate(handshake(1000, 80)))
    capture.write_bytes(section() + interface(options=option(14, struct.pack("<q", seconds))) + records)
    for arguments in (
        ("replay", policy, capture), ("replay", policy, capture, "--engine", "reference"),
        ("diff", policy, policy, capture), ("check", policy, "--traffic", capture),
    ):  # fmt: skip
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 0 and "from 1823-11-12T00:06:22Z to 2116-02-20T23:53:38Z" in outcome.one_line()
    assert sgfast(capsys, "replay", policy, write_capture(tmp_path, *handshake(1000, 80))).err == ""


def test_an_old_file_is_replaced_and_keeps_its_permissions(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 11.2."""
    target, link = tmp_path / "verdicts", tmp_path / "link"
    target.write_text("old\n" * 10_000)
    target.chmod(0o640)
    link.symlink_to(target)
    assert sgfast(capsys, "replay", *SHOP, "--verdicts", link).status == 0
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o640
    assert lines(target)[0]["packet"] == 1
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_new_file_has_the_permissions_of_the_umask(capsys: Capsys, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert sgfast(capsys, "replay", *SHOP, "--verdicts", tmp_path / "verdicts").status == 0
    finally:
        os.umask(before)
    assert (tmp_path / "verdicts").stat().st_mode & 0o777 == 0o640


def test_dev_null_stays_a_device(capsys: Capsys) -> None:
    outcome = sgfast(capsys, "replay", *SHOP, "--verdicts", "/dev/null", "--connections", "/dev/null")
    assert outcome.status == 0 and outcome.err == "" and Path("/dev/null").is_char_device()


# check, template, help


def test_check_says_what_was_compiled(capsys: Capsys) -> None:
    found = valid("check", json.loads(sgfast(capsys, "check", SHOP[0], "--format", "json").out))
    assert (found["groups"], found["rules"], found["instances"], found["vpcs"]) == (2, 9, 3, 1)
    assert found["rule_tables"] == 4 and found["bit_vector_tables"] == 0 and found["bytes"] > 0
    text = sgfast(capsys, "check", SHOP[0])
    assert text.status == 0 and text.err == ""
    words = " ".join(text.out.split())
    assert "2 security groups, 9 rules, 3 instances, 1 VPC. The rules tell 8 classes of addresses and 10 " in words
    assert "Compiled, they are 4 rule tables in " in words


def test_check_prints_warnings_on_standard_error(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(
        tmp_path,
        "version: 1\nsecurity_groups: [{name: web}]\ninstances: [{name: a, addresses: [10.0.0.1]}]\n",
    )
    outcome = sgfast(capsys, "check", policy, "--format", "json")
    assert outcome.status == 0
    assert outcome.one_line() == f"sgfast: warning: {json.loads(outcome.out)['warnings'][0]}"


def test_an_address_in_two_vpcs_needs_a_vpc(capsys: Capsys, tmp_path: Path) -> None:
    policy = write_policy(
        tmp_path,
        "version: 1\nvpcs: [{name: a}, {name: b}]\nsecurity_groups: [{name: g}]\ninstances:\n"
        "  - {name: one, vpc: a, addresses: [10.0.0.5], security_groups: [g]}\n"
        "  - {name: two, vpc: b, addresses: [10.0.0.5], security_groups: [g]}\n",
    )
    capture = write_capture(tmp_path, *handshake(1000, 80))
    refused = sgfast(capsys, "replay", policy, capture)
    assert refused.status == 2 and "--vpc" in refused.one_line()
    # No error of the document (SPEC 7.1), but good to know.
    checked = sgfast(capsys, "check", policy)
    assert checked.status == 0 and "--vpc" in checked.err
    for arguments in (("check", policy), ("replay", policy, capture)):
        assert sgfast(capsys, *arguments, "--vpc", "a").status == 0
        unknown = sgfast(capsys, *arguments, "--vpc", "c")
        assert unknown.status == 2 and "'c'" in unknown.one_line()


def test_templates_are_documents(capsys: Capsys, tmp_path: Path) -> None:
    """SPEC 8.3, 10.18."""
    names = sgfast(capsys, "template").out.split()
    assert "general-purpose-web-server" in names and sgfast(capsys, "template", "--list").out.split() == names
    for name in names:
        policy = write_policy(tmp_path, "version: 1\n" + sgfast(capsys, "template", name).out)
        assert sgfast(capsys, "check", policy).status == 0
    unknown = sgfast(capsys, "template", "web")
    assert unknown.status == 2 and "unknown template 'web'" in unknown.one_line() and unknown.out == ""


def test_help_names_every_option_and_needs_no_numpy() -> None:
    """SPEC 10.6, 10.19."""
    code = (
        "import sys; from sgfast.__main__ import run; assert run(['replay', '--help']) == 0; "
        "assert not {'numpy', 'yaml', 'rich'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    options = ("vpc", "mode", "midstream", "verdicts", "connections", "write", "write-denied", "format", "fail-on")
    for name in (*options, "engine"):
        assert f"--{name}" in found.stdout


def test_version(capsys: Capsys) -> None:
    """SPEC 10.18."""
    outcome = sgfast(capsys, "--version")
    assert outcome.status == 0 and outcome.out.startswith("sgfast ")


def test_schemas_are_schemas() -> None:
    """SPEC 10.1."""
    from jsonschema import Draft202012Validator

    for name in SCHEMAS:
        Draft202012Validator.check_schema(schema(name))
    with pytest.raises(KeyError):
        schema("../summary")

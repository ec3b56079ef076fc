"""Logs of captured packets say of each connection what the packets say, as far as logs can (SPEC 10.30)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import ROOT
from effort import some
from flow_log_writer import (
    AWS_V2,
    AWS_V5,
    Logged,
    write_aws,
    write_cloudwatch,
    write_neutron,
    write_otc,
    write_parquet,
)
from flow_logs import without
from logged_conversations import INSTANCES, Connections, Opened, Teller, a_policy, captured, filtered, write_capture
from logged_packets import ACK, FIN, RST, SYN, TCP, RawPacket, parsed
from zeek_log_writer import write_zeek_json, write_zeek_tsv

from sgfast import diff, replay
from sgfast.clouds.loading import parse_policy
from sgfast.policy.model import Policy
from sgfast.questions.replaying import ReplayResult
from sgfast.rows.verdicts import REASONS
from sgfast.traffic.flow_logs.log_records import LogRecords

Writer = Callable[[Path, Sequence[RawPacket], Logged], Any]


@dataclass(frozen=True)
class Form:
    write: Writer
    #: Whether records have the packets' own addresses, not only the interface's primary one; TCP flags; answers.
    own_addresses: bool = True
    flags: bool = False
    answers: bool = True
    #: Whether it has records of what the cloud rejected; of every protocol; of TCP that began before the log.
    actions: bool = True
    all_protocols: bool = True
    older: bool = True


def _bytes(write: Callable[[Sequence[RawPacket], Logged], bytes]) -> Writer:
    return lambda path, packets, logged: path.write_bytes(write(packets, logged))


FORMS = {
    "aws-v2": Form(_bytes(lambda packets, logged: write_aws(packets, INSTANCES, logged)), own_addresses=False),
    "aws-flags": Form(
        _bytes(lambda packets, logged: write_aws(packets, INSTANCES, logged, fields=(*AWS_V2, "tcp-flags"))),
        own_addresses=False, flags=True,
    ),
    "aws-v5": Form(_bytes(lambda packets, logged: write_aws(packets, INSTANCES, logged, fields=AWS_V5)), flags=True),
    "parquet": Form(
        lambda path, packets, logged: write_parquet(path, packets, INSTANCES, logged, AWS_V5), flags=True
    ),
    "cloudwatch": Form(
        _bytes(lambda packets, logged: write_cloudwatch(packets, INSTANCES, logged)), own_addresses=False
    ),
    "otc": Form(_bytes(lambda packets, logged: write_otc(packets, INSTANCES, logged))),
    "neutron": Form(
        _bytes(lambda packets, logged: write_neutron(packets, INSTANCES, logged)), flags=True, answers=False,
        older=False,
    ),
    "zeek-tsv": Form(
        _bytes(lambda packets, logged: write_zeek_tsv(packets, logged.seed)), flags=True, actions=False,
        all_protocols=False,
    ),
    "zeek-json": Form(
        _bytes(lambda packets, logged: write_zeek_json(packets, logged.seed)), flags=True, actions=False,
        all_protocols=False,
    ),
}  # fmt: skip
HAS_PORTS = (6, 17, 132)
#: Protocols in which nothing distinguishes a question from its answer. The log knows more than the capture there: if
#: one end's packet was rejected and the other's accepted, the latter was no answer.
EITHER_CALLS = (47, 50)
CLOUDS = [name for name, form in FORMS.items() if form.actions]


def assert_adds_up(records: LogRecords | None) -> None:
    assert records is not None
    fates = records.judged + records.rejected + sum(records.undecided.values()) + sum(records.left_out.values())
    assert records.read == fates, records


def connections_of(policy: Policy, path: Path, form: Form) -> tuple[dict[Any, set[Opened]], ReplayResult]:
    """Return what a replay says of each connection, in the words that logs of the form have."""
    sink = Connections()
    result = replay(policy, path, flows=sink)

    def worded(opened: Opened) -> Opened:
        if not form.answers:
            return opened._replace(answer="")
        return opened._replace(answer="answered") if opened.answer == "refused" and not form.flags else opened

    return {
        key: {worded(opened) for opened in found} for key, found in sink.found.items()
        if form.all_protocols or key[0] in (1, 6, 17, 58)
    }, result  # fmt: skip


def answers_of(found: set[Opened]) -> dict[tuple[str, str], set[str]]:
    """Return the answers by initiator and verdict, without ``silent`` where another attempt was answered."""
    answers = defaultdict(set)
    for initiator, verdict, answer in found:
        answers[initiator, verdict].add(answer)
    return {key: each - {"silent"} or each for key, each in answers.items()}


def without_unknown_openers(found: dict[tuple[str, str], set[str]], is_unknown: bool) -> dict[Any, set[str]]:
    """Return the answers by verdict alone where either end may have opened a connection (SPEC 10.30)."""
    if not is_unknown:
        return found
    by_verdict = defaultdict(set)
    for (_, verdict), answers in found.items():
        by_verdict[verdict] |= answers
    return by_verdict


def pairs_of_unknown_openers(result: ReplayResult) -> set[Any]:
    assert result.openers is not None
    return {
        (protocol, frozenset(str(ip_address(end)) for end in ends)) for *ends, protocol, _ in result.openers.same
    }  # fmt: skip


def setting(seed: int, form: Form, *, older: bool = True) -> tuple[Policy, np.random.Generator, list[RawPacket]]:
    rng = np.random.default_rng(seed)
    policy = parse_policy(json.dumps(a_policy(rng)))
    return policy, rng, captured(rng, Teller(rng, secondary=form.own_addresses, older=older and form.older))


@pytest.mark.parametrize("name", FORMS)
def test_connections_are_those_of_the_capture(name: str, tmp_path: Path) -> None:
    form, seen = FORMS[name], Counter[str]()
    capture, log = tmp_path / "packets.pcap", tmp_path / "log"
    for seed in range(some(3, 300)):
        policy, _, packets = setting(seed, form)
        write_capture(capture, packets)
        form.write(log, packets, Logged(interval_s=(60, 600)[seed % 2], seed=seed))
        truth, _ = connections_of(policy, capture, form)
        told, result = connections_of(policy, log, form)
        assert_adds_up(result.records)
        unknown = pairs_of_unknown_openers(result)
        for key, found in told.items():
            is_unknown = (key[0], frozenset(address for address, _ in key[1])) in unknown and key[0] not in HAS_PORTS
            seen["unknown"] += is_unknown
            if form.answers or key[0] in (6, 17):
                answers, expected = (
                    without_unknown_openers(answers_of(each), is_unknown) for each in (found, truth[key])
                )
                assert answers == expected, f"seed {seed}: {key}"
            else:
                # Without answers, a session that both ends may have opened is the first one's.
                assert found <= truth[key], f"seed {seed}: {key}"
        missing = set(truth) - set(told)
        assert len(missing) <= result.records.undecided_connections, f"seed {seed}: {missing}"
        assert not any(key[0] in HAS_PORTS for key in missing), f"seed {seed}: {missing}"
        seen["told"] += len(told)
        seen["undecided"] += len(missing)
        seen["broken"] += sum(o.verdict == "deny" and o.answer == "answered" for found in told.values() for o in found)
    print(name, seen)
    assert seen["told"] > 30 * some(3, 300) * (1 if form.all_protocols else 0.8) - seen["undecided"]
    assert seen["broken"] > 5 * some(3, 300) or not form.answers


@pytest.mark.parametrize("name", ["aws-v2", "aws-v5", "otc"])
def test_a_sample_of_the_packets_never_turns_a_connection_that_has_ports(name: str, tmp_path: Path) -> None:
    form, seen = FORMS[name], Counter[str]()
    capture, log = tmp_path / "packets.pcap", tmp_path / "log"
    for seed in range(some(3, 300)):
        policy, _, packets = setting(seed, form)
        write_capture(capture, packets)
        form.write(log, packets, Logged(interval_s=(60, 600)[seed % 2], seed=seed, sampled=4))
        truth, _ = connections_of(policy, capture, form)
        told, result = connections_of(policy, log, form)
        assert_adds_up(result.records)
        for key, found in told.items():
            known = {opened[:2] for opened in truth[key]}
            if key[0] in HAS_PORTS:
                assert {opened[:2] for opened in found} <= known, f"seed {seed}: {key}"
                seen["told"] += 1
    print(name, seen)
    assert seen["told"] > 10 * some(3, 300)


def opened_rows(result: ReplayResult | None, icmp: bool) -> set[Any]:
    """Return the kinds of traffic that the policy opens, without the type of ICMP where logs have none."""
    return {
        (row["instance"], row["peer"].tobytes(), row["port_key"] if icmp or not row["has_icmp"] else 0,
         row["protocol"], row["inbound"])
        for row in (() if result is None else result.kinds.rows)
        if row["connections"] and REASONS[row["reason"]] == "rule"
    }  # fmt: skip


@pytest.mark.parametrize("name", CLOUDS)
def test_what_the_cloud_rejected_and_another_policy_opens(name: str, tmp_path: Path) -> None:
    form, seen = FORMS[name], Counter[str]()
    whole, capture, refused, log = (tmp_path / word for word in ("whole", "packets", "refused", "log"))
    for seed in range(some(3, 300)):
        # Without flags, a rejected packet of an older connection may be an attempt.
        policy, rng, packets = setting(seed, form, older=form.flags)
        other = parse_policy(json.dumps(a_policy(rng)))
        packets, blocks = filtered(policy, write_capture(whole, packets), packets)
        write_capture(capture, packets)
        form.write(log, packets, Logged(interval_s=(60, 600)[seed % 2], seed=seed, blocked=blocks))

        same = replay(policy, log, compare_actions=True)
        assert same.actions is not None
        assert_adds_up(same.records)
        if form.answers:
            assert same.actions.disagreeing == 0, f"seed {seed}: {same.actions}"
        seen["agreeing"] += same.actions.agreeing

        attempts = [
            packet for packet, p in zip(packets, parsed(packets), strict=True)
            if any(blocks(p, name, side) for name in INSTANCES for side in ("egress", "ingress"))
            and (p.protocol != TCP or p.flags & (SYN | ACK | FIN | RST) == SYN)
        ]
        result = replay(other, log)
        truth = opened_rows(replay(other, write_capture(refused, attempts)), not form.answers)
        would_open = opened_rows(result.rejected, not form.answers)
        assert would_open <= truth, f"seed {seed}: {would_open - truth}"
        may_be_no_openers = result.records.left_out.get("no-opener", 0)
        assert len(truth - would_open) <= may_be_no_openers, f"seed {seed}: {truth - would_open}"
        assert not any(row[3] in HAS_PORTS for row in truth - would_open), f"seed {seed}"
        seen["would open"] += len(would_open)

        # One rule less: just its connections are denied.
        used = [hits.rule for hits in same.rules if hits.connections and hits.rule.action == "allow"]
        if not used:
            continue
        less = without(policy, used[rng.integers(len(used))])
        compared = replay(less, log, compare_actions=True).actions
        told, answer = connections_of(less, log, form)
        unknown = pairs_of_unknown_openers(answer)
        truth, _ = connections_of(less, capture, form)
        before, _ = connections_of(policy, capture, form)
        allowed = {key: {opened.initiator for opened in found if opened.verdict == "allow"}
                   for key, found in before.items()}  # fmt: skip
        denied, expected = (
            {key for key, found in each.items() if key in told and key[0] not in EITHER_CALLS
             and (key[0], frozenset(address for address, _ in key[1])) not in unknown
             and any(opened.verdict == "deny" and opened.initiator in allowed[key] for opened in found)}
            for each in (told, truth)
        )
        if form.answers:
            assert denied == expected, f"seed {seed}: {denied ^ expected}"
            has_denials = any(opened.verdict == "deny" for found in told.values() for opened in found)
            assert (compared.accepted_denied > 0) == has_denials and compared.rejected_allowed == 0, f"seed {seed}"
        seen["denied without a rule"] += len(denied)

        changed = diff(policy, other, log), diff(policy, other, capture)
        told, truth = (
            {(group.change, group.service.protocol, group.service.port, group.service.instance, group.direction)
             for group in (*each.newly_denied, *each.newly_allowed)} for each in changed
        )
        # The log does not know that rejected packets of older connections are no attempts.
        missing = {row for row in truth - told if row[1] in HAS_PORTS}
        assert len(missing) <= result.records.left_out.get("no-opener", 0), f"seed {seed}: {missing}"
        told = {row for row in told if row[1] not in EITHER_CALLS}
        assert told <= truth, f"seed {seed}: {told - truth}"
        seen["changed"] += len(told)
    print(name, seen)
    assert min(seen["agreeing"], seen["would open"], seen["denied without a rule"], seen["changed"]) > 0


ZEEK_PAIR = [ROOT / "flow-logs/zeek" / name for name in ("vast.example.pcap.gz", "vast.example-pcap.conn.log.gz")]


@pytest.mark.skipif(not ZEEK_PAIR[0].exists(), reason="the corpus of captures and logs is not here")
@pytest.mark.parametrize("rules", [
    [{"direction": "outbound", "protocol": "all"}, {"direction": "inbound", "protocol": "all"}],
    [{"direction": "outbound", "protocol": "tcp", "ports": 22}], [],
], ids=["open", "one port", "closed"])  # fmt: skip
def test_the_log_that_zeek_wrote_of_a_capture(rules: list[dict[str, Any]]) -> None:
    policy = parse_policy(json.dumps({
        "version": 1, "security_groups": [{"name": "g", "rules": rules}],
        "instances": [{"name": "mac", "addresses": ["192.168.168.100"], "security_groups": ["g"]}],
    }))  # fmt: skip
    (truth, of_packets), (told, of_log) = (connections_of(policy, path, FORMS["zeek-tsv"]) for path in ZEEK_PAIR)
    assert told == truth and len(told) == 21
    assert_adds_up(of_log.records)
    assert of_log.records.judged == 23 and of_log.packets == of_packets.packets == 1000

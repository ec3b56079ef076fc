"""The log of random traffic never disagrees with the policy that it was judged by; with another policy it does
(SPEC 10.16).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from effort import some
from flow_logs import CLIENT, DB, POLICY, assert_adds_up, log_of, without
from frames import ethernet, ip, udp, vlan
from traffic import SECOND, Crowd, Traffic, as_capture, drawn

from sgfast.engine import MODES
from sgfast.flow_logs.checking import OTHER_VPC, check_logs
from sgfast.loading import parse_policy
from sgfast.policy.model import Policy
from sgfast.report.flow_log_lines import FORMATS

#: Choices of ``--midstream``, without ``allow``: no cloud allows packets of unknown connections at any time.
MIDSTREAMS = ("infer", "deny")


def opened(policy: Policy) -> Policy:
    """Turn deny rules into rules that allow the same."""
    groups = [
        replace(group, rules=tuple(replace(rule, action="allow") for rule in group.rules))
        for group in policy.security_groups
    ]
    return replace(policy, security_groups=tuple(groups))


def test_no_record_disagrees_with_the_policy_that_made_it(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    @drawn(20261127, some(4, 200))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        capture = as_capture(tmp_path, Crowd(policy, rng, fragments=True).draw(1000))
        for mode in MODES:
            for midstream in MIDSTREAMS:
                form, interval = FORMATS[rng.integers(2)], (1, 60, 600)[rng.integers(3)]
                path, connections = log_of(
                    policy, capture, tmp_path / "flow.log", form, interval, mode=mode, midstream=midstream
                )

                same = check_logs(policy, [str(path)])
                assert_adds_up(same)
                assert same.disagreements == [], f"{mode}, midstream {midstream}, {form}, every {interval} s"
                seen["records"] += same.records
                seen["undecided"] += same.undecided.total()
                used = {side["rule"] for c in connections for side in (c["egress"], c["ingress"]) if side}
                rules = [rule for group in policy.security_groups for rule in group.rules if rule.id in used]
                if rules:
                    gone = rules[rng.integers(len(rules))]
                    seen["rules removed"] += 1
                    seen["removals found"] += check_logs(without(policy, gone), [str(path)]).disagreeing > 0
                seen["openings found"] += check_logs(opened(policy), [str(path)]).disagreeing > 0

    check()
    print(seen)
    assert seen["records"] > some(4500, 200_000)
    assert seen["undecided"] < seen["records"] * 0.09
    # The other removed rules were not needed, as another rule allows the same.
    assert seen["removals found"] > seen["rules removed"] / 2
    assert seen["openings found"] > some(3, 40)


TAGS = {"red": 10, "green": 20, "blue": 30}


def marked(policy: Policy) -> Policy:
    return replace(policy, vpcs=tuple(replace(vpc, vlans=(TAGS[vpc.name],)) for vpc in policy.vpcs))


def tagged(policy: Policy, traffic: Traffic, rng: np.random.Generator) -> Traffic:
    """The packets between two addresses are in the VPC of one of their owners, or in none."""
    chosen: dict[tuple[bytes, ...], int] = {}
    frames = []
    for frame in traffic.frames:
        width, at = {b"\x08\x00": (4, 26), b"\x86\xdd": (16, 22)}.get(frame[12:14], (0, 0))
        if not width or len(frame) < at + 2 * width:
            frames.append(frame)
            continue
        ends = tuple(sorted((frame[at : at + width], frame[at + width : at + 2 * width])))
        if ends not in chosen:
            owners = [
                TAGS[instance.vpc] for instance in policy.instances for network in instance.addresses
                for end in map(ip_address, ends) if end in network
            ]  # fmt: skip
            chosen[ends] = int(rng.choice([*owners, *owners, 0]))
        tag = chosen[ends]
        frames.append(frame[:12] + b"\x81\x00" + tag.to_bytes(2) + frame[12:] if tag else frame)
    longer = [len(new) - len(old) for new, old in zip(frames, traffic.frames, strict=True)]
    lengths = [wire + more for wire, more in zip(traffic.wire_lengths, longer, strict=True)]
    return replace(traffic, frames=frames, wire_lengths=lengths)


def test_no_record_disagrees_where_addresses_were_looked_up_in_the_vpcs_of_packets(tmp_path: Path) -> None:
    """SPEC 7.4: what an instance of another VPC owns is anybody's address there."""
    seen: Counter[str] = Counter()

    @drawn(20261128, some(12, 200))
    def check(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        policy = marked(policy)
        capture = as_capture(tmp_path, tagged(policy, Crowd(policy, rng, fragments=True).draw(1000), rng))
        for mode in MODES:
            form, interval = FORMATS[rng.integers(2)], (1, 60, 600)[rng.integers(3)]
            path, _ = log_of(policy, capture, tmp_path / "flow.log", form, interval, mode=mode)
            checked = check_logs(policy, [str(path)])
            assert_adds_up(checked)
            assert checked.disagreements == [], f"{mode}, {form}, every {interval} s"
            seen["records"] += checked.records
            seen["accepted elsewhere"] += checked.undecided[OTHER_VPC]

    check()
    print(seen)
    assert seen["records"] > some(5000, 80_000) and seen["accepted elsewhere"] > some(50, 1000)


def test_where_the_clock_restarts_the_times_of_a_log_do_not_show_what_came_first(tmp_path: Path) -> None:
    """An exception of SPEC 10.16: a cloud has no such log, and the log does not say that its clock restarted."""
    frames = [
        ethernet(ip(CLIENT, DB, udp(40000, 60000))), ethernet(ip(DB, CLIENT, udp(60000, 40000))),
    ]  # fmt: skip
    policy = parse_policy(POLICY)
    for back, disagreeing in ((0, 0), (60, 0), (61, 2)):
        traffic = Traffic(frames, [1000 * SECOND, (1000 - back) * SECOND], [len(frame) for frame in frames])
        path, _ = log_of(policy, as_capture(tmp_path, traffic), tmp_path / "flow.log", interval=1)
        checked = check_logs(policy, [str(path)])
        assert (checked.records, checked.disagreeing) == (2, disagreeing)


def test_marks_of_a_vpc_that_neither_end_is_in_make_another_verdict(tmp_path: Path) -> None:
    """An exception of SPEC 10.16: the log does not say that a packet was of such a VPC."""
    text = """
version: 1
vpcs: [{name: a}, {name: b}, {name: c}]
peerings: [[a, b], [b, c]]
security_groups:
  - {name: db, rules: [{direction: inbound, protocol: udp, source: web}]}
  - {name: web, rules: [{direction: outbound, protocol: udp}]}
instances:
  - {name: b-db, vpc: b, addresses: [10.1.0.9], security_groups: [db]}
  - {name: c-web, vpc: c, addresses: [10.2.0.9], security_groups: [web]}
"""
    frame = ethernet(vlan(ip("10.2.0.9", "10.1.0.9", udp(40000, 53))))
    for vpc, disagreeing in (("b", 0), ("c", 0), ("a", 1)):
        policy = parse_policy(text.replace(f"name: {vpc}}}", f"name: {vpc}, vlan: 5}}"))
        capture = as_capture(tmp_path, Traffic([frame] * 9, [n * SECOND for n in range(9)], [len(frame)] * 9))
        path, _ = log_of(policy, capture, tmp_path / "flow.log")
        assert check_logs(policy, [str(path)]).disagreeing == disagreeing

"""``sgfast flowlog``: the log of a replay agrees with the policy it used. Without one of its rules, exactly the
connections that needed the rule disagree (SPEC 10.16).
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from command import PCAPS, SHOP, handshake, process, sgfast, valid, write_capture, write_policy
from frames import ethernet, icmp, ip

from sgfast.errors import FlowLogError
from sgfast.flow_logs import Checked, FlowLog, Record, check_logs, checking
from sgfast.flow_logs.records import DEFAULT_FIELDS
from sgfast.policy.document import load_policy, parse_policy
from sgfast.policy.model import AddressGroupPeer, GroupPeer, Policy, Rule
from sgfast.replaying import replay
from sgfast.report.flow_log_lines import FORMATS, FlowLogLines
from sgfast.report.lines import ConnectionLines

PROGRAMS = PCAPS / "programs"
RECORDINGS = [
    (PCAPS / "shop.yaml", PCAPS / "shop.pcap"),
    (PCAPS / "changes" / "policy.yaml", PCAPS / "changes" / "network.pcap"),
    *((path, PROGRAMS / "network.pcap") for path in sorted(PROGRAMS.glob("*.yaml"))),
]
ICMPS = (1, 58)


def log_of(
    policy: Policy, capture: Path, path: Path, form: str = "aws", interval: int = 600
) -> tuple[Path, list[dict[str, object]]]:
    """The log of a replay, and its connections."""
    parts: list[bytes] = []
    flows: list[bytes] = []
    log = FlowLogLines(parts.append, form=form, interval_seconds=interval)
    replay(policy, capture, packets=log, flows=ConnectionLines(flows.append))
    log.close()
    path.write_bytes(b"".join(parts))
    return path, [json.loads(line) for line in b"".join(flows).splitlines()]


def shuffle(path: Path, seed: int) -> None:
    """Clouds do not keep records in order within an interval."""
    print(f"seed {seed}")
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if not line.endswith(b"NODATA\n")]
    random.Random(seed).shuffle(lines)
    path.write_bytes(b"".join(lines))


def assert_adds_up(checked: Checked) -> None:
    outside = checked.out_of_scope.total()
    assert checked.records == checked.agreeing + checked.disagreeing + checked.undecided.total() + outside


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("interval", [1, 600])
@pytest.mark.parametrize(("policy", "capture"), RECORDINGS, ids=lambda path: path.stem)
def test_a_replays_log_agrees_with_its_policy(
    policy: Path, capture: Path, form: str, interval: int, tmp_path: Path
) -> None:
    loaded = load_policy(policy)
    path, _ = log_of(loaded, capture, tmp_path / "flow.log", form, interval)
    for seed in (None, 7, 8):
        if seed is not None:
            shuffle(path, seed)
        checked = check_logs(loaded, [str(path)])
        assert_adds_up(checked)
        assert checked.records > 50
        told = [(d.record.protocol, d.record.sport, d.record.dport) for d in checked.disagreements]
        # Without order, the opener is unknown for protocols without ports.
        assert [ports for ports in told if seed is None or ports[1] != ports[2]] == []
        assert all(why.startswith("ICMP") for why in checked.undecided)
        assert checked.undecided.total() <= 6


# A rule is missing


def matches(policy: Policy, rule: Rule, peer: str, protocol: int, port: int) -> bool:
    address = ip_address(peer)
    if rule.ethertype != address.version or rule.protocol not in (None, protocol):
        return False
    if rule.ports is not None and not any(first <= port <= last for first, last in rule.ports):
        return False
    if isinstance(rule.peer, GroupPeer):
        members = [i for i in policy.instances if rule.peer.name in i.security_groups]
        return any(address in network for member in members for network in member.addresses)
    if isinstance(rule.peer, AddressGroupPeer):
        return any(address in network for network in policy.address_group_by_name[rule.peer.name].addresses)
    return rule.peer is None or address in rule.peer


def allows(policy: Policy, instance: str, direction: str, peer: str, protocol: int, port: int) -> bool:
    groups = policy.instance_by_name[instance].security_groups
    found = [
        rule for name in groups for rule in policy.group_by_name[name].rules
        if rule.direction == direction and matches(policy, rule, peer, protocol, port)
    ]  # fmt: skip
    best = [rule for rule in found if rule.priority == min(rule.priority for rule in found)]
    return bool(best) and all(rule.action == "allow" for rule in best)


def without(policy: Policy, gone: Rule) -> Policy:
    groups = [replace(group, rules=tuple(r for r in group.rules if r is not gone)) for group in policy.security_groups]
    return replace(policy, security_groups=tuple(groups))


def is_plain(record: Record, openers: set[tuple[object, ...]]) -> bool:
    """Connections whose opener a record reveals: not ICMP, and not between ends that may both open, such as NTP
    servers.
    """
    src, dst = str(ip_address(record.src)), str(ip_address(record.dst))
    both = {(src, record.sport, dst, record.dport), (dst, record.dport, src, record.sport)} <= openers
    return record.protocol not in ICMPS and not both and not record.sport == record.dport != 0


def expected(policy: Policy, records: Iterable[Record], openers: set[tuple[object, ...]]) -> set[int]:
    """Lines of plain records that disagree with the policy's verdict on their connection's opener."""
    lines = set()
    for record in records:
        if not is_plain(record, openers):
            continue
        src, dst = str(ip_address(record.src)), str(ip_address(record.dst))
        outbound = src in map(str, _hosts(policy, record.interface))
        ends = (src, record.sport, dst, record.dport)
        if ends not in openers:
            assert (ends[2:] + ends[:2]) in openers
            ends, outbound = ends[2:] + ends[:2], not outbound
        peer = ends[2] if outbound else ends[0]
        direction = "outbound" if outbound else "inbound"
        port = int(str(ends[3]))
        if allows(policy, record.interface, direction, str(peer), record.protocol, port) != record.accepted:
            lines.add(record.line)
    return lines


def _hosts(policy: Policy, instance: str) -> list[object]:
    return [host for network in policy.instance_by_name[instance].addresses for host in network]


@pytest.mark.parametrize(("policy", "capture"), RECORDINGS, ids=lambda path: path.stem)
def test_without_a_rule_exactly_what_needed_it_disagrees(policy: Path, capture: Path, tmp_path: Path) -> None:
    loaded = load_policy(policy)
    path, connections = log_of(loaded, capture, tmp_path / "flow.log")
    records = list(FlowLog(str(path)))
    # For protocols without ports the log has 0.
    openers = {
        (c["initiator"], c["initiator_port"] or 0, c["responder"], c["responder_port"] or 0) for c in connections
    }
    assert expected(loaded, records, openers) == set()
    assert sum(is_plain(record, openers) for record in records) > len(records) / 2
    for group in loaded.security_groups:
        for rule in group.rules:
            changed = without(loaded, rule)
            checked = check_logs(changed, [str(path)])
            assert_adds_up(checked)
            told = {d.record.line for d in checked.disagreements if is_plain(d.record, openers)}
            assert told == expected(changed, records, openers), rule.id


def test_some_rules_are_needed(tmp_path: Path) -> None:
    loaded = load_policy(SHOP[0])
    path, _ = log_of(loaded, Path(SHOP[1]), tmp_path / "flow.log")
    changed = without(loaded, loaded.security_groups[0].rules[0])
    checked = check_logs(changed, [str(path)])
    assert checked.disagreeing > 5
    # The reply direction disagrees too, although the group allows everything out: it replies to what is now denied.
    assert {d.role for d in checked.disagreements} == {"opener", "reply"}
    assert {(d.verdict, d.reason, d.instance) for d in checked.disagreements} == {
        ("deny", "no-rule", "web-1"), ("deny", "no-rule", "web-2")
    }  # fmt: skip


POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}
      - {direction: inbound, protocol: icmp, icmp_type: 8, source: 192.0.2.0/24}
      - {direction: outbound, protocol: all, destination: 0.0.0.0/0}
  - name: db
    rules:
      - {direction: inbound, protocol: tcp, ports: 5432, source: web}
      - {direction: inbound, protocol: udp, ports: 60000}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
  - {name: web-2, addresses: [10.0.0.6], security_groups: [web]}
  - {name: db-1, addresses: [10.0.1.9], security_groups: [db]}
"""


def check(tmp_path: Path, *lines: str, policy: str = POLICY, header: str = "") -> Checked:
    path = tmp_path / "some.log"
    path.write_text("".join(f"{line}\n" for line in ((header, *lines) if header else lines)))
    return check_logs(parse_policy(policy), [str(path)])


def record(
    src: str, dst: str, sport: int = 0, dport: int = 0, protocol: int = 6, action: str = "ACCEPT", *,
    start: int = 1000, seconds: int = 10, interface: str = "eni-1",
) -> str:  # fmt: skip
    return f"2 1 {interface} {src} {dst} {sport} {dport} {protocol} 3 180 {start} {start + seconds} {action} OK"


CLIENT, WEB, DB = "198.51.100.7", "10.0.0.5", "10.0.1.9"


def told(checked: Checked) -> list[tuple[int, str, str]]:
    assert_adds_up(checked)
    return [(d.record.line, d.role, d.reason) for d in checked.disagreements]


@pytest.mark.parametrize("turn", [False, True])
def test_a_reply_needs_its_opener_in_the_log(turn: bool, tmp_path: Path) -> None:
    # 8443 is closed but all outbound traffic is allowed, so a record read as an opener from web-1 would agree.
    there, back = record(CLIENT, WEB, 50000, 8443), record(WEB, CLIENT, 8443, 50000)
    checked = check(tmp_path, *((back, there) if turn else (there, back)))
    assert [reason for _, _, reason in told(checked)] == ["no-rule", "no-rule"]
    there, back = record(CLIENT, WEB, 50000, 443), record(WEB, CLIENT, 443, 50000)
    assert told(check(tmp_path, *((back, there) if turn else (there, back)))) == []


def test_a_reply_after_the_timeout_is_an_opener(tmp_path: Path) -> None:
    # db-1 may be connected to, but may not connect to anyone.
    ask, answer = record(CLIENT, DB, 50000, 60000, 17), record(DB, CLIENT, 60000, 50000, 17, start=1100)
    assert told(check(tmp_path, ask, answer)) == []
    late = record(DB, CLIENT, 60000, 50000, 17, start=1010 + 182)
    assert told(check(tmp_path, ask, late)) == [(2, "opener", "no-rule")]


def test_a_log_that_begins_in_the_middle_goes_by_ports(tmp_path: Path) -> None:
    reply = record(DB, WEB, 5432, 40000, interface="db-1")
    assert told(check(tmp_path, reply)) == []
    other = record(CLIENT, WEB, 50000, 443)
    later = record(DB, WEB, 5432, 40000, interface="db-1", start=5000)
    assert told(check(tmp_path, other, later)) == [(2, "opener", "no-rule")]


def test_an_interface_is_told_by_what_its_records_have_in_common(tmp_path: Path) -> None:
    both = record(WEB, DB, 40000, 5432, interface="eni-a")
    assert check(tmp_path, both).undecided.total() == 1
    denied = record(WEB, DB, 40000, 22, interface="eni-db")
    checked = check(tmp_path, record(CLIENT, DB, 1, 1, action="REJECT", interface="eni-db"), denied)
    assert told(checked) == [(2, "opener", "no-rule")]
    checked = check(tmp_path, record("10.0.0.6", DB, 40000, 5432, interface="eni-db"), denied)
    assert checked.undecided.total() == 1 and told(checked) == [(2, "opener", "no-rule")]
    # At web-1 the same packets are allowed.
    assert told(check(tmp_path, record(WEB, DB, 40000, 22, interface="web-1"))) == []
    assert told(check(tmp_path, record(WEB, DB, 40000, 22, interface="db-1"))) == [(1, "opener", "no-rule")]
    assert check(tmp_path, record(CLIENT, WEB, 1, 1, interface="db-1")).out_of_scope.total() == 1


def test_rejections_that_no_rule_was_asked_about(tmp_path: Path) -> None:
    wanted = record(CLIENT, WEB, 50000, 443, action="REJECT")
    assert told(check(tmp_path, wanted)) == [(1, "opener", "rule")]
    # Next to accepted packets, it belongs to an expired connection.
    assert told(check(tmp_path, wanted, record(CLIENT, WEB, 50000, 443))) == []
    late = record(WEB, CLIENT, 443, 50000, action="REJECT")
    assert check(tmp_path, late).undecided.total() == 1
    # A rejected packet would not have been answered.
    asked = record(CLIENT, WEB, 50000, 40000, action="REJECT")
    assert told(check(tmp_path, record(WEB, CLIENT, 40000, 50000, action="REJECT"), asked)) == []
    assert check(tmp_path, record(CLIENT, WEB, 0, 0, action="REJECT")).undecided.total() == 0
    assert check(tmp_path, record(WEB, CLIENT, 0, 0, action="REJECT")).undecided.total() == 1


def test_icmp_has_no_types_in_a_record(tmp_path: Path) -> None:
    ping, pong = record("192.0.2.1", WEB, protocol=1), record(WEB, "192.0.2.1", protocol=1)
    assert told(check(tmp_path, ping, pong)) == []
    stranger = record(CLIENT, WEB, protocol=1), record(WEB, CLIENT, protocol=1)
    assert told(check(tmp_path, *stranger)) == [(1, "opener", "no-rule"), (2, "reply", "no-rule")]
    # One-way ICMP may be an error if there is a connection; without one, it cannot be.
    assert check(tmp_path, record(CLIENT, WEB, 50000, 443), stranger[0]).undecided.total() == 1
    assert told(check(tmp_path, stranger[0])) == [(1, "opener", "no-rule")]
    assert check(tmp_path, record("192.0.2.1", WEB, protocol=1, action="REJECT")).undecided.total() == 1


def test_a_header_names_other_fields_and_flags_tell_who_opened(tmp_path: Path) -> None:
    header = "tcp-flags dstport srcport action end start dstaddr srcaddr protocol flow-direction"
    # Both ports look like service ports: without flags, the earlier record would count as the opener's.
    back = f"19 9000 443 ACCEPT 1010 1000 {CLIENT} {WEB} 6 egress"
    there = f"3 443 9000 ACCEPT 1010 1000 {WEB} {CLIENT} 6 ingress"
    closed = POLICY.replace("ports: 443", "ports: 444")
    assert told(check(tmp_path, back, there, header=header)) == []
    assert told(check(tmp_path, back, there, header=header, policy=closed)) == [
        (2, "reply", "no-rule"), (3, "opener", "no-rule")
    ]  # fmt: skip
    # The direction field tells whose interface recorded traffic between two instances.
    between = f"2 22 40000 ACCEPT 1010 1000 {DB} {WEB} 6 "
    assert told(check(tmp_path, between + "egress", header=header)) == []
    assert told(check(tmp_path, between + "ingress", header=header)) == [(2, "opener", "no-rule")]
    # A packet without a SYN cannot open a connection.
    assert check(tmp_path, f"4 443 9000 REJECT 1010 1000 {WEB} {CLIENT} 6 ingress", header=header).undecided


def test_unpeered_vpcs_and_dhcp() -> None:
    policy = parse_policy("""
version: 1
vpcs: [{name: a}, {name: b}]
security_groups: [{name: open, template: all-ports-open}]
instances:
  - {name: one, vpc: a, addresses: [10.0.0.1], security_groups: [open]}
  - {name: two, vpc: b, addresses: [10.1.0.1], security_groups: [open]}
""")
    checker = checking._Checker(policy, checking.compile_policy(policy), ())
    one, two = (ip_address(text).packed for text in ("10.0.0.1", "10.1.0.1"))
    checker.take((0, "x"), Record(1, "one", one, two, 40000, 80, 6, 1, 60, 0, 0, True))
    checker.take((0, "x"), Record(2, "one", one, b"\xff" * 4, 68, 67, 17, 1, 60, 0, 0, True))
    result = checker.finish()
    assert [d.reason for d in result.disagreements] == ["vpc-isolated"]
    assert result.out_of_scope.total() == 1


TWINS = """
version: 1
vpcs: [{name: one}, {name: two}]
security_groups:
  - {name: web, rules: [{direction: inbound, protocol: tcp, ports: 443}]}
  - {name: jump, rules: [{direction: inbound, protocol: tcp, ports: 22}]}
instances:
  - {name: web-1, vpc: one, addresses: [10.0.0.5], security_groups: [web]}
  - {name: jump-1, vpc: two, addresses: [10.0.0.5], security_groups: [jump]}
"""


def test_vpcs_that_use_the_same_addresses_are_told_apart_by_vpc(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy, log = write_policy(tmp_path, TWINS), tmp_path / "some.log"
    log.write_text("\n".join([
        record(CLIENT, WEB, 50000, 443, interface="web-1"),
        record(CLIENT, WEB, 50001, 22, interface="jump-1"),
        record(CLIENT, WEB, 50002, 22, interface="eni-x"),
    ]))  # fmt: skip
    outcome = sgfast(capsys, "flowlog", policy, log)
    assert outcome.status == 2 and "overlap: name the VPC" in outcome.one_line()
    told = {}
    for vpc in ("one", "two"):
        found = valid("flowlog", json.loads(sgfast(capsys, "flowlog", policy, log, "--vpc", vpc, "--json").out))
        # Records of the other VPC's instances do not concern this one.
        assert found["out_of_scope"] == {"neither end is the interface's instance": 1}
        told[vpc] = found["agreeing"], [(d["line"], d["instance"], d["verdict"]) for d in found["disagreements"]]
    assert told == {"one": (1, [(3, "web-1", "deny")]), "two": (2, [])}
    outcome = sgfast(capsys, "flowlog", policy, log, "--vpc", "three")
    assert outcome.status == 2 and "unknown VPC 'three'" in outcome.one_line()


def test_little_memory_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded = load_policy(SHOP[0])
    path, _ = log_of(loaded, Path(SHOP[1]), tmp_path / "flow.log", interval=1)
    for name, few in (("MOST_CONVERSATIONS", 2), ("MOST_WAITING", 2), ("MOST_VERDICTS", 2), ("MOST_INTERFACES", 0)):
        monkeypatch.setattr(checking, name, few)
        checked = check_logs(loaded, [str(path)] * 3)
        assert_adds_up(checked)
        assert checked.records + checked.nodata == 3 * len(path.read_text().splitlines())


def test_many_disagreements_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    lines = [record(CLIENT, DB, 40000 + n % 20000, 22, interface="db-1") for n in range(5000)]
    checked = check(tmp_path, *lines)
    assert (checked.disagreeing, checked.packets, checked.bytes) == (5000, 15000, 900_000)
    assert [d.record.line for d in checked.disagreements] == list(range(1, 1001))


# Reading


GOOD = record(CLIENT, WEB, 50000, 443)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("2 1 eni", "has 3 fields, not 14"),
        (GOOD + " more", "has 15 fields, not 14"),
        (GOOD.replace("ACCEPT", "DROP"), "action must be ACCEPT or REJECT, not DROP"),
        (GOOD.replace("OK", "FINE"), "log-status must be OK, NODATA or SKIPDATA, not FINE"),
        (GOOD.replace(" 443 ", " 65536 "), "dstport must be a number up to 65535, not 65536"),
        (GOOD.replace(" 443 ", " ٤٤٣ "), "dstport must be a number"),
        (GOOD.replace(CLIENT, "198.51.100.256"), "srcaddr must be an address"),
        (GOOD.replace(CLIENT, "fe80::1%eth0"), "srcaddr must be an address"),
        (GOOD.replace(CLIENT, "2001:db8::1"), "different IP versions"),
        (GOOD.replace(" 6 ", " 256 "), "protocol must be a number up to 255"),
        (GOOD.replace(" 6 ", " - "), "protocol must be a number up to 255"),
        (GOOD.replace(" 1000 1010 ", " 1000 999 "), "its end, 999, is before its start, 1000"),
        (GOOD.replace(" 3 ", f" {'9' * 5000} "), "packets must be a number"),
        ("\x1b[31m" + GOOD + " x\x00y", "has 15 fields"),
        ("x" * 200_000, "is longer than 65536 bytes"),
    ],
)
def test_a_broken_line_is_told_and_the_rest_is_read(
    line: str, cause: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log, policy = tmp_path / "some.log", write_policy(tmp_path, POLICY)
    log.write_text(f"{GOOD}\n{line}\n\n{GOOD}", encoding="utf-8")
    outcome = sgfast(capsys, "flowlog", policy, log, "--json")
    assert outcome.status == 3
    assert cause in outcome.one_line() and f"{log}: line 2: " in outcome.err
    found = valid("flowlog", json.loads(outcome.out))
    assert (found["records"], found["agreeing"], found["broken_lines"]) == (2, 2, 1)


def test_compressed_logs_and_standard_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, plain = write_policy(tmp_path, POLICY), tmp_path / "plain.log"
    nothing = "2 1 eni-1 - - - - - - - 1431280876 1431280934 - NODATA\n"
    header = " ".join(DEFAULT_FIELDS) + "\n"
    text = header + GOOD + "\n" + nothing + nothing.replace("NODATA", "SKIPDATA")
    plain.write_text(text)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(text.encode()) + gzip.compress(text.encode()))
    outcome = sgfast(capsys, "flowlog", policy, plain, packed, "--json")
    found = json.loads(outcome.out)
    assert (outcome.status, found["records"], found["nodata"], found["skipdata"]) == (0, 3, 3, 3)
    outcome = process("flowlog", policy, "-", "--json", input=text)
    assert (outcome.status, json.loads(outcome.out)["records"]) == (0, 1)
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-20])
    outcome = sgfast(capsys, "flowlog", policy, packed, plain, "--json")
    assert outcome.status == 3 and "the compressed data is damaged" in outcome.one_line()
    assert json.loads(outcome.out)["records"] >= 2


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "is it a flow log?"),
        (b"version: 1\nsecurity_groups: []\n", "is it a flow log?"),
        (b"junk\n" * 100_000, "is it a flow log?"),
        (bytes(10_000_000), "is it a flow log?"),
        (b"srcaddr dstaddr action start end protocol\n", "no field srcport and no dstport"),
        (None, "No such file"),
    ],
)
def test_what_is_no_flow_log_is_refused(
    content: bytes | None, cause: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "x.log"
    if content is not None:
        log.write_bytes(content)
    outcome = sgfast(capsys, "flowlog", write_policy(tmp_path, POLICY), log)
    assert outcome.status == 2 and cause in outcome.one_line()


@pytest.mark.parametrize(
    ("name", "compress", "command"), [("bzip2", bz2.compress, "bzcat"), ("xz", lzma.compress, "xzcat")]
)
def test_another_compression_is_named_with_what_undoes_it(
    name: str, compress: Callable[[bytes], bytes], command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(compress(GOOD.encode()))
    outcome = sgfast(capsys, "flowlog", write_policy(tmp_path, POLICY), log)
    assert outcome.status == 2
    assert outcome.one_line() == (
        f"sgfast: {log}: is {name}-compressed, but flow logs may only use gzip: decompress it first ({command} FILE "
        "| sgfast flowlog POLICY -)"
    )


def test_a_line_without_an_end_ends_reading(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path, POLICY), tmp_path / "x.log"
    assert "is it a flow log?" in sgfast(capsys, "flowlog", policy, "/dev/zero").one_line()
    # A long line is skipped, and reading continues after it.
    line = b"x" * (1 << 20)
    log.write_bytes(GOOD.encode() + b"\n" + line + b"\n" + GOOD.encode() + b"\n")
    outcome = sgfast(capsys, "flowlog", policy, log, "--json")
    assert outcome.status == 3 and json.loads(outcome.out)["records"] == 2
    log.write_bytes(GOOD.encode() + b"\n" + line * 10 + b"\n" + GOOD.encode() + b"\n")
    outcome = sgfast(capsys, "flowlog", policy, log, "--json")
    assert outcome.status == 3 and json.loads(outcome.out)["records"] == 1
    assert f"{log}: line 2: does not end" in json.loads(outcome.out)["damaged"][-1]


def test_noise_never_breaks_the_reader(tmp_path: Path) -> None:
    rng = random.Random(20261125)
    lines = [GOOD, record(WEB, DB, 1, 2, 17, "REJECT"), record("2001:db8::1", "2001:db8::2", 1, 2)] * 5
    whole = "\n".join(lines).encode()
    path = tmp_path / "noise.log"
    refused = 0
    changes: list[Callable[[bytearray], None]] = [
        lambda data: data.__setitem__(rng.randrange(len(data)), rng.randrange(256)),
        lambda data: data.__delitem__(slice(rng.randrange(len(data)), None)),
        lambda data: data.extend(rng.randbytes(rng.randrange(40))),
    ]
    for n in range(600):
        data = bytearray(gzip.compress(whole) if n % 3 == 0 else whole)
        for _ in range(rng.randrange(1, 5)):
            if data:
                rng.choice(changes)(data)
        path.write_bytes(bytes(data))
        try:
            assert_adds_up(check_logs(parse_policy(POLICY), [str(path)]))
        except FlowLogError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused < 500


# The command


def test_the_command_says_what_disagrees(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path, POLICY), tmp_path / "some.log"
    log.write_text(GOOD + "\n" + record(CLIENT, WEB, 50001, 22) + "\n")
    outcome = sgfast(capsys, "flowlog", policy, log)
    assert outcome.status == 0
    assert f"{log}:2: ACCEPT tcp 198.51.100.7:50001 to 10.0.0.5:22, inbound at" in " ".join(outcome.out.split())
    assert sgfast(capsys, "flowlog", policy, log, "--fail-on", "disagreement").status == 1
    found = valid("flowlog", json.loads(sgfast(capsys, "flowlog", policy, log, "--json").out))
    assert [d["line"] for d in found["disagreements"]] == [2]
    log.write_text(GOOD + "\n")
    assert sgfast(capsys, "flowlog", policy, log, "--fail-on", "disagreement").status == 0
    assert sgfast(capsys, "flowlog", "-", "-").status == 2


def test_written_and_read_back_by_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path), tmp_path / "flow.log"
    pings = [ethernet(ip(WEB, CLIENT, icmp(8, 0, 1))), ethernet(ip(CLIENT, WEB, icmp(0, 0, 1)))]
    capture = write_capture(tmp_path, *handshake(40000, 80), *handshake(40001, 8080), *pings)
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    assert len(log.read_text().splitlines()) == 5
    assert sgfast(capsys, "flowlog", policy, log, "--fail-on", "disagreement").status == 0
    policy.write_text(policy.read_text() + "  - {name: idle, addresses: [10.0.0.6], security_groups: [web]}\n")
    assert sgfast(capsys, "replay", policy, capture, "--flow-log", log).status == 0
    found = json.loads(sgfast(capsys, "flowlog", policy, log, "--json").out)
    assert (found["records"], found["nodata"], found["broken_lines"]) == (5, 1, 0)


def test_the_log_that_comes_with_the_recordings_is_what_a_replay_writes(tmp_path: Path) -> None:
    text = Path(SHOP[0]).read_text()
    wanted = text.replace("ports: 80-81, source: 0.0.0.0", 'ports: "80-81,8080", source: 0.0.0.0')
    assert wanted != text
    path, _ = log_of(parse_policy(wanted), Path(SHOP[1]), tmp_path / "flow.log", interval=60)
    assert path.read_bytes() == (PCAPS / "shop.flow.log").read_bytes()

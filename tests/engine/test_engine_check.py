"""``Engine.check`` reads usual arguments in C: it must say, do and refuse what the Python way does (SPEC 5, 9.1)."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np
import pytest
from effort import some
from policy_changes import Changer
from scenario import policy_of
from traffic import Crowd, drawn

from sgfast import Policy
from sgfast.base.errors import AmbiguousAddress, ArgumentError
from sgfast.core.check_one import KEPT_AT_MOST
from sgfast.core.state.snapshot import save_plane
from sgfast.engine import HEADER_DTYPE, MIDSTREAMS, MODES, RESULT_DTYPE, Engine, FrameBatch, header
from sgfast.policy import named_ends
from sgfast.policy.changes import AddInstance, AddRule, Change, ModifyRule, RemoveInstance, RemoveRule
from sgfast.policy.model import Instance, Quotas, Rule, SecurityGroup
from sgfast.rows.verdicts import Verdict

SEED = 20250117
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

OPEN = """
settings: {infrastructure: filtered}
security_groups:
  - name: g
    rules:
      - {direction: inbound, protocol: all}
      - {direction: inbound, ethertype: IPv6, protocol: all}
instances:
  - {name: a, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [g]}
"""


class ReadsNothing:
    """In place of what reads arguments in C: everything goes the Python way."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def check(self, *arguments: Any) -> None:
        return None


def slow(engine: Engine) -> Engine:
    engine._single = ReadsNothing()     # type: ignore[assignment]
    return engine


def outcome(engine: Engine, arguments: dict[str, Any]) -> Verdict | tuple[type, str]:
    given = dict(arguments)
    try:
        return engine.check(given.pop("src"), given.pop("dst"), given.pop("protocol"), **given)
    except Exception as error:
        return type(error), str(error)


def is_read(engine: Engine, **changed: Any) -> bool:
    """Whether an argument is read in C. The packet is judged if so."""
    arguments = {"src": "203.0.113.9", "dst": "10.0.0.5", "protocol": 17, "sport": 1, "dport": 2, "flags": "S",
                 "icmp_type": None, "icmp_code": None, "icmp_id": 0, "time_ns": 0} | changed  # fmt: skip
    return engine._single.check(*arguments.values()) is not None


def state(engine: Engine) -> tuple[Any, ...]:
    """All that packets leave behind; flows only once, as they are taken."""
    while not engine.dataplane.finish():
        pass
    plane = engine.dataplane
    tallies = [(name, rows.tobytes(), lost) for name, (rows, lost) in plane.tallies.items()]
    return plane.counters, plane.rule_counts.tobytes(), plane.take_flows().tobytes(), tallies


# --- The same as the Python way

FLAGS = "FSRPAUEC"


def calls(policy: Policy, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Packets of conversations, as arguments."""
    traffic = Crowd(policy, rng).draw(count)
    headers = np.zeros(count, dtype=HEADER_DTYPE)
    batch = FrameBatch.from_frames(traffic.frames, traffic.times_ns, traffic.wire_lengths)
    Engine(Policy(security_groups=(), instances=())).dataplane.process_frames(batch, None, headers)
    made = []
    for row in headers[headers["family"] > 0]:
        width = 4 if row["family"] == 4 else 16
        src, dst = (ip_address(row[end].tobytes()[:width]) for end in ("src", "dst"))
        flags = "".join(letter for bit, letter in enumerate(FLAGS) if row["tcp_flags"] >> bit & 1)
        made.append({
            "src": str(src), "dst": str(dst), "protocol": int(row["protocol"]), "flags": flags,
            "icmp_id": int(rng.integers(3)), "time_ns": int(row["time_ns"]),
            **({"sport": int(row["sport"]), "dport": int(row["dport"])} if row["has_ports"] else {}),
            **({"icmp_type": int(row["icmp_type"]), "icmp_code": int(row["icmp_code"])} if row["has_icmp"] else {}),
        })  # fmt: skip
    return made


NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "SCTP", 47: "Gre", 136: "UDPLite"}


def reworded(call: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The same packet, or nearly, in other words."""
    call = dict(call)
    for end in ("src", "dst"):
        address = ip_address(call[end])
        ways = [str(address), str(address), address, address.packed, int(address), address.exploded.upper()]
        call[end] = ways[rng.integers(len(ways))]
    if rng.integers(2):
        call["protocol"] = NAMES.get(call["protocol"], call["protocol"])
    if not rng.integers(4):
        call["flags"] = call["flags"].lower() + call["flags"]
    if not rng.integers(4):
        time = EPOCH + timedelta(microseconds=call["time_ns"] // 1000)
        ways = [np.int64(call["time_ns"]), time, time.astimezone(timezone(timedelta(hours=-3)))]
        call["time_ns"] = ways[rng.integers(len(ways))]
    return call


class Text(StrEnum):
    SRC = "10.0.0.5"
    TCP = "tcp"
    SYN = "S"


class Numbered:
    def __index__(self) -> int:
        return 80


NUMBERS = (-1, 0, 1, 255, 256, 65535, 65536, 2**31, 2**63, 2**64, -(2**70), 80.0, "80", None, True, np.int16(7),
           np.uint8(255), Numbered(), b"80", [80], Decimal(80))  # fmt: skip
WRONG: dict[str, tuple[Any, ...]] = {
    "src": (
        "", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.04", "1.2.3.256", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4/32", "1..3.4",
        "1.2.3.", ".1.2.3", "1.2.3.1000", "\u0663.2.3.4", "1.2.3.4\0", "\0", "1.2.3.-4", "+1.2.3.4", "0x1.2.3.4",
        ":", "::", ":::", "1::2::3", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
        "1::3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "12345::", "g::", "::1%eth0", "::1%", "::1.2.3.4", "::ffff:1.2.3.4",
        "1:2:3:4:5:6:1.2.3.4", "::1.2.3.04", ":1", "1:", "1:2:3:4:5:6:7:", "::1:", ":1::", "é::", "::\uff11",
        b"", b"123", b"1234", b"12345", bytes(16), bytearray(4), 0, 1, -1, 2**32 - 1, 2**32, 2**128, True, None, 1.5,
        IPv4Address("10.0.0.5"), IPv6Address("2001:db8::5"), IPv6Address("fe80::1%eth0"), ip_network("10.0.0.5/32"),
        np.uint32(5), Text.SRC, ("1.2.3.4", 24), object,
    ),
    "protocol": ("", "tpc", "TCP", "tCp", Text.TCP, "icmp", "icmp6", "ICMPV6", "\ufb01re", b"tcp", *NUMBERS),
    "sport": NUMBERS, "dport": NUMBERS, "icmp_type": NUMBERS, "icmp_code": NUMBERS, "icmp_id": NUMBERS,
    "flags": (
        "", "X", "SX", "SS", "sAs", "FSRPAUEC", "\u017f", "ß", "Å", "日", "S ", "S\0", None, 2, b"S", ["S"], Text.SYN,
    ),
    "time_ns": (
        float("nan"), float("inf"), 2**62, -(2**62), 2**62 + 1, 2**63, -(2**63), 2.0**33, -0.0, 1.5, 10**400, "1", None,
        True, np.float64(2), np.int64(3), Fraction(3), Decimal("3"), 1j, [1], datetime(2026, 1, 1),
        datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC),
    ),
}  # fmt: skip
WRONG["dst"] = WRONG["src"]


def with_one_wrong(call: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    name = list(WRONG)[rng.integers(len(WRONG))]
    return call | {name: WRONG[name][rng.integers(len(WRONG[name]))]}


def test_packets_of_random_conversations_are_judged_as_the_python_way_judges_them() -> None:
    seen: Counter[str | None] = Counter()

    @drawn(SEED, some(30, 60))
    def run(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        options: dict[str, Any] = {
            "mode": MODES[rng.integers(2)], "midstream": MIDSTREAMS[rng.integers(3)], "_hash_key": range(8),
            "_reporting": bool(rng.integers(4) == 0), "_keep_flows": bool(rng.integers(2)),
        }  # fmt: skip
        try:
            fast, other = Engine(policy, **options), slow(Engine(policy, **options))
        except AmbiguousAddress:
            return
        changer = Changer(rng)
        for n, plain in enumerate(calls(policy, rng, 400)):
            call = reworded(plain, rng)
            if not rng.integers(6):
                call = with_one_wrong(call, rng)
            if n % 50 == 49 and rng.integers(2):
                change(changer, plain["time_ns"], fast, other)
            got = outcome(fast, call)
            assert got == outcome(other, call), call
            if isinstance(got, Verdict):
                seen[got.reason] += 1
            else:
                assert issubclass(got[0], (ValueError, TypeError, AttributeError)), (got, call)
        assert state(fast) == state(other)

    run()
    print(dict(seen))
    assert sum(seen.values()) > some(5000, 10_000)
    often, seldom = some(250, 500), some(5, 10)
    assert min(seen[reason] for reason in (None, "rule", "established", "no-rule", "invalid", "midstream")) > often
    assert min(seen[reason] for reason in ("inferred", "deny-rule", "disconnected", "opener-denied")) > seldom


def change(changer: Changer, now_ns: int, *engines: Engine) -> None:
    changes = changer.changes(engines[0].policy)
    said = set()
    for engine in engines:
        try:
            said.add((engine.apply(changes, now_ns), ""))
        except AmbiguousAddress as error:
            said.add((None, str(error)))
    assert len(said) == 1


@pytest.mark.parametrize("name", WRONG)
def test_every_odd_argument_is_taken_or_refused_as_ever(name: str) -> None:
    """Alone, with every protocol that reads it and one that does not."""
    fast, other = Engine(policy_of(OPEN), _hash_key=range(8)), slow(Engine(policy_of(OPEN), _hash_key=range(8)))
    refused = 0
    for value, protocol, family in itertools.product(WRONG[name], ("tcp", 17, "icmp", 58, "gre"), (4, 6)):
        ends = ("203.0.113.9", "10.0.0.5") if family == 4 else ("2001:db8:1::9", "2001:db8::5")
        call = {"src": ends[0], "dst": ends[1], "protocol": protocol, "flags": "S"}
        call |= ({"dport": 80} if protocol in ("tcp", 17) else {}) | {name: value}
        got = outcome(fast, call)
        assert got == outcome(other, call), call
        if isinstance(got, tuple):
            refused += 1
            assert issubclass(got[0], (ValueError, TypeError, AttributeError)), (got, call)
    assert state(fast) == state(other)
    assert refused > 0


def test_refused_packets_do_nothing() -> None:
    engine = Engine(policy_of(OPEN))
    for name, value in (("dport", 65536), ("time_ns", 2**63), ("flags", "X"), ("icmp_id", -1), ("src", "::1")):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            call = {"src": "203.0.113.9", "dst": "10.0.0.5", "protocol": "tcp", "dport": 80} | {name: value}
            engine.check(**call)   # type: ignore[arg-type]
    assert engine.dataplane.counters["packets"] == 0


def test_a_packet_has_the_fields_of_its_protocol() -> None:
    """SPEC 10.20. An echo reply instead of a ping, or port 0, would be a wrong answer that nobody notices."""
    engine, ends = Engine(policy_of(OPEN)), ("203.0.113.9", "10.0.0.5")
    for each in (engine, slow(Engine(policy_of(OPEN)))):
        for protocol in ("tcp", "udp", "sctp", 6, 136):
            for call in (each.check, each.explain):
                with pytest.raises(ArgumentError, match="has ports: give the destination port"):
                    call(*ends, protocol)   # type: ignore[operator]
            with pytest.raises(ArgumentError, match="has no ICMP type or code"):
                each.check(*ends, protocol, dport=80, icmp_type=8)
        for protocol in ("gre", "esp", "icmp", 200):
            with pytest.raises(ArgumentError, match="has no ports"):
                each.check(*ends, protocol, dport=0)
            with pytest.raises(ArgumentError, match="has no ports"):
                each.check(*ends, protocol, sport=1)
            with pytest.raises(ArgumentError, match="has no ports"):
                each.explain(*ends, protocol, dport=80)
        with pytest.raises(ArgumentError, match="an ICMP code needs an ICMP type"):
            each.check(*ends, "icmp", icmp_code=0)
        for addresses, protocol in ((ends, "icmp"), (("2001:db8:1::9", "2001:db8::5"), "icmp"), (("a", "a"), 58)):
            explained = each.explain(*addresses, protocol)
            assert (explained.icmp_type, explained.icmp_code) == (8 if addresses == ends else 128, 0)
            (row,) = header(str(explained.source.address), str(explained.destination.address), protocol)
            assert row["icmp_type"] == explained.icmp_type
        assert each.dataplane.counters["packets"] == 0
        # An echo reply that nobody asked for is invalid, and opens nothing.
        assert each.check(*ends, "icmp").allowed and each.open_connections == 1
    assert is_read(engine, protocol="icmp", sport=None, dport=None)


def test_usual_arguments_are_read_in_c() -> None:
    """Or this file compares the Python way with itself."""
    engine = Engine(policy_of(OPEN))
    one, five = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::5")
    assert is_read(engine)
    for protocol in ("tcp", "udp", "icmp", "gre", 6, 17, 1, 250):
        ports = {} if protocol in ("tcp", "udp", 6, 17) else {"sport": None, "dport": None}
        assert is_read(engine, protocol=protocol, **ports)
        assert is_read(engine, protocol=protocol, src=str(one), dst=str(five), **ports)
    assert is_read(engine, sport=None) and is_read(engine, protocol="icmp", sport=None, dport=None, icmp_type=8)
    for src in (IPv4Address("203.0.113.9"), IPv4Address("203.0.113.9").packed):
        assert is_read(engine, src=src)
    for src, dst in ((one, five), (one.packed, five.packed), (str(one), five)):
        assert is_read(engine, src=src, dst=dst)
    for time in (0, -1, 2**62, -(2**62)):
        assert is_read(engine, time_ns=time)
    assert is_read(engine, flags="") and is_read(engine, flags="fsrpauecFSRPAUEC")
    assert not is_read(engine, flags="x") and not is_read(engine, time_ns=2**62 + 1) and not is_read(engine, dport=-1)
    assert not is_read(engine, src="::1") and not is_read(engine, protocol="tpc")


# --- Addresses as text


def mangled(text: str, rng: np.random.Generator) -> str:
    letters = list(text)
    for _ in range(rng.integers(0, 3)):
        at = int(rng.integers(len(letters) + 1))
        what = "0123456789abcfFgx.:%/ -"[rng.integers(23)]
        match rng.integers(3):
            case 0:
                letters.insert(at, what)
            case 1:
                letters[at : at + 1] = what
            case _:
                letters[at : at + 1] = ""
    return "".join(letters)


def written(rng: np.random.Generator) -> str:
    """An address in some form of those there are; zeros are frequent."""
    if rng.integers(2):
        return ".".join(str(n) for n in rng.choice([0, 1, 9, 10, 99, 100, 199, 200, 249, 255, 256, 300], 4))
    groups = [format(n, "x") for n in rng.choice([0, 0, 1, 0x10, 0xABC, 0xFFFF], int(rng.integers(1, 10)))]
    at = int(rng.integers(len(groups) + 1))
    text = ":".join(groups)
    match rng.integers(4):
        case 0:
            return ":".join(groups[:at]) + "::" + ":".join(groups[at:])
        case 1:
            return str(IPv6Address(rng.bytes(16)))
        case 2:
            return f"{text}:1.2.3.{rng.integers(300)}"
        case _:
            return text


def test_addresses_are_read_as_ipaddress_reads_them() -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    own = {ip_address("10.0.0.5"), ip_address("2001:db8::5")}
    read: Counter[str] = Counter()
    for _ in range(some(7, 20)):
        engine = Engine(policy_of(OPEN), _keep_flows=True)
        expected: dict[int, bytes] = {}     # by source port, whose address it was
        for n in range(2000):
            text = mangled(written(rng), rng)
            try:
                address = ip_address(text)
            except ValueError:
                read["refused"] += 1
                for dst in ("10.0.0.5", "2001:db8::5"):
                    assert not is_read(engine, src=text, dst=dst), text
                continue
            dst = "10.0.0.5" if address.version == 4 else "2001:db8::5"
            was_read = is_read(engine, src=text, dst=dst, sport=n)
            read[f"{address.version} {was_read}"] += 1
            # All of IPv4 and of the hexadecimal forms is read.
            assert was_read or (address.version == 6 and ("." in text or "%" in text)), text
            if was_read and address not in own:
                expected[n] = address.packed.ljust(16, b"\0")
        engine.dataplane.finish()
        rows = engine.dataplane.take_flows()
        assert {int(row["ports"]) >> 16: row["initiator"].tobytes() for row in rows} == expected
    print(dict(read))
    assert min(read["refused"], read["4 True"], read["6 True"]) > 1000 and read["6 False"] > 100


# --- Time


def test_an_instant_is_the_same_as_a_number_and_as_a_datetime_of_any_zone() -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    engine = Engine(policy_of(OPEN))
    for microseconds in sorted(rng.integers(-(2**51), 2**51, 300).tolist()):
        zone = timezone(timedelta(minutes=int(rng.integers(900))))
        time = (EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)
        assert engine.check("203.0.113.9", "10.0.0.5", "udp", sport=1, dport=2, time_ns=time).allowed
        assert engine.dataplane.counters["last_ns"] == microseconds * 1000 == header(
            "203.0.113.9", "10.0.0.5", 17, time_ns=time
        )["time_ns"][0]  # fmt: skip


@pytest.mark.parametrize("since_ns", [1_700_000_000_000_000_123, -877])
def test_nanoseconds_of_a_pandas_timestamp_are_not_cut(since_ns: int) -> None:
    pandas = pytest.importorskip("pandas")
    time = pandas.Timestamp(since_ns, tz="Europe/Berlin")
    assert header("203.0.113.9", "10.0.0.5", 17, time_ns=time)["time_ns"][0] == since_ns


def test_a_time_that_may_be_any_is_refused_with_the_way_to_convert_it() -> None:
    """Seconds as a float would be 1970, and a naive datetime is the time of some unnamed place."""
    engine, ends = Engine(policy_of(OPEN)), ("203.0.113.9", "10.0.0.5", "udp")
    frame = bytes(60)
    for time, remedy in ((1.7e9, r"of seconds, use round\(seconds \* 10\*\*9\)"), (datetime(2026, 1, 1), "tzinfo=UTC")):
        for call in (
            lambda t: engine.check(*ends, dport=53, time_ns=t), lambda t: header(*ends, time_ns=t),
            lambda t: engine.process_frames([frame], [t]), lambda t: engine.apply([], t),
            lambda t: FrameBatch.from_frames([frame], [t]),
        ):
            with pytest.raises(TypeError, match=remedy):
                call(time)
    assert engine.dataplane.counters["packets"] == 0


def test_time_that_ends_all_connections_ends_them() -> None:
    """Long work is done without the GIL: the same must come of it."""
    engine = Engine(policy_of(OPEN))
    for n in range(3000):
        engine.check("203.0.113.9", "10.0.0.5", "udp", sport=n, dport=80, time_ns=n * 100_000)
    assert engine.dataplane.counters["live_tuples"] == 3000
    assert engine.check("203.0.113.9", "10.0.0.5", "udp", sport=1, dport=80, time_ns=10**15).reason == "rule"
    assert engine.dataplane.counters["live_tuples"] == 1


def test_full_table_is_full_for_check_too() -> None:
    engine = Engine(policy_of(OPEN.replace("settings: {", "settings: {max_connections: 10, ")))
    for n in range(30):
        assert engine.check("203.0.113.9", "10.0.0.5", "tcp", sport=n, dport=80).reason == "rule"
    counters = engine.dataplane.counters
    assert (counters["live_tuples"], counters["evicted"]) == (10, 20)


# --- Verdicts that are kept


def crowd_of(count: int) -> Policy:
    rule = Rule("g/inbound/1", "inbound", 4)
    members = tuple(Instance(f"i-{n}", "default", (ip_network((10 << 24) + n),), ("g",)) for n in range(count))
    return Policy(security_groups=(SecurityGroup("g", (rule,)),), instances=members)


def test_kept_verdicts_are_bounded_and_right_afterwards() -> None:
    count = KEPT_AT_MOST + 500
    engine = Engine(crowd_of(count))
    for turn in range(2):
        for n in range(0, count):
            side = engine.check("203.0.113.9", ip_address((10 << 24) + n), "tcp", dport=turn).ingress
            assert side is not None and side.instance == f"i-{n}"
            assert len(engine._single) <= KEPT_AT_MOST


def test_equal_results_are_one_object() -> None:
    engine = Engine(policy_of(OPEN))
    first, second, third = (engine.check("203.0.113.9", "10.0.0.5", "udp", sport=n, dport=80) for n in range(3))
    assert first is second is third and len(engine._single) == 1


def named(engine: Engine, dport: int = 80, **more: Any) -> tuple[str | None, str | None, str | None]:
    verdict = engine.check("203.0.113.9", "10.0.0.5", "tcp", dport=dport, **more)
    side = verdict.ingress
    return verdict.reason, side and side.instance, side and side.rule


def test_a_name_is_looked_up_once_for_each_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    find = named_ends.find

    def counted(policy: Policy, kind: Any, word: str) -> str | None:
        looked_up.append(word)
        return find(policy, kind, word)

    monkeypatch.setattr(named_ends, "find", counted)
    engine = Engine(policy_of(OPEN))

    def check(dst: str, protocol: str = "tcp", src: str = "203.0.113.9") -> str:
        verdict = engine.check(src, dst, protocol, sport=1, dport=2)
        assert verdict.ingress is not None
        return verdict.ingress.instance

    for _ in range(3):
        assert check("a") == "a"
        assert looked_up and set(looked_up) == {"a"}
        first = len(looked_up)
    for number in range(50):
        assert check("a", "udp", f"203.0.113.{number}") == check("a", src="2001:db8:1::9") == "a"
    assert len(looked_up) == first, "a name that is known is not looked up again"

    engine.apply([RemoveInstance("a"), AddInstance(Instance("b", "default", (ip_network("10.0.0.5"),), ("g",)))], 0)
    with pytest.raises(ArgumentError, match="'a' is neither an address nor an instance"):
        check("a")
    looked_up.clear()
    assert check("b") == "b" and len(looked_up) > 0
    looked_up.clear()
    assert check("b") == "b" and looked_up == []


def test_a_known_name_means_the_address_that_the_other_end_and_the_protocol_ask_for() -> None:
    """As when it was met for the first time."""
    out = "      - {direction: outbound, ethertype: IPv6, protocol: all}\n"
    policy = policy_of(OPEN.replace("instances:\n", f"{out}instances:\n") + """
  - {name: both, addresses: [10.0.0.9, "2001:db8::9"], security_groups: [g]}
  - {name: four, addresses: [10.0.0.6], security_groups: [g]}
  - {name: six, addresses: ["2001:db8::6"], security_groups: [g]}
  - {name: two, addresses: [10.0.0.7, 10.0.0.8, "2001:db8::7"], security_groups: [g]}
  - {name: wide, addresses: [10.0.1.0/24, "2001:db8::8"], security_groups: [g]}
""")
    ends = ("a", "both", "four", "six", "two", "wide", "who", "203.0.113.9", "2001:db8:1::9")
    engine = Engine(policy)
    told: Counter[bool] = Counter()
    times = itertools.count(0, 10**15)      # so far apart that connections have timed out
    for _ in range(2):
        for src, dst, protocol, has_type in itertools.product(
            ends, ends, ("tcp", "icmp", "icmpv6", 58), (True, False)
        ):
            more = {"sport": 1, "dport": 2} if protocol == "tcp" else {"icmp_type": 8} if has_type else {}
            call = {"src": src, "dst": dst, "protocol": protocol, "time_ns": next(times)} | more
            got = outcome(engine, call)
            assert got == outcome(slow(Engine(policy)), call), call
            told[isinstance(got, Verdict)] += 1
    assert min(told.values()) > 100, told


def test_names_are_those_of_the_policy_now() -> None:
    """Every step first fills what is kept, and names something that had another name, or none, before."""
    policy = policy_of("""
security_groups:
  - name: g
    rules:
      - {id: first, direction: inbound, protocol: tcp, ports: 80}
instances:
  - {name: a, addresses: [10.0.0.5], security_groups: [g]}
  - {name: z, addresses: [10.0.0.6], security_groups: [g]}
""")
    engine = Engine(policy)
    (rule,) = policy.security_groups[0].rules
    sports = itertools.count(1)

    def now() -> tuple[str | None, str | None, str | None]:
        said = named(engine, sport=(sport := next(sports)))
        again = named(engine, sport=sport + 1000)
        assert said == again
        return said

    assert now() == ("rule", "a", "first")
    engine.apply(RemoveRule("g", "first"), 0)
    assert now() == ("no-rule", "a", None)
    engine.apply(AddRule("g", Rule("second", "inbound", 4, 6, ((80, 80),))), 0)
    assert now() == ("rule", "a", "second")
    engine.apply(AddRule("g", rule), 0)
    engine.apply(RemoveRule("g", "second"), 0)
    assert now() == ("rule", "a", "first")
    engine.apply(ModifyRule("g", "first", Rule("first", "inbound", 4, 6, ((80, 80),), action="deny")), 0)
    assert now() == ("deny-rule", "a", "first")
    engine.apply(ModifyRule("g", "first", rule), 0)
    here = policy.instances[0]
    engine.apply([RemoveInstance("a"), AddInstance(Instance("b", here.vpc, here.addresses, ("g",)))], 0)
    assert now() == ("rule", "b", "first")
    engine.apply(RemoveInstance("b"), 0)
    assert now() == (None, None, None)
    engine.apply(AddInstance(here), 0)
    assert now() == ("rule", "a", "first")


def test_a_number_keeps_its_name_whatever_changes() -> None:
    """Verdicts that are kept when the policy changes rely on it."""

    @drawn(SEED, some(6, 40))
    def run(policy: Policy, case_seed: int) -> None:
        changer = Changer(np.random.default_rng(case_seed))
        try:
            engine = Engine(policy)
        except AmbiguousAddress:
            return
        for _ in range(30):
            rules, instances = [rule.id for rule in engine.rules], [each.name for each in engine.instances]
            change(changer, 0, engine)
            assert [rule.id for rule in engine.rules][: len(rules)] == rules
            assert [each.name for each in engine.instances][: len(instances)] == instances

    run()


# --- Threads


@pytest.fixture
def turns_of_ten_microseconds() -> Iterator[None]:
    """Threads meet each other in the middle of everything."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Meanwhile:
    """A data plane whose change is followed at once by another thread's packet."""

    def __init__(self, plane: Any, packet: Any) -> None:
        self.plane, self.packet = plane, packet

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plane, name)

    def change(self, *arguments: Any) -> Any:
        done = self.plane.change(*arguments)
        self.packet()
        return done


@pytest.mark.parametrize("way", ["fast", "slow"])
def test_packet_right_after_the_data_plane_changed_is_named(way: str) -> None:
    engine = Engine(policy_of(OPEN))
    if way == "slow":
        slow(engine)
    said = []
    engine.dataplane = Meanwhile(       # type: ignore[assignment]
        engine.dataplane, lambda: said.append(engine.check("203.0.113.9", "10.0.0.77", "tcp", dport=80))
    )
    engine.apply(AddInstance(Instance("new", "default", (ip_network("10.0.0.77"),), ("g",))), 0)
    (verdict,) = said
    assert verdict.ingress is not None and verdict.ingress.instance == "new"


def test_change_that_finds_no_memory_changes_no_names() -> None:
    engine = Engine(policy_of(OPEN))
    before = engine.policy, engine.compiled

    def none_left(*arguments: Any) -> None:
        raise MemoryError

    plane = engine.dataplane
    engine.dataplane = Meanwhile(plane, none_left)  # type: ignore[assignment]
    engine.dataplane.change = none_left             # type: ignore[method-assign,assignment]
    with pytest.raises(MemoryError):
        engine.apply(RemoveInstance("a"), 0)
    assert (engine.policy, engine.compiled) == before


def test_threads_may_check_while_the_policy_changes(turns_of_ten_microseconds: None) -> None:
    """Verdicts are of some policy that was: the right name for the address, the right rule for the port."""
    policy = Policy(
        security_groups=(SecurityGroup("g", (Rule("r-80", "inbound", 4, 6, ((80, 80),)),)),),
        instances=crowd_of(4).instances, quotas=Quotas(rules_per_group=1000),
    )  # fmt: skip
    engine = Engine(policy)
    rounds, workers = some(20, 60), 4
    wrong: list[Any] = []
    checked: list[int] = []
    over = threading.Event()

    def check(worker: int) -> None:
        try:
            for n in itertools.count():
                if over.is_set():
                    checked.append(n)
                    return
                host, port = n % 8, (80, 81)[n >> 3 & 1]
                address = (10 << 24) + host
                verdict = engine.check(
                    f"203.0.113.{worker}", str(ip_address(address)), "tcp", sport=n & 0xFFFF, dport=port,
                    time_ns=n * 10_000_000,
                )
                side = verdict.ingress
                if side is None:
                    fits = host >= 4 and verdict.verdict == "out-of-scope"
                else:
                    fits = side.instance.split(".")[0] == f"i-{host}" and (
                        (verdict.reason == "no-rule" and side.rule is None)
                        or (verdict.reason == "rule" and (side.rule or "").split("/")[0] == f"r-{port}")
                    )
                if not fits:
                    wrong.append((host, port, verdict))
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=check, args=(n,), daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    for n in range(rounds):
        extra = [Instance(f"i-{host}.{n}", "default", (ip_network((10 << 24) + host),), ("g",)) for host in (4, 5, 6)]
        added: list[Change] = [AddRule("g", Rule(f"r-81/{n}", "inbound", 4, 6, ((81, 81),)))]
        engine.apply([*added, *map(AddInstance, extra)], 0)
        engine.apply([RemoveRule("g", f"r-81/{n}"), *(RemoveInstance(each.name) for each in extra)], 0)
    over.set()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == [] and len(checked) == workers
    assert engine.dataplane.counters["packets"] == sum(checked) > 1000


def test_check_waits_for_its_turn_and_nobody_waits_for_check(turns_of_ten_microseconds: None) -> None:
    """Batches hold the lock for long, without the GIL; whoever waits for the lock must not keep it."""
    engine = Engine(policy_of(OPEN), _keep_flows=True)
    rows = np.zeros(20_000, dtype=HEADER_DTYPE)
    rows["family"], rows["protocol"], rows["src"][:, 0] = 4, 17, 203
    rows["dst"][:, :4] = list(ip_address("10.0.0.5").packed)
    rows["sport"] = np.arange(len(rows))
    checked: list[str | None] = []
    batches, checks = 30, 3000

    def judge() -> None:
        results = np.zeros(len(rows), dtype=RESULT_DTYPE)
        for _ in range(batches):
            engine.dataplane.process_headers(rows, results)

    def check() -> None:
        for n in range(checks):
            checked.append(engine.check("203.0.113.9", "10.0.0.5", "udp", sport=n, dport=n & 7).reason)

    def collect() -> None:
        for _ in range(40):
            engine.dataplane.take_flows()
            engine.dataplane.finish(most=1000)

    def save() -> None:
        """It keeps the lock while it runs Python code."""
        for _ in range(20):
            save_plane(engine.dataplane)

    threads = [threading.Thread(target=work, daemon=True) for work in (judge, check, collect, save) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert engine.dataplane.counters["packets"] == 2 * (batches * len(rows) + checks)
    assert Counter(checked) == {"rule": checks, "established": checks}


@pytest.mark.parametrize("name", ["policy", "mode", "midstream", "vpc"])
def test_what_an_engine_was_made_with_cannot_be_assigned(name: str) -> None:
    """SPEC 14.7. It would act later, or never."""
    engine = Engine("pcaps/shop.yaml")
    before = getattr(engine, name)
    with pytest.raises(AttributeError, match=rf"Engine\.{name} cannot be assigned: .*Engine"):
        setattr(engine, name, "causal")
    assert getattr(engine, name) == before and getattr(engine.copy(), name) == before


def test_a_verdict_is_neither_true_nor_false() -> None:
    """SPEC 14.7. A denial would be true."""
    verdict = Engine("pcaps/shop.yaml").check("198.51.100.7", "web-1", "tcp", sport=40000, dport=22, time_ns=0)
    with pytest.raises(TypeError, match=r"neither true nor false: ask for \.allowed"):
        bool(verdict)
    assert not verdict.allowed

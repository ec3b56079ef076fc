"""Scenarios: a policy, packets and the expected result of each packet, written as a table.

    run(POLICY, '''
        # ssh from outside, with its answer and an unrelated ping
        @0        tcp client:40000 > web:22 S      -> allow rule w/inbound/1
        @0.1      tcp web:22 > client:40000 SA     -> allow established
        @30.1-1ns icmp client > web 8/0 id=7       -> deny no-rule
    ''')

A line is ``[@TIME] PROTOCOL SOURCE > DESTINATION [DETAILS] [about PACKET] -> VERDICT [REASON [RULE]]``, optionally
followed by ``; egress VERDICT REASON [RULE]`` and ``; ingress ...``, with ``-`` for a side that does not exist. Parts
omitted after the arrow (reason, rule, sides) are not checked.

- ``TIME``: seconds from the scenario's start, exact; ``@600-1ns`` is a nanosecond before 600 s. Default: the time of
  the line before.
- ``PROTOCOL``: tcp, udp, udplite, sctp, dccp, icmp, icmpv6, a number; or, in the line's family, ``ping`` (an echo
  request), ``pong`` (its reply) and ``error`` (port unreachable). ICMP errors quote the packet after ``about``.
- ``SOURCE``: an address or a name, and a port: ``10.0.0.5:22``, ``[2001:db8::5]:22``, ``web:22``. A name is an
  instance (its first address of the line's family) or one of ``STRANGERS``. The family is that of an address in the
  line, or else the ``family`` argument of ``run``.
- ``DETAILS``: TCP flags, by default a SYN, ``none`` for no flags; an ICMP type and code ``8/0``; an identifier
  ``id=7``.

A line ``[@TIME] apply NAME [-> N disconnected[, N finished]]`` changes the policy before the next packet. ``changes``
maps NAME to one change, or to several that are applied as one. ``-> refused`` means that the change must be refused.

Every scenario is judged three times: by the engine with as many packets in a batch as changes permit, by the engine
packet by packet, and by the reference model. All three must give the table's results.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import ip_address
from itertools import groupby
from typing import Any

import frames as f

from sgfast.base.errors import PolicyError
from sgfast.clouds.loading import parse_policy
from sgfast.engine import REASONS, VERDICTS, Engine
from sgfast.policy.changes import AddInstance, Change
from sgfast.policy.model import Policy
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.verdicts import PacketVerdict

SECOND = 10**9
START_NS = 1_700_000_000 * SECOND

#: Names of addresses outside every policy here, with their IPv4 and IPv6 address.
STRANGERS = {
    "client": ("203.0.113.9", "2001:db8:ff::9"),
    "other": ("198.51.100.10", "2001:db8:ff::10"),
    "router": ("192.0.2.1", "2001:db8:ff::1"),
}

_LINE = re.compile(r"(?:@(?P<time>\S+)\s+)?(?P<packet>.*?)\s*->\s*(?P<expected>.*)")
_APPLY = re.compile(
    r"(?:@(?P<time>\S+)\s+)?apply\s+(?P<name>\S+)"
    r"(?:\s*->\s*(?P<expected>\d+ disconnected(?:, \d+ finished)?|refused))?"
)
_TIME = re.compile(r"(?P<seconds>-?[0-9_]+(?:\.[0-9]+)?)(?P<nudge>[+-][0-9]+ns)?")
_PACKET = re.compile(r"(?P<protocol>\w+)\s+(?P<source>\S+)\s*>\s*(?P<destination>\S+)\s*(?P<details>.*)")
_END = re.compile(
    r"\[(?P<literal>[^\]]+)\](?::(?P<port6>\d+))?"
    r"|(?P<name>[^:\s]+|(?:[0-9a-fA-F]*:){2,}[0-9a-fA-F]*)(?::(?P<port>\d+))?"
)
_WITH_PORTS = {"tcp": f.tcp, "udp": f.udp, "udplite": f.udplite, "sctp": f.sctp, "dccp": f.dccp}


#: Words of a verdict by side: "" for the deciding side, "egress", "ingress". None: the side does not exist.
Said = dict[str, tuple[str, ...] | None]


#: The changes of a scenario, by name.
Changes = Mapping[str, Change | Sequence[Change]]


@dataclass
class Line:
    """A packet of a scenario, with its expected verdict."""

    text: str
    time_ns: int
    frame: bytes
    expected: Said


@dataclass
class ChangeLine:
    text: str
    time_ns: int
    changes: Change | Sequence[Change]
    #: "2 disconnected" or "refused"; None: not checked.
    expected: str | None


class Names:
    """The addresses of the names in a table."""

    def __init__(self, policy: Policy, family: int, changes: Changes | None = None) -> None:
        self.family = family
        self.addresses = {name: dict(zip((4, 6), pair, strict=True)) for name, pair in STRANGERS.items()}
        added = [
            change.instance for value in (changes or {}).values() for change in as_one(value)
            if isinstance(change, AddInstance)
        ]  # fmt: skip
        for instance in (*policy.instances, *added):
            first = self.addresses.setdefault(instance.name, {})
            for network in instance.addresses:
                first.setdefault(network.version, str(network.network_address))

    def resolve(self, *ends: str) -> list[tuple[str, int]]:
        found = []
        for end in ends:
            match = _END.fullmatch(end)
            assert match, f"no end of a packet: {end!r}"
            found.append((match["literal"] or match["name"], int(match["port6"] or match["port"] or 0)))
        literal = [ip_address(name).version for name, _ in found if name not in self.addresses]
        family = literal[0] if literal else self.family
        return [(self.addresses[name][family] if name in self.addresses else name, port) for name, port in found]


def as_one(changes: Change | Sequence[Change]) -> Sequence[Change]:
    return changes if isinstance(changes, Sequence) else (changes,)


def packet(text: str, names: Names) -> f.Layer:
    """Return one packet of a table, from the IP header on."""
    text, _, about = text.partition(" about ")
    match = _PACKET.fullmatch(text.strip())
    assert match, f"no packet: {text!r}"
    (src, sport), (dst, dport) = names.resolve(match["source"], match["destination"])
    family = 6 if ":" in src else 4
    protocol = match["protocol"]
    details = match["details"].split()
    identifier = next((int(word[3:]) for word in details if word.startswith("id=")), 1)
    word = next((word for word in details if not word.startswith("id=")), None)
    quoted = packet(about, names) if about else b""
    layer: f.Layer
    if protocol == "tcp":
        layer = f.tcp(sport, dport, "S" if word is None else "" if word == "none" else word)
    elif protocol in _WITH_PORTS:
        layer = _WITH_PORTS[protocol](sport, dport)
    elif protocol in ("icmp", "icmpv6", "ping", "pong", "error"):
        builder = {"icmp": f.icmp, "icmpv6": f.icmpv6}.get(protocol, f.icmp if family == 4 else f.icmpv6)
        default = {"ping": ("8", "128"), "pong": ("0", "129"), "error": ("3/3", "1/4")}.get(protocol, ("8", "128"))
        kind, _, code = (word or default[family == 6]).partition("/")
        layer = builder(int(kind), int(code or 0), 0 if quoted else identifier, quoted)
    else:
        layer = f.other({"gre": 47, "esp": 50, "ah": 51}.get(protocol) or int(protocol), bytes(8))
    return f.ip(src, dst, layer)


def read_time(text: str, start_ns: int) -> int:
    match = _TIME.fullmatch(text)
    assert match, f"no time: {text!r}"
    nanoseconds = Fraction(match["seconds"].replace("_", "")) * SECOND
    assert nanoseconds.denominator == 1
    return start_ns + int(nanoseconds) + int((match["nudge"] or "0ns")[:-2])


def read_expected(text: str) -> Said:
    """Read the words after the arrow."""
    expected: Said = {}
    for part in text.split(";"):
        words = tuple(part.split())
        side = words[0] if words[0] in ("egress", "ingress") else ""
        if side:
            words = words[1:]
        expected[side] = None if words == ("-",) else words
    return expected


def read_table(
    script: str, names: Names, start_ns: int = START_NS, changes: Changes | None = None
) -> list[Line | ChangeLine]:
    lines: list[Line | ChangeLine] = []
    now = start_ns
    for text in script.splitlines():
        text = text.strip()
        if not text or text.startswith("#"):
            continue
        change = _APPLY.fullmatch(text)
        match = change or _LINE.fullmatch(text)
        assert match, f"no line of a scenario: {text!r}"
        if match["time"]:
            now = read_time(match["time"], start_ns)
        if change:
            lines.append(ChangeLine(text, now, (changes or {})[change["name"]], change["expected"]))
            continue
        lines.append(Line(text, now, f.ethernet(packet(match["packet"], names)), read_expected(match["expected"])))
    return lines


def policy_of(policy: Policy | str) -> Policy:
    return policy if isinstance(policy, Policy) else parse_policy("version: 1\n" + policy)


def from_engine(engine: Engine, row: Any) -> Said:
    sides: Said = {}
    for name in ("egress", "ingress"):
        side = row[name]
        sides[name] = None
        if side["verdict"] != 255:
            rule = (engine.rules[side["rule"]].id,) if side["rule"] >= 0 else ()
            sides[name] = (VERDICTS[side["verdict"]], str(REASONS[side["reason"]]), *rule)
    return _with_decision(VERDICTS[row["verdict"]], REASONS[row["reason"]], sides)


def from_reference(verdict: PacketVerdict) -> Said:
    sides: Said = {"egress": None, "ingress": None}
    for name, side in (("egress", verdict.egress), ("ingress", verdict.ingress)):
        if side is not None:
            sides[name] = (side.verdict, side.reason, *([side.rule] if side.rule is not None else ()))
    return _with_decision(verdict.verdict, verdict.reason, sides)


def _with_decision(verdict: str, reason: str | None, sides: Said) -> Said:
    # SPEC 10.3: the side that judged last decides.
    decided = sides["ingress"] or sides["egress"] or ()
    return {"": (verdict, *([reason] if reason is not None else ()), *decided[2:]), **sides}


def fits(found: Said, expected: Said) -> bool:
    """Return whether the words of each side in ``found`` begin with the expected words."""
    for side, words in expected.items():
        got = found[side]
        if words is None or got is None:
            if words is not got:
                return False
        elif got[: len(words)] != words:
            return False
    return True


def spelled(found: Said) -> str:
    return "; ".join(
        f"{side} {'-' if words is None else ' '.join(words)}".strip() for side, words in found.items()
    )


def apply(to: Engine | ReferenceEngine, line: ChangeLine) -> str:
    """Apply a change and return its outcome in the table's words."""
    try:
        done = to.apply(line.changes, line.time_ns)
        return f"{done.disconnected} disconnected, {done.finished} finished"
    except PolicyError:
        return "refused"


def run(
    policy: Policy | str,
    script: str,
    *,
    changes: Changes | None = None,
    family: int = 4,
    mode: Any = "verbatim",
    midstream: Any = "deny",
    vpc: str | None = None,
    start_ns: int = START_NS,
) -> Engine:
    """Run a scenario and compare the results. Return the engine that judged it in batches."""
    policy = policy_of(policy)
    lines = read_table(script, Names(policy, family, changes), start_ns, changes)
    assert lines, "an empty scenario proves nothing"
    batch, single = (Engine(policy, mode=mode, midstream=midstream, vpc=vpc) for _ in range(2))
    reference = ReferenceEngine(policy, mode=mode, midstream=midstream, vpc=vpc)
    report = []
    wrong = False

    def compare(line: Line | ChangeLine, judged: dict[str, str], bad: bool) -> None:
        nonlocal wrong
        bad = bad or len(set(judged.values())) > 1
        wrong = wrong or bad
        report.append(("! " if bad else "  ") + line.text)
        if bad:
            report.extend(f"      {who}: {found}" for who, found in judged.items())

    def packets(part: list[Line]) -> None:
        rows = batch.process_frames([line.frame for line in part], [line.time_ns for line in part])
        for line, row in zip(part, rows, strict=True):
            alone = single.process_frames([line.frame], [line.time_ns])[0]
            judged = {
                "engine, one batch": from_engine(batch, row),
                "engine, packet by packet": from_engine(single, alone),
                "reference": from_reference(reference.process_frame(line.time_ns, line.frame)),
            }
            bad = any(not fits(found, line.expected) for found in judged.values())
            compare(line, {who: spelled(found) for who, found in judged.items()}, bad)

    def change(line: ChangeLine) -> None:
        judged = {
            "engine, one batch": apply(batch, line),
            "engine, packet by packet": apply(single, line),
            "reference": apply(reference, line),
        }
        found = {*judged.values()}
        compare(line, judged, len(found) > 1 or not found.pop().startswith(line.expected or ""))

    for kind, part in groupby(lines, key=type):
        if kind is Line:
            packets(list(part))
            continue
        for line in part:
            change(line)
    if wrong:
        options = f"family {family}, {mode}, midstream {midstream}, vpc {vpc}"
        raise AssertionError(f"scenario ({options}) and judgement part:\n" + "\n".join(report))
    assert batch.dataplane.counters["packets"] == sum(isinstance(line, Line) for line in lines)
    return batch


def run_both_families(policy: Policy | str, script: str, **options: Any) -> None:
    """Run a scenario without literal addresses in IPv4 and in IPv6."""
    for family in (4, 6):
        run(policy, script, family=family, **options)


def openers(policy: Policy | str, script: str, *, family: int = 4, vpc: str | None = None) -> None:
    """Run a table of independent lines: a new engine judges each packet."""
    policy = policy_of(policy)
    for text in script.splitlines():
        if text.strip() and not text.strip().startswith("#"):
            run(policy, text, family=family, vpc=vpc)

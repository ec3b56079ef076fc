"""Compare the recordings of ``pcaps/programs``, scenario by scenario and connection by connection."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sgfast import replay
from sgfast.policy.model import Policy
from sgfast.questions.replaying import ReplayResult
from sgfast.report.lines import VerdictLines

PCAPS = Path(__file__).parents[2] / "pcaps"
PROGRAMS = PCAPS / "programs"
RECORD = PROGRAMS / "record.py"
POLICIES = sorted(path.stem for path in PROGRAMS.glob("*.yaml"))

#: Echo requests and their replies.
ECHO = {8: True, 128: True, 0: False, 129: False}

Line = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    name: str
    began_ns: int
    outcome: str
    #: Whether the outcome shows if packets passed. A missing machine is silent in either case.
    tells: bool


class Key(NamedTuple):
    """The key of a connection in every recording of a scenario, without the initiator's port, which differs."""

    protocol: str
    initiator: str
    responder: str
    #: A port, ``echo``, or a description of an ICMP error.
    service: str

    @property
    def is_error(self) -> bool:
        return self.service.startswith("error")


@dataclass
class Packets:
    """The packets of connections with one key, from the initiator and from the responder."""

    origin: list[Line] = field(default_factory=list)
    reply: list[Line] = field(default_factory=list)

    @property
    def verdicts(self) -> set[tuple[str, str]]:
        return {(line["verdict"], line["reason"]) for line in self.origin + self.reply}


class Seen(NamedTuple):
    """The progress of a connection, as seen on the network between the filters."""

    opened: bool
    answered: bool


def scenarios(folder: Path) -> list[Scenario]:
    rows = json.loads((folder / "programs.json").read_text())
    return [Scenario(row["name"], row["began_ns"], row["outcome"], row["outcome_tells"]) for row in rows]


def expected() -> dict[str, dict[str, str]]:
    """Return by policy and scenario either ``works`` or the place where packets are blocked."""
    with open(PROGRAMS / "expected.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {policy: {row["scenario"]: row[policy] for row in rows} for policy in rows[0] if policy != "scenario"}


def judged(policy: Policy, folder: Path, capture: str = "network") -> dict[str, list[Line]]:
    """Return by scenario the lines of ``--verdicts`` for a capture's packets with an instance's address.

    A scenario's packets are those from its beginning to that of the next scenario.
    """
    begins = scenarios(folder)
    lines: dict[str, list[Line]] = {scenario.name: [] for scenario in begins}
    for line in verdict_lines(policy, folder / f"{capture}.pcap")[1]:
        begun = [scenario.name for scenario in begins if scenario.began_ns <= time_ns(line)]
        if begun and line["verdict"] in ("allow", "deny", "moot"):
            lines[begun[-1]].append(line)
    return lines


def verdict_lines(policy: Policy, capture: Path, **options: Any) -> tuple[ReplayResult, list[Line]]:
    """Replay a capture. Return the result and the lines of ``--verdicts``."""
    text: list[bytes] = []
    result = replay(policy, capture, packets=VerdictLines(text.append), **options)
    assert result.damaged is None
    return result, [json.loads(line) for line in b"".join(text).splitlines()]


def time_ns(line: Line) -> int:
    seconds, nanoseconds = line["time"].split(".")
    return int(seconds) * 10**9 + int(nanoseconds)


def places(lines: Iterable[Line]) -> str:
    """List the places where packets are denied, each once, in order; or return ``works`` if there is none."""
    found = {}
    for line in lines:
        if line["verdict"] == "deny":
            way, side = next(
                (way, line[way]) for way in ("egress", "ingress") if line[way] and line[way]["verdict"] == "deny"
            )
            found[f"{side['instance']} {way} {side['reason']}"] = True
        assert line["verdict"] != "moot" or found, "a packet is moot although nothing was denied"
    return "; ".join(found) or "works"


def connections(lines: Iterable[Line]) -> dict[Key, Packets]:
    """Group a scenario's packets by connection, in order of first packets."""
    found: dict[Key, Packets] = {}
    initiators: dict[frozenset[tuple[str, int]], tuple[str, int]] = {}
    for line in lines:
        key, from_initiator = _key(line, initiators)
        packets = found.setdefault(key, Packets())
        (packets.origin if from_initiator else packets.reply).append(line)
    return found


def _key(line: Line, initiators: dict[frozenset[tuple[str, int]], tuple[str, int]]) -> tuple[Key, bool]:
    protocol, src, dst = line["protocol"], line["src"], line["dst"]
    if protocol in ("icmp", "icmpv6"):
        kind = line["icmp_type"]
        if kind not in ECHO:
            return Key(protocol, src, dst, f"error {kind}/{line['icmp_code']}"), True
        return (Key(protocol, src, dst, "echo"), True) if ECHO[kind] else (Key(protocol, dst, src, "echo"), False)
    here, there = (src, line["sport"]), (dst, line["dport"])
    if line["sport"] == line["dport"]:
        # Either end may have opened, so count each direction as a connection of its own.
        return Key(protocol, src, dst, str(line["dport"])), True
    if initiators.setdefault(frozenset({here, there}), here) == here:
        return Key(protocol, src, dst, str(line["dport"])), True
    return Key(protocol, dst, src, str(line["sport"])), False


def predicted(packets: Packets) -> Seen:
    """Predict the progress of the recorded connection behind the filters. An end that receives nothing does not
    answer."""
    opened = any(map(_leaves, packets.origin))
    heard = any(line["verdict"] == "allow" for line in packets.origin)
    return Seen(opened, heard and any(map(_leaves, packets.reply)))


def _leaves(line: Line) -> bool:
    """Return whether the sender's filter lets the packet out to the network."""
    return line["verdict"] != "moot" and (line["egress"] is None or line["egress"]["verdict"] == "allow")


def seen(packets: Packets | None) -> Seen:
    """Return the progress of a connection in a capture."""
    return Seen(packets is not None and bool(packets.origin), packets is not None and bool(packets.reply))


@dataclass
class Comparison:
    """Comparison of a recording behind the kernel's filter with the predictions of a replay of the unfiltered
    recording."""

    policy: str
    scenarios: int = 0
    works: int = 0
    outcomes_compared: int = 0
    connections: int = 0
    blocked: int = 0
    #: The number of connections not made, because an earlier connection of their scenario did not work.
    not_made: int = 0
    differences: list[str] = field(default_factory=list)


def compare(name: str, policy: Policy, recorded: Path, live: Path) -> Comparison:
    comparison = Comparison(name)
    judgement, filtered = judged(policy, recorded), judged(policy, live)
    lived = {scenario.name: scenario for scenario in scenarios(live)}
    everywhere = {key for lines in judgement.values() for key in connections(lines)}
    for scenario in scenarios(recorded):
        lines = judgement[scenario.name]
        works = places(lines) == "works"
        outcome = lived[scenario.name].outcome
        comparison.scenarios += 1
        comparison.works += works
        if scenario.tells:
            comparison.outcomes_compared += 1
            if (outcome == scenario.outcome) != works:
                comparison.differences.append(
                    f"{name} {scenario.name}: replay says {places(lines)}; without a filter the program says "
                    f"'{scenario.outcome}', behind it '{outcome}'"
                )
        _compare_connections(comparison, scenario.name, connections(lines), connections(filtered[scenario.name]))
        for key in connections(filtered[scenario.name]):
            if key not in everywhere:
                comparison.differences.append(f"{name} {scenario.name}: {key} is in no recording without a filter")
    return comparison


def _compare_connections(
    comparison: Comparison, scenario: str, recorded: Mapping[Key, Packets], live: Mapping[Key, Packets]
) -> None:
    undone = False
    for key, packets in recorded.items():
        if key.is_error:
            continue
        if packets.origin and all(line["verdict"] == "moot" for line in packets.origin):
            undone = True
            continue    # between equal ports a packet may be an answer or an opener
        wanted, actual = predicted(packets), seen(live.get(key))
        if undone and wanted.opened and not actual.opened:
            comparison.not_made += 1
            continue
        comparison.connections += 1
        if any(line["verdict"] != "allow" for line in packets.origin + packets.reply):
            comparison.blocked += 1
            undone = True
        if wanted != actual:
            comparison.differences.append(f"{comparison.policy} {scenario}: {key} should be {wanted}, is {actual}")


def recorded_replays() -> list[Any]:
    """Return triples of a policy, a capture and a change file or None."""
    changes = PCAPS / "changes"
    return [
        pytest.param(PCAPS / "shop.yaml", PCAPS / "shop.pcap", None, id="shop"),
        pytest.param(PCAPS / "shop.yaml", PCAPS / "shop.pcap", PCAPS / "shop.changes.yaml", id="shop, changes"),
        pytest.param(changes / "policy.yaml", changes / "network.pcap", changes / "changes.yaml", id="changes"),
        *(pytest.param(PROGRAMS / f"{name}.yaml", PROGRAMS / "network.pcap", None, id=name)
          for name in ("web", "closed", "members-ipv6", "priorities")),
    ]  # fmt: skip

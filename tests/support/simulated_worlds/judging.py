"""Ask sgfast about a world's log, and hold what it says against the truth.

A fault is a claim that the truth contradicts. What sgfast says it cannot tell is none, and neither is what it says with
less than conclusive evidence; but a status 0 of ``--fail-on`` is a claim in any case.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sgfast.__main__ import run
from simulated_worlds.account import NUMBERS, TCP, UDP, Filters, Rule
from simulated_worlds.aws_log import write_aws
from simulated_worlds.connections import SYN, Connection
from simulated_worlds.kinds import DAY
from simulated_worlds.worlds import World
from simulated_worlds.zeek_log import write_zeek


class Fault(NamedTuple):
    #: ``missed``, ``false``, ``green``, ``removed``, ``unused``, ``needless`` or ``crash``.
    check: str
    #: The kind of traffic, and more about it.
    about: str
    text: str


@dataclass
class Outcome:
    seed: int
    version: str
    label: str
    kinds: list[str]
    conclusive: str = ""
    reasons: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    connections: int = 0
    removals: str = ""


class Claim(NamedTuple):
    """A row of a report: two ends by name, and a protocol with ports, None for any."""

    source: str
    target: str
    protocol: int | None
    ports: frozenset[int] | None
    is_unsure: bool

    def is_about(self, source: str, target: str, protocol: int, port: int) -> bool:
        return (self.source, self.target) == (source, target) and self.protocol in (None, protocol) and (
            self.ports is None or port in self.ports or protocol not in (TCP, UDP)
        )  # fmt: skip


def claims(rows: Iterable[dict[str, Any]]) -> Iterator[Claim]:
    """Yield the rows, and each reading of those that cannot be told."""
    for row in rows:
        for reading in row.get("readings") or [row]:
            source, target = (_name(reading[key]) for key in ("from", "to"))
            for service in _services(reading["service"]):
                yield Claim(source, target, *service, row.get("opener") == "unknown")


def _name(end: Any) -> str:
    return str(end["name"] if isinstance(end, dict) else end)


def _services(text: str) -> Iterator[tuple[int | None, frozenset[int] | None]]:
    """Yield protocols and ports of such as ``tcp/22,80, udp/53``, ``tcp (40 ports)``, ``icmp`` or ``7 services``."""
    protocol: int | None = None
    for word in re.split(r", ?", text):
        found = re.match(r"([a-z]+)", word)
        if found:
            protocol = NUMBERS.get(found[1])
        ports = re.search(r"(?:^|/)(\d+)(?:-(\d+))?$", word)
        if ports:
            first = int(ports[1])
            yield protocol, frozenset(range(first, int(ports[2] or first) + 1))
        else:
            yield protocol, None


def write_world(world: World, folder: Path) -> None:
    """Write ``policy.yaml`` and ``logs/``."""
    logs = folder / "logs"
    logs.mkdir()
    (folder / "policy.yaml").write_text(json.dumps(world.account.document(world.rules), indent=1))
    (write_zeek if world.version == "zeek" else write_aws)(world, logs)


def judge(world: World, folder: Path) -> Outcome:
    """Write a world's policy, logs and truth into a folder, ask sgfast, and judge its answers."""
    write_world(world, folder)
    (folder / "truth.json").write_text(json.dumps(_truth(world), indent=1))
    outcome = Outcome(world.seed, world.version, world.label, world.kinds, connections=len(world.truth))
    if not any(world.is_seen(connection) for connection in world.truth):
        return outcome
    try:
        _judge_replay(world, outcome, folder)
        _judge_keep(world, outcome, folder)
        if world.length > 31 * DAY:
            _judge_removal(world, outcome, folder)
            _judge_unused(world, outcome, folder)
    except Failed as failed:
        outcome.faults.append(Fault("crash", "", str(failed)))
    return outcome


class Failed(Exception):
    """A command that gave no answer."""


def _ask(folder: Path, name: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run([*arguments, "--format", "json"])
    (folder / f"{name}.json").write_text(out.getvalue())
    if status not in (0, 1):
        raise Failed(f"{name}: status {status}: {err.getvalue()[-500:]}")
    return status, json.loads(out.getvalue())


def _judge_replay(world: World, outcome: Outcome, folder: Path) -> None:
    status, said = _ask(folder, "replay", "replay", str(folder / "policy.yaml"), str(folder / "logs"), "-q",
                        "--by", "address", "--top", "1000000", "--fail-on", "would-break")  # fmt: skip
    outcome.conclusive = said["evidence"]["conclusive"]
    outcome.reasons = [reason["code"] for reason in said["evidence"]["reasons"]]
    broken = list(claims(said["would_break"]))
    told = [*broken, *claims(said["cannot_tell"])]
    for about, c in _breaking(world):
        is_told = any(_covers(world, claim, c) for claim in told)
        if status == 0:
            outcome.faults.append(Fault("green", about, _text(world, c)))
        if outcome.conclusive == "yes" and not is_told:
            outcome.faults.append(Fault("missed", about, _text(world, c)))
    if outcome.conclusive == "yes":
        for claim in broken:
            if about := _falsehood(world, claim):
                outcome.faults.append(Fault("false", about, str(claim)))


def _judge_keep(world: World, outcome: Outcome, folder: Path) -> None:
    """Judge what is added: a rule that no breaking connection needs opens something for nothing."""
    _, said = _ask(folder, "keep", "suggest", str(folder / "logs"), "--policy", str(folder / "policy.yaml"),
                   "--keep", "-q")  # fmt: skip
    if said["evidence"]["conclusive"] != "yes":
        return
    breaking = [c for c in world.truth if _fate(world, c) != "works"]
    for name, rule in _added(said).items():
        alone = Filters(world.account, {name: rule})
        if not any(_uses(world, alone, rule, c) for c in breaking):
            outcome.faults.append(Fault("needless", _needless(world, rule), str(rule)))


def _judge_removal(world: World, outcome: Outcome, folder: Path) -> None:
    _, said = _ask(folder, "remove", "suggest", str(folder / "logs"), "--policy", str(folder / "policy.yaml"),
                   "--remove", "30d", "-q")  # fmt: skip
    outcome.removals = said["evidence"]["conclusive"]
    if outcome.removals != "no":
        removed = {row["rule"] for row in said["removed"]}
        rules = {name: rule for name, rule in world.rules.items() if name not in removed} | _added(said)
        outcome.faults += _taken_away(world, "removed", rules)


def _judge_unused(world: World, outcome: Outcome, folder: Path) -> None:
    _, said = _ask(folder, "check", "check", str(folder / "policy.yaml"), "--traffic", str(folder / "logs"))
    unused = {finding["rule"] for finding in said["findings"] if finding["code"] == "SG012" and finding["certain"]}
    rules = {name: rule for name, rule in world.rules.items() if name not in unused}
    outcome.faults += _taken_away(world, "unused", rules)


def _taken_away(world: World, check: str, rules: dict[str, Rule]) -> Iterator[Fault]:
    """Yield the connections that work, but would not with these rules."""
    after, seen = Filters(world.account, rules), set()
    for c in world.truth:
        is_useful = (c.answered or c.kind == "one way") and not c.earlier_owner and not c.rejected_by
        if is_useful and _is_within(world, c) and _fate(world, c) == "works" and world.denial(c, after):
            about = f"{c.kind}{'' if world.is_seen(c) else ', not logged'}"
            if about not in seen:
                seen.add(about)
                yield Fault(check, about, _text(world, c))


# Truth


def _fate(world: World, c: Connection) -> str:
    """Return what the policy does to a connection: ``works``, ``breaks``, or ``unsettled`` if each end opened it by
    itself and only one of them may.
    """
    denials = {world.denial(c)}
    if c.both_called:
        denials.add(world.filters.denial(c.responder, c.opener, c.protocol, c.port, c.opener_port))
    return "works" if denials == {""} else "breaks" if "" not in denials else "unsettled"


def _is_within(world: World, c: Connection) -> bool:
    return any(0 <= sent.time < world.length for sent in c.sent)


def _shows_answer(world: World, c: Connection) -> bool:
    """Return whether the log has packets of both ends, or so many of one that they must have been answered."""
    within = [sent for sent in c.sent if 0 <= sent.time < world.length]
    if c.unseen:
        shown = [sent for sent in within if sent.by_opener != (c.unseen == "opener")]
        return sum(sent.packets for sent in shown) >= 5 and {sent.flags & SYN for sent in shown} == {0, SYN}
    return c.answered and len({sent.by_opener for sent in within}) == 2


def _breaking(world: World) -> Iterator[tuple[str, Connection]]:
    """Yield one connection for each pair of ends and service that worked, is in the log, and would break."""
    seen = set()
    for c in world.truth:
        key = (c.opener, c.responder, c.protocol, c.port)
        if (key not in seen and not c.earlier_owner and world.is_seen(c) and _shows_answer(world, c)
                and _fate(world, c) == "breaks"):  # fmt: skip
            seen.add(key)
            yield f"{c.kind}{f', {c.unseen} unseen' if c.unseen else ''}: {world.denial(c)}", c


def _covers(world: World, claim: Claim, c: Connection) -> bool:
    """Return whether a row is about a connection. Where the row says that its opener is unknown, or each end opened it,
    either direction will do.
    """
    opener, responder = world.account.name(c.opener), world.account.name(c.responder)
    if claim.is_about(opener, responder, c.protocol, c.port):
        return True
    return (claim.is_unsure or c.both_called) and claim.is_about(responder, opener, c.protocol, c.opener_port)


def _falsehood(world: World, claim: Claim) -> str:
    """Return what is wrong with a row of what would break, or "" if it is right."""
    about = [c for c in world.truth if not c.earlier_owner and _covers(world, claim, c)]
    if any(c.answered and _fate(world, c) != "works" for c in about):
        return ""
    for c in about:
        why = "allowed" if _fate(world, c) == "works" else "not answered"
        return f"{c.kind}: {why}"
    for c in world.truth:
        opener, responder = world.account.name(c.opener), world.account.name(c.responder)
        is_reversed = claim.is_about(responder, opener, c.protocol, c.opener_port)
        if c.earlier_owner and (is_reversed or claim.is_about(opener, responder, c.protocol, c.port)):
            return f"{c.kind}: earlier owner"
        if is_reversed:
            return f"{c.kind}: reversed"
    return "nat: gateway" if world.gateway in claim else "nothing such"


def _added(said: dict[str, Any]) -> dict[str, Rule]:
    """Return the rules that a suggestion adds, one for each range of ports."""
    found = {}
    for row in said["rules"]:
        protocol = None if row["protocol"] == "all" else NUMBERS.get(row["protocol"], row["protocol"])
        for n, ports in enumerate(row["ports"] or [None]):
            peer = "" if row["peer"].endswith("/0") else row["peer"]
            found[f"+{row['rule']} {n}"] = Rule(row["group"], row["direction"], protocol,
                                               tuple(ports) if ports else None, peer)  # fmt: skip
    return found


def _uses(world: World, alone: Filters, rule: Rule, c: Connection) -> bool:
    """Return whether a rule lets a connection, or its replies, through the filter that the rule is for."""
    ways = [(c.opener, c.responder, c.port), (c.responder, c.opener, c.opener_port)]
    for source, target, port in ways if c.both_called or world.account.stateless else ways[:1]:
        end, peer = (target, source) if rule.direction == "inbound" else (source, target)
        instance = world.account.by_address.get(end)
        if instance and rule.group in instance.groups and alone.admits(end, rule.direction, c.protocol, port, peer):
            return True
    return False


def _needless(world: World, rule: Rule) -> str:
    """Return the kind of the traffic that a needless rule lets through."""
    alone = Filters(world.account, {"": rule})
    kinds = {c.kind for c in world.truth if _uses(world, alone, rule, c)}
    return ", ".join(sorted(kinds)) or "no traffic"


def _text(world: World, c: Connection) -> str:
    ports = f":{c.opener_port} -> {world.account.name(c.responder)}:{c.port}"
    return f"{world.account.name(c.opener)}{ports} protocol {c.protocol} at {world.begin + c.sent[0].time:.0f}"


def _truth(world: World) -> dict[str, Any]:
    rows = [
        {"kind": c.kind, "protocol": c.protocol, "opener": world.account.name(c.opener), "opener_port": c.opener_port,
         "responder": world.account.name(c.responder), "port": c.port, "first": world.begin + c.sent[0].time,
         "last": world.begin + c.sent[-1].time, "answered": c.answered, "seen": world.is_seen(c),
         "fate": _fate(world, c), "denial": world.denial(c), "both_called": c.both_called,
         "rejected_by": c.rejected_by, "unseen": c.unseen, "gateway": c.gateway, "earlier_owner": c.earlier_owner}
        for c in world.truth
    ]  # fmt: skip
    about = {name: getattr(world, name) for name in ("seed", "version", "kinds", "length", "interval", "off", "late")}
    return about | {"logged": sorted(world.logged), "connections": rows}

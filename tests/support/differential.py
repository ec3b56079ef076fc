"""Run engine and reference side by side over the same frames and report the first packet on which they differ.

As a program, it runs a given number of packets: ``python tests/support/differential.py 20000000``. With the further
argument ``changing`` (and a seed) the policy changes in every run instead of in every third. With ``full`` every
connection table is soon full.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from long_run import long_run
from policy_changes import Changer, Mover
from traffic import SECOND, Crowd, Traffic, policies, routed

from sgfast.base.errors import AmbiguousAddress
from sgfast.engine import MIDSTREAMS, MODES, PENDING, REASONS, VERDICTS, Engine, FrameBatch
from sgfast.policy.changes import Change
from sgfast.policy.model import Policy
from sgfast.questions.replaying.kinds import joined, kinds_of
from sgfast.reference.engine import ReferenceEngine
from sgfast.reference.verdicts import PacketVerdict
from sgfast.rules.compiler import tables

#: The settings ``on_change`` (SPEC 6.7) used in turn.
ON_CHANGE: tuple[Any, ...] = ("cut-inbound", "forget-unmatched", "cut-unmatched", "cut-inbound", "keep")
#: Options of a run: mode, midstream and VPC.
runs = st.tuples(st.sampled_from(MODES), st.sampled_from(MIDSTREAMS), st.sampled_from((None, None, None, "red")))


def counters_of(engine: Engine) -> dict[str, Any]:
    """Return all counters except the memory, which depends on how the random hash fills tables."""
    return {name: value for name, value in engine.dataplane.counters.items() if name != "table_bytes"}


def spell(engine: Engine, row: Any) -> tuple[Any, ...]:
    """Format a result row like a verdict of the reference model."""
    sides = []
    for name in ("egress", "ingress"):
        side = row[name]
        if side["verdict"] == 255:
            sides.append(None)
            continue
        sides.append(
            (
                engine.instances[side["instance"]].name,
                VERDICTS[side["verdict"]],
                REASONS[side["reason"]],
                engine.rules[side["rule"]].id if side["rule"] >= 0 else None,
            )
        )
    return VERDICTS[row["verdict"]], REASONS[row["reason"]], *sides


def expected(verdict: PacketVerdict) -> tuple[Any, ...]:
    sides = [
        None if side is None else (side.instance, side.verdict, side.reason, side.rule)
        for side in (verdict.egress, verdict.ingress)
    ]
    return verdict.verdict, verdict.reason, *sides


def compare(
    policy: Policy, traffic: Traffic, run: tuple[Any, ...], batch: int, seen: Counter[Any], hash_key: Any = None,
    changer: Changer | None = None, through: Callable[[Engine], Engine] | None = None,
) -> None:
    """Judge ``traffic`` with both and raise AssertionError at the first packet on which they differ.

    ``changer`` changes the policy between batches. ``through`` transforms an engine between batches.
    """
    mode, midstream, vpc = run
    engine = Engine(policy, mode=mode, midstream=midstream, vpc=vpc, _reporting=True, _hash_key=hash_key)
    reference = ReferenceEngine(policy, mode=mode, midstream=midstream, vpc=vpc)
    # This engine keeps the rows of connections and judges all packets on the slow path.
    slow = Engine(policy, mode=mode, midstream=midstream, vpc=vpc, _reporting=True, _keep_flows=True)
    slow.dataplane.close_fast_path()
    results: list[Any] = []
    resolved: list[Any] = []
    #: Changes by the number of packets before them.
    changes: dict[int, tuple[list[Change], int, tuple[int, int]]] = {}
    for start in range(0, len(traffic.frames), batch):
        if changer is not None and start:
            drawn = changer.changes(engine.policy)
            now = engine.dataplane.counters["clock_ns"] + int(changer.pick((0, 1, SECOND, -SECOND, 45 * SECOND)))
            try:
                done, same = engine.apply(drawn, now), slow.apply(drawn, now)
                assert same == done
            except AmbiguousAddress:
                drawn = []      # two VPCs own an address, and no VPC is chosen
            if drawn:
                changes[start] = (drawn, now, (done.disconnected, done.finished))
                seen.update(("change", type(change).__name__) for change in drawn)
                seen["disconnected"] += done.disconnected
                seen["disconnected", policy.settings.on_change] += done.disconnected
                seen["finished"] += done.finished
        if through is not None:
            engine = through(engine)
        part = slice(start, start + batch)
        frames = FrameBatch.from_frames(traffic.frames[part], traffic.times_ns[part], traffic.wire_lengths[part])
        results.append(engine.process(frames))
        resolved.append(engine.resolved())
        assert (slow.process(frames) == results[-1]).all(), f"on the slow path, to packet {part.stop}, {run}"
        slow.resolved()
        assert counters_of(slow) == counters_of(engine), f"on the slow path, to packet {part.stop}, {run}"
        assert (slow.dataplane.rule_counts == engine.dataplane.rule_counts).all(), f"rule counts, {run}"
    rows = np.concatenate(results)
    late = np.concatenate([*resolved, engine.resolved(everything=True)])
    assert (rows["verdict"][late["number"] - 1] == PENDING).all()
    rows[late["number"] - 1] = late["result"]
    began: Counter[str] = Counter()
    created: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    verdicts: list[PacketVerdict] = []
    policies_then: list[Policy] = []
    for n, (frame, time_ns, wire) in enumerate(
        zip(traffic.frames, traffic.times_ns, traffic.wire_lengths, strict=True)
    ):
        if n in changes:
            drawn, now, cut = changes[n]
            counted = reference.apply(drawn, now)
            if (counted.disconnected, counted.finished) != cut:
                raise AssertionError(f"{drawn} before packet {n + 1}, {run}: engine cuts {cut}, reference {counted}")
        verdicts.append(reference.process_frame(time_ns, frame, wire_length=wire))
        policies_then.append(reference.policy)
    opened = engine.open_connections, slow.open_connections, reference.open_connections
    assert opened == (opened[0],) * 3, f"open connections, {run}: {opened}"
    seen["open"] += opened[0]
    reference.finish()
    numbered = reference.resolved()
    assert [number for number, _ in numbered] == sorted(late["number"].tolist())
    for number, verdict in numbered:
        seen["was pending", verdict.verdict, verdict.reason] += 1
        verdicts[number - 1] = verdict
    for n, (verdict, frame, wire) in enumerate(zip(verdicts, traffic.frames, traffic.wire_lengths, strict=True)):
        got, wanted = spell(engine, rows[n]), expected(verdict)
        if got != wanted:
            raise AssertionError(
                f"packet {n + 1} of {len(traffic.frames)}, {run}, {frame.hex()}, wire {wire}, "
                f"changes before: {[(k, c[0]) for k, c in changes.items() if k <= n]}:\n"
                f"  engine    {got}\n  reference {wanted}"
            )
        seen["verdict", verdict.verdict] += 1
        seen["reason", verdict.reason] += 1
        stateless = {group.name for group in policies_then[n].security_groups if not group.stateful}
        loose = [
            side.reason for side in (verdict.egress, verdict.ingress)
            if side and (judge := policies_then[n].instance_by_name.get(side.instance))
            and not stateless.isdisjoint(judge.security_groups)
        ]  # fmt: skip
        seen.update(("stateless", reason) for reason in loose)
        seen["past stateless filters"] += bool(loose)
        if verdict.tcp_transition:
            seen["tcp", *verdict.tcp_transition] += 1
        if verdict.began:
            began[verdict.began] += 1
        created.update(verdict.created)
        hits.update(side.rule for side in (verdict.egress, verdict.ingress) if side and side.rule)
    for each in (engine, slow):
        each.dataplane.finish()
    kinds = kinds_of(engine)
    assert kinds_of(slow) == kinds, f"kinds of traffic with rows of connections and without, {run}"
    rows_of_kinds = joined(kinds)
    assert ((rows_of_kinds["packets"] > 0) | (rows_of_kinds["connections"] > 0)).all(), f"no beginning, {run}"
    counters = engine.dataplane.counters
    clock = reference.clock
    assert (counters["late"], counters["most_late_ns"], counters["restarts"]) == (
        clock.late, clock.most_late, clock.restarts
    )  # fmt: skip
    assert counters["packets"] == len(traffic.frames)
    assert counters["bytes"] == sum(
        max(w, len(f)) for w, f in zip(traffic.wire_lengths, traffic.frames, strict=True)
    )
    assert {k: counters[k] for k in ("opened", "inferred", "denied")} == {
        k: began[k] for k in ("opened", "inferred", "denied")
    }, f"beginnings, {run}"
    if changes:
        return      # the reference adds up two rules that have the same id at different times
    for n, count in enumerate(engine.dataplane.rule_counts):
        rule = engine.rules[n].id
        assert (count["connections"], count["packets"]) == (created[rule], hits[rule]), rule


def differential(
    packets: int, seed_value: int, *, per_case: int = 2000, busy: int = 8, changing: bool = False, full: bool = False
) -> Counter[Any]:
    """Compare about ``packets`` packets and return counts of what occurred. Each drawn policy judges ``busy`` runs of
    traffic, every third of them with routers.

    With ``changing`` the policy changes between batches, and in an additional run of each policy a few addresses often
    move between instances. With ``full`` the connection table has very little room.
    """
    seen: Counter[Any] = Counter()

    @seed(seed_value)
    @settings(
        max_examples=max(1, packets // (per_case * busy)), database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(policies(), st.integers(0, 2**32 - 1))
    def run(drawn: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        for number in range(busy + changing):
            moving = number == busy
            policy = routed(drawn, np.random.default_rng([case_seed, number])) if number % 3 == 2 else drawn
            if full:
                policy = replace(policy, settings=replace(policy.settings, max_connections=(1, 2, 5, 40)[number % 4]))
            if changing:
                on_change = ON_CHANGE[(case_seed + number) % len(ON_CHANGE)]
                policy = replace(policy, settings=replace(policy.settings, on_change=on_change))
            crowd = Crowd(policy, rng, fragments=True, few=moving)
            way = (
                MODES[rng.integers(len(MODES))],
                MIDSTREAMS[rng.integers(len(MIDSTREAMS))],
                (None, None, None, "red")[rng.integers(4)],
            )
            traffic = crowd.draw(per_case)
            changer = Changer(rng) if changing else None
            batch = int(rng.integers(1, 400))
            if moving:
                hosts = [host for family in (4, 6) for host in (*crowd.inside[family], *crowd.outside[family])]
                changer, batch = Mover(rng, hosts), 30
            # The limit decides whether instances in several groups have joined tables or are judged group by group.
            with mock.patch.object(tables, "MAX_JOINED_STEPS", (0, 3_000, 64_000_000)[case_seed % 3]):
                compare(policy, traffic, way, batch, seen, changer=changer)
            seen["packets"] += len(traffic.frames)

    run()
    return seen


def main() -> None:
    always, full = "changing" in sys.argv, "full" in sys.argv

    def run(left: int, seed_value: int, step: int) -> tuple[Counter[Any], Counter[str]]:
        # In every third step the policy changes between packets.
        return differential(min(left, 1_000_000), seed_value, changing=always or step % 3 == 2, full=full), Counter()

    long_run("differential.py", None, run)


if __name__ == "__main__":
    main()

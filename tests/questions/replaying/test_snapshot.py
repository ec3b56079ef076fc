"""Snapshots: an engine restored from a file is the same engine; an invalid file is rejected (SPEC 9.13)."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import sgfast, shell
from datagrams import Datagram
from differential import MIDSTREAMS, MODES, compare, counters_of
from effort import some
from frames import ethernet, ip, tcp, udp
from growth import operations
from hypothesis import HealthCheck, Phase, given, seed, settings
from policy_changes import Changer
from test_split_captures import CAPTURE, POLICY, found, records
from traffic import Crowd, drawn, policies

from sgfast import (
    Engine,
    FrameBatch,
    Policy,
    ReadOptions,
    SnapshotError,
    load_snapshot,
    replay,
    save_snapshot,
)
from sgfast.clouds.loading import load_policy
from sgfast.engine import snapshot
from sgfast.policy.changes import AddRule, RemoveRule
from sgfast.policy.model import Rule
from sgfast.policy.serialization import from_plain, to_plain
from sgfast.questions.replaying.kinds import kinds_of
from sgfast.report.lines import ConnectionLines, VerdictLines
from sgfast.traffic.capture import open_capture

CHANGES = POLICY.parent / "shop.changes.yaml"
Capsys = pytest.CaptureFixture[str]


def test_engine_that_goes_through_snapshots_judges_as_the_reference(tmp_path: Path) -> None:
    seen: Counter[Any] = Counter()

    def through(engine: Engine) -> Engine:
        save_snapshot(engine, tmp_path / "state")
        seen["snapshot"] += 1
        return load_snapshot(tmp_path / "state")

    @drawn(20, some(4, 12))
    def run(policy: Policy, case_seed: int) -> None:
        rng = np.random.default_rng(case_seed)
        for changing in (False, True):
            way = (MODES[rng.integers(2)], MIDSTREAMS[rng.integers(3)], (None, None, "red")[rng.integers(3)])
            traffic = Crowd(policy, rng).draw(800)
            changer = Changer(rng) if changing else None
            compare(policy, traffic, way, int(rng.integers(20, 300)), seen, changer=changer, through=through)

    run()
    assert seen["snapshot"] > some(40, 100)
    assert seen["reason", "disconnected"] > 20 and seen["reason", "established"] > 2000
    met = {key[1] for key in seen if key[0] == "reason"}
    assert met >= {"inferred", "opener-denied", "related", "midstream"}


@pytest.mark.one_thread    # several workers distribute rows by a hash with a new key
def test_snapshot_of_a_snapshot_is_the_same_file(tmp_path: Path) -> None:
    engine = Engine(POLICY, mode="causal", midstream="infer", _reporting=True, _keep_flows=True)
    with open_capture(str(CAPTURE)) as reader:
        while (batch := reader.next_batch()) is not None:
            engine.process(batch)
    save_snapshot(engine, tmp_path / "one")
    restored = load_snapshot(tmp_path / "one")
    assert counters_of(restored) == counters_of(engine)
    save_snapshot(restored, tmp_path / "two")
    one, two = np.load(tmp_path / "one"), np.load(tmp_path / "two")
    for name in one.files:
        assert name == "about" or one[name].tobytes() == two[name].tobytes(), name


@pytest.mark.parametrize("options", [{"_reporting": True}, {"mode": "causal", "_keep_flows": True}])
def test_a_policy_without_rules_has_snapshots_too(options: dict[str, Any], tmp_path: Path) -> None:
    shop = load_policy(POLICY)
    bare = replace(shop, security_groups=tuple(replace(group, rules=()) for group in shop.security_groups))
    engine = Engine(bare, midstream="infer", **options)
    engine.process_frames([ethernet(ip("198.51.100.1", "10.0.0.5", tcp(1000, 443, "S")))], [1])
    save_snapshot(engine, tmp_path / "state")
    assert counters_of(load_snapshot(tmp_path / "state")) == counters_of(engine)


def test_what_a_snapshot_denies_because_it_waits_no_longer_is_among_its_denials(tmp_path: Path) -> None:
    engine = Engine(POLICY, _reporting=True)
    later = ethernet(Datagram("203.0.113.9", "10.0.0.5", udp(1, 53, bytes(40))).piece("24-48"))
    engine.process_frames([later], [1])
    save_snapshot(engine, tmp_path / "state")
    loaded = load_snapshot(tmp_path / "state")
    assert counters_of(loaded)["verdicts"][1] == 1
    assert int(kinds_of(loaded).rows["packets"].sum()) == 1


def test_fragments_wait_on_in_an_engine_that_is_saved(tmp_path: Path) -> None:
    """Saved or not, an engine goes on alike, and so does the snapshot's engine, for which nothing waits (SPEC 9.13)."""
    datagram = Datagram("203.0.113.9", "10.0.0.5", udp(1, 53, bytes(40)))
    first, later = (ethernet(piece) for piece in datagram.pieces("0-24+ 24-48"))
    for jobs in (1, 2):
        saved, other = Engine(POLICY, jobs=jobs, _reporting=True), Engine(POLICY, jobs=jobs, _reporting=True)
        for engine in (saved, other):
            engine.process_frames([later], [1])
        before = counters_of(saved)
        save_snapshot(saved, tmp_path / "state")
        assert counters_of(saved) == before and len(saved.resolved()) == 0
        loaded = load_snapshot(tmp_path / "state", jobs=jobs)
        assert len(loaded.resolved(everything=True)) == 0 and counters_of(loaded)["verdicts"][1] == 1
        results = [engine.process_frames([first], [2]) for engine in (saved, other)]
        assert results[0] == results[1]
        resolved = [engine.resolved() for engine in (saved, other)]
        assert len(resolved[0]) == 1 and resolved[0] == resolved[1]
        assert counters_of(saved) == counters_of(other)


def test_snapshot_while_other_threads_change_the_policy_and_judge_can_be_loaded(tmp_path: Path) -> None:
    """Each call of theirs comes before the snapshot or after it (SPEC 10.20)."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)     # so that they come in between as often as possible
    engine = Engine(POLICY, mode="causal", midstream="infer", _reporting=True)
    group = engine.policy.security_groups[0].name
    # The first fragment never comes.
    later = ethernet(Datagram("203.0.113.9", "10.0.0.5", udp(1, 53, bytes(40))).piece("24-48"))
    stop = threading.Event()

    def change() -> None:
        for number in count():
            if stop.is_set():
                break
            engine.apply(AddRule(group, Rule(f"added-{number}", "inbound", 4, 17)), 0)
            engine.apply(RemoveRule(group, f"added-{number}"), 0)

    def judge() -> None:
        while not stop.is_set():
            engine.process_frames([later], [0])

    threads = [threading.Thread(target=target) for target in (change, judge)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(some(20, 200)):
            save_snapshot(engine, tmp_path / "state")
            load_snapshot(tmp_path / "state")
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("changes", [None, CHANGES], ids=["", "changes"])
def test_replay_that_stops_and_goes_on_is_one_replay(tmp_path: Path, number: int, changes: Path | None) -> None:
    print(f"seed {number}")
    head, parts = records()
    rng = np.random.default_rng(number)
    at = sorted(rng.integers(0, len(parts) + 1, size=2).tolist())
    whole: tuple[list[bytes], list[bytes]] = ([], [])
    pieces: tuple[list[bytes], list[bytes]] = ([], [])
    expected = replay(
        POLICY, CAPTURE, changes=changes, packets=VerdictLines(whole[0].append), flows=ConnectionLines(whole[1].append)
    )
    state = None
    for n, (first, last) in enumerate(zip([0, *at], [*at, len(parts)], strict=True)):
        piece = tmp_path / f"{n}.pcap"
        piece.write_bytes(head + b"".join(parts[first:last]))
        result = replay(
            POLICY, piece, changes=changes, resume=state, snapshot=tmp_path / f"{n}.state" if n < len(at) else None,
            packets=VerdictLines(pieces[0].append), flows=ConnectionLines(pieces[1].append),
        )  # fmt: skip
        state = tmp_path / f"{n}.state"
    assert b"".join(pieces[0]) == b"".join(whole[0])
    told, wanted = (sorted(b"".join(lines).splitlines()) for lines in (pieces[1], whole[1]))
    assert told == wanted
    assert found(result) == found(expected) and result.changes == expected.changes
    assert result.changes_left == expected.changes_left and len(result.captures) == len(at) + 1


def test_a_replay_that_goes_on_knows_with_which_groups_an_instance_was_added(tmp_path: Path) -> None:
    head, parts = records()
    for name, part in (("first.pcap", parts[:130]), ("rest.pcap", parts[130:])):
        (tmp_path / name).write_bytes(head + b"".join(part))
    added = {"name": "new-1", "addresses": ["10.0.0.5"], "security_groups": ["web"]}
    changes = [
        {"at": 0, "remove_instance": {"instance": "web-1"}}, {"at": 0, "add_instance": added},
        {"at": 1, "add_member": {"group": "db", "instance": "new-1"}},
    ]  # fmt: skip
    whole = replay(POLICY, CAPTURE, changes=changes)
    state = tmp_path / "state"
    replay(POLICY, tmp_path / "first.pcap", changes=changes, snapshot=state)
    result = replay(POLICY, tmp_path / "rest.pcap", changes=changes, resume=state)
    groups = {row["destination_groups"] for row in result.tables.denied if row["destination"] == "new-1"}
    assert groups == {"web"} and result.kinds == whole.kinds


def test_another_process_goes_on(tmp_path: Path) -> None:
    head, parts = records()
    for name, part in (("a", parts[:100]), ("b", parts[100:])):
        (tmp_path / name).write_bytes(head + b"".join(part))
    command = [sys.executable, "-m", "sgfast", "replay", str(POLICY), "--changes", str(CHANGES), "--format", "json"]

    def run(*arguments: object) -> dict[str, Any]:
        done = subprocess.run([*command, *map(str, arguments)], capture_output=True, check=True, cwd=tmp_path)
        told: dict[str, Any] = json.loads(done.stdout)
        return {key: value for key, value in told.items() if not key.endswith("_seconds") and "per_second" not in key}

    run("a", "--snapshot", "state", "--verdicts", "first")
    whole = run(CAPTURE, "--verdicts", "whole")
    assert run("b", "--resume", "state", "--verdicts", "second") == whole
    assert (tmp_path / "first").read_bytes() + (tmp_path / "second").read_bytes() == (tmp_path / "whole").read_bytes()


# Rejected files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "state"
    replay(POLICY, CAPTURE, changes=CHANGES, snapshot=path)
    return path


def test_replay_goes_on_only_as_it_began(tmp_path: Path, state: Path, capsys: Capsys) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.read_text().replace("5432,6379", "5433,6379"))
    assert other.read_text() != POLICY.read_text()
    late = tmp_path / "late.yaml"
    late.write_text(CHANGES.read_text().replace("at: 1,", "at: 1.5,"))
    base = ("replay", POLICY, CAPTURE, "--resume", state)
    for arguments, words in (
        (("replay", other, CAPTURE, "--resume", state), "began with another policy"),
        ((*base, "--mode", "verbatim"), "had --mode causal, not verbatim"),
        ((*base, "--midstream", "deny"), "had --midstream infer, not deny"),
        ((*base, "--vpc", "default"), "had --vpc (none), not default"),
        ((*base, "--connections", tmp_path / "c"), "was without --connections, this one is with"),
        ((*base, "--changes", late), "does not begin with the 2 changes made before the snapshot"),
        (("replay", POLICY, CAPTURE, "--resume", tmp_path / "none"), "cannot be read: No such file"),
        (("replay", POLICY, CAPTURE, "--resume", tmp_path), "cannot be read: Is a directory"),
        (("replay", POLICY, CAPTURE, "--resume", CAPTURE), "is not a snapshot"),
        (("replay", POLICY, CAPTURE, "--resume", "-"), "--resume needs a file"),
        ((*base, "--engine", "reference"), "need --engine fast"),
        ((*base, "--snapshot", state), "is also an input"),
    ):
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", arguments
    assert not (tmp_path / "c").exists()
    save_snapshot(Engine(POLICY, _reporting=True), tmp_path / "engine")
    assert "of an engine" in sgfast(capsys, "replay", POLICY, CAPTURE, "--resume", tmp_path / "engine").one_line()


def test_replay_goes_on_with_the_packets_it_was_about(tmp_path: Path, capsys: Capsys) -> None:
    cut = tmp_path / "cut"
    options = ("--filter", "tcp or udp", "--dedup", "--decap", "vxlan,gre", "--merge")
    assert sgfast(capsys, "replay", POLICY, CAPTURE, *options, "--snapshot", cut).status == 0
    for options_now, words in (
        (("--dedup", "--decap", "gre,vxlan"), "had --filter tcp or udp, not (none)"),
        (("--filter", "tcp", "--dedup", "--decap", "gre,vxlan"), "had --filter tcp or udp, not tcp"),
        (("--filter", "tcp or udp", "--decap", "gre,vxlan"), "had --dedup (given), not (none)"),
        (("--filter", "tcp or udp", "--dedup", "--decap", "gre"), "had --decap gre,vxlan, not gre"),
    ):
        outcome = sgfast(capsys, "replay", POLICY, CAPTURE, "--resume", cut, *options_now)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == "", options_now
    # Each replay may merge files in its own way.
    outcome = sgfast(capsys, "replay", POLICY, CAPTURE, "--resume", cut, *options[:-1], "--format", "json")
    assert outcome.status == 0 and "that replay had" not in outcome.err


def test_one_capture_is_judged_up_to_a_time_and_from_there_on(tmp_path: Path, capsys: Capsys) -> None:
    cut = tmp_path / "cut"
    whole, pieces, later = [], [], []
    expected = replay(POLICY, CAPTURE, packets=VerdictLines(whole.append))
    replay(POLICY, CAPTURE, packets=VerdictLines(pieces.append), reading=ReadOptions(end="5"), snapshot=cut)
    after = replay(POLICY, CAPTURE, packets=VerdictLines(later.append), reading=ReadOptions(start="5"), resume=cut)
    assert b"".join(pieces + later) == b"".join(whole)
    assert (after.packets, after.verdicts, after.reasons) == (expected.packets, expected.verdicts, expected.reasons)
    told = [f"{cut}: that replay had --start (none), not 5", f"{cut}: that replay had --end 5, not (none)"]
    assert after.warnings == told
    outcome = sgfast(capsys, "replay", POLICY, CAPTURE, "--resume", cut, "--end", "5")
    assert outcome.status == 0 and "that replay had" not in outcome.err


def test_snapshot_whose_reading_options_are_forged_is_refused(tmp_path: Path, state: Path) -> None:
    for reading in ([], "tcp", None):
        rewrite(state, tmp_path / "forged", lambda about, arrays, it=reading: about["replay"].update(reading=it))
        with pytest.raises(SnapshotError, match="cannot be used as a snapshot"):
            replay(POLICY, CAPTURE, changes=CHANGES, resume=tmp_path / "forged")
    rewrite(state, tmp_path / "forged", lambda about, arrays: about["replay"]["reading"].update({"--filter": ["\n"]}))
    with pytest.raises(SnapshotError, match=r"had --filter \['\\n'\], not \(none\)"):
        replay(POLICY, CAPTURE, changes=CHANGES, resume=tmp_path / "forged")


def test_full_disk_and_failed_replay_leave_no_snapshot(tmp_path: Path, capsys: Capsys) -> None:
    outcome = sgfast(capsys, "replay", POLICY, CAPTURE, "--snapshot", "/dev/full")
    assert outcome.status == 2 and "/dev/full: cannot be written: No space left" in outcome.one_line()
    assert sgfast(capsys, "replay", POLICY, CAPTURE, tmp_path / "none", "--snapshot", tmp_path / "s").status == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_snapshot_is_a_regular_file(path: str, capsys: Capsys) -> None:
    # A device may be endless.
    assert "is not a regular file" in sgfast(capsys, "replay", POLICY, CAPTURE, "--resume", path).one_line()


def test_a_snapshot_from_a_pipe_says_what_to_do(tmp_path: Path, state: Path) -> None:
    outcome = shell('$sgfast replay "$policy" "$capture" --resume <(cat "$state")', policy=POLICY, capture=CAPTURE,
                    state=state)  # fmt: skip
    assert outcome.status == 2 and "save the snapshot to one first" in outcome.one_line()


def test_every_prefix_and_many_flips_are_refused_or_harmless(tmp_path: Path, state: Path) -> None:
    data = state.read_bytes()
    whole = counters_of(load_snapshot(state))
    broken = tmp_path / "broken"
    rng = np.random.default_rng(1)
    for length in [*range(100), *rng.integers(0, len(data), 60).tolist()]:
        broken.write_bytes(data[:length])
        with pytest.raises(SnapshotError, match="is not a snapshot, or is damaged"):
            load_snapshot(broken)
    refused = 0
    for at in rng.integers(0, len(data), 300).tolist():
        broken.write_bytes(data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :])
        try:
            # A flipped bit in the archive's times or origin fields has no effect.
            assert counters_of(load_snapshot(broken)) == whole
        except SnapshotError as error:
            refused += 1
            assert str(error).count("\n") == 0
    assert refused > 150


def rewrite(source: Path, target: Path, change: Any) -> None:
    with np.load(source) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    about = json.loads(arrays.pop("about").tobytes())
    change(about, arrays)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with target.open("wb") as stream:
        np.savez(stream, **arrays)


def test_forged_snapshots_are_refused_or_judge_on(tmp_path: Path, state: Path) -> None:
    # Valid checksums but invalid contents: no row may be used as a memory location.
    rng = np.random.default_rng(2)
    refused = used = 0
    with open_capture(str(CAPTURE)) as reader:
        batch = reader.next_batch()
        assert batch is not None
        for _ in range(some(60, 300)):
            def forge(about: dict[str, Any], arrays: dict[str, Any]) -> None:
                names = [name for name, array in arrays.items() if len(array)]
                array = arrays[names[rng.integers(len(names))]]
                flat = array.view(np.uint8).reshape(-1)
                for _ in range(int(rng.integers(1, 4))):
                    flat[rng.integers(len(flat))] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])

            rewrite(state, tmp_path / "forged", forge)
            try:
                engine = load_snapshot(tmp_path / "forged")
            except SnapshotError:
                refused += 1
                continue
            used += 1
            for row in engine.process(batch):
                engine.verdict(row)
            engine.dataplane.finish()
            engine.dataplane.take_flows()
    assert min(refused, used) > some(10, 50)


def test_how_rules_were_written_and_what_ids_are_gone_is_kept(tmp_path: Path) -> None:
    # Neither counts when values are compared, but both matter for later changes.
    policy = load_policy(POLICY)
    group = policy.security_groups[0]
    ahead = f"{group.name}/inbound/99"
    engine = Engine(policy)
    for change in (AddRule(group.name, Rule(ahead, "inbound", 4)), RemoveRule(group.name, ahead)):
        engine.apply(change, 0)
    save_snapshot(engine, tmp_path / "state")
    before, after = engine.policy, load_snapshot(tmp_path / "state").policy
    assert before.security_groups[0].gone == after.security_groups[0].gone == {ahead}
    wordings = [[rule.wording for g in p.security_groups for rule in g.rules] for p in (before, after)]
    assert wordings[0] == wordings[1] and len(set(wordings[0])) > 1


def tallied(dtype: Any, **fields: int) -> Any:
    row = np.zeros(1, dtype=dtype)
    row["packets"] = 1
    row["instance"] = row["rule"] = -1
    for name, value in fields.items():
        row[name] = value
    return row


def test_a_tally_takes_the_kinds_that_there_are(tmp_path: Path, state: Path) -> None:
    def fill(about: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["denials"] = tallied(arrays["denials"].dtype, inbound=1, has_ports=1, has_icmp=1)

    rewrite(state, tmp_path / "forged", fill)
    (rows, lost) = load_snapshot(tmp_path / "forged").dataplane.tallies["denials"]
    assert (len(rows), lost) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda about, arrays: about.pop("plane"),
        lambda about, arrays: about["plane"]["clock"].update(now="late"),
        lambda about, arrays: about["plane"]["clock"].update(now=1 << 70),
        lambda about, arrays: about["plane"]["clock"].update(most_late=60 * 10**9 + 1),
        lambda about, arrays: about["plane"]["clock"].update(most_late=-1),
        lambda about, arrays: about["plane"]["counters"].update(packets=-1),
        lambda about, arrays: about["plane"].update(verdicts=[1]),
        lambda about, arrays: about["policy"]["settings"].update(on_change="burn"),
        lambda about, arrays: about["policy"].update({"is": "Instance"}),
        lambda about, arrays: about["numbering"].update(rules=[]),
        lambda about, arrays: about["numbering"]["of_rules"].append(["x", "y", 10**9]),
        lambda about, arrays: about.update(mode="sideways"),
        lambda about, arrays: about.update(replay=[]),
        lambda about, arrays: arrays.pop("table.rows"),
        lambda about, arrays: arrays.update({"table.rows": arrays["table.rows"][:0]}),
        lambda about, arrays: arrays.update({"table.rows": np.concatenate([arrays["table.rows"]] * 2)}),
        lambda about, arrays: arrays.update({"table.age": arrays["table.age"][::-1].repeat(2)}),
        lambda about, arrays: arrays.update({"rule_counts": arrays["rule_counts"][:1]}),
        lambda about, arrays: arrays.update({"cuts": np.zeros(3)}),
        # A tally that holds more kinds than can exist would have no room for new ones.
        *(
            lambda about, arrays, name=name: arrays.update(denials=tallied(arrays["denials"].dtype, **{name: 2}))
            for name in ("inbound", "has_ports", "has_icmp")
        ),
    ],
)  # fmt: skip
def test_contents_that_do_not_fit_are_told_in_one_line(tmp_path: Path, state: Path, change: Any) -> None:
    rewrite(state, tmp_path / "forged", change)
    with pytest.raises(SnapshotError) as caught:
        load_snapshot(tmp_path / "forged")
    assert str(caught.value).startswith(f"{tmp_path / 'forged'}: is not a usable snapshot: ")
    assert "\n" not in str(caught.value)


def test_other_formats_and_compressed_archives_are_refused(tmp_path: Path, state: Path) -> None:
    rewrite(state, tmp_path / "newer", lambda about, arrays: about.update(format=99))
    with pytest.raises(SnapshotError, match="of format 99, but this version of sgfast reads format 19: replay from"):
        load_snapshot(tmp_path / "newer")
    bomb = io.BytesIO()
    np.save(bomb, np.zeros(10**8, dtype=np.uint8))
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.npy", bomb.getvalue())
    with pytest.raises(SnapshotError, match="is compressed"):
        load_snapshot(tmp_path / "bomb")


def directory_of(data: bytes) -> tuple[int, list[bytes]]:
    """Where an archive's directory begins, and its entries."""
    size, at = struct.unpack("<II", data[-10:-2])
    begins, entries = at, []
    while at < begins + size:
        assert data[at : at + 4] == b"PK\1\2"
        length = 46 + sum(struct.unpack("<HHH", data[at + 28 : at + 34]))
        entries.append(data[at : at + length])
        at += length
    return begins, entries


def with_directory(data: bytes, entries: Sequence[bytes]) -> bytes:
    """The archive with another directory."""
    begins, _ = directory_of(data)
    directory, count = b"".join(entries), len(entries) & 0xFFFF
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), begins, 0)
    return data[:begins] + directory + end


def renamed(entry: bytes, name: bytes) -> bytes:
    (length,) = struct.unpack("<H", entry[28:30])
    return entry[:28] + struct.pack("<H", len(name)) + entry[30:46] + name + entry[46 + length :]


def test_arrays_that_are_listed_twice_or_overlap_are_refused(tmp_path: Path, state: Path) -> None:
    data, forged = state.read_bytes(), tmp_path / "forged"
    _, entries = directory_of(data)
    forged.write_bytes(with_directory(data, entries))
    assert counters_of(load_snapshot(forged)) == counters_of(load_snapshot(state))
    names = [renamed(entries[0], b"%d.npy" % n) for n in range(100)]
    for listed, words in (
        ([*entries, entries[1]], "lists an array twice"), ([*entries, *names], "lists more than a snapshot has"),
    ):  # fmt: skip
        forged.write_bytes(with_directory(data, listed))
        with pytest.raises(SnapshotError, match=f"is not a snapshot, or is damaged: its directory {words}"):
            load_snapshot(forged)


def test_an_array_that_claims_to_be_encrypted_is_damage(tmp_path: Path, state: Path) -> None:
    data, forged = state.read_bytes(), tmp_path / "forged"
    _, entries = directory_of(data)
    forged.write_bytes(with_directory(data, [entries[0][:8] + b"\1" + entries[0][9:], *entries[1:]]))
    with pytest.raises(SnapshotError, match=r"is not a snapshot, or is damaged: .* encrypted"):
        load_snapshot(forged)


@pytest.mark.parametrize("count", [300_000, 600_000])
def test_a_directory_with_many_entries_is_refused_before_any_work(count: int, tmp_path: Path, state: Path) -> None:
    data, forged = state.read_bytes(), tmp_path / "forged"
    _, entries = directory_of(data)
    forged.write_bytes(with_directory(data, [entries[1]] * count))

    def load() -> None:
        with pytest.raises(SnapshotError, match="its directory is too long for a snapshot"):
            load_snapshot(forged)

    assert operations(load) < 2000


@pytest.mark.parametrize(("more", "is_read"), [(-1, False), (0, True), (1, True)])
@pytest.mark.parametrize("limit", ["_MOST_ARRAYS", "_LONGEST_DIRECTORY"])
def test_a_directory_below_at_and_above_its_limits(
    limit: str, more: int, is_read: bool, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entries = directory_of(state.read_bytes())
    longest_of_a_replay = 24 * 1001 + 1
    assert len(entries) == 28 and longest_of_a_replay < snapshot._MOST_ARRAYS
    assert max(map(len, entries)) + len("1000.") + 28 < snapshot._LONGEST_DIRECTORY / snapshot._MOST_ARRAYS
    size = len(entries) if limit == "_MOST_ARRAYS" else len(b"".join(entries))
    monkeypatch.setattr(snapshot, limit, size + more)
    if is_read:
        assert load_snapshot(state).dataplane.counters["packets"] > 0
    else:
        with pytest.raises(SnapshotError, match="is not a snapshot, or is damaged: its directory"):
            load_snapshot(state)


@pytest.mark.parametrize(
    "forge",
    [
        lambda row: row["starts"].__setitem__(0, 0),                # an end without a start
        lambda row: row["ends"].__setitem__(0, 0),
        lambda row: row["starts"].__setitem__(0, 1 << 0 | 1 << 1),  # a fragment begins within another
        lambda row: row["ends"].__setitem__(0, 1 << 2 | 1 << 5),    # an end more than starts
        lambda row: row["starts"].__setitem__(127, 1 << 63),
        lambda row: row["ends"].__setitem__(127, 1 << 63),
        lambda row: row.__setitem__("pieces", 2),
        lambda row: row.__setitem__("end", 32),
    ],
)
def test_fragments_that_no_datagram_can_have_are_refused(forge: Any, tmp_path: Path) -> None:
    first = Datagram("203.0.113.9", "10.0.0.5", udp(4000, 53, bytes(56))).piece("0-24+")
    engine = Engine(load_policy(POLICY))
    engine.process(FrameBatch.from_frames([ethernet(first)], [0]))
    save_snapshot(engine, tmp_path / "state")

    def change(about: dict[str, Any], arrays: dict[str, Any]) -> None:
        (row,) = arrays["datagrams"]
        assert (row["starts"][0], row["ends"][0], row["pieces"], row["end"]) == (1, 1 << 2, 1, 24)
        forge(row)

    load_snapshot(tmp_path / "state")
    rewrite(tmp_path / "state", tmp_path / "forged", change)
    with pytest.raises(SnapshotError, match="datagrams: inconsistent fragments"):
        load_snapshot(tmp_path / "forged")


def test_policy_as_plain_values_and_back() -> None:
    @seed(3)
    @settings(max_examples=some(15, 50), database=None, deadline=None, phases=(Phase.generate,),
              suppress_health_check=list(HealthCheck), print_blob=False)  # fmt: skip
    @given(policies())
    def run(policy: Policy) -> None:
        assert from_plain(Policy, json.loads(json.dumps(to_plain(policy)))) == policy

    run()
    shop = load_policy(POLICY)
    assert from_plain(Policy, json.loads(json.dumps(to_plain(shop)))) == shop

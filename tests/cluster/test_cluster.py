"""A replay on a Dask cluster: what comes out is what one process says, however packets are dealt out, whoever dies
(SPEC 9.15).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace as changed
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vpcs
from clusters import (
    BASE,
    DOCUMENT,
    POLICY,
    SHARDS,
    WEB,
    assert_same,
    captures_in,
    packets,
    same_on,
    spread,
    told,
    write,
)
from command import SHOP, sgfast
from differential import runs
from effort import EXHAUSTIVE, some
from frames import ethernet, ip, tcp, udp
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from policy_changes import Changer
from recordings import recorded_replays
from traffic import SECOND, Crowd, policies
from tunnels import geneve, vxlan

from sgfast import ReadOptions, replay
from sgfast.base.errors import AmbiguousAddress, CaptureError, ClusterError, OutputError
from sgfast.clouds.loading import parse_policy
from sgfast.policy.change_file import ChangeFile, TimedChange
from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.model import Policy
from sgfast.questions.replaying import cluster
from sgfast.questions.replaying.cluster.scheduler import Cluster
from sgfast.report.captures import PcapngWriter

distributed = pytest.importorskip("distributed")

PCAPS = Path(__file__).parents[2] / "pcaps"
SEED = 8


class Given(ChangeFile):
    """Changes that were made up."""

    def __init__(self, changes: list[TimedChange]) -> None:
        self.origin = "made up"
        self._changes = changes

    def resolve(self, policy: Policy, first_ns: int) -> list[TimedChange]:
        return self._changes


def made_up(policy: Policy, rng: np.random.Generator, times_ns: Sequence[int], number: int) -> Given:
    changer, changes = Changer(rng), []
    for at in sorted(int(rng.choice(times_ns)) + int(rng.choice([0, 1, -1])) for _ in range(number)):
        for change in changer.changes(policy):
            policy = apply_changes(policy, [change]).policy
            changes.append(TimedChange(at, change, type(change).__name__, "here:1"))
    return Given(changes)


# --- As one process


@seed(SEED)
@settings(
    max_examples=some(3, 25), database=None, deadline=None, phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(policies(), runs, st.integers(0, 2**32 - 1))
def test_a_cluster_says_what_one_process_says(
    client: Any, tmp_path_factory: pytest.TempPathFactory, policy: Policy, run: tuple[Any, ...], case_seed: int
) -> None:
    """Fragments, ICMP errors, packets that come late, files cut anywhere, changes."""
    print(f"case seed {case_seed}, {run}")
    rng, folder = np.random.default_rng(case_seed), tmp_path_factory.mktemp("captures")
    policy = changed(policy, settings=changed(policy.settings, max_connections=100_000))
    traffic = Crowd(policy, rng, fragments=True).draw(1000)
    cuts = [0, *sorted(rng.integers(0, len(traffic.frames) + 1, size=int(rng.integers(5))).tolist()), None]
    captures = []
    for n, (first, last) in enumerate(pairwise(cuts)):
        part = slice(first, last)
        frames = list(zip(traffic.times_ns[part], traffic.frames[part], strict=True))
        name = f"{n}.pcap" + (".gz" if rng.random() < 0.3 else "")
        captures.append(write(folder / name, frames, wires=traffic.wire_lengths[part]))
    changes = made_up(policy, rng, traffic.times_ns, int(rng.integers(0, 6)))
    options = {"mode": run[0], "midstream": run[1], "vpc": run[2], "changes": changes}
    try:
        one = told(policy, captures, **options)
    except AmbiguousAddress:
        with pytest.raises(AmbiguousAddress):
            told(policy, captures, client=client, **options)
        return
    for shards in SHARDS:
        assert_same(told(policy, captures, client=client, shards=shards, **options), one)


@pytest.mark.parametrize(("policy", "capture", "changes"), recorded_replays())
@pytest.mark.parametrize("mode", ["causal", "verbatim"][: some(1, 2)])
@pytest.mark.parametrize("client", [1, 2] if EXHAUSTIVE else [2], indirect=True)
def test_recordings_give_the_same_lines(
    client: Any, policy: Path, capture: Path, changes: Path | None, mode: Any
) -> None:
    same_on(client, policy, capture, changes=changes, mode=mode)


# --- Packets that are read apart


@pytest.mark.parametrize("seed", range(some(2, 6)))
def test_a_clock_that_files_set_back_is_one_clock(client: Any, tmp_path: Path, seed: int) -> None:
    """Files that begin a little or long before the one before them ended, some of a single packet, some empty."""
    print(f"seed {seed}")
    rng, captures, now = np.random.default_rng(seed), [], BASE
    for n in range(6):
        now += int(rng.choice([0, 1, -1, 30, -30, -59, -60, -61, -3600, 3600])) * SECOND - int(rng.choice([0, 1]))
        made = []
        for frame in packets(int(rng.choice([0, 1, 50, 200])), seed * 10 + n):
            now += int(rng.choice([0, 1, 1, 1, 700, -40_000, -70_000])) * SECOND // 1000
            made.append((now, frame))
        captures.append(write(tmp_path / f"{n}.pcap", made))
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        "changes:\n"
        "  - {at: 0.2, remove_rule: {group: web, rule: http}}\n"
        "  - {at: 40, add_rule: {group: web, rule: {id: again, direction: inbound, protocol: tcp, ports: 80}}}\n"
        "  - {at: 3700, remove_rule: {group: web, rule: again}}\n"
    )
    same_on(client, POLICY, captures, changes=changes)


def test_captures_of_several_hosts_one_after_another_are_read_once(client: Any, tmp_path: Path) -> None:
    """The clock starts again with each."""
    captures = [write(tmp_path / f"{n}.pcap", spread(packets(100, 1), SECOND)) for n in range(4)]
    one, *_ = same_on(client, POLICY, captures)
    assert one.oddities.restarts == 3
    used = replay(POLICY, captures, client=client).cluster
    assert used is not None and [stage.tasks for stage in used.stages if stage.name == "read"] == [4]


def test_fragments_find_their_first_one_in_another_file(client: Any, tmp_path: Path) -> None:
    from datagrams import Datagram

    shut, open_ = udp(4000, 54, bytes(56)), udp(4000, 53, bytes(56))
    made, at = [], BASE
    for n in range(200):
        pieces = Datagram(f"198.51.100.{n % 50}", WEB, open_ if n % 3 else shut, n).pieces("48-64 24-48+ 0-24+")
        made += [(n, ethernet(piece)) for piece in pieces]
    order = sorted(made, key=lambda packet: (packet[0] * 7919) % 200)
    frames = [(at + n * 1000, frame) for n, (_, frame) in enumerate(order)]
    # Cut in the middle of datagrams.
    captures = [write(tmp_path / f"{n}.pcap", frames[n * 100 - 1 if n else 0 : n * 100 + 99]) for n in range(6)]
    result, lines, _ = same_on(client, POLICY, captures)
    reasons = {json.loads(line)["reason"] for line in lines}
    assert {"rule", "no-rule"} <= reasons and result.verdicts["allow"] > 300 and "pending" not in str(lines)


@pytest.mark.parametrize("seed", range(some(2, 4)))
def test_copies_are_left_out_across_files(client: Any, tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    rng, made, now = np.random.default_rng(seed), [], BASE
    for frame in packets(400, seed):
        now += int(rng.choice([0, 1000, 30_000_000, 80_000_000]))
        made += [(now + n * int(rng.choice([0, 10_000, 49_000_000])), frame) for n in range(int(rng.choice([1, 2, 3])))]
    made.sort(key=lambda packet: packet[0])
    cuts = [0, *sorted(rng.integers(0, len(made), size=7).tolist()), len(made)]
    captures = [write(tmp_path / f"{n}.pcap", made[a:b]) for n, (a, b) in enumerate(pairwise(cuts))]
    result, *_ = same_on(client, POLICY, captures, reading=ReadOptions(dedup=True))
    assert result.left_out is not None and result.left_out.duplicates


@pytest.mark.parametrize(
    "reading",
    [
        ReadOptions(filter="tcp port 80 and not host 198.51.100.3"), ReadOptions(start="0.05", end="0.3"),
        ReadOptions(start="2023-11-14T22:13:20.1Z"), ReadOptions(filter="udp port 9", dedup=True),
        ReadOptions(merge=True),
    ],
    ids=lambda reading: str(reading)[:40],
)  # fmt: skip
def test_what_is_left_out_is_left_out_once(client: Any, tmp_path: Path, reading: ReadOptions) -> None:
    same_on(client, POLICY, captures_in(tmp_path, 4, 150), reading=reading)


def test_captures_of_a_directory_that_overlap_are_merged(client: Any, tmp_path: Path) -> None:
    frames = spread(packets(900, 2))
    day = tmp_path / "day"
    day.mkdir()
    write(day / "a.pcap", frames[:300])
    write(day / "b.pcap", frames[300:600:2])
    write(day / "c.pcap.gz", frames[301:601:2])
    write(day / "d.pcap", frames[601:])
    write(day / "empty.pcap", [])
    same_on(client, POLICY, [day])
    same_on(client, POLICY, [str(day / "*.pcap*")], shards=[2])
    same_on(client, POLICY, sorted(map(str, day.iterdir())), reading=ReadOptions(merge=True), shards=[2])


def test_captures_after_a_damaged_one_are_judged_and_that_is_read_again(client: Any, tmp_path: Path) -> None:
    """A capture that could not be read may be whole: the network may have been at fault."""
    captures, folder = captures_in(tmp_path), tmp_path / "run"
    whole = told(POLICY, captures)
    broken = captures[1].read_bytes()
    captures[1].write_bytes(broken + b"\0" * 15)
    for segments in (0, 3):
        found = told(POLICY, captures, client=client, shards=3, resume=folder)
        assert found[1] == whole[1] and found[0].packets == 400
        assert str(found[0].damaged).startswith(f"{captures[1]}: damaged at byte {len(broken)}, packet 101: ")
        assert found[0].cluster is not None and found[0].cluster.segments_found == segments


def test_frames_are_written_as_by_one_process(client: Any, tmp_path: Path) -> None:
    captures = captures_in(tmp_path)
    written = []
    for options in ({}, {"client": client, "shards": 3}):
        data: list[bytes] = []
        sink = PcapngWriter(data.append, comments=True)
        replay(POLICY, captures, frames=sink, **options)
        sink.close()
        written.append(b"".join(data))
    assert written[0] == written[1] and len(written[0]) > 40_000


def test_vpcs_that_packets_are_dealt_out_to(client: Any, tmp_path: Path) -> None:
    policy = parse_policy(vpcs.DOCUMENT)
    made = sorted(vpcs.traffic(np.random.default_rng(6), 1500), key=lambda packet: packet[0])
    captures = [vpcs.written(tmp_path / f"{n}.pcap", made[n * 500 : n * 500 + 500]) for n in range(3)]
    changes = tmp_path / "changes.yaml"
    changes.write_text(vpcs.CHANGES)
    same_on(client, policy, captures, changes=changes, reading=ReadOptions(decap=("vxlan", "geneve")))


def test_who_cut_packets_and_which_are_in_tunnels_is_known_on_a_cluster(client: Any, tmp_path: Path) -> None:
    """The evidence of a replay, as one process gives it (SPEC 10.27)."""
    whole = ethernet(ip("198.51.100.7", WEB, tcp(4000, 80, "A", bytes(100))))
    ends = ("192.0.2.1", "192.0.2.2")
    frames = [ethernet(ip(*ends, vxlan(whole[:cut]))) for cut in (20, 40, 40, 60)]
    frames += [ethernet(ip(*ends, geneve(whole)))] * 3
    cut = [whole[:20], *[whole[:40]] * 4]
    captures = [
        write(tmp_path / "mirror.pcap", [(BASE + n, frame) for n, frame in enumerate(frames)]),
        write(tmp_path / "cut.pcap", [(BASE + 9 + n, frame) for n, frame in enumerate(cut)], wires=[len(whole)] * 5),
    ]
    one, many = (
        replay(POLICY, captures, reading=ReadOptions(decap=("vxlan",)), **options)
        for options in ({}, {"client": client, "shards": 3})
    )
    assert many.observed == one.observed and one.observed is not None
    assert (one.observed.truncated, one.observed.cut_by_tunnel) == (8, 3)
    assert many.evidence == one.evidence
    found = {reason.code: reason.packets for reason in one.evidence.reasons}
    assert (found["truncated"], found["mirror-cut"], found["tunnels"]) == (5, 3, 3)


def test_a_pair_with_most_of_the_packets_is_named(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgfast.questions.replaying.cluster.HOT_PACKETS", 100)
    frames = spread(packets(1000, 4, peers=200))
    even = [write(tmp_path / f"{n}.pcap", frames[n * 500 : n * 500 + 500]) for n in range(2)]
    assert replay(POLICY, even, client=client, shards=7).warnings == []
    for family, ends in ((4, ("198.51.100.77", WEB)), (6, ("2001:db8::77", "2001:db8::5"))):
        elephant = [(BASE + n, ethernet(ip(*ends, tcp(4000, 80, "A")))) for n in range(2000)]
        both = [*even, write(tmp_path / f"elephant{family}.pcap", elephant)]
        [warning] = [w for w in replay(POLICY, both, client=client, shards=7).warnings if "shard" in w]
        a, b = (WEB, ends[0]) if family == 4 else sorted(ends)
        end = f" of them between {a} and {b}: packets between two addresses cannot be divided among shards"
        assert warning.endswith(end)
    ipv6 = json.loads(told(POLICY, both[2:], client=client)[1][0])
    assert (ipv6["src"], ipv6["dst"]) == ends


def test_more_connections_than_one_table_holds_are_warned_of(client: Any, tmp_path: Path) -> None:
    frames = [
        (BASE + n, ethernet(ip(f"198.51.100.{n % 250}", WEB, tcp(1024 + n, 80, "S")))) for n in range(3000)
    ]
    policy = parse_policy(DOCUMENT + "settings: {max_connections: 2000}\n")
    found = replay(policy, write(tmp_path / "many.pcap", frames), client=client, shards=2)
    assert any("with more than 2,000 (settings.max_connections), one process might" in w for w in found.warnings)


def test_no_packets_at_all(client: Any, tmp_path: Path) -> None:
    same_on(client, POLICY, [write(tmp_path / "none.pcap", [])])


@pytest.mark.parametrize("change", [
    "remove_rule: {group: web, rule: web/inbound/1}",
    'add_rule: {group: web, rule: {direction: inbound, protocol: tcp, ports: "81", source: 0.0.0.0/0}}',
])  # fmt: skip
def test_a_shard_whose_first_packet_follows_a_change_is_judged_by_what_changed(
    client: Any, tmp_path: Path, change: str
) -> None:
    made = [
        (n * 500, 1001 + n % 2, ethernet(ip(f"198.51.100.{n}", vpcs.SHARED, tcp(4000 + n, 80 + n % 2, "S"))))
        for n in range(40)
    ]
    changes = tmp_path / "changes.yaml"
    changes.write_text(f"changes:\n  - {{at: 5, {change}}}\n")
    options = {"changes": changes, "reading": ReadOptions(decap=("vxlan", "geneve"))}
    same_on(client, parse_policy(vpcs.DOCUMENT), vpcs.written(tmp_path / "one.pcap", made), **options)


def test_connections_of_a_vpc_that_fell_silent_end_as_those_of_others(client: Any, tmp_path: Path) -> None:
    made = [(n, 1001, ethernet(ip("198.51.100.1", vpcs.SHARED, tcp(4000 + n, 80, "S")))) for n in range(5)]
    made += [(n * 1000, 1002, ethernet(ip("198.51.100.1", vpcs.SHARED, udp(4000, 53)))) for n in range(1, 3000, 20)]
    _, _, flows = same_on(
        client, parse_policy(vpcs.DOCUMENT), vpcs.written(tmp_path / "one.pcap", made),
        reading=ReadOptions(decap=("vxlan", "geneve")),
    )  # fmt: skip
    assert sum(b'"ended": "timeout"' in flow for flow in flows) >= 5


def test_a_clock_that_came_to_its_end_stands_still(client: Any, tmp_path: Path) -> None:
    frames = packets(80, 7)
    ends = [(frames[2 * n], frames[2 * n + 1]) for n in range(40)]
    last_ns = (2**32 - 1) * SECOND
    captures = [write(tmp_path / f"{n}.pcap", [(0, a), (last_ns, b)]) for n, (a, b) in enumerate(ends)]
    same_on(client, POLICY, captures, shards=[3])


def test_progress_is_told_of_reading_and_then_of_judging(client: Any, tmp_path: Path) -> None:
    captures = captures_in(tmp_path)
    size, folder = sum(capture.stat().st_size for capture in captures), tmp_path / "run"
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        calls.clear()
        replay(
            POLICY, captures, client=client, shards=5, resume=folder,
            progress=lambda *call: calls.append(call),
        )  # fmt: skip
        assert calls[3] == (400, size)
        judging = calls[4:]
        assert len(judging) == 5 and judging == sorted(judging) and judging[0][0] < 400
        assert judging[-1] == (400, size)


# --- What is kept


def test_segments_that_are_there_are_not_read_again_unless_their_capture_changed(client: Any, tmp_path: Path) -> None:
    captures, folder = captures_in(tmp_path), tmp_path / "run"

    def run(segments: int, policy: Policy = POLICY) -> None:
        found = told(policy, captures, client=client, resume=folder)
        assert_same(found, told(policy, captures))
        assert found[0].cluster is not None and found[0].cluster.segments_found == segments

    run(0)
    kept = sorted(folder.glob("*.records"))
    assert len(kept) == 4 and not list(folder.glob("*.rows")) and not list(folder.glob(".*"))
    for segment in kept[:2]:
        segment.with_name(segment.name + ".json").unlink()
    run(2)
    # Another policy judges what was read; another choice of packets reads others.
    run(4, parse_policy(DOCUMENT.replace("ports: 80", "ports: 443")))
    with pytest.raises(ClusterError, match=r"run: was made by a replay with another choice of packets \(--start,"):
        replay(POLICY, captures, client=client, resume=folder, reading=ReadOptions(filter="tcp"))
    with pytest.raises(ClusterError, match="shards, not 5; use another folder"):
        replay(POLICY, captures, client=client, resume=folder, shards=5)
    write(captures[2], spread(packets(50, 9)))
    run(3)


def test_rows_are_gone_when_a_sink_fails(client: Any, tmp_path: Path) -> None:
    class Full:
        def begin(self, names: Any) -> None:
            pass

        def write(self, headers: Any, results: Any) -> None:
            raise OutputError("x: cannot be written: No space left on device")

    folder = tmp_path / "run"
    with pytest.raises(OutputError, match="No space left"):
        replay(POLICY, captures_in(tmp_path, 1), client=client, resume=folder, packets=Full())
    assert {path.suffix for path in folder.iterdir()} == {".json", ".records"}


def test_a_relative_path_is_what_it_is_here(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captures_in(tmp_path, 1, 1)
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(cluster, "place_of", lambda path: asked.append(path) or str(tmp_path / path))
    assert replay(POLICY, "0.pcap", client=client, resume="run").packets == 1
    assert asked == ["run"] and (tmp_path / "run" / "plan.json").exists()
    os.mkfifo("pipe")
    with pytest.raises(ClusterError, match=r"^pipe: can be read only once, and only here; --dask needs files$"):
        replay(POLICY, "pipe", client=client)


# --- What is told when it cannot be done


def test_a_capture_that_cannot_be_read_is_told_before_anything(client: Any, tmp_path: Path) -> None:
    captures = [*captures_in(tmp_path, 1), tmp_path / "none.pcap"]
    with pytest.raises(CaptureError, match=r"none\.pcap: does not exist"):
        replay(POLICY, captures, client=client)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--dask", "local", "--jobs", "2"), "--jobs and --dask cannot be combined"),
        (("--dask", "local", "--snapshot", "x"), "--snapshot and --dask cannot be combined"),
        (("--dask", "local", "--engine", "reference"), "--dask needs --engine fast"),
        (("--dask", "local", "--follow"), "--dask needs complete captures"),
        (("--dask", "tcp://127.0.0.1:8786"), "--dask ADDRESS needs --resume FOLDER"),
        (("--shards", "2"), "--shards needs --dask"),
        (("--dask", "local:0"), "local, or local:N with 1 to 1024 processes"),
        (("--dask", "nonsense://x", "--resume", "/tmp/never"), "--dask: nonsense://x: "),
    ],
)
def test_options_that_do_not_go_together_are_told(
    arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = sgfast(capsys, "replay", *SHOP, *arguments)
    assert done.status == 2 and line in done.err and "Traceback" not in done.err


def test_a_worker_of_another_version_is_told(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "version_here", lambda: "9.9.9/1")
    with pytest.raises(ClusterError, match=r"a worker has sgfast .*, the replay 9\.9\.9: install the same version"):
        replay(POLICY, captures_in(tmp_path, 1), client=client)


def test_a_lost_connection_that_the_client_has_not_noticed_yet_is_told(client: Any) -> None:
    """Its status is still "running" when a result is fetched from a scheduler that has just died."""
    from distributed.comm import CommClosedError

    def lost() -> None:
        raise CommClosedError("in <TCP (closed) ConnectionPool.gather>: Connection reset by peer")

    with pytest.raises(ClusterError, match="the scheduler went away; restart it, and use --resume"):
        Cluster(client).run("read", lost, [("one", ())], done=lambda result: None)

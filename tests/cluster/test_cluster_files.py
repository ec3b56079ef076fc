"""The files that a replay on a cluster keeps: whatever happened to them, the result is right or an error names them
(SPEC 9.15).
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import POLICY, SAME, captures_in, told, write
from command import SHOP
from effort import some
from traffic import SECOND

from sgfast import ReadOptions, replay
from sgfast.base.errors import ClusterError
from sgfast.base.names import without_credentials
from sgfast.questions.replaying import ReplayResult, cluster
from sgfast.questions.replaying.cluster.plan import Input, Run, Start, Unit
from sgfast.questions.replaying.cluster.reading import BLOCK_DTYPE
from sgfast.questions.replaying.cluster.storage import Folder, checksum
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.traffic.capture import open_capture

pytest.importorskip("distributed")

#: Values that a field of a document is replaced by.
HAZARDS = (
    -1, 0, 1, 255, 1 << 31, 1 << 32, 10**9, 1 << 62, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), 1e308, True, None, "",
    "x\ny", "/etc/hostname", [], {}, [[1, 2]], "AAAA",
)  # fmt: skip

#: Codes of evidence about captures that do not go together.
PAIRS = ("overlap", "duplicates", "clocks")


class Inline:
    """A cluster that runs each task at once, here."""

    name, workers, threads = "inline", 1, 1

    def __init__(self, client: Any) -> None:
        pass

    def shared(self, name: str, value: Any) -> Any:
        return value

    def run(
        self, stage: str, function: Callable[..., Any], calls: Iterable[tuple[str, tuple[Any, ...]]],
        done: Callable[[Any], None],
    ) -> list[Any]:  # fmt: skip
        found = []
        for _, arguments in calls:
            found.append(function(*arguments))
            done(found[-1])
        return found


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(cluster, "Cluster", Inline)
    return object()


def assert_right(found: ReplayResult, one: ReplayResult) -> None:
    for name in SAME:
        assert getattr(found, name) == getattr(one, name), name


class Kept:
    """The folder of a replay of some captures that has been made."""

    def __init__(self, client: Any, folder: Path, number: int = 3, each: int = 60, **options: Any) -> None:
        self.captures, self.folder = captures_in(folder, number, each), folder / "run"
        self.plan = self.folder / "plan.json"
        self._options = {"client": client, "resume": self.folder, **options}
        self.one = replay(POLICY, self.captures, **self._options)

    def again(self, segments: int | None = None) -> list[str]:
        """The warnings of the same replay, whose result is right, and finds so many segments."""
        found = replay(POLICY, self.captures, **self._options)
        assert_right(found, self.one)
        assert found.cluster is not None and segments in (None, found.cluster.segments_found)
        return found.warnings


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    """Changes the content of a document, and makes its checksum right."""
    Folder(str(file.parent)).write_document(file.name, edit(json.loads(file.read_text())["content"]))


def change_records(file: Path, data: bytes) -> None:
    """Writes a segment's records, and makes the checksums of its blocks right."""
    file.write_bytes(data)

    def sign(content: dict[str, Any]) -> dict[str, Any]:
        blocks = np.frombuffer(base64.b64decode(content["blocks_text"]), dtype=BLOCK_DTYPE).copy()
        for block in blocks:
            block["checksum"] = checksum(data[int(block["offset"]) : int(block["offset"] + block["size"])])
        return {**content, "blocks_text": base64.b64encode(blocks.tobytes()).decode()}

    change(file.with_name(file.name + ".json"), sign)


# --- Damage


def test_a_bit_that_flips_in_any_file_is_noticed(client: Any, tmp_path: Path) -> None:
    captures, policy, kept, folder = captures_in(tmp_path, 3, 60), POLICY, tmp_path / "kept", tmp_path / "run"
    one = told(policy, captures)
    replay(policy, captures, client=client, shards=3, resume=kept)
    names = sorted(path.name for path in kept.iterdir())
    assert [name.partition(".")[2] for name in names].count("records") == 3 and len(names) == 7
    rng = np.random.default_rng(5)
    for name in names * some(1, 30):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
        data = bytearray((folder / name).read_bytes())
        bit = int(rng.integers(len(data) * 8))
        print(f"{name}, bit {bit}")
        data[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(data)
        if name.endswith(".records"):
            with pytest.raises(ClusterError) as caught:
                replay(policy, captures, client=client, resume=folder)
            assert str(caught.value) == (
                f"{folder / name}: is damaged; run the replay again, and its captures are read again"
            )
        else:
            found = told(policy, captures, client=client, resume=folder)
            assert_right(found[0], one[0])
            assert found[1:] == one[1:]
            # Only where the flip changes no value, as in the letter of an exponent, is there nothing to tell.
            assert all(line.startswith(f"{folder / name}: is damaged; ") for line in found[0].warnings)
            assert found[0].cluster is not None
            if not found[0].warnings:
                assert found[0].cluster.segments_found == 3
        healed = told(policy, captures, client=client, resume=folder)
        assert healed[1:] == one[1:] and healed[0].warnings == []
        assert healed[0].cluster is not None and healed[0].cluster.segments_found >= 2


def test_an_index_with_a_flipped_bit_is_made_again(
    inline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgfast.questions.replaying.cluster.RANGE_BYTES", 300_000)
    kept = Kept(inline, tmp_path, 1, 20_000)
    assert kept.one.cluster is not None and [stage.name for stage in kept.one.cluster.stages][:2] == ["index", "read"]
    assert kept.one.cluster.stages[1].tasks > 2 and kept.again() == kept.one.warnings
    [index] = kept.folder.glob("*.index.json")
    data = bytearray(index.read_bytes())
    data[len(data) // 2] ^= 1
    index.write_bytes(data)
    told_of = [f"{index}: is damaged; its capture is indexed again", *kept.one.warnings]
    assert kept.again() == told_of
    assert kept.again() == kept.one.warnings
    # Ranges that are none of a capture, with the right checksum.
    for edit in (
        lambda content: [], lambda content: content[1:], lambda content: content[:-1], lambda content: content[::-1],
        lambda content: [{**part, "place": "/etc/hostname"} for part in content],
        lambda content: [{**part, "range": {**part["range"], "preamble": [[0, 1 << 70]]}} for part in content],
    ):  # fmt: skip
        change(index, edit)
        assert kept.again() == told_of


@pytest.mark.parametrize(("kind", "field"), [("plan.json", "seed"), ("*.records.json", "quotes_in_fragments")])
def test_a_value_that_changed_without_its_checksum_is_noticed(
    kind: str, field: str, inline: Any, tmp_path: Path
) -> None:
    """It would be a value like any other."""
    kept = Kept(inline, tmp_path, 1)
    [file] = kept.folder.glob(kind)
    document = json.loads(file.read_text())
    document["content"][field] ^= 1
    file.write_text(json.dumps(document))
    assert [line.partition(";")[0] for line in kept.again()] == [f"{file}: is damaged"]
    assert kept.again(1) == []


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_segment_that_was_cut_is_read_again(size: int, inline: Any, tmp_path: Path) -> None:
    kept = Kept(inline, tmp_path)
    segment = min(kept.folder.glob("*.records"))
    segment.write_bytes(segment.read_bytes()[:-size] if size else b"")
    assert kept.again(2) == [f"{segment}: is damaged; its captures are read again"]
    assert kept.again(3) == []


def test_rows_with_a_flipped_bit_are_not_passed_on(
    inline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    class Flips(Inline):
        def run(self, stage: str, *arguments: Any) -> list[Any]:
            found = super().run(stage, *arguments)
            if stage == "judge":
                rows = max(folder.glob("*-packets.rows"), key=lambda path: path.stat().st_size)
                rows.write_bytes(rows.read_bytes()[:-1] + bytes([rows.read_bytes()[-1] ^ 1]))
            return found

    monkeypatch.setattr(cluster, "Cluster", Flips)
    with pytest.raises(ClusterError, match=r"-packets\.rows: is damaged; run the replay again$"):
        told(POLICY, captures_in(tmp_path, 3, 60), client=inline, resume=folder)
    assert not list(folder.glob("*.rows"))


# --- Files that somebody else wrote


@pytest.mark.parametrize("shards", [0, -1, 4097, 10**9, 1e999, "x", None, True])
def test_a_plan_with_an_impossible_number_of_shards_is_replaced(shards: Any, inline: Any, tmp_path: Path) -> None:
    kept = Kept(inline, tmp_path, 1)
    change(kept.plan, lambda content: {**content, "shards": shards})
    forged = kept.plan.read_bytes()
    assert kept.again() == [f"{kept.plan}: is damaged; it is damaged-plan.json now, and the captures are read again"]
    assert (kept.folder / "damaged-plan.json").read_bytes() == forged
    assert kept.again(1) == []


def test_packets_are_no_copies_whatever_the_seed(inline: Any, tmp_path: Path) -> None:
    kept = Kept(inline, tmp_path, 1, reading=ReadOptions(dedup=True))
    for seed in (0, 1, 1 << 63):
        change(kept.plan, lambda content, seed=seed: {**content, "seed": seed})
        kept.again(0)


def test_a_file_of_another_program_called_plan_is_left_alone(inline: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"format_version": "1.2"}')
    with pytest.raises(ClusterError, match=r"plan\.json: is damaged, or no plan of sgfast; use another folder$"):
        replay(POLICY, captures_in(tmp_path, 1), client=inline, resume=tmp_path)
    assert plan.read_text() == '{"format_version": "1.2"}'


def test_files_of_another_version_are_not_used(inline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(inline, tmp_path)
    about = min(kept.folder.glob("*.records.json"))

    def of_another_version(file: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("sgfast.questions.replaying.cluster.storage.version_here", lambda: "9.9.9/1")
            change(file, lambda content: content)

    of_another_version(about)
    assert [line.partition(";")[0] for line in kept.again(2)] == [f"{about}: was written by sgfast 9.9.9"]
    of_another_version(kept.plan)
    said = "another version needs another folder (--resume)"
    with pytest.raises(ClusterError) as caught:
        kept.again()
    assert str(caught.value) == f"{kept.plan}: was written by sgfast 9.9.9; {said}"
    # From before there were checksums.
    kept.plan.write_text(json.dumps({"version": "0.0.9/2", "shards": 2, "seed": 1}))
    with pytest.raises(ClusterError) as caught:
        kept.again()
    assert str(caught.value) == f"{kept.plan}: was written by sgfast 0.0.9; {said}" and kept.plan.exists()


def test_a_segment_of_another_capture_is_read_again(inline: Any, tmp_path: Path) -> None:
    kept = Kept(inline, tmp_path, shards=2)
    a, b, _ = sorted(kept.folder.glob("*.records"))
    # One renamed, and one whose description says another name.
    for suffix in ("", ".json"):
        shutil.copy(f"{a}{suffix}", f"{b}{suffix}")
    assert kept.again(2) == [f"{b}.json: is damaged; its captures are read again"]
    change(Path(f"{b}.json"), lambda content: json.loads(json.dumps(content).replace(str(tmp_path), "/etc")))
    assert kept.again(2) == [f"{b}.json: is damaged; its captures are read again"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in leaves(each, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def forge(file: Path, rng: np.random.Generator) -> str:
    """Changes something in a file, with right checksums. Says what."""
    if file.name.endswith(".records"):
        data = bytearray(file.read_bytes())
        changes = []
        for _ in range(int(rng.integers(1, 4))):
            at, byte = int(rng.integers(len(data))), int(rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.integers(256)]))
            data[at] = byte
            changes.append((at, byte))
        change_records(file, bytes(data))
        return f"{file.name} {changes}"
    places = leaves(json.loads(file.read_text())["content"])
    place, new = places[int(rng.integers(len(places)))], HAZARDS[int(rng.integers(len(HAZARDS)))]
    change(file, lambda content: replaced(content, place, new))
    return f"{file.name} {place} = {new!r}"


def test_forged_files_give_a_result_or_one_line(inline: Any, tmp_path: Path) -> None:
    [capture], policy, folder = captures_in(tmp_path, 1, 60), POLICY, tmp_path / "run"
    options = {"client": inline, "reading": ReadOptions(dedup=True, filter="ip")}
    one = replay(policy, capture, shards=1, resume=folder, **options)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    rng, errors, read_again = np.random.default_rng(8), 0, 0
    for number in range(some(120, 10_000)):
        for path in set(folder.iterdir()) - kept.keys():
            path.unlink()
        for path, data in kept.items():
            path.write_bytes(data)
        what = forge(sorted(kept)[number % 3], rng)
        print(f"{number}: {what}")
        try:
            found = replay(policy, capture, resume=folder, **options)
        except ClusterError as error:
            errors += 1
            assert str(error).startswith(f"{folder}") and str(error).isprintable()
            if ".records" in what:
                # The next replay does not use the file.
                assert_right(replay(policy, capture, resume=folder, **options), one)
            continue
        assert found.packets == one.packets and sum(found.verdicts.values()) == found.packets
        if found.cluster is not None and not found.cluster.segments_found:
            assert_right(found, one)
            read_again += 1
    assert errors and read_again


def shop_twice(folder: Path, ahead_ns: int) -> list[Path]:
    with open_capture(SHOP[1]) as reader:
        frames = [(time_ns, data) for batch in iter(reader.next_batch, None) for time_ns, data, *_ in batch]
    return [write(folder / f"{n}.pcap", [(time_ns + n * ahead_ns, data) for time_ns, data in frames]) for n in (0, 1)]


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("ahead_ns", [0, 5 * SECOND, 90 * SECOND])
def test_captures_that_do_not_go_together_are_told_of_as_by_one_process(
    inline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_ns: int, merge: bool
) -> None:
    captures, reading = shop_twice(tmp_path, ahead_ns), ReadOptions(merge=merge)
    wanted = {each for each in replay(SHOP[0], captures, reading=reading).evidence.reasons if each.code in PAIRS}
    assert {each.code for each in wanted} >= {"duplicates", *(["clocks"] if ahead_ns else [])}
    for nbytes in (1 << 30, 10_000):
        monkeypatch.setattr("sgfast.questions.replaying.cluster.RANGE_BYTES", nbytes)
        for _ in range(2):
            found = replay(SHOP[0], captures, reading=reading, client=inline, resume=tmp_path / f"run{nbytes}")
            told_of = {each for each in found.evidence.reasons if each.code in PAIRS}
            # Copies that a merged stream has side by side are looked for in parts of it.
            assert told_of == wanted or {each.code for each in told_of} == {"duplicates"} == {
                each.code for each in wanted
            }


def test_forged_samples_of_captures_give_a_result(inline: Any, tmp_path: Path) -> None:
    captures, folder = shop_twice(tmp_path, 90 * SECOND), tmp_path / "run"
    one = replay(SHOP[0], captures, client=inline, resume=folder, shards=1)
    file = min(folder.glob("*.records.json"))
    kept, rng = file.read_bytes(), np.random.default_rng(8)
    content = json.loads(kept)["content"]
    [sample] = content["samples"]
    rows = base64.b64encode(rng.bytes(24 * 2048)).decode()
    forged = [(("ip", 0), rows), (("handshakes", 0), rows), (("ip", 0), rows[:-8]), (("ip", 1), -1), (("packets",), 0)]
    for place, new in [*forged, *((place, new) for place in leaves(sample) for new in HAZARDS)]:
        file.write_bytes(kept)
        change(file, lambda content, place=place, new=new: replaced(content, ("samples", 0, *place), new))
        found = replay(SHOP[0], captures, client=inline, resume=folder)
        assert_right(found, one)
        assert all(0 <= each.share <= 1 for each in found.evidence.reasons)


# --- Credentials


def test_no_credentials_are_kept(inline: Any, tmp_path: Path) -> None:
    import fsspec

    memory, policy, folder = fsspec.filesystem("memory"), POLICY, tmp_path / "run"
    [capture] = captures_in(tmp_path, 1)
    one = replay(policy, capture)
    for number, user in enumerate(["someone:hunter2", "another:hunter3"]):
        url = f"memory://{user}@host/one.pcap"
        with memory.open(url, "wb") as file:
            file.write(capture.read_bytes())
        found = replay(policy, url, client=inline, resume=folder)
        assert_right(found, one)
        # It does not matter who asks.
        assert found.cluster is not None and found.cluster.segments_found == number
        assert found.warnings == []
    kept = sorted(folder.iterdir())
    assert [path.name.partition(".")[2] for path in kept].count("records.json") == 1 and len(kept) == 3
    for path in kept:
        for secret in ("someone", "another", "hunter"):
            assert secret.encode() not in path.name.encode() + path.read_bytes()


def test_a_query_tells_captures_apart_and_is_not_shown() -> None:
    run = Run("", "", POLICY, ReplayOptions(), 1, 5, None)

    def unit(url: str) -> Unit:
        return Unit((Input(url, url, None, 100, ""),), 0)

    names = [
        cluster._name_of(run, unit(f"https://{user}@host/get/x.pcap?file={file}&signature=s/3cret"), Start())
        for user, file in (("a:b", 1), ("c:d", 1), ("a:b", 2))
    ]
    assert names[0] == names[1] != names[2]
    assert unit("https://a:b@host/get/x.pcap?signature=s/3cret").name == "x.pcap?\u2026"
    local = unit("/captures/s3://a:b@c?d.pcap")
    assert local.renamed(without_credentials) == local

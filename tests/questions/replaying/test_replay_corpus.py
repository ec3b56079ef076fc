"""Every capture of the corpus through a replay: no surprise, no packet lost, engine and reference of one mind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from captures import Packet, drain
from command import COMMAND
from corpus import DOCUMENT, MANIFEST, ROOT, is_readable, rows
from effort import some

from sgfast import replay
from sgfast.base.errors import CaptureError
from sgfast.clouds.loading import parse_policy
from sgfast.engine import VERDICTS
from sgfast.report.captures import PcapngWriter
from sgfast.traffic.capture import open_capture

pytestmark = pytest.mark.skipif(not MANIFEST.exists(), reason="no corpus here (set SGFAST_CORPUS)")


def test_every_file_ends_as_it_should() -> None:
    policy = parse_policy(DOCUMENT)
    wrong = []
    judged = 0
    for row in rows()[:: some(12, 1)]:
        path = ROOT / row["file"]
        try:
            result = replay(policy, [path])
        except CaptureError as error:
            if is_readable(row) or "\n" in str(error):
                wrong.append(str(error))
            continue
        assert sum(result.verdicts.values()) == result.packets
        judged += result.verdicts["allow"] + result.verdicts["deny"] + result.verdicts["moot"]
        counted = row["packets_capinfos"] or row["packets_tcpdump"]
        if is_readable(row) and (result.damaged is not None or str(result.packets) != counted):
            wrong.append(f"{row['file']}: {result.packets} packets instead of {counted}; {result.damaged}")
    assert wrong == []
    assert judged > some(1_200, 20_000)


@pytest.mark.parametrize("mode, midstream", [("causal", "infer"), ("verbatim", "deny"), ("causal", "allow")])
def test_engine_and_reference_agree_on_real_traffic(mode: str, midstream: str) -> None:
    policy = parse_policy(DOCUMENT)
    compared = 0
    for row in [row for row in rows() if is_readable(row)][:: some(96, 4)]:
        path = ROOT / row["file"]
        if path.stat().st_size > 2_000_000:
            continue
        fast, slow = (
            replay(policy, [path], mode=mode, midstream=midstream, engine=engine)  # type: ignore[arg-type]
            for engine in ("fast", "reference")
        )
        for what in ("packets", "bytes", "verdicts", "reasons", "connections", "rules", "first_time_ns"):
            assert getattr(fast, what) == getattr(slow, what), (path, what)
        if slow.last_time_ns is not None:
            # The engine's clock stands still after 146 years; fuzzed timestamps get there.
            assert fast.last_time_ns == min(slow.last_time_ns, 1 << 62), path
        compared += fast.packets
    assert compared > some(200, 5_000)


def test_written_captures_hold_what_was_read(tmp_path: Path) -> None:
    policy = parse_policy(DOCUMENT)
    written = 0
    for row in [row for row in rows() if is_readable(row)][:: some(24, 1)]:
        path, copy = ROOT / row["file"], tmp_path / "copy.pcapng"
        if path.stat().st_size > 2_000_000:
            continue
        pieces: tuple[list[bytes], ...] = [], [], []
        sinks = [
            PcapngWriter(pieces[0].append, comments=True),
            PcapngWriter(pieces[1].append, ["deny", "moot"]),
            PcapngWriter(pieces[2].append, [verdict for verdict in VERDICTS if verdict not in ("deny", "moot")]),
        ]
        replay(policy, [path], frames=sinks)
        found: list[list[Packet]] = []
        for sink, piece in zip(sinks, pieces, strict=True):
            sink.close()
            copy.write_bytes(b"".join(piece))
            with open_capture(str(copy)) as reader:
                found.append(drain(reader))
                assert reader.damage is None, path
        with open_capture(str(path)) as reader:
            given = drain(reader)
        assert found[0] == given and sorted(found[1] + found[2]) == sorted(given), path
        written += len(given)
    assert written > some(700, 20_000)


def test_some_files_through_the_command(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(DOCUMENT)
    readable = [row for row in rows() if is_readable(row)]
    for row in readable[:: len(readable) // some(5, 50)]:
        run = subprocess.run(
            [*COMMAND, "replay", str(policy), str(ROOT / row["file"]), "--format", "json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        counted = row["packets_capinfos"] or row["packets_tcpdump"]
        assert str(json.loads(run.stdout)["packets"]) == counted, row["file"]

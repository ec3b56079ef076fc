"""Large captures that are read in ranges: what comes out is the capture, whatever was said at its beginning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captures import SNOOP_HEAD, block, enhanced, interface, obsolete, option, section, simple, snoop_record, tsresol
from clusters import BASE, DOCUMENT, POLICY, packets, same_on, spread, write
from effort import some
from traffic import SECOND
from web import serving

from sgfast import Policy, replay
from sgfast.base.errors import CaptureError
from sgfast.clouds.loading import parse_policy

pytest.importorskip("distributed")

#: Packets that a reader hands out at a time, at most.
BATCH = 8192
USBPCAP = 249
Frames = Sequence[tuple[int, bytes]]


def as_pcap(path: Path, frames: Frames) -> Path:
    return write(path, frames)


def as_snoop(path: Path, frames: Frames) -> Path:
    records = [snoop_record(frame, (time_ns // SECOND, time_ns % SECOND // 1000)) for time_ns, frame in frames]
    path.write_bytes(SNOOP_HEAD + b"".join(records))
    return path


def as_pcapng(path: Path, frames: Frames) -> Path:
    """Sections of both byte orders; interfaces that are described in between, each with a clock of its own."""
    rng, blocks = np.random.default_rng(9), []
    order, digits = "<", [6]
    for n, (time_ns, frame) in enumerate(frames):
        if n % 6000 == 0:
            order, digits = rng.choice(["<", ">"]), []
            blocks.append(section(order))
        if n % 2000 == 0:
            digits.append(int(rng.choice([3, 6, 9])))
            blocks += [interface(order, options=tsresol(digits[-1], order)), block(5, bytes(12), order)]
        number = int(rng.integers(len(digits)))
        ticks = time_ns // 10 ** (9 - digits[number])
        blocks.append(rng.choice([enhanced, obsolete])(frame, order, ticks=ticks, number=number))
    path.write_bytes(b"".join(blocks))
    return path


def test_a_capture_of_a_web_server_is_read_whole(
    client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Web servers are not asked for parts of a file, as many send all of it (SPEC 9.7)."""
    monkeypatch.setattr("sgfast.questions.replaying.cluster.RANGE_BYTES", 1000)
    path = write(tmp_path / "a.pcap", spread(packets(300, 1), SECOND))
    with serving() as web:
        web.tells_length = True
        web.files["a.pcap"] = [path.read_bytes()]
        result = replay(POLICY, web.url("a.pcap"), client=client)
    assert result.cluster is not None and "index" not in [stage.name for stage in result.cluster.stages]
    assert (result.damaged, result.verdicts) == (None, replay(POLICY, path).verdicts)


@pytest.fixture
def split(client: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Asserts that ranges are what one process makes of the whole; how many there were."""

    def check(policy: Policy, captures: Sequence[Path], every: int) -> int:
        monkeypatch.setattr("sgfast.questions.replaying.cluster.RANGE_BYTES", every)
        same_on(client, policy, captures, shards=[3])
        used = replay(policy, captures, client=client, shards=3).cluster
        assert used is not None
        [tasks] = [stage.tasks for stage in used.stages if stage.name == "read"]
        return tasks

    return check


@pytest.mark.parametrize("form", [as_pcap, as_snoop, as_pcapng])
@pytest.mark.parametrize(("every", "ranges"), [(1, range(3, 9)), (600_000, [2, 3]), (30_000_000, [1])][:: some(3, 1)])
def test_ranges_of_a_large_capture_are_the_capture(
    split: Callable[..., int], tmp_path: Path, form: Callable[[Path, Frames], Path], every: int, ranges: Sequence[int],
) -> None:  # fmt: skip
    frames = spread(packets(20_000, 3))
    captures = [form(tmp_path / "large", frames), write(tmp_path / "small.pcap", frames[-1:])]
    assert split(POLICY, captures, every) - 1 in ranges


def test_damage_in_a_range_is_told_where_it_is_in_the_file(
    split: Callable[..., int], client: Any, tmp_path: Path
) -> None:
    frames = spread(packets(20_000, 3))
    for form in (as_pcap, as_pcapng):
        capture = form(tmp_path / form.__name__, frames)
        data = capture.read_bytes()
        capture.write_bytes(data[: len(data) * 2 // 3])
        assert split(POLICY, [capture], 5000) > 1
        damaged = replay(POLICY, capture, client=client).damaged
        assert damaged is not None and damaged.packet > 10_000 and damaged.offset > len(data) // 2


def test_packets_without_a_time_have_that_of_the_one_before_in_another_range(
    split: Callable[..., int], tmp_path: Path
) -> None:
    made = packets(3 * BATCH, 3)
    for first_timeless, ranges in ((BATCH + 10, range(2, 9)), (10, [1])):
        blocks = [section(), interface(options=tsresol(9))]
        for n, frame in enumerate(made):
            timeless = n >= first_timeless and n % 3
            blocks.append(simple(frame) if timeless else enhanced(frame, ticks=BASE + n * SECOND // 1000))
        capture = tmp_path / f"{first_timeless}.pcapng"
        capture.write_bytes(b"".join(blocks))
        assert split(POLICY, [capture], 1) in ranges


def test_a_range_may_have_no_ip_packets_and_a_capture_must_have_some(
    split: Callable[..., int], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = section() + interface(link_type=USBPCAP) + interface(options=tsresol(9))
    usb = [enhanced(bytes(27)) for _ in range(BATCH)]
    some = [enhanced(frame, ticks=BASE + n, number=1) for n, frame in enumerate(packets(BATCH, 3))]
    capture = tmp_path / "mixed.pcapng"
    capture.write_bytes(head + b"".join([*usb, *some, *usb]))
    assert split(POLICY, [capture], 1) >= 3
    capture.write_bytes(head + b"".join(usb * 2))
    said = []
    for options in ({}, {"client": client}):
        with pytest.raises(CaptureError) as caught:
            replay(POLICY, capture, **options)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(("every", "ranges"), [(10, [1]), (300, range(2, 9))])
def test_a_section_that_says_much_in_between_is_not_cut_after_it(
    split: Callable[..., int], tmp_path: Path, every: int, ranges: Sequence[int]
) -> None:
    blocks = [section()]
    for n, frame in enumerate(packets(3 * BATCH, 3)):
        if n % every == 0:
            blocks.append(interface(options=tsresol(9)))
        blocks.append(enhanced(frame, ticks=BASE + n, number=n // every))
    capture = tmp_path / "much.pcapng"
    capture.write_bytes(b"".join(blocks))
    assert split(POLICY, [capture], 1) in ranges


def test_a_range_knows_whose_interfaces_are(split: Callable[..., int], tmp_path: Path) -> None:
    policy = parse_policy(
        DOCUMENT.replace("version: 1\n", "version: 1\nvpcs: [{name: a, interface: eth0}, {name: b, interface: 1}]\n")
        .replace("{name: web-1,", "{name: web-1, vpc: a,").replace("instances:\n", "instances:\n" + OTHER)
    )
    blocks = [section(), interface(options=tsresol(9) + option(2, b"eth0")), interface(options=tsresol(9))]
    blocks += [enhanced(frame, ticks=BASE + n, number=n % 2) for n, frame in enumerate(packets(3 * BATCH, 3))]
    capture = tmp_path / "vpcs.pcapng"
    capture.write_bytes(b"".join(blocks))
    assert split(policy, [capture], 1) >= 3


OTHER = "  - {name: web-2, vpc: b, addresses: [10.0.0.5], security_groups: [web]}\n"

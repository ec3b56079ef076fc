"""Compare captures with each other: whether their times overlap, their packets are the same, and their clocks agree."""

from __future__ import annotations

import os
import shlex
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.evidence import EvidenceCode, EvidenceReason
from sgfast.base.names import count, printable
from sgfast.traffic.preprocess.capture_sample import ROW_DTYPE, CaptureSample

Rows = NDArray[Any]

#: Most packets that samples are taken from, of one capture and of all captures together.
LOOKED_AT = 1 << 14
LOOKED_AT_TOGETHER = 1 << 16
#: Clocks that differ by less are taken for equal, and captures that overlap by less follow each other.
TOLERANCE_NS = 1_000_000_000
#: Two captures have the same packet if its times, apart from the difference of the clocks, differ by at most this.
TOGETHER_NS = TOLERANCE_NS // 2
#: Longest time between copies of a packet that ``--dedup`` leaves out (SPEC 9.11).
DEDUP_NS = 50_000_000
#: Fewest packets or handshakes that say how much two clocks differ. Packets are also at least one in FEWEST_IN of the
#: smaller capture's: fewer ones may have been sent again byte by byte.
FEWEST = 5
FEWEST_IN = 100
#: Two captures are of the same packets if they have this many in common, and at least one in ONE_IN of the smaller one.
MANY_COMMON = 100
ONE_IN = 8
#: Values of ``kind`` in ROW_DTYPE.
_TCP, _SYN, _SYN_ACK = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Sampled:
    """Capture, or a range of one, with a sample of its packets."""

    path: str
    #: Number of the part that it belongs to. The captures of a part are merged by time.
    part: int
    packets: int
    first_ns: int
    latest_ns: int
    #: Rows of ROW_DTYPE in base64 and the mask of their keys: IP packets, and handshakes.
    ip: tuple[str, int]
    handshakes: tuple[str, int]

    @classmethod
    def of(cls, path: str, part: int, sample: CaptureSample) -> Sampled:
        ip, handshakes = ((b2a_base64(rows, newline=False).decode(), mask) for rows, mask in sample.rows)
        assert sample.first_ns is not None and sample.latest_ns is not None
        return cls(path, part, sample.packets, sample.first_ns, sample.latest_ns, ip, handshakes)

    def is_sound(self) -> bool:
        """Return whether a capture may have this sample. Raises ValueError if a text of rows is invalid."""
        texts = ((a2b_base64(text, strict_mode=True), mask) for text, mask in (self.ip, self.handshakes))
        return (
            self.packets > 0 and -1 << 63 <= self.first_ns <= self.latest_ns < 1 << 63
            and all(len(rows) % ROW_DTYPE.itemsize == 0 and 0 <= mask < 1 << 63 for rows, mask in texts)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CapturePair:
    """Observation about two captures. ``first`` is read before ``second``, or with it."""

    first: str
    second: str
    #: The time that they overlap, or by which the clock of ``second`` is ahead. None: most packets that both have come
    #: later in one of them because of the network, not because of the clocks.
    ns: int | None
    #: Packets concerned, and those that were compared.
    packets: int
    compared: int


@dataclass(frozen=True, slots=True)
class CapturePairs:
    #: Captures that are read one after another although their times overlap.
    overlaps: tuple[CapturePair, ...] = ()
    #: Captures of the same packets.
    common: tuple[CapturePair, ...] = ()
    #: Captures whose clocks differ.
    clocks: tuple[CapturePair, ...] = ()
    #: Whether captures are read one after another.
    is_sequence: bool = False


def sample_of(captures: int) -> CaptureSample:
    """Return an empty sample for one of so many captures."""
    return CaptureSample(min(LOOKED_AT, LOOKED_AT_TOGETHER // captures))


def pairs_of(samples: Iterable[Sampled], *, dedup: bool) -> CapturePairs:
    """Compare captures. ``dedup``: copies of packets are left out, as far as captures are merged."""
    whole: dict[tuple[int, str], list[Sampled]] = {}
    for sample in samples:
        whole.setdefault((sample.part, sample.path), []).append(sample)
    captures = [
        replace(
            ranges[0], packets=sum(part.packets for part in ranges), first_ns=min(part.first_ns for part in ranges),
            latest_ns=max(part.latest_ns for part in ranges),
        ) for ranges in whole.values()
    ]  # fmt: skip
    if len(captures) < 2:
        return CapturePairs()
    total = sum(capture.packets for capture in captures)
    common = []
    clocks: dict[tuple[int, int], int] = {}
    packets = _Seen([[sample.ip for sample in ranges] for ranges in whole.values()])
    for a, b, rows, later_rows in packets.with_same_key():
        time_apart = later_rows["time_ns"] - rows["time_ns"]
        compared = packets.smaller(a, b)
        ahead = _median(time_apart[rows["kind"] == _TCP], max(FEWEST, compared // FEWEST_IN))
        if ahead is not None and abs(ahead) >= TOLERANCE_NS:
            clocks[a, b] = ahead
        is_left_out = (abs(time_apart) <= DEDUP_NS) & (dedup and captures[a].part == captures[b].part)
        is_same = (abs(time_apart - (ahead or 0)) <= TOGETHER_NS) & (rows["vpc"] == later_rows["vpc"]) & ~is_left_out
        number = int(is_same.sum())
        if number >= MANY_COMMON and number * ONE_IN >= compared:
            near = is_same & (abs(time_apart - (ahead or 0)) <= DEDUP_NS)
            shift = (ahead or 0) if 4 * near.sum() >= 3 * number else None
            common.append(CapturePair(captures[a].path, captures[b].path, shift, number, compared))
    handshakes = _Seen([[sample.handshakes for sample in ranges] for ranges in whole.values()])
    for a, b, syns, answers in handshakes.with_same_key():
        is_answer = (syns["kind"] == _SYN) & (answers["kind"] == _SYN_ACK)
        time_apart = answers["time_ns"][is_answer] - syns["time_ns"][is_answer]
        middle = _median(time_apart, FEWEST)
        # A SYN-ACK comes after its SYN, and within the second after which the client repeats the SYN.
        if middle is not None and not 0 <= middle < TOLERANCE_NS:
            # The fastest answer tells the clocks best, and no SYN-ACK comes before its SYN once they are set by it.
            ahead = int(time_apart[abs(time_apart - middle) <= TOGETHER_NS].min())
            clocks.setdefault((min(a, b), max(a, b)), ahead if a < b else -ahead)
    return CapturePairs(
        tuple(_overlaps(captures)), tuple(common),
        tuple(
            CapturePair(captures[a].path, captures[b].path, ns, captures[b].packets, total)
            for (a, b), ns in sorted(clocks.items())
        ),
        is_sequence=len({capture.part for capture in captures}) > 1,
    )  # fmt: skip


def _overlaps(captures: Sequence[Sampled]) -> Iterator[CapturePair]:
    total = sum(capture.packets for capture in captures)
    parts: dict[int, Sampled] = {}
    for capture in captures:
        had = parts.get(capture.part, capture)
        latest = max(had, capture, key=lambda either: either.latest_ns)
        parts[capture.part] = replace(latest, first_ns=min(had.first_ns, capture.first_ns))
    before: Sampled | None = None
    for part in sorted(parts.values(), key=lambda either: either.first_ns):
        if before is not None:
            over_ns = min(before.latest_ns, part.latest_ns) - part.first_ns
            if over_ns >= TOLERANCE_NS:
                first, second = sorted((before, part), key=lambda either: either.part)
                yield CapturePair(first.path, second.path, over_ns, second.packets, total)
        if before is None or part.latest_ns > before.latest_ns:
            before = part


def _median(time_apart: Rows, fewest: int) -> int | None:
    """Return the median of these times. None if they are fewer, or half of them are not about the same."""
    if len(time_apart) < fewest:
        return None
    quartiles = [len(time_apart) // 4, len(time_apart) // 2, len(time_apart) * 3 // 4]
    low, middle, high = np.sort(time_apart)[quartiles].tolist()
    return middle if high - low <= TOGETHER_NS else None


def reasons_of(pairs: CapturePairs) -> list[EvidenceReason]:
    """Return the reasons that they are for doubting an answer (SPEC 10.27). Each one names the captures with most
    packets.
    """
    reasons = []
    if pairs.overlaps:
        most = _most(pairs.overlaps)
        sentence = (
            f"{_names(most)} overlap by about {_seconds(most)} s, but are read one after another"
            f"{_more(pairs.overlaps)}"
        )
        reasons.append(_reason("overlap", most, sentence, "--merge"))
    if pairs.common:
        most = _most(pairs.common)
        sentence = (
            f"{most.packets:,} of {most.compared:,} packets that were compared are in both {_names(most)}: they count "
            f"twice{_more(pairs.common)}"
        )
        command = "--merge --dedup" if pairs.is_sequence else "--dedup"
        if most.ns is None:
            command = "sgfast replay POLICY CAPTURE with only one of these captures"
        elif abs(most.ns) > DEDUP_NS:
            command = f"{_shift(most)}, and then --merge --dedup"
        reasons.append(_reason("duplicates", most, sentence, command))
    if pairs.clocks:
        most = _most(pairs.clocks)
        sentence = f"the clocks of {_names(most)} differ by about {_seconds(most)} s{_more(pairs.clocks)}"
        reasons.append(_reason("clocks", most, sentence, _shift(most)))
    return reasons


def _reason(code: EvidenceCode, pair: CapturePair, sentence: str, command: str) -> EvidenceReason:
    return EvidenceReason(code, "partly", pair.packets, pair.packets / pair.compared, sentence, command)


def _most(pairs: Sequence[CapturePair]) -> CapturePair:
    return max(pairs, key=lambda pair: pair.packets)


def _names(pair: CapturePair) -> str:
    return f"{printable(pair.first)} and {printable(pair.second)}"


def _more(pairs: Sequence[CapturePair]) -> str:
    return f" (and {count(len(pairs) - 1, 'more pair')} of captures)" if len(pairs) > 1 else ""


def _seconds(pair: CapturePair) -> str:
    seconds = abs(pair.ns or 0) / 1e9
    return f"{seconds:,.0f}" if seconds >= 10 else f"{Decimal(f'{seconds:.2g}'):f}"


def _shift(pair: CapturePair) -> str:
    """Return the command that sets the clock of the second capture to that of the first."""
    stem, ending = os.path.splitext(os.path.basename(pair.second).removesuffix(".gz").removesuffix(".zst"))
    seconds = f"{Decimal(-(pair.ns or 0)).scaleb(-9).quantize(Decimal('1e-6')).normalize():f}"
    names = (shlex.quote(printable(name)) for name in (pair.second, f"{stem}-shifted{ending}"))
    return " ".join(("editcap -t", seconds, *names))


class _Seen:
    """Rows of all samples, by key and kind. Copies that a capture has of a packet at about the same time are one row.
    If they are further apart, they are left out.
    """

    def __init__(self, samples: Sequence[Sequence[tuple[str, int]]]) -> None:
        """``samples``: texts of rows and their masks, by capture."""
        self._masks = np.array([max(mask for _, mask in sample) for sample in samples], dtype=np.uint64)
        sampled = [np.frombuffer(b"".join(a2b_base64(text) for text, _ in sample), ROW_DTYPE) for sample in samples]
        rows, captures = np.concatenate(sampled), np.repeat(np.arange(len(sampled)), [*map(len, sampled)])
        is_common = rows["key"] & self._masks[captures] == 0
        rows, captures = rows[is_common], captures[is_common]
        order = np.lexsort((rows["time_ns"], captures, rows["kind"], rows["key"]))
        rows, captures = rows[order], captures[order]
        begin = np.flatnonzero(_changes(rows["key"]) | _changes(rows["kind"]) | _changes(captures))
        end = np.append(begin[1:], len(rows))[: len(begin)] - 1
        is_near = begin[rows["time_ns"][end] - rows["time_ns"][begin] <= TOGETHER_NS]
        self._rows, self._captures = rows[is_near], captures[is_near]

    def with_same_key(self) -> Iterator[tuple[int, int, Rows, Rows]]:
        """Return pairs of captures, with rows of the first one and the rows of the second one that have the same keys.
        If several captures have a key, each of them is paired with the first one.
        """
        is_new = _changes(self._rows["key"])
        first = np.flatnonzero(is_new)[np.cumsum(is_new) - 1]
        later = np.flatnonzero(self._captures != self._captures[first])
        first = first[later]
        pairs = self._captures[first] * len(self._masks) + self._captures[later]
        for pair in np.unique(pairs).tolist():
            is_own = pairs == pair
            yield *divmod(pair, len(self._masks)), self._rows[first[is_own]], self._rows[later[is_own]]

    def smaller(self, a: int, b: int) -> int:
        """Return the number of packets of the smaller sample of two, of those packets that both might have."""
        is_common = self._rows["key"] & (self._masks[a] | self._masks[b]) == 0
        return min(int(np.sum(is_common & (self._captures == capture))) for capture in (a, b))


def _changes(values: Rows) -> Rows:
    """Return where a value is another one than the value before it."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]

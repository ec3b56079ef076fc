"""Measure sgfast and its yardsticks, and print the results as a table.

Each round runs every yardstick once and then sgfast, so that other load on the machine affects all of them. Each round
gives one ratio for each yardstick. The table shows the median, the lowest and the highest ratio of the rounds.
"""

from __future__ import annotations

import copy
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from before import Before, answer

from sgfast import __version__

# A clock that excludes preparations ----------------------------------------------------------------------------------

_left_out_seconds = 0.0


def clock() -> float:
    """Return a time in seconds for pytest-benchmark, which excludes time that ``counting`` excludes."""
    return time.perf_counter() - _left_out_seconds


def counting(work: Callable[[], float]) -> float:
    """Run ``work``, which returns how many of its seconds count, and advance ``clock`` by just that time."""
    global _left_out_seconds
    began = time.perf_counter()
    counted = work()
    _left_out_seconds += time.perf_counter() - began - counted
    return counted


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs ``work`` and returns how many seconds it took."""

    def run() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return run


# Samples -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, samples: list[float]) -> Spread:
        return cls(statistics.median(samples), min(samples), max(samples), len(samples))

    def json(self) -> dict[str, float]:
        return {"median": self.median, "min": self.low, "max": self.high, "rounds": self.samples}


@dataclass
class Yardstick:
    """A program or method that does the same job as sgfast, or part of it.

    ``run`` returns the seconds for ``items`` items. ``faster``: the table shows how many times faster sgfast is, rather
    than how many times slower. ``column``: the table has a column for its ratios; otherwise they are at the end of its
    own line, which suits a yardstick for a single row. ``variant_of``: a common name for yardsticks that do the same
    job in different ways; the one with the lowest median is also listed under that name, and gets the column.
    """

    title: str
    items: int
    run: Callable[[], float]
    faster: bool = False
    column: bool = True
    variant_of: str = ""


@dataclass
class Row:
    """A line of the table: sgfast in one setting. ``name`` is the test's name."""

    section: str
    name: str
    title: str
    items: int
    #: The time for one item in each round, in the section's unit.
    samples: list[float]
    #: The time of each yardstick for one item in each round, in the same unit.
    yardstick_samples: dict[str, list[float]]
    #: sgfast's time divided by each yardstick's time, in each round.
    ratios: dict[str, list[float]]
    #: The row's position on the axis of its section.
    x: int | None = None


@dataclass
class Section:
    """A part of the table.

    ``per`` names one item. ``unit`` is the unit of the time per item; ``s`` is the time per GB. If ``axis`` is not
    empty, the rows are points of a curve, and ``axis`` names the quantity that grows.
    """

    title: str
    per: str
    unit: str = "ns"
    axis: str = ""
    yardsticks: dict[str, Yardstick] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def scale(self) -> float:
        # Seconds are for a GB, whose items are bytes.
        return {"ns": 1e9, "ms": 1e3, "s": 1e9}[self.unit]


class Results:
    """All sections of a run, in order."""

    def __init__(self) -> None:
        self.sections: dict[str, Section] = {}
        #: Reasons why yardsticks are missing, by yardstick.
        self.missing: dict[str, str] = {}
        #: The versions of the programs that sgfast is compared with.
        self.versions: dict[str, str] = {}
        #: Notes on what was measured, by subject.
        self.notes: dict[str, str] = {}
        #: The process that runs the same benchmarks with an earlier commit, or None.
        self.earlier: Before | None = None

    def part(self, curves: bool) -> Results:
        """Return only the sections that are curves, or only those that are not."""
        made = copy.copy(self)
        made.sections = {title: each for title, each in self.sections.items() if bool(each.axis) == curves}
        return made

    def measure(
        self,
        benchmark: Any,
        section: Section,
        title: str,
        work: Callable[[], float],
        *,
        items: int,
        yardsticks: dict[str, Yardstick],
        rounds: int,
        x: int | None = None,
    ) -> Row:
        """Measure rounds of the yardsticks and of ``work``, which returns the seconds that count.

        pytest-benchmark reports the same seconds if the test is marked ``@pytest.mark.benchmark(timer=clock)``. Its
        ``extra_info`` gets the figures and ratios. If there are several rounds, an extra round before them warms up.
        """
        if answer(benchmark.name, lambda: counting(work)):
            return Row(section.title, benchmark.name, title, items, [1.0], {}, {}, x)
        section = self.sections.setdefault(section.title, section)
        earlier = self.earlier
        if earlier is not None and earlier.begin(benchmark.name):
            yardsticks = {**yardsticks, "before": Yardstick(f"sgfast at {earlier.commit}", items, earlier.round)}
        section.yardsticks.update(yardsticks)
        samples: list[float] = []
        beside: dict[str, list[float]] = {name: [] for name in yardsticks}

        def before() -> None:
            for name, yardstick in yardsticks.items():
                beside[name].append(yardstick.run() / yardstick.items * section.scale)

        def measured() -> None:
            samples.append(counting(work) / items * section.scale)

        benchmark.group = section.title
        benchmark.pedantic(measured, setup=before, rounds=rounds, warmup_rounds=min(1, rounds - 1))
        if earlier is not None:
            earlier.end(benchmark.name)
        if len(samples) > 1:  # the first is the warm-up; --benchmark-disable runs a single round
            for values in (samples, *beside.values()):
                del values[0]
        if any(map(math.isnan, beside.get("before", ()))):
            del beside["before"]    # the earlier commit failed this benchmark
        for kind, variant in fastest(yardsticks, beside).items():
            beside[kind] = beside[variant]
            title_of = f"{variant} (fastest)" if not section.rows else "the fastest of a row"
            section.yardsticks[kind] = replace(yardsticks[variant], title=title_of, variant_of="")
        ratios = {
            name: [mine / other for mine, other in zip(samples, others, strict=True)]
            for name, others in beside.items()
        }
        row = Row(section.title, benchmark.name, title, items, samples, beside, ratios, x)
        section.rows.append(row)
        benchmark.extra_info.update(
            {
                "title": title,
                "items": items,
                f"{section.unit}_per_{section.per}": Spread.of(samples).json(),
                f"{section.per}s_per_second": section.scale / statistics.median(samples),
                "yardsticks": {name: Spread.of(values).json() for name, values in beside.items()},
                # sgfast's time over the yardstick's
                "ratios": {name: Spread.of(values).json() for name, values in ratios.items()},
            }
        )
        return row


def fastest(yardsticks: dict[str, Yardstick], beside: dict[str, list[float]]) -> dict[str, str]:
    """Return for each common name of variants the variant with the lowest median."""
    found: dict[str, str] = {}
    for name in sorted(beside, key=lambda name: statistics.median(beside[name])):
        if yardsticks[name].variant_of:
            found.setdefault(yardsticks[name].variant_of, name)
    return found


# The table -----------------------------------------------------------------------------------------------------------

_TITLE = 29
_MEDIAN = 7
_EXTENT = 16
_RATE = 7
_RATIO = 12


def table(results: Results) -> Iterator[str]:
    """Yield the table as lines of at most 100 characters, or 115 with an earlier commit."""
    for section in results.sections.values():
        if not section.rows:
            continue
        yield ""
        yield section.title
        head = f"  {'':{_TITLE}}{section.unit:>{_MEDIAN}}{'low - high':>{_EXTENT}}"
        head += f"{'M/s' if section.unit == 'ns' else '':>{_RATE}}"
        columns = {name: each for name, each in section.yardsticks.items() if each.column and not each.variant_of}
        yield head + "".join(f"{_heading(*column):>{_RATIO}}" for column in columns.items())
        for row in section.rows:
            yield _line(row.title, section, row.samples, [_ratio(section, row, name) for name in columns], columns)
        for name, yardstick in section.yardsticks.items():
            rows = [row for row in section.rows if name in row.yardstick_samples]
            pooled = [value for row in rows for value in row.yardstick_samples[name]]
            if pooled:
                line = _line(f"{name}: {yardstick.title}", section, pooled, [], columns)
                if not yardstick.column:
                    line += f"{_heading(name, yardstick)} {_ratio(section, rows[0], name)}"
                yield line
    for title, texts in (("Notes", results.notes), ("Not measured", results.missing)):
        if results.sections and texts:
            yield ""
            yield title
            for name, text in texts.items():
                first = f"{name}: {text}".split("\n")[0]
                yield from textwrap.wrap(first, 100, initial_indent="  ", subsequent_indent="    ")


def _line(
    title: str, section: Section, samples: list[float], ratios: list[str], columns: dict[str, Yardstick]
) -> str:
    spread = Spread.of(samples)
    extent = f"{number(spread.low)} - {number(spread.high)}"
    rate = number(1e3 / spread.median) if section.unit == "ns" else ""
    line = f"  {title:<{_TITLE}}{number(spread.median):>{_MEDIAN}}{extent:>{_EXTENT}}{rate:>{_RATE}}"
    cells = zip(ratios, columns.items(), strict=False)
    line += "".join(f"{ratio:>{max(_RATIO, len(_heading(*column)))}}" for ratio, column in cells)
    return line.rstrip() if ratios else f"{line:<{_TITLE + _MEDIAN + _EXTENT + _RATE + 2}}"


def _heading(name: str, yardstick: Yardstick) -> str:
    return f" {name}/sgfast" if yardstick.faster else f" sgfast/{name}"


def _ratio(section: Section, row: Row, name: str) -> str:
    """Format the median ratio, with half the range as a share of it."""
    ratios = row.ratios.get(name)
    if not ratios:
        return ""
    if section.yardsticks[name].faster:
        ratios = [1 / ratio for ratio in ratios]
    spread = Spread.of(ratios)
    return f"{number(spread.median)} ±{(spread.high - spread.low) / 2 / spread.median:.0%}"


def number(value: float) -> str:
    """Format the number with about three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# The machine ---------------------------------------------------------------------------------------------------------


def machine() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu_model()}, {os.cpu_count()} cores ({usable} usable), {platform.system()} {platform.release()}"


def software() -> str:
    return f"sgfast {__version__}{_commit()}, {platform.python_implementation()} {platform.python_version()}"


_FOLDERS = ("--results", "--capture-dir", "--corpus")


def command_line(program: str, arguments: Sequence[str]) -> str:
    """Return the command as it was typed, without the options that name folders of the machine."""
    kept = [
        argument
        for before, argument in zip(("", *arguments), arguments, strict=False)
        if before not in _FOLDERS and argument.split("=")[0] not in _FOLDERS
    ]
    return shlex.join([*shlex.split(program), *kept])


def python_packages() -> dict[str, str]:
    """Return the versions of the Python packages in the comparison, as far as they are installed."""
    found = {}
    for name in ("NumPy", "dpkt", "pytricia", "py-radix", "FastAPI", "uvicorn"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def load_average() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    # arm64 kernels do not name the model in this file.
    found = re.search(r"^(?:model name|Hardware|cpu)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except OSError:
        return ""
    return f" ({described.stdout.strip()})" if described.returncode == 0 else ""

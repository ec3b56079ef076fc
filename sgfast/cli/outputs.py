"""The files a replay writes: what fills which, by option and ending, and when they appear (SPEC 10, 11)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, Self

import click

from sgfast.capture.names import printable
from sgfast.cli.printing import is_terminal
from sgfast.errors import OutputError
from sgfast.output import STANDARD_OUTPUT, Output, descriptor_named, is_standard_output, open_output
from sgfast.signals import raise_arrived

if TYPE_CHECKING:
    from sgfast.replaying import FlowSink, FrameSink, PacketSink, ReplayResult, Sinks
    from sgfast.report.html import Timeline

#: What a filter stops, and what was never sent because of that: everything else would be seen on the wire.
NOT_SEEN = ("deny", "moot")


class Outputs:
    """Opened before anything long: what cannot be written is known at once. A context manager that leaves nothing
    behind unless ``publish`` was reached.

    ``paths``: by option; ``flow_log_interval``: seconds. OutputError, or click's UsageError for an ending that does
    not go with the option.
    """

    def __init__(self, paths: Mapping[str, str], flow_log_format: str, flow_log_interval: int) -> None:
        self._paths = paths
        self._flow_log_format, self._flow_log_interval = flow_log_format, flow_log_interval
        self._outputs: list[Output] = []
        self._stack = ExitStack()
        self.packets: list[PacketSink] = []
        self.frames: list[FrameSink] = []
        self.flows: list[FlowSink] = []
        #: Of these, those that write something when all was told.
        self._ending: list[Any] = []
        self.snapshot: Output | None = None
        self._page: tuple[Timeline, Output] | None = None

    @property
    def take_standard_output(self) -> bool:
        """Whether one of them is there: then nothing else may be."""
        return any(map(is_standard_output, self._paths.values()))

    @property
    def sinks(self) -> Sinks:
        from sgfast.replaying import Sinks

        return Sinks(tuple(self.packets), tuple(self.frames), tuple(self.flows))

    def __enter__(self) -> Self:
        with self._stack as opened:
            for option, path in self._paths.items():
                output = opened.enter_context(open_output(path))
                self._outputs.append(output)
                if option == "--snapshot":
                    _refuse_terminal(option, path)
                    self.snapshot = output
                    continue
                if option == "--report":
                    self._draw(output)
                    continue
                kind, sink = self._filled(option, path, output)
                getattr(self, kind).append(sink)
                self._ending.append(sink)
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _filled(self, option: str, path: str, output: Output) -> tuple[_Kind, Any]:
        if option == "--flow-log":
            from sgfast.report.flow_log_lines import FlowLogLines

            return "packets", FlowLogLines(
                output.write, form=self._flow_log_format, interval_seconds=self._flow_log_interval
            )
        kind, fill = _FILLED[option]
        return kind, fill(option, path, output)

    def _draw(self, output: Output) -> None:
        from sgfast.report.html import Timeline

        timeline = Timeline()
        self.packets.append(timeline)
        self._page = timeline, output

    def publish(self, result: ReplayResult) -> None:
        """Everything was told: regular files get their ends and appear."""
        for sink in self._ending:
            sink.close()
        if self._page is not None:
            from sgfast.report.html import html_report

            timeline, output = self._page
            output.write(html_report(result, timeline).encode())
        raise_arrived()
        for output in self._outputs:
            output.close()
        for output in self._outputs:
            output.publish()


# What fills an output: of the option, the path and the output there -------------------------------------------------


def _rows(option: str, path: str, output: Output) -> Any:
    """Of packets or of connections, in the format of the file's ending."""
    of_packets = option == "--verdicts"
    match _ending(path):
        case ".csv":
            from sgfast.report.lines import ConnectionCsv, VerdictCsv

            return VerdictCsv(output.write) if of_packets else ConnectionCsv(output.write)
        case ".parquet":
            _need_pyarrow(output)
            from sgfast.report.parquet import ConnectionParquet, VerdictParquet

            return VerdictParquet(output.write) if of_packets else ConnectionParquet(output.write)
    from sgfast.report.lines import ConnectionLines, VerdictLines

    return VerdictLines(output.write) if of_packets else ConnectionLines(output.write)


def _annotated(option: str, path: str, output: Output) -> Any:
    from sgfast.report.captures import PcapngWriter

    if _ending(path) == ".pcap":
        raise click.UsageError(f"{option}: pcap has no place for comments; name a file that ends in .pcapng")
    _capture_format(option, path, (".pcapng",))
    return PcapngWriter(output.write, comments=True)


def _denied(option: str, path: str, output: Output) -> Any:
    return _split(option, path, output, ["deny"])


def _allowed(option: str, path: str, output: Output) -> Any:
    from sgfast.engine import VERDICTS

    return _split(option, path, output, [verdict for verdict in VERDICTS if verdict not in NOT_SEEN])


def _split(option: str, path: str, output: Output, verdicts: list[str]) -> Any:
    from sgfast.report.captures import PcapngWriter, PcapWriter

    if _capture_format(option, path, (".pcapng", ".pcap")) == ".pcap":
        return PcapWriter(output.write, output.name, verdicts)
    return PcapngWriter(output.write, verdicts)


_Kind = Literal["packets", "frames", "flows"]
_FILLED: dict[str, tuple[_Kind, Callable[[str, str, Output], Any]]] = {
    "--verdicts": ("packets", _rows),
    "--connections": ("flows", _rows),
    "--write": ("frames", _annotated),
    "--write-denied": ("frames", _denied),
    "--write-allowed": ("frames", _allowed),
}


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _capture_format(option: str, path: str, endings: tuple[str, ...]) -> str:
    """One of ``endings``; the first where the path is no name to go by: standard output, a device, a pipe."""
    _refuse_terminal(option, path)
    if _ending(path) in endings:
        return _ending(path)
    if path == "-" or descriptor_named(path) is not None or (os.path.exists(path) and not os.path.isfile(path)):
        return endings[0]
    raise click.UsageError(f"{option}: {printable(path)}: name a file that ends in {' or '.join(endings)}")


def _refuse_terminal(option: str, path: str) -> None:
    if is_standard_output(path) and is_terminal(sys.stdout):
        raise click.UsageError(f"{option}: {STANDARD_OUTPUT} is a terminal, which does not show this; redirect it")


def _need_pyarrow(output: Output) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError:
        raise OutputError(
            f"{output.name}: Parquet needs pyarrow: pip install 'sgfast[arrow]', or name a file that ends in .csv"
        ) from None
    except ImportError as error:
        raise OutputError(
            f"{output.name}: pyarrow cannot be loaded: {printable(str(error))}; or name a file that ends in .csv"
        ) from None

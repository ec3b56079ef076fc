"""The files that a replay writes: which sink fills which file, and when the files appear (SPEC 10, 11)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, Self

import click

from sgfast.base.errors import OutputError, pip_install
from sgfast.base.names import printable
from sgfast.base.output import STANDARD_OUTPUT, Output, ending, is_nameless, is_standard_output, open_output, publish
from sgfast.base.signals import raise_arrived
from sgfast.cli.printing import is_terminal

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.questions.replaying import ReplayResult, Sinks
    from sgfast.report.html import Timeline
    from sgfast.rows.verdicts import VerdictWord

#: Verdicts of packets that would not be on the wire: filters stop them, or they would never have been sent.
NOT_SEEN = ("deny", "moot")


class Outputs:
    """A context manager that opens the files before the replay, so that a file that cannot be written fails early.

    Files are removed unless ``publish`` was called. ``paths``: by option. ``flow_log_interval``: in seconds.
    Raises OutputError, or click's UsageError for a file name whose ending does not suit the option.
    """

    def __init__(self, paths: Mapping[str, str], flow_log_format: str, flow_log_interval: int) -> None:
        self._paths = paths
        self._flow_log_format, self._flow_log_interval = flow_log_format, flow_log_interval
        self._outputs: list[Output] = []
        self._stack = ExitStack()
        self._sinks: dict[_Kind, list[Any]] = {"packets": [], "frames": [], "flows": []}
        #: The sinks that must be closed, because they write their last rows then.
        self._to_close: list[Any] = []
        self.snapshot: Output | None = None
        self._page: tuple[Timeline, Output] | None = None

    @property
    def take_standard_output(self) -> bool:
        """Whether one of the files is standard output. Nothing else may then be written to standard output."""
        return any(map(is_standard_output, self._paths.values()))

    @property
    def opened(self) -> tuple[Output, ...]:
        return tuple(self._outputs)

    @property
    def warnings(self) -> list[str]:
        return [output.warning for output in self._outputs if output.warning]

    @property
    def sinks(self) -> Sinks:
        from sgfast.questions.replaying import Sinks

        return Sinks(**{kind: tuple(sinks) for kind, sinks in self._sinks.items()}, with_rejections=True)

    def __enter__(self) -> Self:
        with self._stack as opened:
            for option, path in self._paths.items():
                output = opened.enter_context(open_output(path))
                self._outputs.append(output)
                if option == "--snapshot":
                    _refuse_terminal(option, path)
                    self.snapshot = output
                elif option == "--report":
                    from sgfast.report.html import Timeline

                    self._page = Timeline(), output
                    self._sinks["packets"].append(self._page[0])
                else:
                    kind, sink = self._filled(option, path, output)
                    self._sinks[kind].append(sink)
                    self._to_close.append(sink)
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

    def publish(self, result: ReplayResult, lines: Lines) -> None:
        """Complete the files, and let regular files appear. ``lines``: line numbers of the policy document's rules."""
        for sink in self._to_close:
            sink.close()
        if self._page is not None:
            from sgfast.report.html import html_report

            timeline, output = self._page
            output.write(html_report(result, timeline, lines).encode())
        raise_arrived()
        publish(self._outputs)


# Functions that make the sink for an output, given the option, the path and the output ------------------------------


def _rows(option: str, path: str, output: Output) -> Any:
    """Make a sink for rows of packets or connections, in the format of the file's ending."""
    of_packets = option == "--verdicts"
    match ending(path):
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

    if ending(path) == ".pcap":
        raise click.UsageError(f"{option}: pcap cannot hold comments; name a file that ends in .pcapng")
    _capture_format(option, path, (".pcapng",))
    return PcapngWriter(output.write, comments=True)


def _denied(option: str, path: str, output: Output) -> Any:
    return _split(option, path, output, ["deny"])


def _allowed(option: str, path: str, output: Output) -> Any:
    from sgfast.engine import VERDICTS

    return _split(option, path, output, [verdict for verdict in VERDICTS if verdict not in NOT_SEEN])


def _split(option: str, path: str, output: Output, verdicts: list[VerdictWord]) -> Any:
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


def _capture_format(option: str, path: str, endings: tuple[str, ...]) -> str:
    """Return the path's ending; ``endings[0]`` for standard output, a device or a pipe, whose names have none."""
    _refuse_terminal(option, path)
    if ending(path) in endings:
        return ending(path)
    if is_nameless(path):
        return endings[0]
    raise click.UsageError(f"{option}: {printable(path)}: name a file that ends in {' or '.join(endings)}")


def _refuse_terminal(option: str, path: str) -> None:
    if is_standard_output(path) and is_terminal(sys.stdout):
        raise click.UsageError(f"{option}: {STANDARD_OUTPUT} is a terminal, which cannot show this; redirect it")


def _need_pyarrow(output: Output) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError:
        raise OutputError(
            f"{output.name}: Parquet needs pyarrow: {pip_install('arrow')}, or name a file that ends in .csv"
        ) from None
    except ImportError as error:
        raise OutputError(
            f"{output.name}: pyarrow cannot be loaded: {printable(str(error))}; or name a file that ends in .csv"
        ) from None

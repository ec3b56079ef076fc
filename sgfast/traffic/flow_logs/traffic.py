"""Flow logs as traffic: batches of frames, in the order of time, which a data plane judges like those of captures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sgfast.base.evidence import UnreadFiles
from sgfast.base.signals import unless_stopped
from sgfast.clouds.logs.columns import ACTION_UNKNOWN, UNKNOWN
from sgfast.clouds.logs.detection import open_log
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.model import Instance, Policy
from sgfast.traffic.flow_logs.connections import TURN_NS, Connections
from sgfast.traffic.flow_logs.interface_owners import InterfaceOwners
from sgfast.traffic.flow_logs.log_records import LeftOutCause, LogRecords, NoticedInterface, some_records
from sgfast.traffic.flow_logs.merged import MergedLogs
from sgfast.traffic.flow_logs.record_packets import TIMEOUTS
from sgfast.traffic.flow_logs.sources import LogSources
from sgfast.traffic.packet_selection import PacketSelection
from sgfast.traffic.read_options import ReadOptions
from sgfast.traffic.source import Progress, TrafficSource
from sgfast.traffic.time_window import parse_window
from sgfast.traffic.vpc_mapping import VpcMapping

#: The fields, by AWS's names, without which a record is no traffic.
NEEDED_FIELDS = ("srcport", "dstport", "start")


@runtime_checkable
class _WithTotal(Protocol):
    """Progress that takes the size of the flow logs, which is known only after they were listed."""

    def expect_records(self, total_bytes: int | None) -> None: ...


class LogTraffic(TrafficSource):
    """The frames of flow logs, which are read once. ``policies``: those that judge them; their timeouts say how long
    a connection lives. ``is_one_stream``: whether frames of rejected records are among the others. ``needs_actions``:
    whether logs without actions are refused. ``opening``: opens a log, as ``open_log`` does.
    """

    def __init__(
        self, sources: LogSources, policies: Sequence[Policy], reading: ReadOptions, vpc_mapping: VpcMapping | None,
        progress: Progress | None, *, is_one_stream: bool = False, needs_actions: bool = False,
        opening: Callable[..., Any] = open_log,
    ) -> None:  # fmt: skip
        # The window leaves out records, not the packets that are made of them.
        selection = PacketSelection(replace(reading, start=None, end=None), None, looks=False)
        super().__init__(reading, selection, vpc_mapping, progress)
        needed_fields = (*NEEDED_FIELDS, *(["action"] if needs_actions else []))
        self.logs = logs = MergedLogs(sources.logs, needs=needed_fields, opening=opening)
        self._sources = sources
        #: The total size of the logs as they are stored. None if it is unknown.
        self.total_bytes = sources.total_bytes
        self._timeouts = [policy.settings.timeouts for policy in policies]
        self._instances = [instance for policy in policies for instance in policy.instances]
        self._owners = InterfaceOwners(self._instances)
        self._is_one_stream = is_one_stream
        self._turns = _turns(logs)
        #: Records that were read and not yet added.
        self._next: tuple[int, str, NDArray[Any]] | None = None
        self._connections: Connections | None = None
        #: The records taken from the logs, which are fewer than those read until the end; and those before the first
        #: one with a time.
        self._taken_records = self._without_time = 0
        self._without_action = 0
        #: Returns the times of the policy's changes when it gets that of the first record.
        self.changes_at: Callable[[int], Sequence[int]] = lambda first_ns: ()
        #: Answers questions about connections that either end may have opened, as for ``Connections``.
        self.ask: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = None
        #: Returns instances with the addresses that these changes give them.
        self.changed_instances: Callable[[], Sequence[Instance]] = lambda: ()
        #: Gets the batches of attempts that the cloud rejected, and the first record's time.
        self.on_rejected: Callable[[FrameBatch, int | None], None] | None = None
        #: The start of the first record; None before it is known.
        self.first_ns: int | None = None

    def read(self) -> bool:
        """Read some records. Return False at the end of the logs."""
        if self._next is not None:
            self._add(*self._next)
        self._next = next(self._turns, None)
        if self._next is not None and self._connections is not None:
            # Records that are due go before those of this turn come in.
            self._connections.turn_to(int(self._next[2]["start_ns"][0]))
        return self._next is not None

    def batches(self) -> Iterator[FrameBatch]:
        if isinstance(self._progress, _WithTotal):
            self._progress.expect_records(self.total_bytes)
        has_more: bool | None = True
        while has_more:
            has_more = unless_stopped(self.read)
            if self._progress is not None:
                self._progress(self.logs.read, self.logs.bytes_read)
            if self.selection.first_ns is None:
                self.selection.first_ns = self.first_ns
            for batch, is_rejected in self.due_batches(at_end=not has_more):
                if self._decapsulation is not None:
                    self._decapsulation.apply(batch)
                if not is_rejected:
                    yield batch
                elif self.on_rejected is not None:
                    self.selection.apply(batch)
                    self.on_rejected(batch, self.selection.first_ns)
        self.files = self.logs.files
        self.warnings += self._warnings()

    def due_batches(self, *, at_end: bool = False) -> Iterator[tuple[FrameBatch, bool]]:
        """Yield the batches that are due, or all ``at_end``: each is valid until the next one. The second value says
        whether the cloud rejected their packets.
        """
        connections = self._connections
        if connections is not None and at_end:
            connections.end()
        while connections is not None and connections.is_due:
            connections.release()
            while (batch := connections.next_batch()) is not None:
                yield batch

    def _add(self, number: int, path: str, rows: NDArray[Any]) -> None:
        self._taken_records += len(rows)
        self._without_action += int(np.count_nonzero(rows["action"] == ACTION_UNKNOWN))
        if self._connections is None:
            self._begin(rows)
        if self._connections is not None:
            vpc = 0 if self._vpc_mapping is None else self._vpc_mapping.of_file(path)
            self._connections.add(rows, number, vpc)
        else:
            self._without_time += len(rows)

    def _begin(self, rows: NDArray[Any]) -> None:
        times = rows["start_ns"][rows["start_ns"] != UNKNOWN]
        if not len(times):
            return
        self.first_ns = int(times.min())
        shortest, longest = (
            SimpleNamespace(**{
                name: choose(getattr(timeouts, name) for timeouts in self._timeouts)
                for name in chain.from_iterable(TIMEOUTS)
            })
            for choose in (min, max)
        )  # fmt: skip
        changes_at = self.changes_at(self.first_ns)
        start, end = (
            None if limit is None else limit.at(self.first_ns)
            for limit in parse_window(self._reading.start, self._reading.end)
        )
        self._owners = InterfaceOwners([*self._instances, *self.changed_instances()])
        self._connections = Connections(
            shortest, longest, start, end, is_one_stream=self._is_one_stream, words=self.logs.words,
            ask=self.ask, owners=self._owners,
        )
        self._connections.packets.note_changes(changes_at)

    @property
    def asked(self) -> NDArray[np.uint64]:
        """The fate of the connections that ``ask`` was asked about, as ``RecordPackets.asked`` has it."""
        return np.zeros((0, 4), np.uint64) if self._connections is None else self._connections.packets.asked

    def _warnings(self) -> list[str]:
        """Return sentences about the logs read so far that the user should know."""
        logs, connections = self.logs, self._connections
        warnings = [*self._sources.warnings, *logs.remarks, *logs.complaints, *logs.damage]
        if logs.damaged > len(logs.damage):
            warnings.append(f"{logs.damaged - len(logs.damage):,} more logs could not be read to their end")
        warnings += dict.fromkeys(logs.unlogged.values())
        if logs.broken_lines > len(logs.complaints):
            warnings.append(f"{logs.broken_lines - len(logs.complaints):,} more lines are no flow log records")
        if connections is not None and connections.without_packets:
            some = some_records(connections.without_packets)
            warnings.append(f"the number of packets is missing in {some}: each counts one")
        if connections is not None and connections.without_bytes:
            some = some_records(connections.without_bytes)
            warnings.append(f"the number of bytes is missing in {some}: they count none")
        if connections is not None and connections.forgotten:
            warnings.append(f"so many connections were open that {connections.forgotten:,} were forgotten early")
        if connections is not None and connections.packets.lost:
            some = some_records(connections.packets.lost)
            warnings.append(f"memory ran out: the later packets of {some} are missing")
        return warnings

    @property
    def records(self) -> LogRecords:
        """The fate of the records read so far."""
        logs, connections = self.logs, self._connections
        counted: dict[LeftOutCause, int] = {
            "no-data": logs.nodata, "lost": logs.skipdata, "broken": logs.broken_lines, "other-lines": logs.left_out
        }
        left_out = {cause: number for cause, number in counted.items() if number}
        if self._without_time:
            of_packets = {} if connections is None else connections.packets.left_out
            left_out["no-time"] = self._without_time + of_packets.get("no-time", 0)
        read = self._taken_records + sum(counted.values())
        unread = self._unread_files
        logged = self._owners.logged(
            {} if connections is None else connections.interfaces.shared, logs.words.idle,
            [] if connections is None else connections.interfaces.ends_without_interface,
        )  # fmt: skip
        unlogged = tuple(dict.fromkeys(instance.name for instance in self._instances if instance.name not in logged))
        if connections is None:
            return LogRecords(
                read, formats=dict(logs.formats), left_out=left_out, damage=tuple(logs.damage), unread=unread,
                unlogged=unlogged,
            )
        packets = connections.packets
        return LogRecords(
            read=read, judged=packets.judged, rejected=packets.rejected,
            undecided={cause: records for cause, (records, _) in packets.undecided.items()},
            undecided_connections=sum(number for _, number in packets.undecided.values()),
            left_out={**packets.left_out, **left_out}, late=connections.late, in_changes=packets.in_changes,
            formats=dict(logs.formats), shows_answers=logs.shows_answers, unlogged_services=(*logs.unlogged,),
            lacks_protocols=logs.lacks_protocols,
            unsure_connections=packets.unsure_connections, damage=tuple(logs.damage),
            decided_connections=packets.decided,
            without_interface=packets.without_interface if logs.names_interfaces else 0,
            overlapping=packets.overlapping, silent_hours=connections.silent_hours,
            undecided_answered=packets.undecided_answered, two_way=packets.two_way, one_way=packets.one_way,
            unread=unread, has_actions=not self._without_action, unlogged=unlogged,
            interfaces=tuple(self._noticed(connections)),
        )  # fmt: skip

    @property
    def _unread_files(self) -> UnreadFiles:
        sources, damaged = self._sources, self.logs.bytes_of_damaged
        unread = [(sources.sizes[path], read) for path, read in damaged.items()]
        unread += [(size, 0) for size in sources.unread.values()]
        if not unread:
            return UnreadFiles()
        return UnreadFiles.of(unread, (size for path, size in sources.sizes.items() if path not in damaged))

    def _noticed(self, connections: Connections) -> Iterator[NoticedInterface]:
        for interface, role, addresses, left_out, doubtful in connections.interfaces.noticed:
            owners = [(address, owner) for address in addresses for owner in self._owners.of(address)]
            address, instance = owners[0] if owners else (addresses[0], None)
            yield NoticedInterface(
                role, interface, str(ip_address(address)), None if instance is None else instance.name, left_out,
                doubtful,
            )  # fmt: skip


def _turns(logs: MergedLogs) -> Iterator[tuple[int, str, NDArray[Any]]]:
    """Iterate over the records as ``logs`` does, but in arrays with those of one turn each, in the order of time."""
    for number, path, rows in logs:
        turns = rows["start_ns"] // TURN_NS
        if turns.min() == turns.max():
            yield number, path, rows
            continue
        order = np.argsort(rows["start_ns"], kind="stable")
        for part in np.split(rows[order], np.flatnonzero(np.diff(turns[order])) + 1):
            yield number, path, part

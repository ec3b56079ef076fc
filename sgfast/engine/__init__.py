"""The engine: a compiled policy with a connection table. It is the core of the library."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import ArgumentError
from sgfast.clouds.loading import PolicySource, load
from sgfast.core.accounting import AccountingPlane
from sgfast.core.base.frames import FrameBatch
from sgfast.core.check_one import SingleChecks
from sgfast.core.dataplane import MAX_JOBS
from sgfast.core.dtypes import HEADER_DTYPE, RESOLVED_DTYPE, RESULT_DTYPE
from sgfast.core.wire.link import LINK_TYPES
from sgfast.policy.lookup import vpc_name
from sgfast.policy.model import ICMPV6, Instance, Policy, Rule, Timeouts
from sgfast.policy.named_ends import addresses_of_ends, single_addresses
from sgfast.policy.protocols import PROTOCOL_NUMBERS
from sgfast.rows.packet_headers import TCP_FLAGS, Address, Instant, header, header_row, instant_ns_of, protocol_number
from sgfast.rows.verdicts import INFRASTRUCTURES, NO_SIDE, PENDING, REASONS, VERDICTS, ApplyResult, Verdict, verdict_of
from sgfast.rules.compiler import CompiledPolicy, Compiler

if TYPE_CHECKING:
    from sgfast.policy.changes import Change
    from sgfast.rows import Table
    from sgfast.rows.connection_events import ConnectionEvent
    from sgfast.rules.reaching.explaining import Explanation
else:
    # At run time these names mean anything: importing their modules would delay every command.
    Change = ConnectionEvent = Explanation = Table = Any

#: Whether the packets that followed a denied opener are recognised, or judged as given (SPEC 9.2).
Mode = Literal["causal", "verbatim"]
#: The treatment of TCP packets of unknown connections (SPEC 9.3).
Midstream = Literal["deny", "infer", "allow"]

MODES: tuple[Mode, ...] = get_args(Mode)
#: Indexed by the data plane's numbers for them.
MIDSTREAMS: tuple[Midstream, ...] = get_args(Midstream)
#: The mode and midstream of a replay by default, for captured packets.
CAPTURED: tuple[Mode, Midstream] = ("causal", "infer")

#: The attributes of an engine that can only be read, each with advice for those who assign it.
_READ_ONLY = {
    "policy": "change the policy with Engine.apply, or make an engine of the other policy",
    **dict.fromkeys(("mode", "midstream", "vpc"), "give it to a new Engine"),
}


def timeouts_ns(timeouts: Timeouts) -> tuple[int, ...]:
    """Return the timeouts of SPEC 5.2 for the data plane: in nanoseconds, at least 1, in the order of their fields."""
    return tuple(max(1, round(seconds * 10**9)) for seconds in astuple(timeouts))


def check_modes(mode: Mode, midstream: Midstream) -> None:
    """Raise ArgumentError for an unknown ``mode`` or ``midstream``."""
    if mode not in MODES:
        raise ArgumentError(f"mode must be {' or '.join(MODES)}, not {mode!r}")
    if midstream not in MIDSTREAMS:
        raise ArgumentError(f"midstream must be one of {', '.join(MIDSTREAMS)}, not {midstream!r}")


def check_jobs(jobs: int) -> None:
    """Raise ArgumentError for an impossible number of threads."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MAX_JOBS:
        raise ArgumentError(f"jobs must be 1 to {MAX_JOBS}, not {jobs!r:.80}")


class Engine:
    """Judge packets by a policy, and remember connections.

    The engine judges as the filter itself would: it has seen all packets from the first one on, and the packets that it
    denies go no further. To judge captured packets, as ``replay`` does, make the engine with :meth:`for_captures`.

    ``policy``: a :class:`Policy`, or anything that ``sgfast.load`` takes.
    ``mode``: ``"verbatim"`` judges every packet as given; ``"causal"`` also recognises packets that could not have
    followed a denied opener (SPEC 9.2).
    ``midstream``: how to treat TCP packets of unknown connections (SPEC 9.3).
    ``vpc``: the VPC that the packets' addresses belong to, by its name, id or label; None: all VPCs (SPEC 7.1).
    ``jobs``: the number of threads that judge, 1 to 64. Results do not depend on this number until a table is full: the
    connection table, or one of the report's (a million denied attempts or cut connections, 65,536 lines of a list).
    Which entries a full table drops does depend on ``jobs``. With several jobs, ``process`` and every method that
    returns results waits for all threads.
    ``events``: list what happens to connections, for :meth:`events`.

    Threads may share an engine: calls take turns, and a waiting call does not hold the GIL. So ``check``,
    ``connections``, ``events``, ``copy`` and ``apply`` wait until another thread's ``process`` has judged all of its
    packets, and a ``process`` waits for them. Give ``process`` fewer packets at a time if others must not wait.

    After ``fork``, a child may use its copy only if ``jobs`` is 1 and no thread was in a call at that moment.

    Raises PolicyError for a policy that cannot be used, ArgumentError for an unknown option, MemoryError if there is no
    memory for tables or threads.

    For example:

        engine = sgfast.Engine("pcaps/shop.yaml")
        verdict = engine.check("198.51.100.7", "web-1", "tcp", sport=40000, dport=80, time_ns=0)
        assert verdict.allowed and verdict.ingress.rule == "web-http-4"
    """

    def __init__(
        self,
        policy: PolicySource,
        *,
        mode: Mode = "verbatim",
        midstream: Midstream = "deny",
        vpc: str | None = None,
        events: bool = False,
        jobs: int = 1,
        _keep_flows: bool = False,
        _reporting: bool = False,
        _hash_key: Sequence[int] | None = None,
        _compiler: Compiler | None = None,
    ) -> None:
        check_modes(mode, midstream)
        check_jobs(jobs)
        self._policy = load(policy)
        self._vpc = vpc_name(self.policy, vpc)
        self._compiler = Compiler(self.vpc) if _compiler is None else _compiler
        self.compiled: CompiledPolicy = self._compiler.compile(self.policy)
        self._changing = threading.Lock()
        self._mode: Mode = mode
        self._midstream: Midstream = midstream
        self.keep_flows = _keep_flows
        self.reporting = _reporting
        self.keeps_events = events
        self._make_plane(_hash_key, jobs)
        #: The rules and instances of a compiled policy, which programs may keep but cannot change.
        self._copied: tuple[CompiledPolicy | None, tuple[Rule, ...], tuple[Instance, ...]] = None, (), ()

    def _make_plane(self, hash_key: Sequence[int] | None, jobs: int) -> None:
        self.dataplane: AccountingPlane = AccountingPlane(
            self.compiled.classifier,
            causal=self.mode == "causal",
            midstream=MIDSTREAMS.index(self.midstream),
            timeouts_ns=timeouts_ns(self.policy.settings.timeouts),
            max_connections=self.policy.settings.max_connections,
            infrastructure=INFRASTRUCTURES.index(self.policy.settings.infrastructure),
            keep_flows=self.keep_flows,
            reporting=self.reporting,
            events=self.keeps_events,
            secret=hash_key,
            jobs=jobs,
        )
        self._single = SingleChecks(self.dataplane, PROTOCOL_NUMBERS, TCP_FLAGS)

    @classmethod
    def for_captures(
        cls, policy: PolicySource, *, vpc: str | None = None, jobs: int = 1, events: bool = False
    ) -> Self:
        """Make an engine that judges captured packets as :func:`sgfast.replay` does by default. Packets that could not
        have followed a denied opener are ``moot`` (``mode="causal"``). TCP connections older than the capture are
        judged by the opener that is inferred for them (``midstream="infer"``; SPEC 9.2, 9.3).

        For example:

            engine = sgfast.Engine.for_captures("pcaps/shop.yaml")
        """
        return cls(policy, mode=CAPTURED[0], midstream=CAPTURED[1], vpc=vpc, jobs=jobs, events=events)

    def __repr__(self) -> str:
        return f"<Engine {self.mode}, midstream {self.midstream}, of {self.policy!r}>"

    if not TYPE_CHECKING:
        # Type checkers know from the properties that these cannot be assigned.
        def __setattr__(self, name: str, value: object) -> None:
            if (advice := _READ_ONLY.get(name)) is not None:
                raise AttributeError(f"Engine.{name} cannot be assigned: {advice}")
            object.__setattr__(self, name, value)

    @property
    def policy(self) -> Policy:
        """The policy in force. :meth:`apply` changes it."""
        return self._policy

    @property
    def mode(self) -> Mode:
        """Whether packets that followed a denied opener are recognised (SPEC 9.2)."""
        return self._mode

    @property
    def midstream(self) -> Midstream:
        """The treatment of TCP packets of unknown connections (SPEC 9.3)."""
        return self._midstream

    @property
    def vpc(self) -> str | None:
        """The name of the VPC that the engine was made for; None if none was named (SPEC 7.4)."""
        return self._vpc

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules, indexed by the numbers in results."""
        return self._numbered()[0]

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances, indexed by the numbers in results."""
        return self._numbered()[1]

    def _numbered(self) -> tuple[tuple[Rule, ...], tuple[Instance, ...]]:
        compiled, rules, instances = self._copied
        if compiled is not self.compiled:
            compiled = self.compiled
            rules, instances = tuple(compiled.rules), tuple(compiled.instances)
            self._copied = compiled, rules, instances
        return rules, instances

    @property
    def open_connections(self) -> int:
        """The number of connections that are open at the time of the latest packet (SPEC 14.12): connections that were
        allowed, have neither ended nor timed out, and that no filter which remembers them has disconnected. A
        connection that only one of two filters has forgotten is open. Each access looks at every connection that the
        engine remembers.
        """
        return self.dataplane.count_open()

    def connections(self) -> Table:
        """Return the connections that the filters remember at the time of the latest packet (SPEC 14.14), as a
        :class:`Table`. Those with ``status`` "open" are the ones that :attr:`open_connections` counts. The number, the
        time and the counters of a connection are null unless the engine was made with ``events``.
        """
        from sgfast.rows import remembered_table

        rows = self.dataplane.remembered()
        return remembered_table(rows, [instance.name for instance in self.instances], [rule.id for rule in self.rules])

    def events(self) -> Iterator[ConnectionEvent]:
        """Return what happened to connections since the last call, in the order of time (SPEC 14.15). Each event is
        returned once, whether the iterator is used or not.

        Between two calls the first 1,048,576 events are kept. :attr:`lost_events` counts the others. Raises
        ArgumentError if the engine was made without ``events``.
        """
        from sgfast.rows.connection_events import in_words

        if not self.keeps_events:
            raise ArgumentError("this engine keeps no events: make it with Engine(policy, events=True)")
        rows = self.dataplane.take_events()
        return in_words(rows, [instance.name for instance in self.instances], [rule.id for rule in self.rules])

    @property
    def lost_events(self) -> int:
        """The number of events that :meth:`events` never returns, because too many waited to be taken."""
        return self.dataplane.lost_events

    def copy(self) -> Self:
        """Return an independent engine in the same state: policy, connections, clock, counters, and fragments that
        wait. Both judge equally from now on, and no change of one reaches the other. Events that nobody has taken stay
        with this engine (SPEC 14.16).
        """
        with self._changing:
            return self._copy()

    def _copy(self) -> Self:
        """Return a copy. The caller holds back changes of the policy."""
        from sgfast.core.state.snapshot import copy_plane

        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        copied._changing = threading.Lock()
        copied._compiler = self._compiler.copy()
        copied._make_plane(self.dataplane.hash_key, self.dataplane.jobs)
        copy_plane(self.dataplane, copied.dataplane)
        return copied

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def process(self, packets: NDArray[Any] | FrameBatch) -> NDArray[np.void]:
        """Judge packets in the order given.

        ``packets``: an array of ``HEADER_DTYPE`` (n,), or a ``FrameBatch`` of raw frames. Returns an array of
        ``RESULT_DTYPE`` (n,): ``verdict`` and ``reason`` are indices into ``VERDICTS`` and ``REASONS``; ``egress`` and
        ``ingress`` hold ``instance`` and ``rule`` (indices into ``Engine.instances`` and ``Engine.rules``, -1: none),
        ``verdict`` (``NO_SIDE``: no such side, or not reached) and ``reason``.

        Times are nanoseconds since the Unix epoch (SPEC 9.1), up to 146 years either way; times beyond are clamped.
        Header rows have no hop limit (255 is assumed) and no quoted packet, so ICMP errors must be given as frames.
        A fragment that comes before its datagram's first fragment is ``PENDING`` and has no sides; :meth:`resolved`
        returns its result later. Raises ValueError for another dtype.

        For example:

            one = sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=50000, dport=80)
            packets = np.repeat(one, 1000)
            packets["sport"] += np.arange(1000, dtype=np.uint16)
            results = engine.process(packets)
            assert (results["verdict"] == sgfast.VERDICTS.index("allow")).all()
        """
        if not isinstance(packets, FrameBatch) and np.ndim(packets) != 1:
            raise ArgumentError("packets must be an array of one dimension, with one row per packet")
        results = np.zeros(len(packets), dtype=RESULT_DTYPE)
        if isinstance(packets, FrameBatch):
            self.dataplane.process_frames(packets, results)
        else:
            self.dataplane.process_headers(np.ascontiguousarray(packets), results)
        return results

    def process_frames(
        self,
        frames: Sequence[bytes],
        times_ns: Sequence[Instant],
        *,
        wire_lengths: Sequence[int] | None = None,
        link_type: int = 1,
    ) -> NDArray[np.void]:
        """Judge raw frames and return their results as :meth:`process` does.

        ``frames``: the bytes of each frame. ``times_ns``: the time of each frame. ``wire_lengths``: the lengths of the
        frames on the wire in bytes, for frames that were cut; None: no frame was cut. ``link_type``: a ``LINKTYPE_``
        number (1: Ethernet). Raises ArgumentError for a link type that is not supported
        (SPEC 3.1), and ArgumentTypeError for a time that is no instant (SPEC 14.13).

        For example:

            frame = bytes.fromhex(                                  # Ethernet, IPv4, TCP: a SYN to port 443
                "020000000001020000000002080045000028000000004006b6c9c63364070a000005"
                "9c4001bb00000000000000005002000000000000"
            )
            results = engine.process_frames([frame], [10**9])
            assert sgfast.REASONS[results[0]["reason"]] == "no-rule"
        """
        if link_type not in LINK_TYPES:
            raise ArgumentError(f"link type {link_type} is not supported; see sgfast.core.wire.link.LINK_TYPES")
        times = [instant_ns_of(time, "a time") for time in times_ns]
        return self.process(FrameBatch.from_frames(frames, times, wire_lengths, link_type))

    def resolved(self, *, everything: bool = False) -> NDArray[np.void]:
        """Return the results of packets that were ``PENDING`` and have been settled since the last call (SPEC 9.4).

        The results are an array of ``RESOLVED_DTYPE`` (n,): ``number`` is the packet's number, with 1 for the engine's
        first, and ``result`` is a row like those of :meth:`process`. A packet waits for at most 30 seconds or 65,536
        packets. ``everything``: settle all packets that still wait, because no more packets will come. If results are
        never collected, the first 1,048,576 are kept.

        For example:

            for row in engine.resolved(everything=True):
                print(row["number"], engine.verdict(row["result"]))
        """
        return self.dataplane.take_resolved(everything=everything)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Hold back changes of the policy by other threads."""
        with self._changing:
            yield

    def apply(
        self, changes: Change | Mapping[str, Any] | Iterable[Change | Mapping[str, Any]], now_ns: Instant
    ) -> ApplyResult:
        """Change the policy between two packets (SPEC 6). Several changes are applied as one.

        ``changes``: values of ``sgfast.policy.changes``, such as ``sgfast.RemoveInstance("web-1")``, or entries of a
        change file (SPEC 9.5) without ``at``, such as ``{"remove_instance": {"instance": "web-1"}}``.
        ``now_ns``: the time of the change on the packets' clock; connections that have timed out by then do not count
        as cut. Raises PolicyError for a refused change (SPEC 6.1), naming the change by its number; ArgumentError for a
        time beyond the clock's range or a value that a change cannot have. After an error, the policy is as before.
        Packets that other threads judge meanwhile see either the old policy or the new one, never a mixture.

        For example:

            done = engine.apply([sgfast.RemoveRule("web", "web-ssh")], now_ns=2 * 10**9)
            assert done.disconnected == 1000        # SPEC 6.3: what came in through the group is cut
        """
        from sgfast.policy.change_file import apply_new_changes
        from sgfast.policy.changes import Change, RemoveInstance

        if isinstance(changes, Change | Mapping) or not isinstance(changes, Iterable):
            changes = [changes]
        now_ns = instant_ns_of(now_ns, "now_ns")
        with self._changing:
            changed, new_changes = apply_new_changes(self.policy, [*changes])
            if changed.policy is self.policy:
                return ApplyResult(0, 0, self.compiled.rule_tables, 0)
            removed = [change.instance for change in new_changes if isinstance(change, RemoveInstance)]
            compiled = self._compiler.compile(changed.policy, removed)
            on_change = changed.policy.settings.on_change
            cut = np.zeros(len(compiled.instances), dtype=np.uint8)
            if on_change == "cut-inbound":
                # Instances without a number are removed, and their connections are forgotten anyway (SPEC 6.6).
                cut[compiled.members(changed.groups)] = 1
                cut[compiled.numbering.of_names(changed.movers)] = 1
            unmatched = on_change in ("cut-unmatched", "forget-unmatched") and not changed.only_words
            forget = on_change == "forget-unmatched"
            before = self.policy, self.compiled
            # Names are replaced first: results that other threads get from now on may already have new numbers.
            self._policy, self.compiled = changed.policy, compiled
            self._single.names = {}
            try:
                disconnected, finished = self.dataplane.change(compiled.classifier, cut, unmatched, forget, now_ns)
            except MemoryError:
                self._policy, self.compiled = before
                self._single.names = {}
                raise
            return ApplyResult(disconnected, finished, compiled.rule_tables, compiled.rule_tables_built)

    def verdict(self, row: Any) -> Verdict:
        """Return one row of a result of :meth:`process` with words instead of numbers.

        For example:

            print(engine.verdict(results[0]))
        """
        return verdict_of(row, *self._numbered())

    def check(
        self,
        src: Address,
        dst: Address,
        protocol: str | int,
        *,
        sport: int | None = None,
        dport: int | None = None,
        flags: str = "S",
        icmp_type: int | None = None,
        icmp_code: int | None = None,
        icmp_id: int = 0,
        time_ns: Instant = 0,
    ) -> Verdict:
        """Judge one packet, and remember the connection it opens or belongs to.

        ``src``, ``dst``: addresses; or instances, by any of their words (SPEC 2.12). An instance must have just one
        address of the IP version that both ends have (IPv4 if they have both versions); that address is used.
        ``protocol``: a name or number. ``dport``: the destination port, which protocols with ports need; ``sport`` is 0
        if it is not given. ``icmp_type``: the ICMP type; if it is not given, the packet is an echo request (a ping).
        ``flags``: TCP flags, letters of ``FSRPAUEC``. ``time_ns``: the packet's time, by which connections time out.
        An ICMP error that is given here quotes no packet, so that stateful groups call it ``invalid``: judge it as a
        frame instead.

        Raises ArgumentError for a packet that cannot exist, such as GRE with a port, and for a name that no instance
        has. Raises PolicyError for a name that several instances have, and for an instance with several addresses.
        Raises TypeError for a value that is not a number, ArgumentTypeError for a time that is no instant (SPEC 14.13).

        For example:

            ping = engine.check("198.51.100.7", "web-1", "icmp", icmp_type=8, time_ns=3 * 10**9)
            assert ping.allowed
        """
        result = self._single.check(src, dst, protocol, sport, dport, flags, icmp_type, icmp_code, icmp_id, time_ns)
        if type(result) is Verdict:
            return result
        if result is not None:
            # The verdict may be kept across changes of the policy, because numbers keep their meaning (Numbering).
            verdict = self.verdict(np.frombuffer(result, dtype=RESULT_DTYPE)[0])
            self._single.keep(result, verdict)
            return verdict
        # The code above leaves three kinds of packets to the code below: rare ones, invalid ones, and those with a name
        # that nobody asked about since the policy changed. `names` is read before the policy, and `apply` replaces it
        # after the policy, so that no address of an earlier policy stays in it.
        names = self._single.names
        policy = self.policy
        source, destination = addresses_of_ends(policy, src, dst, prefers_ipv6=protocol_number(protocol) == ICMPV6)
        if source is not src or destination is not dst:
            for end in src, dst:
                if isinstance(end, str) and (addresses := single_addresses(policy, end)) is not None:
                    names[end] = addresses
            return self.check(
                source, destination, protocol, sport=sport, dport=dport, flags=flags, icmp_type=icmp_type,
                icmp_code=icmp_code, icmp_id=icmp_id, time_ns=time_ns,
            )  # fmt: skip
        row = header_row(
            src, dst, protocol, sport=sport, dport=dport, flags=flags, icmp_type=icmp_type, icmp_code=icmp_code,
            icmp_id=icmp_id, time_ns=time_ns,
        )  # fmt: skip
        return self.verdict(self.process(row)[0])

    def explain(
        self,
        src: Address,
        dst: Address,
        protocol: str | int,
        *,
        dport: int | None = None,
        icmp_type: int | None = None,
        icmp_code: int | None = None,
    ) -> Explanation:
        """Explain why an opener is allowed or denied, as ``Policy.explain`` does. Connections are neither used nor
        changed, so the verdict is that of a new engine.

        The arguments are those of :meth:`check`. An engine for one VPC cannot tell whether an address is that of an
        instance of a VPC that is not peered (SPEC 12.1).
        """
        from sgfast.rules.reaching.explaining import explain_addresses

        src, dst = addresses_of_ends(self.policy, src, dst, prefers_ipv6=protocol_number(protocol) == ICMPV6)
        row = header_row(src, dst, protocol, dport=dport, icmp_type=icmp_type, icmp_code=icmp_code)[0]
        number = int(row["protocol"])
        return explain_addresses(
            self.compiled, self.vpc, ip_address(src), ip_address(dst), number,
            int(row["dport"]) if row["has_ports"] else None,
            *((int(row["icmp_type"]), int(row["icmp_code"])) if row["has_icmp"] else (None, None)),
        )  # fmt: skip


def table(headers: NDArray[Any], results: NDArray[Any], engine: Engine, *, first: int = 1) -> Table:
    """Return packets that ``engine`` judged as a table, like the table of a replay's packets (SPEC 14.10).

    ``headers``, ``results``: the argument and the result of :meth:`Engine.process`, of equal length. ``first``: the
    number of the first packet. The table refers to the arrays and changes with them. Raises ArgumentError for other
    arrays.

    For example:

        packets = sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=40000, dport=80)
        for row in sgfast.table(packets, engine.process(packets), engine):
            print(row["time"], row["verdict"], row["ingress_rule"])
    """
    from sgfast.rows import BATCH_ROWS, PacketChunk, packet_table

    for rows, dtype, name in ((headers, HEADER_DTYPE, "headers"), (results, RESULT_DTYPE, "results")):
        if not isinstance(rows, np.ndarray) or rows.dtype != dtype or rows.ndim != 1:
            raise ArgumentError(f"{name} must be an array of one dimension, of the dtype that Engine.process has")
    if len(headers) != len(results):
        raise ArgumentError(f"headers and results must have equal lengths, not {len(headers)} and {len(results)}")
    chunks = [
        PacketChunk(headers[at : at + BATCH_ROWS], results[at : at + BATCH_ROWS])
        for at in range(0, len(headers), BATCH_ROWS)
    ]
    instances = [instance.name for instance in engine.instances]
    return packet_table(chunks, instances, [rule.id for rule in engine.rules], first=first)


__all__ = [
    "HEADER_DTYPE", "NO_SIDE", "PENDING", "REASONS", "RESOLVED_DTYPE", "RESULT_DTYPE", "VERDICTS", "Engine",
    "FrameBatch", "header", "table",
]  # fmt: skip

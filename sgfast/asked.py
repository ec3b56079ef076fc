"""The way up: what users ask a policy, and how an answer reads, comes from ``sgfast.asking``, above what answers.

A policy is one type, and it is at the bottom. So its methods, and the texts of results, import that module when they
are called. No other module imports what is above it (``tests/project/test_layers.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sgfast.asking import (
        Captures,
        ChangesSource,
        CheckResult,
        EndWord,
        ExpectationsSource,
        Explained,
        FlowSink,
        FrameSink,
        Kept,
        Midstream,
        Mode,
        Output,
        PacketSink,
        Policy,
        PolicyDiff,
        PolicySource,
        Proof,
        Provider,
        Reach,
        Reading,
        ReplayResult,
        Target,
    )

Progress = Callable[[int, int], None]


class Shown:
    """A result whose text is what its command prints, 80 columns wide and without colours."""

    __slots__ = ()

    def __str__(self) -> str:
        from sgfast import asking

        return asking.text_of(self)


def _policy(asked: Asked) -> Policy:
    from sgfast.asking import Policy, load

    assert isinstance(asked, Policy)
    return load(asked)


class Asked:
    """The questions that one can ask a policy (SPEC 14.3, 14.4).

    An end (``source``, ``destination``) is an instance, a security group or an address group by its name, id or label;
    an address or a network, as a text or as a value of ``ipaddress``; ``internet``; or ``any``. If a word means several
    things, write ``instance:web``, ``group:web`` or ``address-group:web``.

    A service is ``tcp/443``, ``udp/1000-2000``, ``tcp``, ``icmp``, ``icmp/8``, ``gre``, ``all`` or the like.

    Each answer prints as the command of the same name prints it: ``print(policy.check())``.
    """

    __slots__ = ()

    def explain(
        self,
        source: EndWord,
        destination: EndWord,
        service: str,
        *,
        sport: int | None = None,
        vpc: str | None = None,
        as_if_in: Sequence[str] = (),
    ) -> Explained:
        """Explain why a packet that opens a connection is allowed or denied: the rule that wins, or the nearest ones.

        ``print(policy.explain("web-1", "db-1", "tcp/5432"))``. The service ``icmp`` is a ping. If an end or the service
        stands for several packets, such as a group, a network or ``all``, one packet is explained that stands for them:
        one that is denied, if there is one. ``choices`` of the answer says whether all get the same verdict.

        ``sport``: the source port, which only matters for DHCP. ``vpc``: the VPC in which addresses are looked up;
        None: that of the source's instance, or else of the destination's. ``as_if_in``: groups of a machine that the
        policy does not have yet, ``"GROUP=ADDRESS"``, or ``"GROUP"`` if only one end is an address that no instance
        has. These three are for one packet.

        Raises PolicyError for an end that means nothing or several things, and if no filter judges any such packet;
        ArgumentError for a service that there is not.
        """
        from sgfast import asking

        return asking.explain(
            _policy(self), source, destination, service, sport=sport, vpc=vpc, as_if_in=as_if_in
        )

    def reach(
        self,
        *,
        source: EndWord | None = None,
        destination: EndWord | None = None,
        protocol: str | None = None,
        port: int | str | None = None,
        rules: bool = False,
    ) -> Reach:
        """List who may open which connections to whom, by the rules alone and for all packets (SPEC 12.5).

        ``protocol``: only this service; None: all. ``port``: only these destination ports, ``443`` or
        ``"80,8000-8080"``; without ``protocol``, of tcp and udp. ``rules``: find the rules that allow each row.

        Raises PolicyError for an end that means nothing or several things, or if the answer would take too long;
        ArgumentError for a service that there is not.
        """
        from sgfast import asking

        return asking.reach(
            _policy(self), source=source, destination=destination, protocol=protocol, port=port, rules=rules
        )

    def test(self, expectations: ExpectationsSource) -> Proof:
        """Prove for all packets that the policy allows and denies what is meant (SPEC 10.23).

        ``expectations``: the path or the text of an expectations file, the same as plain values, or a list such as
        ``[{"from": "web", "to": "db", "service": "tcp/5432", "verdict": "allow"}]``. The answer's ``of("fails")`` are
        those that do not hold, each with a packet that shows it.

        Raises PolicyError for expectations that cannot be read, and for names in them that mean nothing.
        """
        from sgfast import asking

        return asking.test(_policy(self), expectations)

    def check(
        self,
        *,
        expect: ExpectationsSource | None = None,
        captures: Captures = (),
        vpc: str | None = None,
        reading: Reading | None = None,
        as_if_in: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> CheckResult:
        """Find what is redundant, useless or dangerous, as findings with stable codes (SPEC 10.12).

        ``expect``: also find what these expectations contradict. ``captures``: also find the rules that no packet in
        them used; ``vpc`` and ``reading`` are as for ``replay``. ``as_if_in``: check as if there were one more
        instance, ``"GROUP=ADDRESS"``.

        Raises PolicyError, CaptureError and the other errors of ``replay``.
        """
        from sgfast import asking

        return asking.check(
            _policy(self), expect=expect, captures=captures, vpc=vpc, reading=reading, as_if_in=as_if_in,
            progress=progress,
        )  # fmt: skip

    def diff(
        self,
        new: PolicySource,
        captures: Captures = (),
        *,
        mode: Mode = "causal",
        midstream: Midstream = "infer",
        vpc: str | None = None,
        jobs: int = 1,
        reading: Reading | None = None,
        progress: Progress | None = None,
    ) -> PolicyDiff:
        """Compare with the policy ``new``, as if it took the place of this one; as ``sgfast.diff``."""
        from sgfast import asking

        return asking.diff(
            _policy(self), new, captures, mode=mode, midstream=midstream, vpc=vpc, jobs=jobs, reading=reading,
            progress=progress,
        )  # fmt: skip

    def replay(
        self,
        captures: Captures,
        *,
        mode: Mode = "causal",
        midstream: Midstream = "infer",
        vpc: str | None = None,
        engine: Literal["fast", "reference"] = "fast",
        packets: PacketSink | Sequence[PacketSink] | None = None,
        frames: FrameSink | Sequence[FrameSink] | None = None,
        flows: FlowSink | Sequence[FlowSink] | None = None,
        progress: Progress | None = None,
        changes: ChangesSource | None = None,
        resume: str | os.PathLike[str] | None = None,
        snapshot: Output | str | os.PathLike[str] | None = None,
        jobs: int = 1,
        reading: Reading | None = None,
        client: Any = None,
        shards: int | None = None,
        tables: Sequence[Kept] | Kept = (),
    ) -> ReplayResult:
        """Judge every packet of captures by this policy; as ``sgfast.replay``."""
        from sgfast import asking

        return asking.replay(
            _policy(self), captures, mode=mode, midstream=midstream, vpc=vpc, engine=engine, packets=packets,
            frames=frames, flows=flows, progress=progress, changes=changes, resume=resume, snapshot=snapshot, jobs=jobs,
            reading=reading, client=client, shards=shards, tables=tables,
        )  # fmt: skip

    def export(
        self,
        to: Target,
        *,
        since: PolicySource | None = None,
        form: Literal["script", "json"] = "script",
        provider: Provider | None = None,
        instance: str | None = None,
        interfaces: Mapping[str, str] | None = None,
        connections: str | os.PathLike[str] | None = None,
    ) -> str:
        """Write the commands or files with which this policy holds on a cloud or host; as ``sgfast.export``."""
        from sgfast import asking

        return asking.export(
            _policy(self), to, since=since, form=form, provider=provider, instance=instance, interfaces=interfaces,
            connections=connections,
        )  # fmt: skip

"""The face of the library: ``sgfast.Policy`` with the questions that users ask about a policy.

Each question is one function whose first parameter is the policy; ``Policy`` has these functions as methods. Below this
module, policies are plain values, and only the commands import this module.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from sgfast import types
from sgfast.answers import dict_of, text_of
from sgfast.base.errors import ArgumentError, ArgumentTypeError
from sgfast.base.notebook import SHOWN_ROWS, Shown, html_table
from sgfast.clouds.loading import CapturePaths, EndWord, PolicySource, Progress
from sgfast.clouds.loading import load as load
from sgfast.policy import model
from sgfast.policy.loaded_policy import LoadedPolicy
from sgfast.policy.model import Action

Sink = TypeVar("Sink")


# Why one packet is allowed or denied ---------------------------------------------------------------------------------


def explain(
    policy: PolicySource,
    source: EndWord,
    destination: EndWord,
    service: str,
    *,
    sport: int | None = None,
    vpc: str | None = None,
    as_if_in: Sequence[str] = (),
    accept_evidence: Sequence[types.EvidenceCode] = (),
) -> types.Explanation:
    """Explain why a packet that opens a connection is allowed or denied: the rule that wins, or the nearest ones.

    ``print(policy.explain("web-1", "db-1", "tcp/5432"))``. The service ``icmp`` is a ping. If an end or the service
    means several packets, such as a group, a network or ``all``, one of these packets is explained: a denied one, if
    there is one. ``choices`` of the answer says whether all of them get the same verdict.

    ``sport``: the source port, which only matters for DHCP. ``vpc``: the VPC in which addresses are looked up;
    None: that of the source's instance, or else of the destination's. ``as_if_in``: groups of a machine that the
    policy does not have yet, ``"GROUP=ADDRESS"``, or ``"GROUP"`` if only one end is an address that no instance
    has. ``accept_evidence``: ``other-vpc`` takes an address for that of a machine outside, although an instance of
    another VPC has it. ``sport``, ``vpc`` and ``as_if_in`` are for one packet.

    Raises PolicyError for an end that means nothing or several things, and if no filter judges any such packet;
    ArgumentError for an unknown service.

    For example:

        answer = policy.explain("web-1", "db-1", "tcp/5432")
        assert answer.allowed and answer.ingress.winner.rule.id == "db/inbound/1"
    """
    from sgfast.rules.reaching import explaining
    from sgfast.rules.reaching.ends import named_end
    from sgfast.rules.reaching.services import single_service

    policy = load(policy)
    words, service = (str(source), str(destination)), str(service)
    ends = [_only_one(named_end(policy, word)) for word in words]
    packet = single_service(service)
    if packet is not None and ends[0] is not None and ends[1] is not None:
        return explaining.explain(
            policy, ends[0], ends[1], packet.protocol, port=packet.port, sport=sport, icmp_type=packet.icmp_type,
            icmp_code=packet.icmp_code, vpc=vpc, as_if_in=as_if_in, accept_evidence=accept_evidence,
        )  # fmt: skip
    if sport is not None or vpc is not None or as_if_in:
        raise ArgumentError(
            "a source port, a VPC and an assumed machine are for one packet: name one instance or address at each end, "
            "and one service, such as tcp/443"
        )
    return _standing_for(policy, *words, service, accept_evidence)


def _only_one(end: types.NamedEnd) -> str | None:
    """Return an instance or an address as a word, or None if the end is anything else."""
    if end.kind == "instance":
        return end.name
    if end.kind == "network" and end.networks[0].num_addresses == 1:
        return str(end.networks[0].network_address)
    return None


def _standing_for(
    policy: model.Policy, source: str, destination: str, service: str, accept_evidence: Sequence[types.EvidenceCode]
) -> types.Explanation:
    """Explain one of several packets: a denied one if there is one."""
    from sgfast.base.errors import PolicyError
    from sgfast.policy.expectations import Expectation, ExpectationsFile, Word
    from sgfast.policy.yaml_nodes import show, shown_origin
    from sgfast.rules.reaching.proving import Expectations

    origin = shown_origin(policy.origin)
    question = f"{service} from {source} to {destination}"

    def proof_that_all_are(verdict: Action) -> types.ExpectationsResult:
        ends = (Word(source, origin),), (Word(destination, origin),)
        expectation = Expectation(*ends, (Word(service, origin),), verdict, "", "", 0, origin)
        return Expectations(policy, ExpectationsFile(origin, (expectation,))).prove(accept_evidence)

    proof = proof_that_all_are("allow")
    denied_packet = proof.outcomes[0].counterexample
    allowed_packet = proof_that_all_are("deny").outcomes[0].counterexample
    explained = denied_packet or allowed_packet
    if explained is None:
        raise PolicyError(f"{origin}: no filter judges any packet for {show(question)[1:-1]}")
    evidence = proof.evidence if explained.verdict == "allow" else explained.evidence
    if denied_packet is not None and allowed_packet is not None:
        words = "some of these packets are allowed, and some are denied. This is one that is denied."
    elif evidence.conclusive == "yes":
        words = f"all of these packets are {'denied' if denied_packet else 'allowed'}. This is one of them."
    else:
        words = (
            "all of these packets are allowed, unless an instance of a VPC that is not peered has one of the "
            "addresses. This is one of them."
        )
    other_owners = [f"{text[0].upper()}{text[1:]}." for outcome in proof.uncertain for text in outcome.elsewhere]
    choices = (f"{question}: {words}", *dict.fromkeys((*explained.choices, *other_owners)))
    return replace(explained, choices=choices, evidence=evidence)


# Questions about all packets -----------------------------------------------------------------------------------------


def reach(
    policy: PolicySource,
    *,
    source: EndWord | None = None,
    destination: EndWord | None = None,
    protocol: str | None = None,
    port: int | str | None = None,
    rules: bool = False,
) -> types.ReachResult:
    """List who may open which connections to whom, by the rules alone and for all packets (SPEC 12.5).

    ``protocol``: only this service; None: all. ``port``: only these destination ports, ``443`` or
    ``"80,8000-8080"``; without ``protocol``, of tcp and udp. ``rules``: find the rules that allow each row.

    Raises PolicyError for an end that means nothing or several things, or if the answer would take too long;
    ArgumentError for an unknown service, or a port of a protocol without ports.

    For example:

        answer = policy.reach(destination="db", protocol="tcp", port=5432)
        assert [row.services for row in answer.rows] == ["tcp/5432"]
    """
    from sgfast.policy.protocols import PROTOCOL_NUMBERS
    from sgfast.rules.reaching.ends import ANY, named_end
    from sgfast.rules.reaching.rows import reach as find_rows

    policy = load(policy)
    services = str(protocol or "all")
    if port is not None:
        # In `icmp/80`, the number is a type.
        if protocol is not None and PROTOCOL_NUMBERS.get(protocol.strip().lower()) not in model.PORT_PROTOCOLS:
            raise ArgumentError(f"{protocol!r:.80} is not one protocol with ports, such as tcp: leave the port out")
        services = "; ".join(f"{name}/{port}" for name in ([protocol] if protocol else ["tcp", "udp"]))
    sources, destinations = (
        ANY if end is None else named_end(policy, str(end)) for end in (source, destination)
    )
    return find_rows(policy, sources, destinations, services, rules=rules)


def test(
    policy: PolicySource, expectations: types.ExpectationsSource, *, accept_evidence: Sequence[types.EvidenceCode] = ()
) -> types.ExpectationsResult:
    """Prove for all packets that the policy allows and denies what is meant (SPEC 10.23).

    ``expectations``: the path of an expectations file, its content as plain values, or a list such as
    ``[{"from": "web", "to": "db", "service": "tcp/5432", "verdict": "allow"}]``. ``holds`` of the answer is true if
    all of them hold. Its ``of("fails")`` are those that do not, each with a packet that shows it; its ``of("empty")``
    those that are about no packet, which prove nothing. ``accept_evidence``: ``["about-nobody"]`` accepts these (SPEC
    10.27).

    Raises PolicyError for expectations that cannot be read, and for names in them that mean nothing.

    For example:

        answer = policy.test([{"from": "internet", "to": "db", "service": "all", "verdict": "deny"}])
        assert answer.holds
    """
    from sgfast.policy.expectations import expectations_of
    from sgfast.rules.reaching.proving import Expectations

    policy = load(policy)
    return Expectations(policy, expectations_of(expectations)).prove(accept_evidence)


def check(
    policy: PolicySource,
    *,
    expect: types.ExpectationsSource | None = None,
    captures: CapturePaths = (),
    vpc: str | None = None,
    reading: types.ReadOptions | None = None,
    accept_evidence: Sequence[types.EvidenceCode] = (),
    as_if_in: Sequence[str] = (),
    baseline: PolicySource | None = None,
    accepted: types.AcceptedSource | None = None,
    progress: Progress | None = None,
) -> types.CheckResult:
    """Find rules and settings that are redundant, useless or dangerous, as findings with stable codes (SPEC 10.12).

    ``expect``: also find what contradicts these expectations. ``captures``: also find the rules that no captured
    packet used; they may be flow logs, and ``vpc`` and ``reading`` are as for ``replay``. ``accept_evidence``: codes of
    reasons to doubt the captures or the expectations that do not count (SPEC 10.27). ``as_if_in``: check as if there
    were one more instance, ``"GROUP=ADDRESS"``. ``baseline``: an earlier policy; findings that it has, too, in a check
    with the same captures do not count. ``accepted``: a file of findings that do not count either, or its content.

    Raises PolicyError, CaptureError and the other errors of ``replay``.

    For example:

        answer = policy.check(captures="pcaps/shop.pcap")
        assert "web-ssh" in [finding.rule for finding in answer.findings]
    """
    from sgfast.policy.assumed_instances import with_assumed
    from sgfast.questions.checking import check_policy

    policy = load(policy)
    policy, assumed = with_assumed(policy, as_if_in, vpc=vpc)
    expected = None
    if expect is not None:
        from sgfast.policy.expectations import expectations_of
        from sgfast.rules.reaching.proving import Expectations

        expected = Expectations(policy, expectations_of(expect))
    traffic = uses = None
    if captures:
        from sgfast.questions.checking.usage import Uses
        from sgfast.questions.replaying import ReadOptions, ReplayOptions, Sinks
        from sgfast.questions.replaying.narrowest_rules import replay_narrowest_first

        uses = Uses(policy)
        options = ReplayOptions(vpc=vpc, reading=reading or ReadOptions(), accept_evidence=accept_evidence)
        sinks = Sinks(packets=(uses.openers,), flows=(uses,))
        traffic = replay_narrowest_first(policy, captures, options, sinks, progress)
    proof = None if expected is None else expected.prove(accept_evidence)
    result = check_policy(policy, traffic, uses, proof, vpc=vpc, assumed=assumed)
    if baseline is None and accepted is None:
        return result
    from sgfast.questions.checking.known_findings import accepted_findings_of, mark_known_findings

    earlier = None
    if baseline is not None:
        earlier = check(baseline, captures=captures, vpc=vpc, reading=reading, accept_evidence=accept_evidence)
    return mark_known_findings(result, earlier, () if accepted is None else accepted_findings_of(accepted))


def replay(
    policy: PolicySource,
    captures: CapturePaths,
    *,
    mode: types.Mode = "causal",
    midstream: types.Midstream = "infer",
    vpc: str | None = None,
    engine: Literal["fast", "reference"] = "fast",
    packets: types.PacketSink | Sequence[types.PacketSink] | None = None,
    frames: types.FrameSink | Sequence[types.FrameSink] | None = None,
    flows: types.FlowSink | Sequence[types.FlowSink] | None = None,
    progress: Progress | None = None,
    changes: types.ChangesSource | None = None,
    resume: str | os.PathLike[str] | None = None,
    snapshot: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    reading: types.ReadOptions | None = None,
    accept_evidence: Sequence[types.EvidenceCode] = (),
    client: Any = None,
    shards: int | None = None,
    tables: Sequence[types.Kept] | types.Kept = (),
    compare_actions: bool = False,
) -> types.ReplayResult:
    """Judge every packet of ``captures``.

    ``policy``: a ``Policy``, or anything that ``sgfast.load`` takes.
    ``captures``: a path, or several, which form one replay in the order given. ``-`` is standard input; a directory
    means the captures in it. They may be flow logs instead, which are merged by time (SPEC 10.29 to 10.31); ``records``
    of the result then says what became of their records.
    ``packets``, ``frames``, ``flows``: one or several sinks each, for every packet's result, for packets together with
    their results, and for connections.
    ``engine``: ``"reference"`` runs the slow reference model, which has no connection report and no snapshots.
    ``progress``: a function to call repeatedly with (packets, bytes read) so far, over all captures.
    ``changes``: a change file (SPEC 9.5) as a path or plain values, or the list of its changes, in which there
    may be pairs ``(at, change)``: a time, and a value of ``sgfast.policy.changes`` or a mapping. All are checked
    before any packet is judged.
    ``snapshot``: where to save the state after the last packet. ``flows`` then does not get connections that are still
    open; the replay that resumes reports them.
    ``resume``: a saved state to continue from, as if both replays' captures were one replay. Policy, options, changes
    and the part of ``reading`` that selects packets must be the same; a different ``start`` or ``end`` only
    causes a warning. The result covers all captures, except ``elapsed_seconds``.
    ``jobs``: the number of threads that judge, as for ``Engine``.
    ``reading``: how captures are read, and which packets are left out. The rest is judged as if there were no other
    packets; but times in ``changes`` given in seconds count from the first packet, even if that packet is left out.
    ``accept_evidence``: codes of reasons to doubt the answer that do not count for its ``evidence`` (SPEC 10.27).
    ``client``: a ``distributed.Client`` whose workers read and judge (``cluster``). ``resume`` is then a folder, a path
    or URL that all workers can access, where they keep the records they read for later replays; None: a temporary
    folder on this machine.
    ``tables``: which rows to keep in memory, ``"packets"`` or ``"connections"``, for the result's ``tables``: at most
    10,000,000 of each (SPEC 14.9).
    ``compare_actions``: of flow logs: compare the cloud's actions with the policy's verdicts, as ``actions``.
    ``shards``: the number of parts into which a cluster divides the packets; None: chosen by the size of the captures.

    If a capture is damaged, the result covers the packets before the damage; on a cluster, it also covers the captures
    after the damaged one.

    Raises PolicyError, CaptureError, ReadingError, SnapshotError, OutputError, ClusterError; TableError for too many
    rows to keep; ArgumentError for an unknown option or no captures, ArgumentTypeError for ``changes`` or ``reading``
    of the wrong type.

    For example:

        result = sgfast.replay("pcaps/shop.yaml", "pcaps/shop.pcap", tables="connections")
        assert result.packets == 261 and result.verdicts["deny"] > 0
        print(result)                   # the report
    """
    from sgfast.questions.replaying import ReadOptions, ReplayOptions, Sinks, run_replay

    options = ReplayOptions(
        mode=mode, midstream=midstream, vpc=vpc, engine=engine, jobs=jobs, reading=reading or ReadOptions(),
        changes=changes, resume=resume, snapshot=snapshot, client=client, shards=shards,
        tables=(tables,) if isinstance(tables, str) else tuple(tables), accept_evidence=accept_evidence,
        compare_actions=compare_actions,
    )  # fmt: skip
    sinks = Sinks(_several(packets), _several(frames), _several(flows), with_rejections=True)
    return run_replay(policy, captures, options, sinks, progress)


def _several(sinks: Sink | Sequence[Sink] | None) -> tuple[Sink, ...]:
    if sinks is None:
        return ()
    return tuple(sinks) if isinstance(sinks, Sequence) else (sinks,)


def export(
    policy: PolicySource,
    to: types.TargetName,
    *,
    since: PolicySource | None = None,
    form: Literal["script", "json"] = "script",
    provider: types.Provider | None = None,
    instance: str | None = None,
    interfaces: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    connections: str | os.PathLike[str] | None = None,
) -> str:
    """Write the text with which a target enforces the policy (SPEC 13). Nothing is run.

    ``to``: ``terraform`` (a configuration), ``aws``, ``openstack`` or ``otc`` (a script), ``nftables`` (a file for
    ``nft -f``).
    ``since``: the policy that is there already; only differences are written. None: nothing but VPCs and instances.
    ``form``: ``json``: the calls of the cloud's API in place of a script.
    ``provider``: for ``terraform``: ``aws``, ``openstack`` or ``opentelekomcloud``; None: that of the policy's profile.
    ``instance``, ``interfaces``: for ``nftables``, the instance that the machine itself is; or for a host, the device
    that each instance is behind, ``{"web-1": "tap0"}``.
    ``connections``: for ``nftables`` with ``since``, the path of a listing by ``conntrack -L -o extended``: write what
    becomes of these connections.

    Raises ExportError, whose ``problems`` list all settings that the target cannot have; PolicyError; ArgumentError for
    options that do not go together; ArgumentTypeError for an option of another type.

    For example:

        script = sgfast.export("pcaps/shop.yaml", "otc")
        rules = sgfast.export("pcaps/shop.yaml", "nftables", instance="web-1")
    """
    from sgfast.clouds.exporting.texts import cloud_text, connections_text, devices_of, filter_text
    from sgfast.clouds.providers import TargetName

    if to not in get_args(TargetName):
        raise ArgumentError(f"to must be one of {', '.join(get_args(TargetName))}, not {to!r:.80}")
    if form not in ("script", "json"):
        raise ArgumentError(f"form must be script or json, not {form!r:.80}")
    if form == "json" and to in ("terraform", "nftables"):
        raise ArgumentError(f"form json is for the calls of an API; {to} has none")
    if provider is not None and to != "terraform":
        raise ArgumentError("provider is for terraform")
    new, old = load(policy), None if since is None else load(since)
    if to != "nftables":
        if instance is not None or interfaces or connections is not None:
            raise ArgumentError("instance, interfaces and connections are for nftables")
        return cloud_text(old, new, to, form, provider)
    if (instance is None) == (not interfaces):
        raise ArgumentError("nftables needs instance, or interfaces with the device of each instance")
    pairs: Iterable[tuple[str, str | None]]
    if instance is not None:
        pairs = [(instance, None)]
    else:
        pairs = interfaces.items() if isinstance(interfaces, Mapping) else interfaces or ()
    devices = devices_of(old, new, pairs)
    if connections is None:
        return filter_text(old, new, devices, is_change=old is not None)
    if old is None:
        raise ArgumentError("connections needs since: what becomes of connections depends on what changed")
    if not isinstance(connections, str | os.PathLike):
        raise ArgumentTypeError(f"connections must be the path of a list, not {connections!r:.80}")
    return connections_text(old, new, devices, connections)


# Comparing two policies ----------------------------------------------------------------------------------------------


def diff(
    old: PolicySource,
    new: PolicySource,
    captures: CapturePaths = (),
    *,
    mode: types.Mode = "causal",
    midstream: types.Midstream = "infer",
    vpc: str | None = None,
    jobs: int = 1,
    reading: types.ReadOptions | None = None,
    accept_evidence: Sequence[types.EvidenceCode] = (),
    progress: Progress | None = None,
) -> types.DiffResult:
    """Compare two policies, as if ``new`` took the place of ``old`` (SPEC 10.14, 12.6).

    Without ``captures``: what ``new`` opens and closes for all packets, by the rules alone. With captures, also what
    would change for their connections; they may be flow logs, as for ``replay``. Each policy judges all packets from
    the first on, as ``replay`` does with the same options: two replays are compared, and the policy does not change
    during either. If a capture is damaged, the result covers the packets before the damage.

    Raises PolicyError, CaptureError, ReadingError; ArgumentError for an unknown option.

    For example:

        answer = sgfast.diff("pcaps/shop.yaml", "pcaps/shop.proposed.yaml", "pcaps/shop.pcap")
        print(answer.opened, answer.closed, answer.newly_denied)
    """
    from sgfast.questions.comparing import run_diff
    from sgfast.questions.comparing.diff_result import DiffResult
    from sgfast.questions.replaying import ReadOptions, ReplayOptions

    old, new = load(old), load(new)
    options = ReplayOptions(
        mode=mode, midstream=midstream, vpc=vpc, jobs=jobs, reading=reading or ReadOptions(),
        accept_evidence=accept_evidence,
    )  # fmt: skip
    rules = by_rules(old, new, must=not captures, accept_evidence=options.accept_evidence)
    if not captures:
        return DiffResult(rules)
    return DiffResult(rules, run_diff(old, new, captures, options, progress, rules.evidence.reasons))


def by_rules(
    old: model.Policy, new: model.Policy, *, must: bool, accept_evidence: Sequence[types.EvidenceCode] = ()
) -> types.Difference:
    """Compare the rules alone. ``must``: raise the error if they cannot be compared, instead of reporting it."""
    from sgfast.base.errors import AmbiguousAddress, TooMuch
    from sgfast.rules.reaching.difference import Difference, difference

    accepted = tuple(accept_evidence)
    try:
        return replace(difference(old, new), accepted_evidence=accepted)
    except (AmbiguousAddress, TooMuch) as error:
        if must:
            raise
        return Difference(old, new, (), (), str(error), accepted_evidence=accepted)


# The policy -----------------------------------------------------------------------------------------------------------


def _as_html(policy: model.Policy) -> str:
    members = Counter(group for instance in policy.instances for group in instance.security_groups)
    rows = [(group.name, len(group.rules), members[group.name]) for group in policy.security_groups]
    return html_table(("security group", "rules", "instances"), rows[:SHOWN_ROWS], len(rows))


class Questions:
    """The questions that users can ask about a policy, as its methods."""

    explain = explain
    reach = reach
    test = test
    check = check
    diff = diff
    replay = replay
    export = export


if TYPE_CHECKING:
    #: Type checkers know one class of policies. So the policies of engines and answers have the questions, too.
    Policy = model.Policy
else:

    class Policy(Questions, LoadedPolicy):
        __doc__ = model.Policy.__doc__
        _repr_html_ = _as_html

    LoadedPolicy._made_as = Policy

Shown._text_of, Shown._dict_of = staticmethod(text_of), staticmethod(dict_of)

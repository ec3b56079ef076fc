"""Answers of the library, in one place: the methods of ``Policy`` (``sgfast.asked``) and the functions of ``sgfast``.

It calls what finds the answers and what turns them into text. Only the commands are above it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from sgfast.asked import Shown
from sgfast.errors import ArgumentError
from sgfast.notebook import SHOWN_ROWS, html_table
from sgfast.policy.document import load as load
from sgfast.policy.model import Action, Instance
from sgfast.policy.model import Policy as Policy

# Modules are imported when a question needs them: all of them take half a second.
if TYPE_CHECKING:
    from sgfast.checking import Checked, Finding
    from sgfast.comparing import Change, ChangedGroup, DiffResult
    from sgfast.engine import Midstream as Midstream
    from sgfast.engine import Mode as Mode
    from sgfast.explaining import Explained as Explained
    from sgfast.exporting.terraform import Provider as Provider
    from sgfast.exporting.texts import Target as Target
    from sgfast.output import Output as Output
    from sgfast.policy.change_file import ChangesSource as ChangesSource
    from sgfast.policy.document import PolicySource as PolicySource
    from sgfast.policy.expectations import ExpectationsSource as ExpectationsSource
    from sgfast.proving import Proof as Proof
    from sgfast.reaching import Difference, End, Row
    from sgfast.reaching import Reach as Reach
    from sgfast.replaying import FlowSink as FlowSink
    from sgfast.replaying import FrameSink as FrameSink
    from sgfast.replaying import PacketSink as PacketSink
    from sgfast.replaying import Reading as Reading
    from sgfast.replaying import ReplayResult as ReplayResult
    from sgfast.replaying.options import Kept as Kept
    from sgfast.report.check import TableSizes

EndWord = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network
"""One end of connections: a word that SPEC 12.2 lists, or an address or network as a value."""

Captures = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

#: Limit of rows in the text of a reach, as the command has it by default.
_REACH_ROWS = 40
_VERDICTS = {"allow": "allowed", "deny": "denied"}


@dataclass(frozen=True, slots=True)
class CheckResult(Shown):
    """Findings of ``sgfast check``."""

    policy: Policy
    checked: Checked
    #: Sizes of the tables that the policy compiles to.
    tables: TableSizes
    warnings: tuple[str, ...] = ()
    #: Instances that the policy has only for this check.
    assumed: tuple[Instance, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The worst first."""
        return self.checked.findings

    @property
    def left_out(self) -> tuple[str, ...]:
        """Checks that were left out because they would have taken too long, as full sentences."""
        return self.checked.left_out

    @property
    def traffic(self) -> ReplayResult | None:
        """The replay of the captures; None: there were none."""
        return self.checked.traffic

    def matching(self, wanted: str) -> list[Finding]:
        """The findings with a code, or with at least a severity: ``error``, ``warning`` or ``note``. Raises
        ArgumentError for something else.
        """
        return self.checked.matching(wanted)

    def __repr__(self) -> str:
        codes = ", ".join(sorted({finding.code for finding in self.findings}))
        number = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        return f"<CheckResult of {self.policy!r}: {number}{codes and ': '}{codes}>"

    def _repr_html_(self) -> str:
        from sgfast.report.check import about_of

        rows = [(each.code, each.severity, about_of(each), each.message) for each in self.findings[:SHOWN_ROWS]]
        return html_table(("code", "severity", "about", "finding"), rows, len(self.findings))


@dataclass(frozen=True, slots=True)
class PolicyDiff(Shown):
    """A comparison of two policies: by the rules alone, and for captured traffic."""

    #: By the rules alone, for all packets.
    by_rules: Difference
    #: For the traffic of the captures; None: there were none.
    traffic: DiffResult | None = None

    @property
    def opened(self) -> tuple[Row, ...]:
        """Rows that the new policy allows and the old one does not."""
        return self.by_rules.opened

    @property
    def closed(self) -> tuple[Row, ...]:
        """Rows that the old policy allows and the new one does not."""
        return self.by_rules.closed

    @property
    def newly_denied(self) -> list[ChangedGroup]:
        """Connections of the captures that only the old policy allows, those that were answered first. Raises
        ArgumentError if there were no captures.
        """
        return self._changed("newly-denied")

    @property
    def newly_allowed(self) -> list[ChangedGroup]:
        """Connections of the captures that only the new policy allows. Errors as in ``newly_denied``."""
        return self._changed("newly-allowed")

    # `diff` once returned a DiffResult. Programs that were written then still find in its answer what they used.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            from sgfast.comparing import DiffResult

            if name.startswith("_") or not (name in DiffResult.__annotations__ or hasattr(DiffResult, name)):
                raise AttributeError(f"'PolicyDiff' object has no attribute {name!r}", name=name, obj=self)
            if self.traffic is None:
                raise AttributeError(f"a PolicyDiff has no {name!r} because there were no captures")
            return getattr(self.traffic, name)

    def _changed(self, change: Change) -> list[ChangedGroup]:
        if self.traffic is None:
            raise ArgumentError(f"{change} connections are those of captures: give some, or see opened and closed")
        return self.traffic.of(change)

    @property
    def warnings(self) -> tuple[str, ...]:
        of_policies = (*self.by_rules.old.warnings, *self.by_rules.new.warnings)
        of_input = of_policies if self.traffic is None else self.traffic.warnings
        return tuple(dict.fromkeys((*self.by_rules.warnings, *of_input)))

    def __repr__(self) -> str:
        opened = len(self.opened)
        words = f"{opened} row{'s' * (opened != 1)} opened, {len(self.closed)} closed"
        return f"<PolicyDiff: {words}{'' if self.traffic is None else f', {self.traffic!r}'}>"

    def _repr_html_(self) -> str:
        return self.by_rules._repr_html_() + ("" if self.traffic is None else self.traffic._repr_html_())


def text_of(result: Any) -> str:
    """Return the text that the command for such a result prints, without the last line break."""
    from sgfast.report.text import to_text

    # By name, because to import all of their classes takes long. Somebody may have derived one from them.
    match next(kind.__name__ for kind in type(result).__mro__ if Shown in kind.__bases__):
        case "Explained":
            from sgfast.report.explain import explain_document

            text = to_text(explain_document(result, result.policy.lines))
        case "Reach":
            from sgfast.report.reach import reach_document

            text = to_text(reach_document(result, _REACH_ROWS))
        case "Proof":
            from sgfast.report.expectations import expectations_document

            warnings = [*result.policy.warnings, *result.warnings]
            text = to_text(expectations_document(result, result.policy.lines, warnings))
        case "CheckResult":
            from sgfast.report.check import check_document, check_summary

            lines = result.policy.lines
            summary = check_summary(
                result.policy, result.tables, [*result.warnings], result.checked, lines, result.assumed
            )
            text = to_text(check_document(result.policy.origin, summary, result.checked, lines))
        case "PolicyDiff":
            from sgfast.report.diff import diff_document
            from sgfast.report.difference import difference_document

            traffic = [] if result.traffic is None else diff_document(result.traffic)
            text = to_text([*difference_document(result.by_rules), *traffic])
        case "ReplayResult":
            from sgfast.report.replay import replay_document

            text = to_text(replay_document(result))
        case "Suggestion":
            from sgfast.report.suggestion import suggestion_document

            text = to_text(suggestion_document(result))
        case name:
            raise AssertionError(f"no command prints a {name}")
    return text.removesuffix("\n")


# Why one packet is allowed or denied ---------------------------------------------------------------------------------


def explain(
    policy: Policy,
    source: EndWord,
    destination: EndWord,
    service: str,
    *,
    sport: int | None = None,
    vpc: str | None = None,
    as_if_in: Sequence[str] = (),
) -> Explained:
    """See ``Policy.explain``."""
    from sgfast import explaining
    from sgfast.reaching import named_end
    from sgfast.reaching.services import single_service

    words, service = (str(source), str(destination)), str(service)
    one = [_only_one(named_end(policy, word)) for word in words]
    packet = single_service(service)
    if packet is not None and one[0] is not None and one[1] is not None:
        return explaining.explain(
            policy, one[0], one[1], packet.protocol, port=packet.port, sport=sport, icmp_type=packet.icmp_type,
            icmp_code=packet.icmp_code, vpc=vpc, as_if_in=as_if_in,
        )  # fmt: skip
    if sport is not None or vpc is not None or as_if_in:
        raise ArgumentError(
            "sport, vpc and as_if_in are for one packet: name one instance or address at each end, and one service, "
            "such as tcp/443"
        )
    return _standing_for(policy, *words, service)


def _only_one(end: End) -> str | None:
    """An instance or an address, as a word; None: the end is something else."""
    if end.kind == "instance":
        return end.name
    if end.kind == "network" and end.networks[0].num_addresses == 1:
        return str(end.networks[0].network_address)
    return None


def _standing_for(policy: Policy, source: str, destination: str, service: str) -> Explained:
    """One of several packets: one that is denied if there is one."""
    from sgfast.errors import PolicyError
    from sgfast.policy.expectations import Expectation, ExpectationsFile, Word
    from sgfast.policy.yaml_nodes import show, shown_origin
    from sgfast.proving import Expectations

    origin = shown_origin(policy.origin)
    what = f"{service} from {source} to {destination}"

    def with_verdict(verdict: Action) -> Explained | None:
        ends = (Word(source, origin),), (Word(destination, origin),)
        opposite: Action = "deny" if verdict == "allow" else "allow"
        meant = Expectation(*ends, (Word(service, origin),), opposite, "", "", 0, origin)
        (outcome,) = Expectations(policy, ExpectationsFile(origin, (meant,))).prove().outcomes
        return outcome.counterexample

    denied, allowed = with_verdict("deny"), with_verdict("allow")
    found = denied or allowed
    if found is None:
        raise PolicyError(f"{origin}: no filter judges any packet for {show(what)[1:-1]}")
    some = f"{what}: some of these packets are {{}}, and some are {{}}. This is one that is {{}}."
    every = f"{what}: all of these packets are {{}}. This is one of them."
    if denied is not None and allowed is not None:
        words = some.format("allowed", "denied", "denied")
    else:
        words = every.format(_VERDICTS[found.verdict])
    return replace(found, choices=(words, *found.choices))


# Questions about all packets -----------------------------------------------------------------------------------------


def reach(
    policy: Policy,
    *,
    source: EndWord | None = None,
    destination: EndWord | None = None,
    protocol: str | None = None,
    port: int | str | None = None,
    rules: bool = False,
) -> Reach:
    """See ``Policy.reach``."""
    from sgfast.reaching import ANY, named_end
    from sgfast.reaching import reach as find_rows

    asked = str(protocol or "all")
    if port is not None:
        asked = "; ".join(f"{each}/{port}" for each in ([protocol] if protocol else ["tcp", "udp"]))
    sources, destinations = (
        ANY if end is None else named_end(policy, str(end)) for end in (source, destination)
    )
    return find_rows(policy, sources, destinations, asked, rules=rules)


def test(policy: Policy, expectations: ExpectationsSource) -> Proof:
    """See ``Policy.test``."""
    from sgfast.policy.expectations import expectations_of
    from sgfast.proving import Expectations

    return Expectations(policy, expectations_of(expectations)).prove()


def check(
    policy: Policy,
    *,
    expect: ExpectationsSource | None = None,
    captures: Captures = (),
    vpc: str | None = None,
    reading: Reading | None = None,
    as_if_in: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """See ``Policy.check``."""
    from sgfast.checking import check_policy
    from sgfast.policy.assuming import with_assumed
    from sgfast.report.check import compile_for_check

    policy, assumed = with_assumed(policy, as_if_in, vpc=vpc)
    tables, warnings = compile_for_check(policy, vpc)
    meant = None
    if expect is not None:
        from sgfast.policy.expectations import expectations_of
        from sgfast.proving import Expectations

        meant = Expectations(policy, expectations_of(expect))
    traffic = uses = None
    if captures:
        from sgfast.checking.usage import Uses
        from sgfast.replaying import Reading, ReplayOptions, Sinks, run_replay

        uses = Uses(policy)
        options = ReplayOptions(vpc=vpc, reading=reading or Reading())
        traffic = run_replay(policy, captures, options, Sinks(packets=(uses.openers,), flows=(uses,)), progress)
        warnings += [warning for warning in traffic.warnings if warning not in warnings]
    proof = None
    if meant is not None:
        proof = meant.prove()
        warnings += proof.warnings
    return CheckResult(policy, check_policy(policy, traffic, uses, proof), tables, tuple(warnings), assumed)


def replay(policy: Policy, captures: Captures, **options: Any) -> ReplayResult:
    """See ``Policy.replay``."""
    from sgfast.replaying import replay as run

    return run(policy, captures, **options)


def export(policy: Policy, to: Target, **options: Any) -> str:
    """See ``Policy.export``."""
    from sgfast.exporting.texts import export as write

    return write(policy, to, **options)


# Comparing two policies ----------------------------------------------------------------------------------------------


def diff(
    old: PolicySource,
    new: PolicySource,
    captures: Captures = (),
    *,
    mode: Mode = "causal",
    midstream: Midstream = "infer",
    vpc: str | None = None,
    jobs: int = 1,
    reading: Reading | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PolicyDiff:
    """Compare two policies, as if ``new`` took the place of ``old`` (SPEC 10.14, 12.6).

    Without ``captures``: what ``new`` opens and closes for all packets, by the rules alone. With them, also what would
    change for their connections. Each policy judges all packets from the first one on, as ``replay`` does with the same
    options: this compares two replays, and does not change the policy during one. If a capture is damaged, the result
    covers the packets before the damage.

    Raises PolicyError, CaptureError, ReadingError; ArgumentError for an unknown option.
    """
    from sgfast.comparing import run_diff
    from sgfast.replaying import Reading, ReplayOptions

    old, new = load(old), load(new)
    options = ReplayOptions(mode=mode, midstream=midstream, vpc=vpc, jobs=jobs, reading=reading or Reading())
    rules = by_rules(old, new, must=not captures)
    return PolicyDiff(rules, run_diff(old, new, captures, options, progress) if captures else None)


def by_rules(old: Policy, new: Policy, *, must: bool) -> Difference:
    """Compare the rules alone. ``must``: that it cannot be compared is an error, and no sentence in the report."""
    from sgfast.errors import AmbiguousAddress, TooMuch
    from sgfast.reaching import Difference, difference

    try:
        return difference(old, new)
    except (AmbiguousAddress, TooMuch) as error:
        if must:
            raise
        return Difference(old, new, (), (), str(error))

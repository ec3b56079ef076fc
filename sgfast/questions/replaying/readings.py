"""Connections of flow logs that either end may have opened: the policy's verdict on both readings (SPEC 10.30).

    questions (``traffic.flow_logs.connections``) -> policies of that time -> answers, and what reports say of them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE
from sgfast.engine import REASONS, VERDICTS, Engine
from sgfast.policy.model import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, Policy
from sgfast.questions.replaying.engine_runner import make_engine
from sgfast.questions.replaying.kinds import Kinds, Rows
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.traffic.flow_logs.connections import IS_LIKELIER, IS_OTHER, OTHER_VERDICT, QUESTION_DTYPE, SAME_VERDICT
from sgfast.traffic.flow_logs.unsure_openers import PossibleUse, Reading, UncertainConnections, UnsureOpeners
from sgfast.traffic.vpc_mapping import seen_from

if TYPE_CHECKING:
    from sgfast.policy.change_file import TimedChange

_DENY = VERDICTS.index("deny")
_SYN = 2
_SIDES = ("egress", "ingress")
_KEY_DTYPE = np.dtype([
    ("src", "u1", (16,)), ("dst", "u1", (16,)), ("family", "u1"), ("protocol", "u1"), ("answer", "u1"),
    ("spare", "u1"), ("key", "<i8"), ("engine", "<i4"), ("verdicts", RESULT_DTYPE, (2,)),
    ("replies", "<i4", (2, 2)),
])  # fmt: skip
#: The most ports of a reading that are told apart.
MOST_PORTS = 1 << 10


class PolicyHistory:
    """A policy and what its changes make of it: answers what it would do to an opener at a time.

    ``vpc``: the VPC that the logs are from, unless the policy maps records to VPCs.
    """

    def __init__(self, policy: Policy, options: ReplayOptions, vpc: str | None) -> None:
        self._options = options
        self._vpc = vpc
        self._is_mapped = options.is_mapped(policy)
        #: The policy, and what each change makes of it.
        self._policies = [policy]
        #: By change: the instances whose inbound connections it cuts, and its time.
        self._cuts: list[frozenset[str]] = []
        self._times = np.zeros(0, np.int64)
        self._engines: dict[tuple[int, int], Engine] = {}

    def take(self, changes: Sequence[TimedChange]) -> None:
        """Take the changes of the replay, in the order of their times, before anything is asked."""
        from sgfast.policy.changed_policy import apply_change

        for timed in changes:
            before = self._policies[-1]
            applied = apply_change(before, timed.change)
            groups = {*applied.groups}
            self._cuts.append(frozenset({*applied.movers} | {
                instance.name for policy in (before, applied.policy) for instance in policy.instances
                if groups.intersection(instance.security_groups)
            }))  # fmt: skip
            self._policies.append(applied.policy)
        self._times = np.array([timed.time_ns for timed in changes], np.int64)

    def _engine(self, version: int, vpc: int) -> Engine:
        key = version, vpc
        if key not in self._engines:
            policy = self._policies[version]
            vantage_vpc = seen_from(policy, vpc - 1) if self._is_mapped else self._vpc
            self._engines[key] = make_engine(policy, self._options, vantage_vpc)
        return self._engines[key]

    def ask(self, headers: Rows, at_ns: NDArray[np.int64], vpcs: NDArray[Any]) -> Answered:
        """Return the verdicts on openers at these times."""
        versions = np.searchsorted(self._times, at_ns, side="right")
        return self._answered(headers, versions, vpcs)

    def _answered(self, headers: Rows, versions: NDArray[Any], vpcs: NDArray[Any]) -> Answered:
        answered = Answered(
            np.zeros(len(headers), RESULT_DTYPE), np.full((len(headers), 2), -1, np.int32),
            np.zeros(len(headers), np.int32), [],
        )  # fmt: skip
        vpcs = vpcs if self._is_mapped else np.zeros_like(vpcs)
        for version, vpc in np.unique(np.stack([versions, vpcs], axis=1), axis=0).tolist():
            chosen = np.flatnonzero((versions == version) & (vpcs == vpc))
            engine = self._engine(version, vpc)
            rows = np.zeros(len(chosen), RESULT_DTYPE)
            replies = np.zeros((len(chosen), 2), np.int32)
            engine.dataplane.ask(np.ascontiguousarray(headers[chosen]), rows, replies)
            # Behind the filter that denies, the other end has no result.
            owners_of, families = engine.compiled.classifier.owners_of, headers["family"][chosen]
            for side, end in (("egress", "src"), ("ingress", "dst")):
                owners = owners_of(headers[end][chosen], families)
                rows[side]["instance"] = np.where(rows[side]["instance"] < 0, owners, rows[side]["instance"])
            answered.rows[chosen], answered.replies[chosen] = rows, replies
            answered.engine_of[chosen] = len(answered.engines)
            answered.engines.append(engine)
        return answered

    def differ_by_changes(
        self, headers: Rows, first: Answered, from_ns: NDArray[np.int64], until_ns: NDArray[np.int64],
        vpcs: NDArray[Any],
    ) -> NDArray[np.bool_]:
        """Return for each pair of readings whether a change while the connection lasts cuts only one of them.

        ``headers``, ``first``: two rows for each pair. ``first``: the verdicts at the beginning.
        """
        #: By pair and reading: whether a change has cut it.
        are_cut = np.zeros((len(from_ns), 2), dtype=bool)
        for number, at_ns in enumerate(self._times.tolist()):
            on_change = self._policies[number + 1].settings.on_change
            during = np.flatnonzero((from_ns < at_ns) & (at_ns <= until_ns))
            if on_change == "keep" or not len(during):
                continue
            rows = np.stack([2 * during, 2 * during + 1], axis=1).reshape(-1)
            if on_change == "cut-inbound":
                cut = np.array([first.ingress(n) in self._cuts[number] for n in rows.tolist()], dtype=bool)
            else:
                after = self._answered(headers[rows], np.full(len(rows), number + 1), np.repeat(vpcs[during], 2))
                cut = ~after.is_allowed
            are_cut[during] |= (cut & first.is_allowed[rows]).reshape(-1, 2)
        differs: NDArray[np.bool_] = are_cut[:, 0] != are_cut[:, 1]
        return differs


@dataclass(slots=True)
class Answered:
    """The verdicts on openers. ``rows``: of RESULT_DTYPE. ``replies``: by row, the numbers of the rules that allow the
    first reply at filters without connections; -1 for none. ``engine_of``: by row, which of ``engines`` answered.
    """

    rows: Rows
    replies: NDArray[np.int32]
    engine_of: NDArray[np.int32]
    engines: list[Engine]

    @property
    def is_allowed(self) -> NDArray[np.bool_]:
        allowed: NDArray[np.bool_] = self.rows["verdict"] != _DENY
        return allowed

    def _instance(self, number: int, side: str) -> str | None:
        instance = int(self.rows[number][side]["instance"])
        engine = self.engines[self.engine_of[number]]
        return engine.compiled.numbering.instances[instance].name if instance >= 0 else None

    def egress(self, number: int) -> str | None:
        return self._instance(number, "egress")

    def ingress(self, number: int) -> str | None:
        return self._instance(number, "ingress")

    def groups(self, number: int) -> Iterable[str]:
        """Yield the groups of the instances at both ends."""
        policy = self.engines[self.engine_of[number]].policy
        for name in (self.egress(number), self.ingress(number)):
            if name is not None:
                yield from policy.instance_by_name[name].security_groups

    def uses(self, is_chosen: NDArray[np.bool_]) -> Iterator[tuple[str, int, int]]:
        """Yield the rules that allowed the chosen openers, or their first replies, each with the number of openers and
        the first one's row.
        """
        sides = [np.where(self.rows[side]["verdict"] != _DENY, self.rows[side]["rule"], -1) for side in _SIDES]
        rules = np.column_stack([*sides, self.replies])
        rules[~is_chosen] = -1
        rows, columns = np.nonzero(rules >= 0)
        used = np.column_stack([self.engine_of[rows], rules[rows, columns]])
        different, firsts, counts = np.unique(used, axis=0, return_index=True, return_counts=True)
        for (engine, rule), first, count in zip(different.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            yield self.engines[engine].compiled.numbering.rules[rule].id, count, int(rows[first])

    def reading(self, number: int, header: Any) -> Reading:
        row, engine = self.rows[number], self.engines[self.engine_of[number]]
        denied = int(row["verdict"]) == _DENY
        # The filter that denies, or else that of the receiver, if there is one.
        is_inbound = row["ingress"]["instance"] >= 0 and not (denied and row["egress"]["verdict"] == _DENY)
        side = row["ingress" if is_inbound else "egress"]
        rule = int(side["rule"])
        return Reading(
            *addresses_of(header), self.egress(number), self.ingress(number), int(header["protocol"]), key_of(header),
            "deny" if denied else "allow",
            REASONS[int(row["reason"])] or "rule",
            engine.compiled.numbering.rules[rule].id if rule >= 0 else None, is_inbound,
        )  # fmt: skip


def addresses_of(header: Any) -> tuple[bytes, bytes]:
    """Return the source and the destination of a header row."""
    length = 16 if header["family"] == 6 else 4
    return header["src"].tobytes()[:length], header["dst"].tobytes()[:length]


def key_of(header: Any) -> int:
    """Return for one header row what ``keys_of`` returns for many."""
    if header["has_icmp"]:
        return int(header["icmp_type"]) << 8 | int(header["icmp_code"])
    return int(header["dport"]) if header["has_ports"] else 0


def keys_of(headers: Any) -> NDArray[np.int64]:
    """Return the destination ports of header rows, or their ICMP types and codes in 16 bits; 0 without them."""
    icmp = headers["icmp_type"].astype(np.int64) << 8 | headers["icmp_code"]
    return np.where(headers["has_icmp"] != 0, icmp, np.where(headers["has_ports"] != 0, headers["dport"], 0))


class ReadingQuestions:
    """Answers the questions of ``Connections``. ``histories``: one policy, or two to be compared, the old one first.
    ``was_in_force``: the first policy was in force when the cloud accepted this traffic, so that what it denies did not
    happen.
    """

    def __init__(self, histories: Sequence[PolicyHistory], *, was_in_force: bool = False) -> None:
        self._histories = histories
        self._was_in_force = was_in_force
        #: The kinds of connections so far, and whether both readings of each have the same verdict.
        self._kinds: list[tuple[UncertainConnections, bool]] = []
        self._numbers: dict[tuple[Reading, Reading, bool], int] = {}
        self._uses: dict[str, PossibleUse] = {}
        self._icmp: dict[str, PossibleUse] = {}
        #: By question: the number of its kind; -1 if it has none.
        self._kind_of: list[NDArray[np.int64]] = []
        #: By question: whether the connection was answered, whoever opened it.
        self._is_answered: list[NDArray[np.bool_]] = []

    def answers(self, questions: Rows) -> NDArray[np.uint8]:
        """Return an answer to each row of QUESTION_DTYPE."""
        headers = openers_of(questions)
        first_ns, last_ns, vpcs = (questions[name] for name in ("first_ns", "last_ns", "vpc"))
        times, both_vpcs = np.repeat(first_ns, 2), np.repeat(vpcs, 2)
        answers_by_policy = [history.ask(headers, times, both_vpcs) for history in self._histories]
        allowed_by_policy = [answer.is_allowed.reshape(-1, 2) for answer in answers_by_policy]
        answers = np.full(len(questions), SAME_VERDICT, np.uint8)
        last = allowed_by_policy[-1]
        differs = last[:, 0] != last[:, 1]
        for history, answer in zip(self._histories, answers_by_policy, strict=True):
            differs |= history.differ_by_changes(headers, answer, first_ns, last_ns, vpcs)
        # Packets of one end may be answers, or packets that nobody answered: what is denied breaks in one case only.
        differs |= ~last.any(axis=1) & (questions["is_answered"] == 0)
        answers[differs] = OTHER_VERDICT
        if self._was_in_force:
            happened = allowed_by_policy[0]
            is_sure = happened[:, 0] != happened[:, 1]
            answers[is_sure] = np.where(happened[is_sure, 0], IS_LIKELIER, IS_OTHER)
        answers[questions["has_two_openers"] != 0] = OTHER_VERDICT
        self._note(questions, headers, answers_by_policy[-1], answers)
        return answers

    def _note(self, questions: Rows, headers: Rows, answered: Answered, answers: NDArray[np.uint8]) -> None:
        has_no_type = questions["has_no_type"] != 0
        is_noted = ~has_no_type & ((answers == SAME_VERDICT) | (answers == OTHER_VERDICT))
        for number in np.flatnonzero(has_no_type).tolist():
            for group in answered.groups(2 * number):
                _note_use(self._icmp, group, 1, headers[2 * number])
        for rule, connections, row in answered.uses(np.repeat(is_noted, 2)):
            _note_use(self._uses, rule, connections, headers[row])
        self._kind_of.append(self._kinds_of(questions, headers, answered, answers, is_noted))
        self._is_answered.append(questions["is_answered"] != 0)

    def _kinds_of(
        self, questions: Rows, headers: Rows, answered: Answered, answers: NDArray[np.uint8],
        is_noted: NDArray[np.bool_],
    ) -> NDArray[np.int64]:  # fmt: skip
        """Return the number of each question's kind; -1 if nothing is to be noted of it."""
        noted = np.flatnonzero(is_noted)
        kind_of = np.full(len(questions), -1)
        if not len(noted):
            return kind_of
        likelier, ports = headers[2 * noted], keys_of(headers[2 * noted + 1])
        keys = np.zeros(len(noted), _KEY_DTYPE)
        for name in ("src", "dst", "family", "protocol"):
            keys[name] = likelier[name]
        keys["key"] = keys_of(likelier)
        keys["verdicts"] = answered.rows.reshape(-1, 2)[noted]
        keys["replies"] = answered.replies.reshape(-1, 2, 2)[noted]
        keys["engine"] = answered.engine_of[2 * noted]
        keys["answer"] = answers[noted]
        # The port of the other reading, which differs from connection to connection, is no part of a kind.
        octets = keys.view(f"V{_KEY_DTYPE.itemsize}").reshape(-1)
        _, firsts, places = np.unique(octets, return_index=True, return_inverse=True)
        places = places.reshape(-1)
        first_ns, last_ns = (np.full(len(firsts), questions[name][noted[0]]) for name in ("first_ns", "last_ns"))
        np.minimum.at(first_ns, places, questions["first_ns"][noted])
        np.maximum.at(last_ns, places, questions["last_ns"][noted])
        numbers = np.array([
            self._number_of(headers, answered, int(noted[first]), answers[noted[first]] == SAME_VERDICT)
            for first in firsts.tolist()
        ])  # fmt: skip
        for number, first, last in zip(numbers.tolist(), first_ns.tolist(), last_ns.tolist(), strict=True):
            kind = self._kinds[number][0]
            kind.first_time_ns, kind.last_time_ns = min(kind.first_time_ns, first), max(kind.last_time_ns, last)
        for number, port in np.unique(np.stack([numbers[places], ports], axis=1), axis=0).tolist():
            if len(self._kinds[number][0].other_ports) < MOST_PORTS:
                self._kinds[number][0].other_ports.add(port)
        kind_of[noted] = numbers[places]
        return kind_of

    def _number_of(self, headers: Rows, answered: Answered, question: int, is_same: bool) -> int:
        """Return the number of the kind of a question, which may be new."""
        likelier, less_likely = (answered.reading(row, headers[row]) for row in (2 * question, 2 * question + 1))
        key = likelier, replace(less_likely, key=0), is_same
        number = self._numbers.setdefault(key, len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append((UncertainConnections(likelier, less_likely), is_same))
        return number

    def result(self, fates: NDArray[np.uint64]) -> UnsureOpeners:
        """Return the answer about all questions. ``fates``: what became of each, as ``RecordPackets.asked`` has it."""
        answer = UnsureOpeners(possible_uses=self._uses, icmp_groups=self._icmp)
        kind_of = np.concatenate([np.zeros(0, np.int64), *self._kind_of])
        is_answered = np.concatenate([np.zeros(0, bool), *self._is_answered])
        sums = np.zeros((len(self._kinds), 5), np.uint64)
        counted = np.column_stack([fates, np.where(is_answered, fates[:, 2], 0)])
        np.add.at(sums, kind_of[kind_of >= 0], counted[kind_of >= 0])
        for (kind, is_same), counts in zip(self._kinds, sums.tolist(), strict=True):
            kind.packets, kind.bytes, kind.connections, kind.attempts, kind.answered = counts
            if not kind.connections:
                continue
            if not is_same:
                answer.differing.append(kind)
                continue
            reading = kind.likelier
            ends = reading.source, reading.destination, reading.protocol, reading.key
            kind_before = answer.same.setdefault(ends, kind)
            if kind_before is not kind:
                kind_before.connections += kind.connections
                kind_before.attempts += kind.attempts
                kind_before.other_ports |= kind.other_ports
        answer.differing.sort(key=lambda kind: (-kind.connections, kind.first_time_ns, kind.likelier.source))
        return answer


def _note_use(uses: dict[str, PossibleUse], name: str, connections: int, header: Any) -> None:
    use_before = uses.get(name)
    if use_before is not None:
        use_before.connections += connections
        return
    source, destination = (str(ip_address(address)) for address in addresses_of(header))
    service = int(header["protocol"]), key_of(header)
    uses[name] = PossibleUse(connections, source, destination, int(header["time_ns"]), service)


def openers_of(questions: Rows) -> Rows:
    """Return the openers of both readings as rows of HEADER_DTYPE: two for each question, the likelier one first."""
    assert questions.dtype == QUESTION_DTYPE
    headers = np.zeros(2 * len(questions), HEADER_DTYPE)
    for reading_number, (source, destination, sport, dport) in enumerate((
        ("src", "dst", "sport", "dport"), ("dst", "src", "dport", "sport")
    )):
        rows = headers[reading_number::2]
        for name in ("family", "protocol", "icmp_type", "icmp_code"):
            rows[name] = questions[name]
        rows["time_ns"] = questions["first_ns"]
        rows["src"], rows["dst"] = questions[source], questions[destination]
        rows["sport"], rows["dport"] = questions[sport], questions[dport]
        rows["tcp_flags"] = np.where(questions["protocol"] == TCP, _SYN, 0)
        rows["has_ports"] = np.isin(questions["protocol"], tuple(PORT_PROTOCOLS))
        rows["has_icmp"] = questions["protocol"] == np.where(questions["family"] == 6, ICMPV6, ICMP)
    return headers


def marked_kinds(openers: UnsureOpeners, kinds: Kinds) -> Kinds:
    """Return the kinds with the number of connections, or of denied attempts, of which nobody knows who opened them."""
    unsure_connections: dict[tuple[str, bytes, bool, int, int], int] = {}
    for kind in openers.same.values():
        reading = kind.likelier
        for name, peer, inbound in (
            (reading.egress, reading.destination, False), (reading.ingress, reading.source, True)
        ):
            if name is not None:
                key = name, peer, inbound, reading.protocol, reading.key
                unsure_connections[key] = unsure_connections.get(key, 0) + max(kind.connections, kind.attempts)
    if not unsure_connections:
        return kinds
    rows = kinds.rows.copy()
    for row in rows:
        peer = row["peer"][: 16 if row["family"] == 6 else 4].tobytes()
        instance = kinds.instances[row["instance"]] if row["instance"] >= 0 else ""
        key = instance, peer, bool(row["inbound"]), int(row["protocol"]), int(row["port_key"])
        row["unsure"] = min(unsure_connections.get(key, 0), row["connections"])
    return replace(kinds, rows=rows)

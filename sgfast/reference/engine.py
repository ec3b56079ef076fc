"""The engine: ``process_frame`` is section 3 of the spec, ``_judge_side`` section 4, ``apply`` section 6,
``_judge_fragment`` section 9.4. The other functions are their helpers.

A connection or moot mark no longer exists once its deadline is reached. Every look-up checks the deadline, so the time
at which ``_sweep`` removes an entry does not affect verdicts. All times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

from sgfast.policy.changed_policy import apply_changes
from sgfast.policy.changes import Change, RemoveInstance
from sgfast.policy.model import TCP, Instance, Policy
from sgfast.reference.addresses import (
    Address,
    is_multicast_or_broadcast,
    longest_prefix_owner,
    visible_prefixes,
)
from sgfast.reference.clock import Clock, nanoseconds
from sgfast.reference.flows import Flow, flow_of, quoted_flow
from sgfast.reference.fragments import Datagram, Datagrams, Fragment
from sgfast.reference.link import MALFORMED, NOT_IP
from sgfast.reference.packets import Packet, icmp_role, infrastructure_role, is_infrastructure, parse_frame
from sgfast.reference.rules import winning_rule
from sgfast.reference.table import Attempt, Case, Connection, Entry, Moot, Opener, Side
from sgfast.reference.tcp import INFERRED_STATE, TCP_STATES, TCP_TABLE, tcp_kind
from sgfast.reference.verdicts import ApplyResult, PacketVerdict, SideVerdict

#: The minimum capacity of the list of seen openers, however small the connection table is (SPEC 9.3).
LEAST_OPENERS_SEEN = 1 << 20
#: The time after a denied packet in which the other end's first packet is its answer (SPEC 9.2).
ANSWER_WITHIN = 1_000_000_000


class ReferenceEngine:
    """Judge the frames of a capture one by one, in capture order, under a policy that may change between them."""

    def __init__(
        self, policy: Policy, *, mode: str = "verbatim", midstream: str = "deny", vpc: str | None = None,
        clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """Create an engine without connections. ``clock`` is a clock shared with engines that judge other packets of
        the same capture (SPEC 7.5)."""
        if mode not in ("verbatim", "causal") or midstream not in ("deny", "infer", "allow"):
            raise ValueError(f"unknown mode {mode!r} or midstream {midstream!r}")
        self.policy = policy
        self.mode = mode
        self.midstream = midstream
        self.vpc = vpc
        self.clock = clock or Clock()
        self._packets = 0
        self._entries: dict[Hashable, Entry] = {}
        self._sweep_at = 1000
        #: Keys of connections whose opener was seen, the most recent last (SPEC 9.3).
        self._openers_seen: dict[Hashable, None] = {}
        #: Openers by key, for keys without an entry. A retry before its attempt's deadline belongs to the same attempt
        #: (SPEC 10.2). A reply before that deadline belongs to the opener that stateless filters let pass (SPEC 4.13).
        self._attempts: dict[Hashable, Attempt] = {}
        self._datagrams: Datagrams[Packet, PacketVerdict] = Datagrams()
        #: Packet number and verdict of each packet that was pending. ``resolved`` returns them.
        self._resolved: list[tuple[int, PacketVerdict]] = []
        self._owners: dict[Address, Instance | None] = {}
        self._own_prefixes, self._peers_prefixes = visible_prefixes(policy, vpc)
        seconds = policy.settings.timeouts  # SPEC 5.2
        self._tcp_established = nanoseconds(seconds.tcp_established)
        self._unidirectional = nanoseconds(seconds.unidirectional)
        self._timeout = {state: nanoseconds(seconds.tcp_other) for state in TCP_STATES} | {
            "ES": self._tcp_established,
            "FW": nanoseconds(seconds.tcp_fin_wait),
            "icmp": nanoseconds(seconds.icmp),
            "one-way": self._unidirectional,
            "both-ways": nanoseconds(seconds.bidirectional),
        }

    @property
    def open_connections(self) -> int:
        """The number of open connections (SPEC 14.12)."""
        now = self.clock.now
        return 0 if now is None else sum(entry.is_open(now) for entry in self._entries.values())

    # --- Section 3: what happens to a packet

    def process_frame(
        self, time_ns: int, data: bytes, *, wire_length: int | None = None, link_type: int = 1
    ) -> PacketVerdict:
        """Judge the next frame of the capture. Never raises an error, whatever the bytes.

        The verdict of a fragment that arrives before the first fragment of its datagram is ``pending``. ``resolved``
        returns the final verdict later (SPEC 9.4).
        """
        self._packets += 1
        now = self.clock.advance(time_ns)
        self._sweep_now_and_then(now)
        self._give_up(self._datagrams.take_over(now, self._packets))
        packet = parse_frame(data, len(data) if wire_length is None else wire_length, link_type)
        if isinstance(packet, str):  # SPEC 3.1
            return PacketVerdict("not-ip", None) if packet == NOT_IP else PacketVerdict("deny", MALFORMED)
        if packet.fragment is not None:
            return with_headers(packet, self._judge_fragment(packet, packet.fragment, now))
        return with_headers(packet, self._judge_packet(packet, now))

    def _judge_packet(self, packet: Packet, now: int) -> PacketVerdict:
        if self.policy.settings.infrastructure == "exempt" and is_infrastructure(packet):  # SPEC 3.2
            return PacketVerdict("exempt", None)
        role = infrastructure_role(packet) if self.policy.settings.infrastructure == "by-role" else None
        if role is not None and not self._is_filtered(role, packet):  # SPEC 3.11
            return PacketVerdict("exempt", None)
        sides = self._sides(packet)  # SPEC 3.3
        if isinstance(sides, str):
            return PacketVerdict(sides, None)
        egress, ingress = sides
        if role == "server":
            return deny_at_once(egress, ingress, "infrastructure")
        if packet.problem is not None:  # SPEC 3.4
            return deny_at_once(egress, ingress, packet.problem)
        # SPEC 3.6
        isolated = egress and ingress and not self.policy.connected(egress.instance.vpc, ingress.instance.vpc)
        filters = [side for side in (egress, ingress) if side is not None]
        if self.mode == "causal" and self._is_moot(packet, now, () if isolated else filters):  # SPEC 3.5
            return PacketVerdict("moot", "opener-denied")
        flow = flow_of(packet)
        if flow is None:
            if isolated:
                return deny_at_once(egress, ingress, "vpc-isolated")
            return both_sides(egress, ingress, lambda side: self._judge_icmp_error(side, packet, now))

        case = Case(packet, flow, now, is_sent_freely=role == "client")
        had_entry = self._live_entry(flow.key, now) is not None
        if isolated:
            verdict = deny_at_once(egress, ingress, "vpc-isolated")
            if packet.can_open:
                case.opener_denied = case.opener_refused = True
                self._note_opener(case)
        else:
            verdict = both_sides(egress, ingress, lambda side: self._judge_side(side, case))
        self._settle_moot(case, verdict)
        verdict.began = self._began(case, verdict, had_entry)
        self._settle_passed(case, verdict, filters)
        verdict.created = tuple(case.created)
        verdict.tcp_transition = case.transition
        return verdict

    def _is_filtered(self, role: str, packet: Packet) -> bool:
        """Return whether an instance's filter judges infrastructure traffic: what the instance receives in the role of
        a client, or sends in the role of a server."""
        if role == "server":
            return self._owner(packet.src) is not None
        return role == "client" and not is_multicast_or_broadcast(packet.dst) and self._owner(packet.dst) is not None

    def _sides(self, packet: Packet) -> tuple[Side | None, Side | None] | str:
        """Return the egress and the ingress side, at least one of which exists, or the verdict if no side judges (SPEC
        3.3)."""
        source = self._owner(packet.src)
        destination = None if is_multicast_or_broadcast(packet.dst) else self._owner(packet.dst)
        if source is None and destination is None:
            return "out-of-scope"
        if source is destination:
            return "local"
        egress = Side(source, True, packet.dst, destination) if source else None
        ingress = Side(destination, False, packet.src, source) if destination else None
        return egress, ingress

    def _owner(self, address: Address) -> Instance | None:
        """Return the instance that an address belongs to (SPEC 2.6, 7.1)."""
        if address not in self._owners:
            if len(self._owners) > 1_000_000:
                self._owners.clear()
            own_owner = longest_prefix_owner(self._own_prefixes, address)
            self._owners[address] = own_owner or longest_prefix_owner(self._peers_prefixes, address)
        return self._owners[address]

    # --- Section 4: one side's judgement

    def _judge_icmp_error(self, side: Side, error: Packet, now: int) -> SideVerdict:
        """Judge an ICMP error at one side. An error is allowed if the side's instance has the connection (SPEC 4.6)."""
        if self._is_stateless(side):
            return self._judge_by_rules_alone(side, error)
        quoted = quoted_flow(error)
        if quoted is not None and quoted.sender[0] == error.dst:
            # The error's sender owns the destination of the quoted packet, or its source if the destination is
            # multicast.
            for own_address in (quoted.receiver, quoted.sender) if side.leaving else (quoted.sender,):
                connection = self._connection(side, quoted, now, own_address[0])
                if connection is not None and not connection.disconnected:
                    return side.allow("related", connection.rule)
        return side.deny("invalid")

    def _judge_side(self, side: Side, case: Case) -> SideVerdict:
        case.transition = None
        if case.is_sent_freely and side.leaving:  # SPEC 3.11
            return SideVerdict(side.instance.name, "allow", "infrastructure", None)
        if self._is_stateless(side):
            return self._judge_statelessly(side, case)
        connection = self._connection(side, case.flow, case.now)  # SPEC 4.1
        if connection is not None and connection.disconnected:  # SPEC 4.2, 6.4
            return side.deny("disconnected", connection.rule)
        if case.packet.protocol == TCP and tcp_kind(case.packet.tcp_flags) is None:  # SPEC 4.5, 4.7
            return side.deny("invalid")
        if connection is None:
            return self._judge_unknown(side, case)
        if case.packet.protocol == TCP:
            return self._judge_known_tcp(side, case, connection)
        # Every packet is valid for a connection of another protocol (SPEC 4.3, 5.6, 5.7).
        if case.flow.sender != connection.opener.initiator:
            self._note_reply(connection, case)
            if connection.state == "one-way":
                connection.state = "both-ways"
        connection.deadline = case.now + self._timeout[connection.state]
        return side.allow("established", connection.rule)

    def _judge_known_tcp(self, side: Side, case: Case, connection: Connection) -> SideVerdict:
        """Judge a TCP packet of a known connection (SPEC 4.3 to 4.5, 5.4, 5.5)."""
        kind = tcp_kind(case.packet.tcp_flags) or ""
        direction = "original" if case.flow.sender == connection.opener.initiator else "reply"
        old, new = connection.state, TCP_TABLE[direction, kind][connection.state]
        transition = case.transition = (old, f"{direction} {kind}", new.upper())
        if old in ("TW", "CL") and new == "SS":  # SPEC 4.4, 5.5: a new opener for a finished connection
            self._forget(side, case.flow)
            entry = self._entries[case.flow.key]
            entry.answered = any(other_side.replied for other_side in entry.live_sides(case.now))  # SPEC 5.8
            entry.created = self._packets
            case.forgot_old = True
            verdict = self._judge_unknown(side, case)
            case.transition = transition
            return verdict
        if new == "IV":  # SPEC 4.5
            return side.deny("invalid")
        if kind == "rst" and not connection.replied:  # SPEC 5.4: refused
            self._forget(side, case.flow)
            return side.allow("established", connection.rule)
        if direction == "reply":
            self._note_reply(connection, case)
        if new != "IG":
            connection.state = new.upper()
        if new in TCP_STATES:
            connection.deadline = case.now + self._timeout[new]
        return side.allow("established", connection.rule)

    def _note_reply(self, connection: Connection, case: Case) -> None:
        connection.replied = True
        self._entries[case.flow.key].answered = True

    def _judge_unknown(self, side: Side, case: Case) -> SideVerdict:
        """Judge a packet of which the side knows no connection (SPEC 4.7, 4.8)."""
        packet = case.packet
        if packet.can_open:
            self._note_opener(case)
            state = "SS" if packet.protocol == TCP else "icmp" if packet.is_icmp else "one-way"
            if packet.protocol == TCP:
                case.transition = ("NO", "original syn", state)
            opener = Opener(
                packet.version, packet.protocol, case.flow.sender, case.flow.receiver, side.leaving,
                packet.icmp_type, packet.icmp_code, state, inferred=False,
            )  # fmt: skip
            return self._judge_opener(side, case, opener)
        if packet.protocol != TCP:
            return side.deny("invalid")
        if self._may_infer(case):
            return self._judge_opener(side, case, self._inferred_opener(side, case))
        return side.deny("midstream")

    def _judge_opener(self, side: Side, case: Case, opener: Opener) -> SideVerdict:
        """Create a connection if the rules allow the opener and the table has room (SPEC 4.8, 5.8)."""
        winner = winning_rule(self.policy, side, opener)
        if winner is None or winner.rule.action == "deny":
            case.opener_denied = True
            case.denied_initiator = opener.initiator
            case.opener_refused = case.opener_refused or not opener.inferred
            return side.deny("no-rule") if winner is None else side.deny("deny-rule", winner)
        entry = self._entry_to_create_in(case.flow.key, case.now)
        if entry is None:
            case.opener_denied = True
            case.denied_initiator = opener.initiator
            return side.deny("table-full")
        deadline = case.now + self._timeout[opener.state]
        key = side.instance.name, side.own_address(case.flow)
        entry.sides[key] = Connection(opener, opener.state, winner, deadline, opener.inferred)
        entry.answered |= opener.inferred
        case.created.append(winner.rule.id)
        return side.allow("inferred" if opener.inferred else "rule", winner)

    # --- Stateless groups (SPEC 4.13): the side keeps no connections; rules judge every packet

    def _is_stateless(self, side: Side) -> bool:
        return any(not self.policy.group_by_name[name].stateful for name in side.instance.security_groups)

    def _judge_by_rules_alone(self, side: Side, packet: Packet) -> SideVerdict:
        as_opener = Opener(
            packet.version, packet.protocol, (packet.src, packet.sport), (packet.dst, packet.dport), side.leaving,
            packet.icmp_type, packet.icmp_code, state="", inferred=False,
        )  # fmt: skip
        winner = winning_rule(self.policy, side, as_opener)
        if winner is None:
            return side.deny("no-rule")
        return side.deny("deny-rule", winner) if winner.rule.action == "deny" else side.allow("rule", winner)

    def _judge_statelessly(self, side: Side, case: Case) -> SideVerdict:
        """Judge a packet at a stateless side.

        A denied opener of TCP or ICMP makes its key moot, as on a stateful side (SPEC 9.2). In other protocols a
        request looks like its answer, and denying an answer does not prevent further requests (SPEC 4.13).
        """
        verdict = self._judge_by_rules_alone(side, case.packet)
        if verdict.verdict == "deny" and self._is_awaited(case):
            case.reply_denied = True
            return replace(verdict, reason="reply-denied")
        if case.packet.can_open:
            self._note_opener(case)
            if verdict.verdict == "deny":
                case.opener_denied = True
                case.opener_refused |= case.packet.protocol == TCP or case.packet.is_icmp
        return verdict

    def _passed(self, key: Hashable, now: int) -> Attempt | None:
        """Return the key's opener that stateless filters let pass."""
        attempt = self._attempts.get(key)
        return attempt if attempt is not None and attempt.reply is not None and now < attempt.deadline else None

    def _is_awaited(self, case: Case) -> bool:
        """Return whether the packet is a reply to an opener that stateless filters let pass, and none passed yet."""
        passed = self._passed(case.flow.key, case.now)
        if passed is None or case.created or (case.packet.protocol == TCP and case.packet.can_open):
            return False
        return passed.initiator != case.flow.sender and passed.reply != "passed"

    def _settle_passed(self, case: Case, verdict: PacketVerdict, filters: Sequence[Side]) -> None:
        """Remember an opener that stateless filters let pass, or what became of its reply."""
        packet, key, now, sender = case.packet, case.flow.key, case.now, case.flow.sender
        passed = self._passed(key, now)
        if all(side is None or side.reason == "established" for side in (verdict.egress, verdict.ingress)):
            return      # no stateless filter judges the packet, since the policy changed
        if verdict.verdict == "deny":
            if passed is not None and case.reply_denied:
                passed.reply = "denied"
            elif passed is not None and case.opener_denied and passed.is_denied:
                passed.reply = None
            elif passed is not None and case.opener_denied:
                del self._attempts[key]
            return
        deadline = now + self._unanswered_timeout(packet)
        opens_tcp = packet.protocol == TCP and packet.can_open
        is_exchange = packet.protocol == TCP or packet.is_icmp
        if passed is not None:
            if passed.initiator != sender and not opens_tcp:
                passed.reply = "passed"
                if is_exchange and not passed.is_denied:
                    del self._attempts[key]
                return
            if not packet.can_open:
                return
            if passed.initiator == sender:
                passed.deadline = deadline
                passed.reply = "awaited" if is_exchange else passed.reply
                return
        elif not packet.can_open or packet.answers_nothing or not any(map(self._is_stateless, filters)):
            return
        else:
            attempt = self._attempts.get(key)
            if attempt is not None and now < attempt.deadline and attempt.initiator != sender:
                return      # it answers a denied attempt
        self._attempts[key] = Attempt(sender, deadline, reply="awaited")

    # --- Connections older than the capture (SPEC 9.3)

    def _note_opener(self, case: Case) -> None:
        if case.packet.protocol != TCP or self.midstream == "deny":
            return
        self._openers_seen.pop(case.flow.key, None)
        self._openers_seen[case.flow.key] = None
        if len(self._openers_seen) > max(self.policy.settings.max_connections, LEAST_OPENERS_SEEN):
            del self._openers_seen[next(iter(self._openers_seen))]

    def _may_infer(self, case: Case) -> bool:
        if self.midstream == "deny" or tcp_kind(case.packet.tcp_flags) not in INFERRED_STATE:
            return False
        within_window = case.now - (self.clock.first or 0) < self._tcp_established
        return case.flow.key not in self._openers_seen and (within_window or self.midstream == "allow")

    def _inferred_opener(self, side: Side, case: Case) -> Opener:
        kind = tcp_kind(case.packet.tcp_flags) or ""
        sender, receiver = case.flow.sender, case.flow.receiver
        sender_initiated = kind != "synack" and (sender[1] or 0) >= (receiver[1] or 0)
        initiator, responder = (sender, receiver) if sender_initiated else (receiver, sender)
        case.transition = ("NO", f"{'original' if sender_initiated else 'reply'} {kind}", INFERRED_STATE[kind])
        return Opener(
            case.packet.version, TCP, initiator, responder, side.leaving == sender_initiated, None, None,
            INFERRED_STATE[kind], inferred=True,
        )  # fmt: skip

    # --- Section 9.4: fragments

    def _judge_fragment(self, packet: Packet, fragment: Fragment, now: int) -> PacketVerdict:
        datagram = self._datagrams.find(fragment)
        if datagram is not None and datagram.is_contradicted_by(fragment):
            self._give_up([datagram])
            datagram.fragments.clear()
            datagram.spoiled = True
        if datagram is not None and datagram.spoiled:
            return self._deny_fragment(packet)
        if datagram is not None and datagram.verdict is not None and fragment in datagram.fragments:
            return datagram.verdict.of_other_fragment()
        while not self._datagrams.has_room(fragment):
            # The oldest datagram may be this fragment's own. Then the fragment starts a new datagram.
            self._give_up([self._datagrams.take_oldest()])
        datagram = self._datagrams.remember(fragment, now)
        if not packet.is_later_fragment:
            verdict = datagram.verdict = self._judge_packet(packet, now)
            for packet_number, later in datagram.take_pending():
                self._resolved.append((packet_number, with_headers(later, verdict.of_other_fragment())))
        elif datagram.verdict is not None:
            verdict = datagram.verdict.of_other_fragment()
        else:
            datagram.pending.append((self._packets, packet))
            return PacketVerdict("pending", None)
        if datagram.is_whole:
            self._datagrams.forget(fragment)
        return verdict

    def _give_up(self, datagrams: Iterable[Datagram[Packet, PacketVerdict]]) -> None:
        """Deny the pending fragments of datagrams whose first fragment did not arrive in time or whose fragments
        overlap."""
        for datagram in datagrams:
            for packet_number, packet in datagram.take_pending():
                self._resolved.append((packet_number, with_headers(packet, self._deny_fragment(packet))))

    def _deny_fragment(self, packet: Packet) -> PacketVerdict:
        """Deny a fragment, unless no filter sees it (SPEC 3.3, 9.4)."""
        sides = self._sides(packet)
        return PacketVerdict(sides, None) if isinstance(sides, str) else deny_at_once(*sides, "fragment")

    def resolved(self) -> list[tuple[int, PacketVerdict]]:
        """Return the number (from 1) and verdict of each packet that is no longer pending, in packet order.

        Each packet is returned once.
        """
        numbered, self._resolved = sorted(self._resolved, key=lambda resolved: resolved[0]), []
        return numbered

    def finish(self) -> None:
        """Deny all pending fragments at the end of the capture."""
        self._give_up(self._datagrams.take_waiting())

    # --- Section 6: changes while traffic flows

    def apply(self, changes: Change | Iterable[Change], now_ns: int) -> ApplyResult:
        """Change the policy before the next packet: apply all changes as one, or raise PolicyError and change nothing.

        ``now_ns`` is the time of the change, on the clock of SPEC 9.1. It does not move the clock (SPEC 6.9).
        """
        listed = list(changes) if isinstance(changes, Iterable) else [changes]
        changed = apply_changes(self.policy, listed)
        if changed.policy is self.policy:
            return ApplyResult()
        now = now_ns if self.clock.now is None else max(now_ns, self.clock.now)
        self._give_up(self._datagrams.take_over(now, self._packets))  # judged by the old policy (SPEC 6.9)
        # ``visible_prefixes`` may raise PolicyError. The engine is unchanged until it returns.
        self._own_prefixes, self._peers_prefixes = visible_prefixes(changed.policy, self.vpc)
        self._owners = {}
        self.policy = changed.policy
        self._forget_lost_sides({change.instance for change in listed if isinstance(change, RemoveInstance)})
        if changed.only_words:
            return ApplyResult()        # "changing only a description: no change" (SPEC 6.3)
        concerned = changed.instances
        cut = [had_ended for entry in self._entries.values() for had_ended in self._cut_sides(entry, concerned, now)]
        return ApplyResult(len(cut), sum(cut))

    def _forget_lost_sides(self, deleted: set[str]) -> None:
        """Forget connections of deleted instances and of addresses with a new owner (SPEC 6.6, 6.11).

        A deleted instance that is added again under the same name is another instance.
        """
        for entry in self._entries.values():
            for (name, own_address), connection in list(entry.sides.items()):
                opener = connection.opener
                owner = self._owner(opener.own)
                # If both ends now belong to one instance, the traffic is local and passes no filter (SPEC 6.11). A
                # multicast address belongs to no instance, so the sender's filter still judges packets sent to one
                # (SPEC 3.3).
                is_local = owner is self._owner(opener.peer) and not is_multicast_or_broadcast(opener.peer)
                if name in deleted or owner is None or owner.name != name or is_local:
                    del entry.sides[name, own_address]

    def _cut_sides(self, entry: Entry, concerned: set[str], now: int) -> list[bool]:
        """Disconnect or forget the entry's connections that the change cuts (SPEC 6.3, 6.7).

        Return an empty list if no cut connection is alive at the time of the change. Otherwise return one item: whether
        the connection had ended (SPEC 6.12).
        """
        clock = self.clock.now or 0
        cut = [
            (name, own_address)
            for (name, own_address), connection in entry.sides.items()
            if clock < connection.deadline and not connection.disconnected and self._is_cut(name, connection, concerned)
        ]
        counted = sorted(cut_side[::-1] for cut_side in cut if now < entry.sides[cut_side].deadline)
        ended = [entry.sides[name, own_address].has_ended for own_address, name in counted[:1]]
        for key in cut:
            if self.policy.settings.on_change == "forget-unmatched":
                del entry.sides[key]
            else:
                entry.sides[key].disconnected = True
        return ended

    def _is_cut(self, name: str, connection: Connection, concerned: set[str]) -> bool:
        """Return whether the change cuts a connection of the instance ``name``. ``concerned`` are the instances of SPEC
        6.3."""
        on_change = self.policy.settings.on_change
        if on_change == "cut-inbound":
            return name in concerned and not connection.opener.outbound
        if on_change in ("cut-unmatched", "forget-unmatched"):
            return not self._is_opener_allowed(self.policy.instance_by_name[name], connection.opener)
        return False

    def _is_opener_allowed(self, instance: Instance, opener: Opener) -> bool:
        """Return whether the current rules allow the opener of one of the instance's connections.

        Connections do not store the ICMP code of a query; the rules are applied to code 0 (SPEC 6.9).
        """
        if opener.icmp_type is not None and icmp_role(opener.version, opener.icmp_type) == "query":
            opener = replace(opener, icmp_code=0)
        side = Side(instance, opener.outbound, opener.peer, self._peer_instance(opener))
        winner = winning_rule(self.policy, side, opener)
        return winner is not None and winner.rule.action == "allow"

    def _peer_instance(self, opener: Opener) -> Instance | None:
        is_no_instance = opener.outbound and is_multicast_or_broadcast(opener.peer)  # SPEC 3.3
        return None if is_no_instance else self._owner(opener.peer)

    # --- Causal mode (SPEC 9.2)

    def _is_moot(self, packet: Packet, now: int, filters: Sequence[Side]) -> bool:
        """Return whether the packet is moot, and prolong the moot mark of its key.

        ``filters`` are the sides on the packet's way; empty if the VPCs are isolated from each other.
        """
        own_flow = flow_of(packet)
        flow = own_flow or quoted_flow(packet)
        if flow is not None and self._follows_denied_reply(flow, own_flow, packet, now, filters):
            return True
        entry = self._live_entry(flow.key, now) if flow is not None else None
        if entry is None or entry.moot is None or not entry.is_moot(now):
            return False
        if own_flow is None:
            return True
        from_responder = own_flow.sender != entry.moot.initiator
        # Whether the packet could be a request as well as an answer.
        may_be_request = not packet.is_icmp and packet.protocol != TCP and packet.sport == packet.dport
        may_pass = filters and all(self._would_allow(side, packet, own_flow, now) for side in filters)
        # Whether times say that it is the answer to the initiator's last packet.
        is_answer = not packet.answers_nothing and now - entry.moot.sent <= ANSWER_WITHIN and not entry.moot.other_sent
        if from_responder:
            entry.moot.other_sent = True
        elif packet.protocol != TCP or packet.can_open:
            entry.moot.sent, entry.moot.other_sent = now, False
        if from_responder and may_be_request and may_pass and not is_answer:
            return False
        entry.moot.deadline = now + self._unanswered_timeout(packet)
        return from_responder or (packet.protocol == TCP and not packet.can_open)

    def _follows_denied_reply(
        self, flow: Flow, own_flow: Flow | None, packet: Packet, now: int, filters: Sequence[Side]
    ) -> bool:
        """Return whether the packet, or the ICMP error, is moot because a stateless filter denied its key's reply."""
        passed = self._passed(flow.key, now)
        if passed is None or passed.reply != "denied":
            return False
        if own_flow is None:
            # The quoted packet may be of another protocol than the error.
            return bool(flow.key[0] == "query" or flow.key[1] == TCP)  # type: ignore[index]
        if not (packet.protocol == TCP or packet.is_icmp):
            return False
        if flow.sender == passed.initiator and (packet.can_open or packet.protocol != TCP):
            return False
        # A change may have taken the filter away that denied the reply.
        if filters and all(self._connection(side, flow, now) is not None for side in filters):
            return False
        passed.deadline = now + self._unanswered_timeout(packet)
        return True

    def _would_allow(self, side: Side, packet: Packet, flow: Flow, now: int) -> bool:
        """Return whether the side would allow a packet that is valid in any state. Changes no state."""
        connection = self._connection(side, flow, now)
        if connection is not None:
            return not connection.disconnected
        return self._judge_by_rules_alone(side, packet).verdict == "allow"

    def _settle_moot(self, case: Case, verdict: PacketVerdict) -> None:
        """Set or clear the moot mark of the packet's key according to the verdict."""
        packet, now = case.packet, case.now
        entry = self._live_entry(case.flow.key, now)
        both_live = entry is not None and len(entry.live_sides(now)) == 2  # only after a change (SPEC 6.11)
        if entry is not None and (verdict.verdict == "allow" or both_live):
            entry.moot = None
        if verdict.verdict == "allow" or both_live:
            return
        is_moot = entry is not None and entry.is_moot(now)
        if self.mode != "causal" or not case.opener_refused or is_moot:
            return
        entry = self._entry_to_create_in(case.flow.key, now)
        if entry is not None:
            entry.moot = Moot(case.flow.sender, now + self._unanswered_timeout(packet), now)

    def _unanswered_timeout(self, packet: Packet) -> int:
        if packet.protocol == TCP:
            return self._tcp_established
        return self._timeout["icmp"] if packet.is_icmp else self._unidirectional

    # --- Where connections and attempts begin (SPEC 10.2)

    def _began(self, case: Case, verdict: PacketVerdict, had_entry: bool) -> str | None:
        key, now = case.flow.key, case.now
        begins = bool(case.created or case.opener_denied) and (not had_entry or case.forgot_old)
        entry = self._live_entry(key, now)
        if verdict.verdict == "allow":
            # An allowed opener ends an earlier denied attempt of the same key.
            if not begins and not (case.created and entry is not None and entry.began_denied):
                return None
            if entry is not None:
                entry.began_denied = False
            self._attempts.pop(key, None)
            return "inferred" if verdict.reason == "inferred" else "opened"
        attempt = self._attempts.get(key)
        is_retry = attempt is not None and attempt.is_denied and now < attempt.deadline
        if case.reply_denied:
            assert attempt is not None
            attempt.is_denied, attempt.deadline = True, now + self._unanswered_timeout(case.packet)
            return None if is_retry else "denied"
        if entry is not None:
            entry.began_denied |= begins
            return "denied" if begins else None
        if is_retry:
            assert attempt is not None
            attempt.deadline = now + self._unanswered_timeout(case.packet)
        elif case.opener_denied:
            initiator = case.denied_initiator or case.flow.sender
            self._attempts[key] = Attempt(initiator, now + self._unanswered_timeout(case.packet), is_denied=True)
        return "denied" if begins and not is_retry else None

    # --- The table (SPEC 5.8)

    def live_tuples(self) -> int:
        return sum(entry.is_live(self.clock.now or 0) for entry in self._entries.values())

    def _live_entry(self, key: Hashable, now: int) -> Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.is_live(now) else None

    def _connection(self, side: Side, flow: Flow, now: int, own_address: Address | None = None) -> Connection | None:
        """Return the side's connection, or None if there is none or its deadline is reached (SPEC 4.1).

        ``own_address`` is the instance's address, for a packet that is not of this flow.
        """
        entry = self._entries.get(flow.key)
        key = side.instance.name, own_address or side.own_address(flow)
        connection = entry.sides.get(key) if entry is not None else None
        return connection if connection is not None and now < connection.deadline else None

    def _forget(self, side: Side, flow: Flow) -> None:
        del self._entries[flow.key].sides[side.instance.name, side.own_address(flow)]

    def _entry_to_create_in(self, key: Hashable, now: int) -> Entry | None:
        """Return the key's entry, after creating it if needed, or None if the table is full."""
        entry = self._live_entry(key, now)
        if entry is None:
            if not self._make_room(now):
                return None
            entry = self._entries[key] = Entry()
        entry.created = self._packets
        return entry

    def _make_room(self, now: int) -> bool:
        limit = self.policy.settings.max_connections
        if len(self._entries) >= limit:
            self._sweep(now)
        if len(self._entries) < limit:
            return True
        evictable = [key for key, entry in self._entries.items() if entry.is_evictable(now)]
        if not evictable:
            return False
        del self._entries[min(evictable, key=lambda key: self._entries[key].created)]
        return True

    def _sweep(self, now: int) -> None:
        """Remove entries and attempts whose deadline is reached. This only saves memory."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.is_live(now)}
        self._attempts = {key: attempt for key, attempt in self._attempts.items() if now < attempt.deadline}

    def _sweep_now_and_then(self, now: int) -> None:
        if len(self._entries) + len(self._attempts) >= self._sweep_at:
            self._sweep(now)
            self._sweep_at = 1000 + 2 * (len(self._entries) + len(self._attempts))


# --- Both sides of a packet (SPEC 3.7, 10.3)


def both_sides(egress: Side | None, ingress: Side | None, judge: Callable[[Side], SideVerdict]) -> PacketVerdict:
    """Judge at the egress side, then at the ingress side unless egress denied (SPEC 3.7). At least one side exists."""
    egress_verdict = judge(egress) if egress else None
    if egress_verdict and (ingress is None or egress_verdict.verdict == "deny"):
        return PacketVerdict(egress_verdict.verdict, egress_verdict.reason, egress=egress_verdict)
    assert ingress is not None
    ingress_verdict = judge(ingress)
    return PacketVerdict(ingress_verdict.verdict, ingress_verdict.reason, egress_verdict, ingress_verdict)


def with_headers(packet: Packet, verdict: PacketVerdict) -> PacketVerdict:
    """Return the verdict after adding its packet's header fields."""
    verdict.src, verdict.dst, verdict.protocol = str(packet.src), str(packet.dst), packet.protocol
    verdict.sport, verdict.dport = packet.sport, packet.dport
    verdict.icmp_type, verdict.icmp_code = packet.icmp_type, packet.icmp_code
    return verdict


def deny_at_once(egress: Side | None, ingress: Side | None, reason: str) -> PacketVerdict:
    """Deny a packet before section 4 applies. The first side that exists reports the denial (SPEC 10.3)."""
    return both_sides(egress, None if egress else ingress, lambda side: side.deny(reason))

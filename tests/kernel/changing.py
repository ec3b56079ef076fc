"""SPEC 6 as the kernel can be told it: rules replaced, entries marked or deleted. A second, naive reading.

Which connections a change concerns is read off the policies before and after it and the kernel's own table. Engine and
reference are not asked; where the new rules are to say whether they would let an opener pass, a filter without any
connection is given the opener.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import frames as f
from ctnetlink import Entry
from nft import DISCONNECTED
from oracle import Kernel, Side

from sgfast.policy.changed_policy import apply_change
from sgfast.policy.changes import Change
from sgfast.policy.model import Policy


def change_kernel(kernel: Kernel, before: Policy, changes: Iterable[Change]) -> list[bytes]:
    """Returns an opener for each connection that is cut, at either side."""
    policy = before
    concerned: set[str] = set()
    deleted: set[str] = set()
    for change in changes:
        after = apply_change(policy, change).policy
        concerned |= instances_concerned(policy, after)
        deleted |= set(policy.instance_by_name) - set(after.instance_by_name)
        policy = after
    tracked = [
        (side, [(entry, kernel.owner(entry.source.packed) is side) for entry in side.table.entries()])
        for side in kernel.sides
    ]
    kernel.load(policy, deleted)
    cut: list[bytes] = []
    for side, entries in tracked:
        if side in kernel.sides:
            known = [(entry, leaves) for entry, leaves in entries if not forget_lost(kernel, side, entry, leaves)]
            cut += cut_side(policy, side, known, side.instance.name in concerned)
    return cut


def instances_concerned(before: Policy, after: Policy) -> set[str]:
    """Members of a group, before or after, whose rules or members are others now (SPEC 6.3)."""
    found = set()
    for group in {*before.group_by_name, *after.group_by_name}:
        rules, members = [], []
        for policy in (before, after):
            known = policy.group_by_name.get(group)
            rules.append({replace(rule, description="") for rule in known.rules} if known else set())
            members.append({i.name for i in policy.instances if group in i.security_groups})
        if rules[0] != rules[1] or members[0] != members[1]:
            found |= members[0] | members[1]
    return found


def forget_lost(kernel: Kernel, side: Side, entry: Entry, leaves: bool) -> bool:
    """Whether the side's end of the connection is not its instance's any more, or both ends are (SPEC 6.6, 3.3)."""
    own, peer = (entry.source, entry.destination) if leaves else (entry.destination, entry.source)
    if kernel.owner(own.packed) is side and kernel.owner(peer.packed) is not side:
        return False
    side.table.delete(entry)
    return True


def cut_side(policy: Policy, side: Side, entries: Sequence[tuple[Entry, bool]], concerned: bool) -> list[bytes]:
    """Disconnects or forgets what SPEC 6.7 says, of a side's connections; with each comes whether it is outbound."""
    on_change = policy.settings.on_change
    alive = [(entry, leaves, opener_of(entry)) for entry, leaves in entries if entry.mark != DISCONNECTED]
    if on_change == "keep" or (on_change == "cut-inbound" and not concerned):
        return []
    if on_change == "cut-inbound":
        cut = [(entry, opener) for entry, leaves, opener in alive if not leaves]
    else:
        with Side(policy, side.instance, isolate=False) as fresh:
            cut = [
                (entry, opener) for entry, leaves, opener in alive
                if not (fresh.leaves(opener) if leaves else fresh.arrives(opener))
            ]  # fmt: skip
    for entry, _ in cut:
        if on_change == "forget-unmatched":
            # Making the filter above takes real time, in which an entry may have ended.
            with suppress(FileNotFoundError):
                side.table.delete(entry)
        else:
            side.disconnect(entry)
    return [opener for _, opener in cut]


def opener_of(entry: Entry) -> bytes:
    """A packet that opens such a connection. A query's code is no part of it (SPEC 5.1)."""
    if entry.protocol == 6:
        layer = f.tcp(entry.sport, entry.dport, "S")
    elif entry.protocol == 17:
        layer = f.udp(entry.sport, entry.dport)
    elif entry.icmp is not None:
        kind, _, identifier = entry.icmp
        layer = (f.icmp if entry.family == 4 else f.icmpv6)(kind, 0, identifier)
    else:
        layer = f.other(entry.protocol, bytes(8))
    return f.with_checksum(f.ip(str(entry.source), str(entry.destination), layer))

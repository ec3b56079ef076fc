"""Reasons of verdicts, in the order of their numbers in ``types.pxd`` (SPEC 10.3)."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The word of a reason.
ReasonWord = Literal[
    "rule", "established", "related", "inferred", "no-rule", "deny-rule", "invalid", "midstream", "disconnected",
    "table-full", "vpc-isolated", "malformed", "truncated", "fragment", "opener-denied", "infrastructure",
    "reply-denied",
]  # fmt: skip


class Reason(NamedTuple):
    word: ReasonWord
    #: The verdict that has this reason.
    verdict: Literal["allow", "deny", "moot"]
    #: The reason as a sentence about the packet.
    sentence: str
    #: Whether the rules or the policy decide. Otherwise the packet itself or earlier packets decide.
    by_policy: bool = False


REASON_TABLE = (
    Reason("rule", "allow", "A rule allows it to open a connection.", by_policy=True),
    Reason("established", "allow", "It belongs to a connection."),
    Reason("related", "allow", "An ICMP error about a connection."),
    Reason("inferred", "allow", "It belongs to a connection that began before the capture, which the rules allow."),
    Reason("no-rule", "deny", "No rule matches.", by_policy=True),
    Reason("deny-rule", "deny", "A deny rule matches.", by_policy=True),
    Reason(
        "invalid", "deny", "It belongs to no connection and cannot open one, or does not fit its connection's state."
    ),
    Reason("midstream", "deny", "It belongs to a TCP connection that the filter does not know."),
    Reason("disconnected", "deny", "A change of the policy cut its connection."),
    Reason("table-full", "deny", "The connection table has no room.", by_policy=True),
    Reason("vpc-isolated", "deny", "The two VPCs are not peered.", by_policy=True),
    Reason("malformed", "deny", "The packet contradicts itself."),
    Reason("truncated", "deny", "The capture cut off the packet's header."),
    Reason("fragment", "deny", "The first fragment of its datagram did not arrive in time, or fragments overlap."),
    Reason("opener-denied", "moot", "It follows a denied opener: it would never have been sent."),
    Reason("infrastructure", "deny", "An instance sent it as a DHCP server or a router, which it must not be."),
    Reason("reply-denied", "deny", "A stateless filter denies the reply to an allowed opener.", by_policy=True),
)
#: The reasons by word.
REASON_OF: dict[str, Reason] = {reason.word: reason for reason in REASON_TABLE}

"""Columns of kinds of traffic that the tables of replays and comparisons share."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from sgfast.engine import REASONS
from sgfast.policy.model import Policy
from sgfast.questions.replaying.kinds import NEVER, Kinds, Rows
from sgfast.rows.arrow import Array
from sgfast.rows.columns import PROTOCOLS, Words, addresses, numbers
from sgfast.rows.row_schema import groups_text
from sgfast.rows.text_columns import address_texts

_REASONS, _DIRECTIONS = Words(REASONS), Words(("outbound", "inbound"))


def ends_and_service(kinds: Kinds, rows: Rows, policy: Policy) -> list[Array]:
    """Return columns: source, destination, the groups of both under ``policy``, peer address, protocol, port, ICMP type
    and code, direction.
    """
    is_filled = rows["family"] > 0
    # Number the ends: first the instances, then the addresses that no instance owns.
    names, first = [*kinds.instances], len(kinds.instances)
    outside = np.flatnonzero(is_filled & (rows["owner"] < 0))
    offsets, text = address_texts(
        np.ascontiguousarray(rows["peer"][outside]), np.ascontiguousarray(rows["family"][outside])
    )
    whole = text.tobytes().decode()
    names += [whole[start:end] for start, end in pairwise(offsets.tolist())]
    peer = np.where(is_filled, rows["owner"], -1)
    peer[outside] = first + np.arange(len(outside))
    inbound = rows["inbound"] == 1
    ends = np.where(inbound, peer, rows["instance"]), np.where(inbound, rows["instance"], peer)
    groups = [*map(groups_text, kinds.groups_under(policy))]
    service, icmp = rows["port_key"], rows["has_icmp"] != 0
    return [
        *(words.column(end) for words in (Words(names), Words(groups + [None] * len(outside))) for end in ends),
        addresses(rows["peer"], rows["family"]),
        PROTOCOLS.column(rows["protocol"]),
        numbers(service, rows["has_ports"] != 0),
        numbers((service >> 8).astype(np.uint8), icmp),
        numbers((service & 255).astype(np.uint8), icmp),
        _DIRECTIONS.column(rows["inbound"]),
    ]


def reason_and_rule(kinds: Kinds, rows: Rows) -> list[Array]:
    return [_REASONS.column(rows["reason"]), Words(kinds.rules).column(rows["rule"])]


def times_and_number(rows: Rows) -> list[Array]:
    """Return columns: first time, last time, number of the first packet."""
    timed = rows["first_ns"] != NEVER[0]
    number = rows["number"]
    return [
        numbers(rows["first_ns"], timed),
        numbers(rows["last_ns"], timed),
        numbers(number.astype(np.int64), (number > 0) & (number != NEVER[2])),
    ]

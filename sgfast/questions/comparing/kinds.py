"""Kinds of traffic of changed connections: the rows that reports summarise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.questions.replaying.kinds import KIND_DTYPE, Kinds

Rows = NDArray[Any]

#: A kind of traffic of changed connections. The instance, its side, the peer, the reason and the rule are those of the
#: blocking filter. ``inbound`` is set if this filter is the responder's. ``broken`` counts the connections that the
#: other end answered. The other fields are:
#:
#:     turned           the blocking policy regards the responder as the opener
#:     passes           the verdict of the policy that lets the connection pass
#:     passing_rule     that policy's rule for the same filter; -1 if no rule decided
CHANGED_KIND_DTYPE = np.dtype(
    [*((name, KIND_DTYPE[name]) for name in KIND_DTYPE.names or ()), ("turned", "u1"), ("passes", "u1"),
     ("passing_rule", "<i4")]
)  # fmt: skip
#: The instance's number if there was no room to count the two ends.
ENDS_UNKNOWN = -2


@dataclass(frozen=True, eq=False)
class ChangedKinds(Kinds):
    """``rows`` is an array of CHANGED_KIND_DTYPE, in no order. ``rules`` are those of the blocking policy."""

    passing_rules: Sequence[str] = ()


def kinds_of_rows(counted: Rows, blocks: NDArray[np.int8]) -> Rows:
    """Return the kinds of the rows that the core counted, without ends and rules, which ``fill_ends`` adds.

    ``blocks`` is the blocking policy of each row; 0: OLD, 1: NEW.
    """
    kinds = np.zeros(len(counted), dtype=CHANGED_KIND_DTYPE)
    for name in (
        "family", "protocol", "port_key", "has_ports", "has_icmp", "turned", "connections", "packets", "bytes",
        "first_ns", "last_ns", "number",
    ):  # fmt: skip
        kinds[name] = counted[name]
    kinds["broken"] = counted["answered"]
    kinds["instance"], kinds["owner"], kinds["rule"], kinds["passing_rule"] = ENDS_UNKNOWN, -1, -1, -1
    kinds["reason"] = np.where(blocks == 1, counted["new"], counted["old"]) >> 3
    kinds["passes"] = np.where(blocks == 1, counted["old"], counted["new"]) & 7
    return kinds


def fill_ends(kinds: Rows, known: NDArray[np.bool_], counted: Rows, found: NDArray[np.int32]) -> None:
    """Add ends and rules to the kinds with addresses. ``known`` is a mask of these; ``counted`` has their rows.

    For each of them, ``found`` has the side whose filter blocks (0: the opener's, as that policy sees it), the numbers
    of its instance and of the peer's, and the numbers of both policies' rules, first that of the blocking policy.
    """
    filled = kinds[known]
    filled["inbound"] = inbound = found[:, 0] ^ counted["turned"]
    filled["peer"] = np.where(inbound[:, None] == 1, counted["initiator"], counted["responder"])
    for column, name in enumerate(("instance", "owner", "rule", "passing_rule"), 1):
        filled[name] = found[:, column]
    kinds[known] = filled


def kinds_together(several: Sequence[ChangedKinds]) -> ChangedKinds:
    """Merge the kinds of all VPCs. Their engines may number instances differently, but number rules in the same way."""
    instances: dict[str, int] = {}
    tables = []
    for part in several:
        numbers = [instances.setdefault(name, len(instances)) for name in part.instances]
        # Negative numbers are no instances, and do not change.
        renumbered = np.array([*numbers, ENDS_UNKNOWN, -1], dtype=np.int32)
        rows = part.rows.copy()
        for name in ("instance", "owner"):
            rows[name] = np.take(renumbered, rows[name])
        tables.append(rows)
    return replace(several[0], rows=np.concatenate(tables), instances=[*instances])

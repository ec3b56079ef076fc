"""Rows of the data plane as columns of ``row_schema``. No Python object is created for a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.policy.model import ICMP, ICMPV6
from sgfast.policy.protocols import protocol_name
from sgfast.rows.arrow import Array
from sgfast.rows.row_schema import ANSWERS, ENDS, STATES, STATUSES, groups_text
from sgfast.rows.text_columns import address_texts, dictionary_codes
from sgfast.rows.verdicts import NO_SIDE, REASONS, VERDICTS

Rows = NDArray[Any]
Where = NDArray[np.bool_]


def texts(values: Sequence[str]) -> Array:
    return _encoded_texts([_encoded(value) for value in values])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _encoded_texts(encoded: Sequence[bytes]) -> Array:
    offsets = np.zeros(len(encoded) + 1, np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return Array(len(encoded), (None, offsets, b"".join(encoded)))


class Words:
    """Map the numbers in a column to words."""

    def __init__(self, words: Sequence[str | None]) -> None:
        # Two numbers may mean the same word, such as a rule id used in two groups. The dictionary holds the word once.
        places = {word: n for n, word in enumerate(dict.fromkeys(w for w in words if w is not None))}
        self._places = np.array([-1 if word is None else places[word] for word in words], np.int32)
        self._words = [_encoded(word) for word in places]

    def column(self, numbers: Rows, is_valid: Where | None = None) -> Array:
        """Return a column that is null where a number is negative or means None, or where ``is_valid`` is false.

        The column's dictionary has only the words that occur. Raises IndexError for a number out of range.
        """
        if is_valid is None:
            is_valid = np.ones(len(numbers), np.bool_)
        codes, valid, used_words = dictionary_codes(
            numbers.astype(np.int32), is_valid.view(np.uint8), self._places, len(self._words)
        )
        return Array(len(numbers), (valid, codes), _encoded_texts([self._words[n] for n in used_words.tolist()]))


_VERDICTS, _REASONS, _ANSWERS, _ENDS, _STATES, _STATUSES = map(
    Words, (VERDICTS, REASONS, ANSWERS, ENDS, STATES, STATUSES)
)
PROTOCOLS = Words([protocol_name(number) or str(number) for number in range(256)])


def group_words(instances: Sequence[str], groups: Sequence[Sequence[str]]) -> Words:
    """Return the groups of each instance as words. ``groups`` may lack the last ones."""
    return Words([groups_text(instance_groups) for _, instance_groups in zip_longest(instances, groups, fillvalue=())])


def words_of(values: Sequence[str | None]) -> Array:
    """Return a column of text with few different words."""
    return Words(values).column(np.arange(len(values)))


def numbers(values: Rows, is_valid: Where | None = None) -> Array:
    """Return a column of integers that is null where ``is_valid`` is false.

    The column shares an array that owns its memory, which nobody may change then. A field of rows is a view of memory
    that the rows' owner may change, so it is copied.
    """
    own_values = values if values.base is None else values.copy()
    return Array(len(values), (None if is_valid is None else _bitmap(is_valid), own_values))


def numbers_of(values: Sequence[int | None]) -> Array:
    is_valid = np.array([value is not None for value in values], bool)
    return numbers(np.array([value or 0 for value in values], np.int64), is_valid)


def flags(values: Sequence[bool]) -> Array:
    return Array(len(values), (None, _bitmap(np.array(values, bool))))


def addresses(values: Rows, families: Rows) -> Array:
    """Return a column of addresses (n x 16 bytes, IPv4 in the first four) that is null where the family is 0."""
    families = np.ascontiguousarray(families)
    offsets, text = address_texts(np.ascontiguousarray(values), families)
    return Array(len(values), (_bitmap(families > 0), offsets, text))


def _bitmap(is_valid: Where) -> Rows:
    return np.packbits(is_valid, bitorder="little")


def packet_columns(headers: Rows, results: Rows, first: int, instances: Words, rules: Words) -> list[Array]:
    """Return the columns of PACKET_ROWS, copied from the rows. ``first``: the number of the first packet."""
    ports, icmp = headers["has_ports"] != 0, headers["has_icmp"] != 0
    columns = [
        numbers(np.arange(first, first + len(headers), dtype=np.int64)),
        numbers(headers["time_ns"]),
        addresses(headers["src"], headers["family"]),
        addresses(headers["dst"], headers["family"]),
        PROTOCOLS.column(headers["protocol"], headers["family"] != 0),
        numbers(headers["sport"], ports),
        numbers(headers["dport"], ports),
        numbers(headers["icmp_type"], icmp),
        numbers(headers["icmp_code"], icmp),
        _VERDICTS.column(results["verdict"]),
        _REASONS.column(results["reason"]),
    ]
    for side in (results["egress"], results["ingress"]):
        is_valid = side["verdict"] != NO_SIDE
        columns += [
            instances.column(side["instance"], is_valid), _VERDICTS.column(side["verdict"], is_valid),
            _REASONS.column(side["reason"], is_valid), rules.column(side["rule"], is_valid),
        ]  # fmt: skip
    return columns


def is_icmp(rows: Rows) -> Where:
    return np.asarray(rows["protocol"] == np.where(rows["family"] == 4, ICMP, ICMPV6))


def _ends(rows: Rows, code_known: Where) -> list[Array]:
    ports = rows["has_ports"] != 0
    return [
        PROTOCOLS.column(rows["protocol"]),
        addresses(rows["initiator"], rows["family"]),
        numbers((rows["ports"] >> 16).astype(np.uint16), ports),
        addresses(rows["responder"], rows["family"]),
        numbers((rows["ports"] & 0xFFFF).astype(np.uint16), ports),
        numbers((rows["icmp"] >> 8).astype(np.uint8), is_icmp(rows)),
        numbers((rows["icmp"] & 0xFF).astype(np.uint8), code_known),
    ]


def remembered_columns(rows: Rows, instances: Words, rules: Words) -> list[Array]:
    """Return the columns of REMEMBERED_TABLE, copied from the rows (REMEMBERED_DTYPE)."""
    recorded = rows["recorded"] != 0
    columns = [
        *_ends(rows, is_icmp(rows) & recorded),
        _STATUSES.column(rows["status"]),
        _VERDICTS.column(rows["denied"]),
        numbers(rows["number"].astype(np.int64), recorded),
        numbers(rows["first_ns"], recorded),
        *(numbers(rows[name][:, end].astype(np.int64), recorded) for name in ("packets", "bytes") for end in (0, 1)),
    ]
    for end in (0, 1):
        is_valid = rows["state"][:, end] != 0
        columns += [
            instances.column(rows["instance"][:, end], is_valid), rules.column(rows["rule"][:, end], is_valid),
            _STATES.column(rows["state"][:, end], is_valid), numbers(rows["deadline"][:, end], is_valid),
        ]  # fmt: skip
    return columns


def connection_columns(flows: Rows, instances: Words, groups: Words, rules: Words) -> list[Array]:
    """Return the columns of CONNECTION_ROWS, copied from the rows. ``groups``: as text, by instance number."""
    columns = [
        *_ends(flows, is_icmp(flows)),
        numbers(flows["first_ns"]),
        numbers(flows["last_ns"]),
        *(numbers(flows[name][:, end].astype(np.int64)) for name in ("packets", "bytes") for end in (0, 1)),
        _VERDICTS.column(flows["verdict"]),
        _REASONS.column(flows["reason"]),
        _ANSWERS.column(flows["answer"]),
    ]
    for end in (0, 1):
        is_valid = flows["side_end"][:, end] != 0
        columns += [
            instances.column(flows["instance"][:, end], is_valid), groups.column(flows["instance"][:, end], is_valid),
            rules.column(flows["rule"][:, end], is_valid),
            _ENDS.column(flows["side_end"][:, end], is_valid),
        ]  # fmt: skip
    return columns

"""Programs that are measured in the same run as sgfast, for comparison.

They are C loops, which are built here, parts of DPDK (``dpdk``), other programs (``programs``, ``meters``), address
look-ups from Python (``addresses``), and a Python script (``scripted``).
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast import HEADER_DTYPE
from sgfast.policy.model import GroupPeer, Policy

SOURCE = Path(__file__).with_name("loops.c")
#: Compiler flags. They omit -march, because sgfast is also built for any machine.
FLAGS = ("-O3", "-std=gnu11", "-Wall", "-Wextra", "-shared", "-fPIC")

_RULE = np.dtype([
    ("network", "<u4"), ("mask", "<u4"), ("group", "<i4"), ("number", "<i4"), ("protocol", "<u2"), ("first", "<u2"),
    ("last", "<u2"), ("of", "<u2"),
])  # fmt: skip
_ANY_PROTOCOL = 256


class Missing(Exception):
    """Raised if a yardstick is not available. The message says why."""


def compiled(source: Path, made: Path, before: Sequence[str], after: Sequence[str] = ()) -> Path:
    """Build ``source`` as ``made``, with ``$CC`` or cc. Raises Missing if this fails."""
    compiler: Sequence[str] = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        raise Missing(f"no C compiler ({' '.join(compiler) or 'CC is empty'}): set CC")
    command = [*compiler, *before, "-o", str(made), str(source), *after]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise Missing(f"{source.name} could not be built:\n{built.stderr}")
    return made


class _Totals(ctypes.Structure):
    _fields_ = (("packets", ctypes.c_uint64), ("sum", ctypes.c_uint64), ("flows", ctypes.c_uint64))


class Loops:
    """The C yardsticks, built in ``folder``. Raises Missing if they cannot be built."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(str(compiled(SOURCE, folder / "loops.so", FLAGS)))
        self._library.walk.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Totals)]
        self._library.hash.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.POINTER(_Totals)]
        self._library.scan.argtypes = [
            ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32,
            ctypes.c_uint32, ctypes.c_void_p,
        ]  # fmt: skip
        self._library.first_match.argtypes = [
            ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p,
        ]  # fmt: skip
        self._library.scan.restype = self._library.first_match.restype = None

    def walk(self, path: Path) -> int:
        """Read the headers of all packets and return the number of packets."""
        totals = _Totals()
        if self._library.walk(os.fsencode(path), ctypes.byref(totals)):
            raise OSError(f"{path}: cannot be mapped")
        return totals.packets

    def hash(self, path: Path, flows: int) -> tuple[int, int]:
        """Count packets by 5-tuple. Return (packets, different tuples). ``flows`` is at least the number of tuples."""
        totals = _Totals()
        if self._library.hash(os.fsencode(path), flows, ctypes.byref(totals)):
            raise OSError(f"{path}: cannot be mapped, has more than {flows} flows, or memory is short")
        return totals.packets, totals.flows

    def first_match(self, headers: NDArray[Any], rules: NDArray[Any], winners: NDArray[np.int32]) -> None:
        """Write the number of the first matching rule for each row to ``winners``, or -1.

        ``rules`` is an array of ``classbench.PREFIX_RULE``.
        """
        assert headers.dtype == HEADER_DTYPE and self._library.header_bytes() == HEADER_DTYPE.itemsize
        assert headers.flags.c_contiguous and rules.flags.c_contiguous and len(winners) == len(headers)
        self._library.first_match(
            headers.ctypes.data, len(headers), rules.ctypes.data, len(rules), winners.ctypes.data
        )

    def scanner(self, policy: Policy, first_instance: int) -> Scanner:
        return Scanner(self._library, policy, first_instance)


def inbound_rules(policy: Policy) -> tuple[NDArray[Any], list[int]]:
    """Return the inbound IPv4 rules by precedence, a row for each port range, and the index of each group's first
    row."""
    groups = {group.name: number for number, group in enumerate(policy.security_groups)}
    rows: list[tuple[int, ...]] = []
    starts = [0]
    number = 0
    for group in policy.security_groups:
        for rule in group.rules:
            if rule.direction == "inbound":
                network, mask, peer = 0, 0, -1
                if isinstance(rule.peer, GroupPeer):
                    peer = groups[rule.peer.name]
                elif rule.peer is not None:
                    network, mask = int(rule.peer.network_address), int(rule.peer.netmask)  # type: ignore[union-attr]
                protocol = _ANY_PROTOCOL if rule.protocol is None else rule.protocol
                rows += [
                    (network, mask, peer, number, protocol, first, last, groups[group.name])
                    for first, last in rule.ports or ((0, 65535),)
                ]
            number += 1
        starts.append(len(rows))
    return np.array(rows, dtype=_RULE), starts


class Scanner:
    """Match headers with the rules of a policy that ``workload.make_policy`` made."""

    def __init__(self, library: Any, policy: Policy, first_instance: int) -> None:
        assert library.header_bytes() == HEADER_DTYPE.itemsize
        self._library = library
        self._first_instance, self._instances = first_instance, len(policy.instances)
        self._rules, starts = inbound_rules(policy)
        self._starts = np.array(starts, dtype=np.uint32)

    def match(self, headers: NDArray[Any], winners: NDArray[np.int32]) -> None:
        """Write each row's winning rule to ``winners``: its number, -1 for none, -2 if the receiver is no instance."""
        assert headers.dtype == HEADER_DTYPE and headers.flags.c_contiguous and len(winners) == len(headers)
        self._library.scan(
            headers.ctypes.data, len(headers), self._rules.ctypes.data, self._starts.ctypes.data,
            len(self._starts) - 1, self._first_instance, self._instances, winners.ctypes.data,
        )  # fmt: skip

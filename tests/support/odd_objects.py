"""Create objects of extension classes in wrong ways: without their constructor, constructed twice, or copied.

    python tests/support/odd_objects.py MODULE...

The program calls all methods of the modules' classes on such objects. Exceptions are acceptable. A crash or a hang ends
the process in another way.
"""

from __future__ import annotations

import copy
import faulthandler
import importlib
import io
import itertools
import os
import pickle
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from captures import pcap_head, pcap_record
from command import POLICY, handshake
from effort import some

import sgfast
import sgfast.engine
import sgfast.rules.compiler
import sgfast.rules.compiler.address_classes
import sgfast.rules.compiler.tables
from sgfast.clouds.logs.columns import RECORD_DTYPE
from sgfast.core.base.frames import FrameBatch
from sgfast.core.dtypes import FLOW_DTYPE, HEADER_DTYPE, RESULT_DTYPE
from sgfast.traffic.capture import CaptureReader

#: Methods that run until another thread ends them, or that only a program's own threads may call.
ENDLESS = {"serve"}
#: Methods of the class rather than of objects.
OF_THE_CLASS = {"__new__", "__class__", "__init_subclass__", "__subclasshook__", "__class_getitem__"}

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def extension_modules() -> list[str]:
    """Return the modules of the package that have classes."""
    return [
        module.name for module in pkgutil.walk_packages(sgfast.__path__, "sgfast.")
        if not module.name.endswith("__main__") and classes_of(module.name)
    ]  # fmt: skip


@cache
def classes_of(name: str) -> list[type]:
    try:
        module = importlib.import_module(name)
    except ImportError:     # an optional dependency is missing
        return []
    if not (module.__file__ or "").endswith((".so", ".pyd")):
        return []
    return [found for found in vars(module).values() if isinstance(found, type) and found.__module__ == name]


# Valid objects -------------------------------------------------------------------------------------------------------


class Fresh(NamedTuple):
    """An argument that must be made anew for each object."""

    make: Callable[[], Any]


class Recorded:
    """Record the arguments with which an engine's construction calls classes."""

    def __init__(self) -> None:
        self.arguments: dict[str, Arguments] = {}
        for module, name in (
            (sgfast.rules.compiler, "Classifier"), (sgfast.rules.compiler.address_classes, "CidrTrie"),
            (sgfast.rules.compiler.tables, "RuleArrays"), (sgfast.engine, "AccountingPlane"),
            (sgfast.engine, "SingleChecks"),
        ):  # fmt: skip
            setattr(module, name, self._recording(name, getattr(module, name)))

    def _recording(self, name: str, cls: Callable[..., Any]) -> Callable[..., Any]:
        def make(*arguments: Any, **options: Any) -> Any:
            self.arguments[name] = arguments, options
            return cls(*arguments, **options)

        return make


def arguments_of() -> dict[str, Arguments]:
    """Return the constructor arguments of each class."""
    recorded = Recorded()
    policy = sgfast.load(text=POLICY)
    plane, other = (sgfast.Engine(policy).dataplane for _ in range(2))
    from sgfast.traffic.flow_logs.conversation_table import ConversationTable

    from sgfast.clouds.logs.tokenizer import WordNumbers
    from sgfast.core.base.file_reads import FileReads
    from sgfast.core.diff.changed_connections import ChangedConnections
    from sgfast.policy.model import Timeouts

    def texts(name: str) -> bytes:
        return name.encode()

    large = tempfile.TemporaryFile(buffering=0)     # noqa: SIM115
    large.truncate(1 << 22)
    plain: dict[str, Any] = {
        "WindowsAhead": (FileReads(), Fresh(lambda: os.dup(large.fileno())), 0, 1 << 22),
        "CaptureSample": (64,), "InterfaceMarks": ({},), "MergedReader": ([],), "StreamBuffer": (io.BytesIO(),),
        "CaptureReader": (Fresh(lambda: io.BytesIO(pcap_head() + pcap_record(b"some") * 9)), "name"),
        "ReplayClock": (), "FileReads": (), "FrameBatch": (3,), "BatchPool": (3,), "ChangedConnections": (plane,),
        "PairedPlanes": (plane, other, ChangedConnections(plane)), "Workers": (2,), "RecordJudge": (plane,),
        "Decapsulation": (["gre"],), "TunnelSample": (["gre"],), "Window": (None, None), "Filter": ("tcp",),
        "Dedup": (), "VpcMarks": ({}, {}), "Dealer": (1,), "RowWriter": (), "PacketRows": (), "FlowRows": (),
        "CaptureWriter": (), "FlowLogLines": (len,),
        "NameTexts": (("a", "b"), texts, b"none"), "PcapngWriter": (len,), "PcapWriter": (len, "name"),
        "Connections": (Timeouts(), Timeouts()), "ConversationTable": (), "LaterPackets": (),
        "RecordPackets": (ConversationTable(), Timeouts(), Timeouts(), False),
        "Interfaces": (ConversationTable(),), "RecordQueue": (ConversationTable(),),
        "WordNumbers": (), "Tokenizer": ([1, 2, 3], WordNumbers()),
        "VerdictLines": (len,), "ConnectionLines": (len,), "VerdictCsv": (len,), "ConnectionCsv": (len,),
    }  # fmt: skip
    found = recorded.arguments | {name: (arguments, {}) for name, arguments in plain.items()}
    found["DataPlane"] = found["AccountingPlane"]
    found["Partitioner"] = (4, 1), {"infrastructure": 0, "full_bytes": 1000}
    return found


# Misuse of an object -------------------------------------------------------------------------------------------------


def batch() -> FrameBatch:
    reader = CaptureReader(io.BytesIO(pcap_head() + b"".join(map(pcap_record, handshake(1000, 80)))), "name")
    found = reader.next_batch()
    assert found is not None
    return found


def values() -> list[Any]:
    """Return arguments for methods: None, wrong values, and a few right values."""
    headers, results, flows = (np.zeros(3, dtype=dtype) for dtype in (HEADER_DTYPE, RESULT_DTYPE, FLOW_DTYPE))
    words, records = np.zeros(3, dtype=np.uint16), np.zeros(3, dtype=RECORD_DTYPE)
    return [None, 0, -1, b"", (), batch(), headers, results, flows, words, Names(), len, b"1 2 3\n", records]


class Names:
    instances = rules = ("a", "b")
    packets = 0


def calls(n: int) -> Iterator[list[Any]]:
    """Yield lists of up to ``n`` arguments, and the arguments of writers of frames and of paired planes."""
    count = len(values())
    places: list[tuple[int, ...]] = [(), *((k,) for k in range(count))]
    if n > 1:
        # As a rule a third of the pairs, with each value at each place.
        places += itertools.islice(itertools.product(range(count), repeat=2), 0, None, some(3, 1))
        places += [(k, k, k) for k in range(count)] + [(5, 1, 6, 7), (5, 9, 9), (5, 9, 9, 6), (0, 0, 5, 9, 9, 6)]
    for chosen in places:
        given = values()
        yield [given[place] for place in chosen]


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with suppress(Exception):
        return function(*arguments, **options)


def misuse(make: Callable[[], Any]) -> None:
    """Call each method of a new object, twice, and set each attribute."""
    first = make()
    names = sorted(set(dir(first)) - OF_THE_CLASS - ENDLESS)
    for name in names:
        if callable(attempt(getattr, first, name)):
            for arguments in calls(1 if name.startswith("__") else 2):
                found = make()
                method = attempt(getattr, found, name)
                attempt(method, *arguments)
                attempt(method, *arguments)
        else:
            for value in values():
                found = make()
                attempt(setattr, found, name, value)
                attempt(getattr, found, name)
    for function in (len, list, hash, bool, repr, str, lambda it: it[0], lambda it: it < it):
        attempt(function, make())


def all_of(cls: type, arguments: Arguments) -> None:
    given, options = arguments

    def fresh() -> list[Any]:
        return [argument.make() if isinstance(argument, Fresh) else argument for argument in given]

    for wrong in calls(2):
        attempt(cls.__new__, cls, *wrong)
    if attempt(cls.__new__, cls) is not None:
        misuse(lambda: cls.__new__(cls))
    misuse(lambda: cls.__new__(cls, *fresh(), **options))

    def twice() -> Any:
        found = cls(*fresh(), **options)
        attempt(found.__init__, *fresh(), **options)
        attempt(found.__init__)
        return found

    misuse(twice)
    for copied in (copy.copy, copy.deepcopy, *(lambda it, n=n: pickle.loads(pickle.dumps(it, n)) for n in range(6))):
        found = attempt(copied, twice())
        if found is not None:
            misuse(lambda copied=copied: copied(twice()))


def main() -> int:
    faulthandler.enable()
    known = arguments_of()
    for cls in itertools.chain.from_iterable(map(classes_of, sys.argv[1:])):
        all_of(cls, known[cls.__name__])
        print(cls.__name__, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

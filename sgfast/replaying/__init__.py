"""Replay captures through an engine and return totals. How to print them is up to ``report``.

    capture.open_capture --FrameBatch--> engine --arrays--> sinks (one row a packet, one row a connection)
                                           \\--counters--> ReplayResult

``run`` is the way from captures to the result, ``options`` defines the options and ``results`` the result. A ``Runner``
judges the packets: ``engine_runner`` with one engine, ``vpc_runner`` with one for each VPC, ``reference_runner`` with
the reference model. ``cluster`` reads and judges on other machines. ``replay_snapshot`` saves a replay and resumes it.
"""

from typing import TYPE_CHECKING

from sgfast.lazy import on_demand

if TYPE_CHECKING:
    from sgfast.replaying.cutting import PacketsLeftOut
    from sgfast.replaying.listed_kinds import Broken, Denied, Service, Unanswered
    from sgfast.replaying.options import Reading, ReplayOptions
    from sgfast.replaying.results import (
        ChangeDone,
        ClusterUsed,
        CutConnection,
        FlowSink,
        FrameSink,
        Names,
        PacketSink,
        ReplayResult,
        RuleHits,
        Sinks,
        Stage,
    )
    from sgfast.replaying.run import run_replay

# Commands that judge no packets need the options, to find out that none is given.
__getattr__ = on_demand(
    __name__,
    {
        "sgfast.replaying.cutting": ("PacketsLeftOut",),
        "sgfast.replaying.listed_kinds": ("Broken", "Denied", "Service", "Unanswered"),
        "sgfast.replaying.options": ("Reading", "ReplayOptions"),
        "sgfast.replaying.results": (
            "ChangeDone", "ClusterUsed", "CutConnection", "FlowSink", "FrameSink", "Names", "PacketSink",
            "ReplayResult", "RuleHits", "Sinks", "Stage",
        ),
        "sgfast.replaying.run": ("run_replay",),
    },
)  # fmt: skip

__all__ = [
    "Broken",
    "ChangeDone",
    "ClusterUsed",
    "CutConnection",
    "Denied",
    "FlowSink",
    "FrameSink",
    "Names",
    "PacketSink",
    "PacketsLeftOut",
    "Reading",
    "ReplayOptions",
    "ReplayResult",
    "RuleHits",
    "Service",
    "Sinks",
    "Stage",
    "Unanswered",
    "run_replay",
]

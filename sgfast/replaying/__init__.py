"""Replay captures through an engine and return totals. The package ``report`` prints them.

    capture.open_capture --FrameBatch--> engine --arrays--> sinks (one row a packet, one row a connection)
                                           \\--counters--> ReplayResult

``run`` performs a replay, ``options`` defines its options and ``results`` its result. A ``Runner`` judges the packets:
``engine_runner`` with one engine, ``vpc_runner`` with an engine for each VPC, ``reference_runner`` with the reference
model. ``cluster`` reads and judges on other machines. ``replay_snapshot`` saves a replay and resumes it.
"""

from typing import TYPE_CHECKING

from sgfast.lazy import on_demand

if TYPE_CHECKING:
    from sgfast.replaying.listed_kinds import Broken as Broken
    from sgfast.replaying.listed_kinds import Denied as Denied
    from sgfast.replaying.listed_kinds import Service as Service
    from sgfast.replaying.listed_kinds import Unanswered as Unanswered
    from sgfast.replaying.options import Reading as Reading
    from sgfast.replaying.options import ReplayOptions as ReplayOptions
    from sgfast.replaying.packet_selection import PacketsLeftOut as PacketsLeftOut
    from sgfast.replaying.results import ChangeDone as ChangeDone
    from sgfast.replaying.results import ClusterUsed as ClusterUsed
    from sgfast.replaying.results import CutConnection as CutConnection
    from sgfast.replaying.results import FlowSink as FlowSink
    from sgfast.replaying.results import FrameSink as FrameSink
    from sgfast.replaying.results import Names as Names
    from sgfast.replaying.results import PacketSink as PacketSink
    from sgfast.replaying.results import ReplayResult as ReplayResult
    from sgfast.replaying.results import RuleHits as RuleHits
    from sgfast.replaying.results import Sinks as Sinks
    from sgfast.replaying.results import Stage as Stage
    from sgfast.replaying.run import run_replay as run_replay

# Modules are imported on demand, because commands that judge no packets only need the options.
__getattr__ = on_demand(
    __name__,
    {
        "sgfast.replaying.packet_selection": ("PacketsLeftOut",),
        "sgfast.replaying.listed_kinds": ("Broken", "Denied", "Service", "Unanswered"),
        "sgfast.replaying.options": ("Reading", "ReplayOptions"),
        "sgfast.replaying.results": (
            "ChangeDone", "ClusterUsed", "CutConnection", "FlowSink", "FrameSink", "Names", "PacketSink",
            "ReplayResult", "RuleHits", "Sinks", "Stage",
        ),
        "sgfast.replaying.run": ("run_replay",),
    },
)  # fmt: skip

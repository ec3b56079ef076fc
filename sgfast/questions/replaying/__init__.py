"""Replay captures through an engine and return totals. The package ``report`` prints them.

    capture.open_capture --FrameBatch--> engine --arrays--> sinks (one row a packet, one row a connection)
                                           \\--counters--> ReplayResult

``run`` performs a replay, ``options`` defines its options and ``results`` its result. A ``Runner`` judges the packets:
``engine_runner`` with one engine, ``vpc_runner`` with an engine for each VPC, ``reference_runner`` with the reference
model. ``cluster`` reads and judges on other machines. ``replay_snapshot`` saves a replay and resumes it.
"""

from sgfast.base.lazy import on_demand

# Modules are imported on demand, because commands that judge no packets only need the options.
__getattr__, __dir__ = on_demand(__name__)

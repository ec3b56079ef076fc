"""Flow logs: ``sources`` finds them, ``formats`` reads them, ``merged`` reads many as one. ``checking`` compares those
with actions with a policy. ``judging`` evaluates the rules, ``conversations`` finds out who opened a connection.
"""

from sgfast.flow_logs.checking import Disagreement, FlowLogCheck, check_logs
from sgfast.flow_logs.records import FlowLog, Record

__all__ = ["Disagreement", "FlowLog", "FlowLogCheck", "Record", "check_logs"]

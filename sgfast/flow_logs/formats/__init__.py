"""Flow logs of every supported format as arrays with the same columns.

``columns`` has the columns, ``detection`` finds the format from a file's content, and ``log`` is a log while it is
read. Every format is a module: ``aws``, ``aws_json`` and ``aws_parquet``, ``neutron``, ``zeek``.
"""

from sgfast.flow_logs.formats.columns import RECORD_DTYPE
from sgfast.flow_logs.formats.detection import format_of, open_log
from sgfast.flow_logs.formats.log import Log, LogFormat

__all__ = ["RECORD_DTYPE", "Log", "LogFormat", "format_of", "open_log"]

"""Zeek, which writes a log of connections, and logs of protocols that name the ends of connections as well."""

from __future__ import annotations

from typing import Any

from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.provider import Provider

_ENDS = (rb'"(?:id[._])?orig_h"\s*:', rb'"(?:id[._])?resp_h"\s*:')
_FACTS: dict[str, Any] = {"lacks": {"action": "do not say what was accepted"}, "lacks_protocols": True}

CONN_LOG = LogFormat("a conn.log of Zeek", "zeek.conn_log:read_tsv", **_FACTS)
#: Objects in which Kafka wraps lines name their log.
CONN_LOG_JSON = LogFormat(
    "a conn.log of Zeek as JSON", "zeek.conn_log:read_json",
    json_patterns=((*_ENDS, rb'"(?:conn_state|history|_path)"\s*:|^\s*\{\s*"(?!id")\w+"\s*:\s*\{'),), **_FACTS,
)  # fmt: skip
OTHER_LOG = LogFormat("a log of Zeek other than conn.log", json_patterns=(_ENDS,), has_no_flows=True)

ZEEK = Provider(log_formats=(CONN_LOG, CONN_LOG_JSON, OTHER_LOG))

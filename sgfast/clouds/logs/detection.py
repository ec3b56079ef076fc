"""Find out from a file's content which format a flow log has. Its name and folder do not matter.

``recognised`` says only what the content shows: any file may be given to it. ``format_of`` is told that the file is a
flow log, so what it does not recognise is AWS's.
"""

from __future__ import annotations

import io
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from sgfast.base.errors import FlowLogError
from sgfast.clouds.aws import provider as aws
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS
from sgfast.clouds.logs.columns import UNKNOWN
from sgfast.clouds.logs.log import Log
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.otc.provider import FLOW_LOG as OTC_LOG
from sgfast.clouds.providers import PROVIDERS
from sgfast.clouds.unread import UNREAD_LOGS
from sgfast.clouds.zeek import provider as zeek
from sgfast.policy.yaml_nodes import UTF_16_MARKS

#: All formats in the order of trial. Those of AWS come last: a log of any other format may look like one of them.
_FORMATS = (
    *(log_format for provider in PROVIDERS if provider is not aws.AWS for log_format in provider.log_formats),
    *UNREAD_LOGS,
    *aws.AWS.log_formats,
)
#: Patterns that are all in the first bytes of a file of JSON, with their format.
_JSON = tuple((tuple(map(re.compile, patterns)), form) for form in _FORMATS for patterns in form.json_patterns)
#: Patterns in the first bytes of a text, with their format.
_TEXTS = tuple((re.compile(form.text_pattern, re.MULTILINE), form) for form in _FORMATS if form.text_pattern)

_ZEEK_HEADER = re.compile(rb"^#(?:separator\s|fields\t)", re.MULTILINE)
_ZEEK_PATH = re.compile(rb"^#path[ \t]+(\w+)", re.MULTILINE)
_COMMENTS = re.compile(rb"(?:\s+|#[^\n]*\n)*")
_EXPORTED = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z\s+\d+\s")

#: A record in the default format, whatever its values are.
_RECORD = rb"\d{1,2}(?:[ \t]+[^\s\"]+){11}[ \t]+(?:ACCEPT|REJECT|-)[ \t]+(?:OK|NODATA|SKIPDATA)"
_LINE = re.compile(rb"(?:\d{4}-\d\d-\d\dT[\d:.]+Z[ \t]+)?" + _RECORD)
_MESSAGE = re.compile(rb'"message"\s*:\s*"(?:' + _RECORD + rb'"|CWL CONTROL MESSAGE|[^"]*\bsrcaddr\b[^"]*\bdstaddr\b)')
_FIELD_NAME = re.compile(rb"\$?\{?[A-Za-z][A-Za-z0-9-]*\}?")
#: The number of lines of which one shows an AWS flow log, as the first ones may be broken.
_FIRST_LINES = 10


def recognised(head: bytes) -> LogFormat | None:
    """Return the format of a log by the first bytes of any file, decompressed, or None if they show no flow log.

    Any Parquet counts as one, as the names of its columns stand at its end.
    """
    if head.startswith(UTF_16_MARKS):
        # Log says what to do with such a file.
        head = head.decode("utf-16", "ignore").encode("utf-8", "replace")
    head = head.removeprefix(BOM_UTF8)
    log_format = _shown(head)
    if log_format is aws.MESSAGES:
        return log_format if _MESSAGE.search(head) else None
    if log_format is None and any(map(_shows_aws, head[_begin(head) :].split(b"\n", _FIRST_LINES)[:_FIRST_LINES])):
        return _aws(head)
    return log_format


def format_of(head: bytes) -> LogFormat:
    """Return the format of a flow log by its first bytes, decompressed."""
    return _shown(head) or _aws(head)


class _Beginning(Log):
    """The log that a file's first bytes are."""

    def __init__(self, path: str, log_format: LogFormat, head: bytes) -> None:
        super().__init__(path, lambda _: log_format)
        self._bytes = head

    def _open(self, stack: ExitStack) -> None:
        self._head, self._stream = self._bytes, io.BytesIO()


def start_in_head(path: str, log_format: LogFormat, head: bytes) -> int | None:
    """Return the earliest start of a record in a file's first bytes, as Unix time in ns, or None."""
    with suppress(FlowLogError):
        for rows in _Beginning(path, log_format, head):
            starts = rows["start_ns"]
            if (starts != UNKNOWN).any():
                return int(starts[starts != UNKNOWN].min())
    return None


def _shown(head: bytes) -> LogFormat | None:
    """Return the format that the first bytes name, which no AWS log as text does."""
    if head.startswith(b"PAR1"):
        return aws.PARQUET
    begin = _begin(head)
    if head[begin : begin + 1] in (b"{", b"["):
        return next((form for patterns, form in _JSON if all(pattern.search(head) for pattern in patterns)), None)
    if _ZEEK_HEADER.match(head) or _ZEEK_HEADER.search(head, 0, begin):
        path = _ZEEK_PATH.search(head)
        return zeek.CONN_LOG if path is None or path[1] == b"conn" else zeek.OTHER_LOG
    return next((form for pattern, form in _TEXTS if pattern.search(head)), None)


def _aws(head: bytes) -> LogFormat:
    if _EXPORTED.match(head, _begin(head)):
        return aws.EXPORTED_LOG
    first = head.lstrip().partition(b"\n")[0].split()
    if b"tgw-attachment-id" in first and b"srcaddr" in first:
        return aws.GATEWAY_LOG
    return OTC_LOG if first[:1] == [b"1"] and len(first) == len(DEFAULT_FIELDS) else aws.FLOW_LOG


def _shows_aws(line: bytes) -> bool:
    """Return whether a line is a record in the default format, or names the fields of records."""
    line = line.strip()
    if _LINE.fullmatch(line):
        return True
    words = line.split()
    names = {word.strip(b"${}").lower() for word in words}
    return {b"srcaddr", b"dstaddr"} <= names and all(map(_FIELD_NAME.fullmatch, words))


def _begin(head: bytes) -> int:
    """Return where the first line begins that is neither blank nor a comment."""
    return _COMMENTS.match(head).end()      # type: ignore[union-attr]


def open_log(path: str, *, needs: Sequence[str] = (), year: int | None = None) -> Log:
    """Return a log that can be read once; its ``format`` is known when reading begins.

    ``path``: a path, a URL, or ``-`` for standard input. ``needs``: fields by AWS's names that every record must have.
    ``year``: the year of the first record of a log whose times have none; without it, the log's ``remarks`` say which
    year is taken.
    """
    return Log(path, format_of, needs, year)

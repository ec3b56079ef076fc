"""AWS flow logs in the JSON of CloudWatch Logs and of Firehose.

A subscription of CloudWatch Logs writes objects with many messages, which may follow each other without a line feed:
``{"messageType": "DATA_MESSAGE", "logEvents": [{"message": "2 1234..."}]}``. Firehose writes
``{"message": "2 1234..."}`` for each record, and ``aws logs filter-log-events`` writes ``{"events": [...]}``. Messages
have no header, so they are of the default format, unless one is a header itself.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS, LineReader
from sgfast.clouds.aws.provider import FLOW_LOG
from sgfast.clouds.logs.detection import start_in_head
from sgfast.clouds.logs.log import Log, are_too_short

#: The longest object, in characters. CloudWatch Logs and Firehose make none over some MiB.
LONGEST_OBJECT = 1 << 26

_SPACE = re.compile(r"[\s,\[\]]*")
_MESSAGES = re.compile(rb'"message"\s*:\s*"([^"\\]*)"')
_BREAKS = re.compile(r"[\r\n]+")


def read(log: Log) -> Iterator[NDArray[Any]]:
    """Read the messages. A broken one is reported by the number of its event in the file."""
    reader = LineReader(log, DEFAULT_FIELDS, "event")
    number = 1
    for value in objects(log):
        messages = _messages(log, value)
        if messages:
            # A message is one line, whatever is in it.
            text = "".join(f"{_BREAKS.sub(' ', message)}\n" for message in messages)
            yield from reader.take(number, text.encode("utf-8", "replace"))
            number += len(messages)
    yield from reader.rest()


def first_start_ns(path: str, head: bytes) -> int | None:
    """Return the earliest start of the first records. ``head`` may end within the first object, and is no JSON then."""
    return start_in_head(path, FLOW_LOG, b"\n".join(_MESSAGES.findall(head)))


def objects(log: Log) -> Iterator[Any]:
    """Yield the JSON values of a file, which follow each other, with or without an array around them."""
    decoder, decode = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")("replace").decode
    text, number, least_length = "", 1, 0
    # The arrays that have begun and not ended, and the bytes read.
    depth = length = 0
    for chunk in log.chunks():
        text += decode(chunk)
        length += len(chunk)
        # An object that takes many chunks is tried only when the text has doubled.
        if len(text) < least_length:
            continue
        at, entered = _next(text, 0)
        depth += entered
        while at < len(text):
            try:
                value, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                break
            yield value
            number += 1
            at, entered = _next(text, at)
            depth += entered
        if are_too_short(number, length):
            log.damage = f"{log.name}: JSON value {number}: so many values in so few bytes are no flow log"
            return
        text = text[at:]
        least_length = 2 * len(text)
        if len(text) > LONGEST_OBJECT:
            break
    at = 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            yield value
            at, entered = _next(text, at)
            depth += entered
        if depth and log.damage is None:
            fault = "the file ends within an array" if depth > 0 else "an array ends that did not begin"
            log.damage = f"{log.name}: JSON value {number}: {fault}"
    except (ValueError, RecursionError) as error:
        cause = getattr(error, "msg", "nested too deeply")
        if log.damage is None:
            log.damage = f"{log.name}: JSON value {number}: cannot be read, nor what follows: {cause}"


def _next(text: str, at: int) -> tuple[int, int]:
    """Return where the next value begins, and how many more arrays begin before it than end."""
    end = _SPACE.match(text, at).end()      # type: ignore[union-attr]
    return end, text.count("[", at, end) - text.count("]", at, end)


def _messages(log: Log, value: Any) -> list[str]:
    events = value.get("logEvents", value.get("events", [value])) if isinstance(value, dict) else None
    if not isinstance(events, list):
        log.left_out += 1
        return []
    if value.get("messageType") == "CONTROL_MESSAGE":
        log.left_out += len(events)
        return []
    messages = [event.get("message") for event in events if isinstance(event, dict)]
    texts = [message for message in messages if isinstance(message, str)]
    log.left_out += len(events) - len(texts)
    return texts

"""Find out from a file's content which format a flow log has. Its name and folder do not matter.

``recognised`` says only what the content shows: any file may be given to it. ``format_of`` is told that the file is a
flow log, so what it does not recognise is AWS's.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Sequence

from sgfast.clouds.aws import flow_log as aws
from sgfast.clouds.aws import flow_log_json as aws_json
from sgfast.clouds.aws import flow_log_parquet as aws_parquet
from sgfast.clouds.logs.log import Log, LogFormat
from sgfast.clouds.openstack import flow_log as neutron
from sgfast.clouds.zeek import conn_log as zeek
from sgfast.policy.yaml_nodes import UTF_16_MARKS

_NO_ACTION = {"action": "do not say what was accepted"}

AWS = LogFormat("an AWS VPC flow log", aws.read, is_of_aws=True)
AWS_GATEWAY = LogFormat("an AWS transit gateway flow log", aws.read, _NO_ACTION, is_of_aws=True)
AWS_EXPORT = LogFormat("an AWS VPC flow log that CloudWatch Logs exported", aws.read_export, is_of_aws=True)
AWS_MESSAGES = LogFormat(
    "an AWS VPC flow log in the JSON of CloudWatch Logs or Firehose", aws_json.read, is_of_aws=True
)
AWS_PARQUET = LogFormat("an AWS VPC flow log as Parquet", aws_parquet.read, is_of_aws=True)
OTC = LogFormat("a VPC flow log of OTC or Huawei Cloud", aws.read)
NEUTRON = LogFormat("a security group log of OpenStack Neutron", neutron.read, shows_answers=False)
ZEEK_TSV = LogFormat("a conn.log of Zeek", zeek.read_tsv, _NO_ACTION, lacks_protocols=True)
ZEEK_OTHER = LogFormat("a log of Zeek other than conn.log", None)
ZEEK_JSON = LogFormat("a conn.log of Zeek as JSON", zeek.read_json, _NO_ACTION, lacks_protocols=True)

#: Formats by patterns that are all in the first bytes of a file of JSON, in the order of trial.
_JSON = tuple(
    (tuple(re.compile(pattern) for pattern in patterns), known)
    for patterns, known in (
        ((rb'"logEvents"\s*:',), AWS_MESSAGES),
        # Zeek's other logs have the ends of a connection, too. Objects in which Kafka wraps lines name their log.
        (
            (
                rb'"(?:id[._])?orig_h"\s*:', rb'"(?:id[._])?resp_h"\s*:',
                rb'"(?:conn_state|history|_path)"\s*:|^\s*\{\s*"(?!id")\w+"\s*:\s*\{',
            ),
            ZEEK_JSON,
        ),
        ((rb'"(?:id[._])?orig_h"\s*:', rb'"(?:id[._])?resp_h"\s*:'), ZEEK_OTHER),
        ((rb"NetworkSecurityGroupFlowEvent",), LogFormat("an Azure network security group (NSG) flow log", None)),
        ((rb"FlowLogFlowEvent|\"flowTuples\"",), LogFormat("an Azure virtual network (VNet) flow log", None)),
        ((rb"com\.oraclecloud\.vcn\.flowlogs",), LogFormat("a VCN flow log of Oracle Cloud", None)),
        ((rb'"rule_details"\s*:', rb'"src_ip"\s*:'), LogFormat("a firewall rules log of Google Cloud", None)),
        (
            (rb'"dest_ip"\s*:', rb'"src_ip"\s*:', rb'"(?:reporter|bytes_sent|packets_sent)"\s*:'),
            LogFormat("a VPC flow log of Google Cloud", None),
        ),
        ((rb'"event_type"\s*:\s*"', rb'"src_ip"\s*:'), LogFormat("an EVE log of Suricata", None)),
        ((rb'"verdict"\s*:', rb'"(?:l4|node_name|IP)"\s*:'), LogFormat("a flow log of Hubble (Cilium)", None)),
        ((rb'"(?:collector_crn|initiator_ip)"\s*:',), LogFormat("a VPC flow log of IBM Cloud", None)),
        (
            (rb'(?i)"src_?addr"\s*:', rb'(?i)"(?:sampler_?address|etype|sampling_?rate)"\s*:'),
            LogFormat("NetFlow, sFlow or IPFIX records", None),
        ),
        ((rb'"message"\s*:\s*"',), AWS_MESSAGES),
    )
)

#: Formats by a pattern in the first bytes of a text, in the order of trial.
_TEXTS = tuple(
    (re.compile(pattern, re.MULTILINE), known)
    for pattern, known in (
        (rb"\bacl_log\(", LogFormat("an ACL log of OVN", None)),
        (
            rb"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\S* .*\b(?:Antrea\w*|K8s)NetworkPolicy\b",
            LogFormat("a network policy log of Antrea", None),
        ),
        (rb"^Flow Record:|^Date first seen", LogFormat("output of nfdump", None)),
        (rb"^StartTime,Flgs,Proto,SrcAddr\b", LogFormat("records of Argus", None)),
        (rb"\blog_resource_ids=", NEUTRON),
    )
)

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
    known = _shown(head)
    if known is AWS_MESSAGES:
        return known if _MESSAGE.search(head) else None
    if known is None and any(map(_shows_aws, head[_begin(head) :].split(b"\n", _FIRST_LINES)[:_FIRST_LINES])):
        return _aws(head)
    return known


def format_of(head: bytes) -> LogFormat:
    """Return the format of a flow log by its first bytes, decompressed."""
    return _shown(head) or _aws(head)


def _shown(head: bytes) -> LogFormat | None:
    """Return the format that the first bytes name, which no AWS log as text does."""
    if head.startswith(b"PAR1"):
        return AWS_PARQUET
    begin = _begin(head)
    if head[begin : begin + 1] in (b"{", b"["):
        return next((known for patterns, known in _JSON if all(pattern.search(head) for pattern in patterns)), None)
    if _ZEEK_HEADER.match(head) or _ZEEK_HEADER.search(head, 0, begin):
        path = _ZEEK_PATH.search(head)
        return ZEEK_TSV if path is None or path[1] == b"conn" else ZEEK_OTHER
    return next((known for pattern, known in _TEXTS if pattern.search(head)), None)


def _aws(head: bytes) -> LogFormat:
    if _EXPORTED.match(head, _begin(head)):
        return AWS_EXPORT
    first = head.lstrip().partition(b"\n")[0].split()
    if b"tgw-attachment-id" in first and b"srcaddr" in first:
        return AWS_GATEWAY
    return OTC if first[:1] == [b"1"] and len(first) == len(aws.DEFAULT_FIELDS) else AWS


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

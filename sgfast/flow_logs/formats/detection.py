"""Find out from a file's content which format a flow log has. Its name and folder do not matter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sgfast.flow_logs.formats import aws, aws_json, aws_parquet, neutron, zeek
from sgfast.flow_logs.formats.log import Log, LogFormat

_NO_ACTION = {"action": "do not say what was accepted"}

AWS = LogFormat("an AWS VPC flow log", aws.read)
AWS_GATEWAY = LogFormat("an AWS transit gateway flow log", aws.read, _NO_ACTION)
AWS_EXPORT = LogFormat("an AWS VPC flow log that CloudWatch Logs exported", aws.read_export)
AWS_MESSAGES = LogFormat("an AWS VPC flow log in the JSON of CloudWatch Logs or Firehose", aws_json.read)
AWS_PARQUET = LogFormat("an AWS VPC flow log as Parquet", aws_parquet.read)
OTC = LogFormat("a VPC flow log of OTC or Huawei Cloud", aws.read)
NEUTRON = LogFormat("a security group log of OpenStack Neutron", neutron.read, {"start": "have times without a year"})
ZEEK_TSV = LogFormat("a conn.log of Zeek", zeek.read_tsv, _NO_ACTION)
ZEEK_OTHER = LogFormat("a log of Zeek other than conn.log", None)
ZEEK_JSON = LogFormat("a conn.log of Zeek as JSON", zeek.read_json, _NO_ACTION)

#: Formats by patterns that are all in the first bytes of a file of JSON, in the order of trial.
_JSON = tuple(
    (tuple(re.compile(pattern) for pattern in patterns), known)
    for patterns, known in (
        ((rb'"logEvents"\s*:',), AWS_MESSAGES),
        ((rb'"(?:id[._])?orig_h"\s*:', rb'"(?:id[._])?resp_h"\s*:'), ZEEK_JSON),
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


def format_of(head: bytes) -> LogFormat:
    """Return the format of a log by its first bytes, decompressed. Anything unknown counts as AWS's, and is read so."""
    if head.startswith(b"PAR1"):
        return AWS_PARQUET
    begin = _COMMENTS.match(head).end()     # type: ignore[union-attr]
    if head[begin : begin + 1] in (b"{", b"["):
        return next((known for patterns, known in _JSON if all(pattern.search(head) for pattern in patterns)), AWS)
    if _ZEEK_HEADER.match(head) or _ZEEK_HEADER.search(head, 0, begin):
        path = _ZEEK_PATH.search(head)
        return ZEEK_TSV if path is None or path[1] == b"conn" else ZEEK_OTHER
    for pattern, known in _TEXTS:
        if pattern.search(head):
            return known
    if _EXPORTED.match(head, begin):
        return AWS_EXPORT
    first = head.lstrip().partition(b"\n")[0].split()
    if b"tgw-attachment-id" in first and b"srcaddr" in first:
        return AWS_GATEWAY
    return OTC if first[:1] == [b"1"] and len(first) == len(aws.DEFAULT_FIELDS) else AWS


def open_log(path: str, *, needs: Sequence[str] = (), year: int | None = None) -> Log:
    """Return a log that can be read once; its ``format`` is known when reading begins. ``-`` is standard input.

    ``needs``: fields by AWS's names that every record must have. ``year``: the year of the first record of a log whose
    times have none; without it, such times are unknown.
    """
    return Log(path, format_of, needs, year)

"""Amazon Web Services."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any

from sgfast.clouds.aws.output_formats import SECTIONS
from sgfast.clouds.importing.formats import Format
from sgfast.clouds.logs.log_format import LogFormat, UnloggedService
from sgfast.clouds.logs.log_paths import LogPaths
from sgfast.clouds.provider import LiveReader, Provider

_TCP, _UDP = 6, 17
_METADATA, _TIME = IPv4Address("169.254.169.254"), IPv4Address("169.254.169.123")
#: DNS, instance metadata, the time service, and the activation of Windows. Nobody filters DHCP.
_UNLOGGED = (
    UnloggedService(_UDP, 53, None), UnloggedService(_TCP, 53, None), UnloggedService(_TCP, 80, _METADATA),
    UnloggedService(_UDP, 123, _TIME), UnloggedService(_TCP, 1688, None),
)  # fmt: skip

_FACTS: dict[str, Any] = {
    "names_interfaces": True,
    "unlogged_services": _UNLOGGED,
    "unlogged_words": "AWS logs no traffic with its DNS server, DHCP, instance metadata, its time service and Windows "
    "activation: rules for these look unused",
}

FLOW_LOG = LogFormat("an AWS VPC flow log", "aws.flow_log:read", **_FACTS)
GATEWAY_LOG = LogFormat(
    "an AWS transit gateway flow log", "aws.flow_log:read", lacks={"action": "do not say what was accepted"}, **_FACTS
)
EXPORTED_LOG = LogFormat("an AWS VPC flow log that CloudWatch Logs exported", "aws.flow_log:read_export", **_FACTS)
#: Lines in JSON. Objects of other formats may have a message, too. Therefore these patterns are tried last.
MESSAGES = LogFormat(
    "an AWS VPC flow log in the JSON of CloudWatch Logs or Firehose", "aws.flow_log_json:read",
    json_patterns=((rb'"logEvents"\s*:',), (rb'"message"\s*:\s*"',)), start_finder="aws.flow_log_json:first_start_ns",
    **_FACTS,
)  # fmt: skip
PARQUET = LogFormat(
    "an AWS VPC flow log as Parquet", "aws.flow_log_parquet:read",
    start_finder="aws.flow_log_parquet:first_start_ns", file_check="aws.flow_log_parquet:has_columns", **_FACTS,
)  # fmt: skip

#: AWS writes a file every five minutes. Its folders are named as Hive names them, or stand below that of the region.
LOG_PATHS = LogPaths(
    file_name=re.compile(r"_vpcflowlogs_[^_/]+_fl-[^_/]+_(\d{8}T\d{4})Z_[^_/]+\.log(?:\.\w+)?$"),
    time_format="%Y%m%dT%H%M",
    folders=(
        re.compile(r"/year=(\d{4})(?:/month=(\d\d?)(?:/day=(\d\d?)(?:/hour=(\d\d?))?)?)?(?=/|$)"),
        re.compile(r"/vpcflowlogs/[^/]+/(\d{4})(?:/(\d\d)(?:/(\d\d)(?:/(\d\d))?)?)?(?=/|$)"),
    ),
    longest_interval=timedelta(minutes=10),
    tolerance=timedelta(minutes=15),
)

AWS = Provider(
    profile="aws",
    format=Format(
        "aws",
        "aws.account",
        "aws ec2 describe-...",
        "aws ec2 describe-security-groups, ...-network-interfaces, ...",
        frozenset(SECTIONS),
        frozenset(SECTIONS),
        frozenset(("NextToken", "ResponseMetadata")),
        "aws ec2 describe-security-groups",
    ),
    live=LiveReader("aws.live", "read_account", ("--aws-profile", "--region")),
    exports={"aws": "aws.export"},
    log_formats=(FLOW_LOG, GATEWAY_LOG, EXPORTED_LOG, PARQUET, MESSAGES),
    log_paths=LOG_PATHS,
)

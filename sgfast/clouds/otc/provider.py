"""Open Telekom Cloud and Huawei Cloud."""

from __future__ import annotations

from sgfast.clouds.importing.formats import API_PAGING, Format, singular_and_plural
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.provider import LiveReader, Provider

#: Its records are those of AWS, but begin with version 1.
FLOW_LOG = LogFormat("a VPC flow log of OTC or Huawei Cloud", "aws.flow_log:read")

OTC = Provider(
    profile="otc",
    format=Format(
        "otc",
        "otc.account",
        "Open Telekom Cloud or Huawei Cloud VPC API",
        "Open Telekom Cloud, Huawei Cloud: VPC API v3 and v1, servers",
        singular_and_plural(
            "security_group", "security_group_rule", "port", "server", "address_group", "vpc", "subnet", "virsubnet",
            "peering", "sub_network_interface",
        ),
        frozenset((
            "multiport", "action", "priority", "enterprise_project_id", "page_info", "request_id", "vpcs",
            "virsubnets", "peerings", "sub_network_interfaces", "ip_set", "vpc_id", "private_ips",
            "OS-EXT-IPS:port_id",
        )),
        API_PAGING,
        "the VPC API's lists of security groups and of their rules",
    ),
    live=LiveReader("openstack.live", "read_otc", ("--os-cloud",)),
    exports={"otc": "otc.export"},
    log_formats=(FLOW_LOG,),
)  # fmt: skip

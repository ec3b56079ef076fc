"""The defaults that ``settings.profile`` selects (SPEC 2, 6.7), for three clouds. Each value has its source.

A value written in a document overrides the profile's. ``max_connections`` is this program's own limit, not a cloud's.

Sources, by the names used below:

- *seed*: "Security Groups and Security Group Rules", Open Telekom Cloud (SPEC 2, 5.2, 8.5);
- *kernel*: Linux, Documentation/networking/nf_conntrack-sysctl.rst, the defaults of ``nf_conntrack_*``;
- *neutron*: OpenStack Neutron's firewall drivers and its configuration reference;
- *ec2*: Amazon EC2 User Guide, "Security group connection tracking", and the API's ``ConnectionTrackingSpecification``;
- *vpc*: Amazon VPC User Guide, "Amazon VPC quotas".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sgfast.policy.model import ProfileName, Quotas, Settings, Timeouts


class Profile(NamedTuple):
    """The defaults of a cloud."""

    settings: Settings
    quotas: Quotas
    #: Other timeouts that the cloud documents for some of its types of instances.
    timeouts_of_some: Mapping[str, float] = {}
    #: The first port that a rule can name. seed: ports are 1 to 65535. neutron: its API refuses port 0.
    first_port: int = 1


#: Source: seed. The defaults of ``Settings`` and ``Quotas`` are the values of SPEC, which describes this cloud.
OTC = Profile(Settings(), Quotas())

NEUTRON = Profile(
    Settings(
        profile="neutron",
        timeouts=Timeouts(
            tcp_established=432_000,    # kernel: tcp_timeout_established, five days
            tcp_fin_wait=120,           # kernel: tcp_timeout_fin_wait
            # kernel: tcp_timeout_syn_sent and tcp_timeout_time_wait. They are the longest timeouts of the states that
            # share this setting: syn_recv and close_wait have 60 s, last_ack 30 s, close 10 s. The longest timeout is
            # used so that sgfast never denies a packet that the kernel would still allow, such as an answer to a SYN.
            tcp_other=120,
            icmp=30,                    # kernel: icmp_timeout, icmpv6_timeout
            # The kernel has separate timeouts for UDP, for GRE (30, 180) and for protocols it does not know, such as
            # ESP and AH (600). UDP's are used for all of them, because nearly all traffic other than TCP and ICMP is
            # UDP.
            bidirectional=120,          # kernel: udp_timeout_stream; 180 in older kernels
            unidirectional=30,          # kernel: udp_timeout
        ),
        # neutron: neutron/agent/linux/ip_conntrack.py. If a rule or a member is removed, Neutron's agents delete the
        # conntrack entries of connections that it allowed, so that the rules judge their next packets. The Open vSwitch
        # firewall first marks an entry whose packets match no rule any more, and its agent then deletes marked entries.
        on_change="forget-unmatched",
        # neutron: neutron/agent/linux/openvswitch_firewall/firewall.py, the base tables of a port, and
        # neutron/agent/firewall.py, ICMPV6_ALLOWED_INGRESS_TYPES and the two lists for egress after it.
        infrastructure="by-role",
        # neutron: neutron/db/securitygroups_rpc_base.py. Neutron's agents get the addresses and allowed address pairs
        # of a group's ports. A rule with a remote group matches all addresses in them, also addresses of other ports.
        group_members="by-address",
    ),
    # neutron: quota_security_group, quota_security_group_rule. The second quota is for all rules of a project, so a
    # single group cannot have more.
    Quotas(security_groups=10, rules_per_group=100),
)

AWS = Profile(
    Settings(
        profile="aws",
        timeouts=Timeouts(
            tcp_established=432_000,    # ec2: TcpEstablishedTimeout, five days
            # ec2 documents no timeout for other TCP states, so SPEC 5.2's apply.
            tcp_fin_wait=30,
            tcp_other=30,
            icmp=30,                    # ec2 documents no timeout; SPEC 5.2's is also the kernel's
            # ec2: protocols other than TCP, UDP and ICMP have 600 s. UDP's timeouts are used for all of them, like in
            # NEUTRON.
            bidirectional=180,          # ec2: UdpStreamTimeout
            unidirectional=30,          # ec2: UdpTimeout
        ),
        on_change="keep",               # ec2: a changed rule does not interrupt tracked connections
        infrastructure="exempt",        # vpc: security groups do not filter DHCP
        # vpc: a group as a source means the addresses of its network interfaces, and a VPC has no address twice.
        group_members="by-owner",
    ),
    # vpc: 2,500 groups per region; 60 inbound and 60 outbound rules, counted separately for IPv4 and IPv6.
    Quotas(security_groups=2_500, rules_per_group=240),
    # ec2: TcpEstablishedTimeout on instance types of Nitro v6.
    {"tcp_established": 350},
    first_port=0,                       # ec2: FromPort and ToPort are 0 to 65535
)

PROFILES: dict[ProfileName, Profile] = {"otc": OTC, "neutron": NEUTRON, "aws": AWS}

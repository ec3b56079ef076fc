"""What ``settings.profile`` stands for (SPEC 2, 6.7): the defaults of three clouds, each value with its source.

A value that a document writes wins over its profile's. ``max_connections`` is no cloud's but this program's.

Sources, by the names used below:

- *seed*: "Security Groups and Security Group Rules", Open Telekom Cloud (SPEC 2, 5.2, 8.5);
- *kernel*: Documentation/networking/nf_conntrack-sysctl.rst of Linux, the defaults of ``nf_conntrack_*``;
- *neutron*: OpenStack Neutron's firewall drivers and its configuration reference;
- *ec2*: Amazon EC2 User Guide, "Security group connection tracking", and the API's ``ConnectionTrackingSpecification``;
- *vpc*: Amazon VPC User Guide, "Amazon VPC quotas".
"""

from __future__ import annotations

from typing import NamedTuple

from sgfast.policy.model import Quotas, Settings, Timeouts


class Profile(NamedTuple):
    settings: Settings
    quotas: Quotas


#: seed. The model's defaults are SPEC's, which are this cloud's.
OTC = Profile(Settings(), Quotas())

NEUTRON = Profile(
    Settings(
        profile="neutron",
        timeouts=Timeouts(
            tcp_established=432_000,    # kernel: tcp_timeout_established, five days
            tcp_fin_wait=120,           # kernel: tcp_timeout_fin_wait
            # kernel: tcp_timeout_syn_sent and tcp_timeout_time_wait. Of the states that share this setting those have
            # the longest time; syn_recv and close_wait have 60 s, last_ack 30, close 10. The longest, because what the
            # kernel still lets pass must not be denied: an answer to a SYN is not missed.
            tcp_other=120,
            icmp=30,                    # kernel: icmp_timeout, icmpv6_timeout
            # The kernel has a pair for UDP, another for GRE (30, 180), and 600 for those it does not know (ESP, AH).
            # UDP's stand for all of them: it is nearly all of what is neither TCP nor ICMP.
            bidirectional=120,          # kernel: udp_timeout_stream; 180 in older kernels
            unidirectional=30,          # kernel: udp_timeout
        ),
        # neutron: when a rule or a member goes, its agents delete the conntrack entries that were allowed by it.
        on_change="cut-unmatched",
        # neutron: every port gets rules of its own for DHCP, neighbour discovery and MLD before those of its groups.
        infrastructure="exempt",
    ),
    # neutron: quota_security_group, quota_security_group_rule. The latter is of all rules of a project, so one group
    # cannot have more.
    Quotas(security_groups=10, rules_per_group=100),
)

AWS = Profile(
    Settings(
        profile="aws",
        timeouts=Timeouts(
            tcp_established=432_000,    # ec2: TcpEstablishedTimeout, five days; 350 on instance types of Nitro v6
            # ec2 documents no time for any other state of TCP: SPEC 5.2's.
            tcp_fin_wait=30,
            tcp_other=30,
            icmp=30,                    # ec2 documents none: SPEC 5.2's, which is also the kernel's
            # ec2: protocols other than TCP, UDP and ICMP have 600 s. UDP's times stand for all of them, as above.
            bidirectional=180,          # ec2: UdpStreamTimeout
            unidirectional=30,          # ec2: UdpTimeout
        ),
        on_change="keep",               # ec2: a changed rule does not interrupt tracked connections
        infrastructure="exempt",        # vpc: security groups do not filter DHCP
    ),
    # vpc: 2,500 groups in a region; 60 rules inbound and as many outbound, counted for IPv4 and IPv6 apart.
    Quotas(security_groups=2_500, rules_per_group=240),
)

PROFILES: dict[str, Profile] = {"otc": OTC, "neutron": NEUTRON, "aws": AWS}

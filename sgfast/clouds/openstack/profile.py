"""OpenStack Neutron's defaults. Each value has its source:

- *kernel*: Linux, Documentation/networking/nf_conntrack-sysctl.rst, the defaults of ``nf_conntrack_*``;
- *neutron*: OpenStack Neutron's firewall drivers and its configuration reference.
"""

PROFILE = {
    "timeouts": {
        "tcp_established": 432_000,     # kernel: tcp_timeout_established, five days
        "tcp_fin_wait": 120,            # kernel: tcp_timeout_fin_wait
        # kernel: tcp_timeout_syn_sent and tcp_timeout_time_wait. They are the longest timeouts of the states that
        # share this setting: syn_recv and close_wait have 60 s, last_ack 30 s, close 10 s. The longest timeout is used
        # so that sgfast never denies a packet that the kernel would still allow, such as an answer to a SYN.
        "tcp_other": 120,
        "icmp": 30,                     # kernel: icmp_timeout, icmpv6_timeout
        # The kernel has separate timeouts for UDP, for GRE (30, 180) and for protocols it does not know, such as ESP
        # and AH (600). UDP's are used for all of them, because nearly all traffic other than TCP and ICMP is UDP.
        "bidirectional": 120,           # kernel: udp_timeout_stream; 180 in older kernels
        "unidirectional": 30,           # kernel: udp_timeout
    },
    "settings": {
        # neutron: neutron/agent/linux/ip_conntrack.py. If a rule or a member is removed, Neutron's agents delete the
        # conntrack entries of connections that it allowed, so that the rules judge their next packets. The Open vSwitch
        # firewall first marks an entry whose packets match no rule any more, and its agent then deletes marked entries.
        "on_change": "forget-unmatched",
        # neutron: neutron/agent/linux/openvswitch_firewall/firewall.py, the base tables of a port, and
        # neutron/agent/firewall.py, ICMPV6_ALLOWED_INGRESS_TYPES and the two lists for egress after it.
        "infrastructure": "by-role",
        # neutron: neutron/db/securitygroups_rpc_base.py. Neutron's agents get the addresses and allowed address pairs
        # of a group's ports. A rule with a remote group matches all addresses in them, also addresses of other ports.
        "group_members": "by-address",
    },
    # neutron: quota_security_group, quota_security_group_rule. The second quota is for all rules of a project, so a
    # single group cannot have more.
    "quotas": {"security_groups": 10, "rules_per_group": 100},
    "first_port": 1,                    # neutron: its API refuses port 0
}

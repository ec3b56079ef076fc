"""AWS's defaults. Each value has its source:

- *ec2*: Amazon EC2 User Guide, "Security group connection tracking", and the API's ``ConnectionTrackingSpecification``;
- *vpc*: Amazon VPC User Guide, "Amazon VPC quotas".
"""

PROFILE = {
    "timeouts": {
        "tcp_established": 432_000,     # ec2: TcpEstablishedTimeout, five days
        # ec2 documents no timeout for other TCP states. These are the values of SPEC 5.2.
        "tcp_fin_wait": 30,
        "tcp_other": 30,
        "icmp": 30,                     # ec2 documents no timeout; SPEC 5.2's is also the kernel's
        # ec2: protocols other than TCP, UDP and ICMP have 600 s. UDP's timeouts are used for all of them, like in
        # OpenStack's profile.
        "bidirectional": 180,           # ec2: UdpStreamTimeout
        "unidirectional": 30,           # ec2: UdpTimeout
    },
    "settings": {
        "on_change": "keep",            # ec2: a changed rule does not interrupt tracked connections
        "infrastructure": "exempt",     # vpc: security groups do not filter DHCP
        # vpc: a group as a source means the addresses of its network interfaces, and a VPC has no address twice.
        "group_members": "by-owner",
    },
    # vpc: 2,500 groups per region; 60 inbound and 60 outbound rules, counted separately for IPv4 and IPv6.
    "quotas": {"security_groups": 2_500, "rules_per_group": 240},
    # ec2: TcpEstablishedTimeout on instance types of Nitro v6.
    "timeouts_of_some": {"tcp_established": 350},
    "address_group_word": "prefix list",
    "first_port": 0,                    # ec2: FromPort and ToPort are 0 to 65535
    # ec2: if the peer of a rule is a group or a prefix list, the rule applies to its IPv4 and its IPv6 addresses.
    "unites_versions": True,
}

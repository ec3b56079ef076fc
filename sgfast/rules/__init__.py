"""The meaning of rules: their addresses and services, the rule that wins, and the questions that need no traffic.

    addresses  networks that rules name, and the owners and groups of addresses, as one VPC sees them
    services   protocols with their ports, or with ICMP types and codes, as numbers on one line
    plane      rules as boxes in a plane of peers and services, where the first rule wins
    compiler   a policy as the tables that the data plane looks up
    reaching   who may open which connections, and why a packet is denied

Sets of addresses, ports and services are lists of ranges of numbers (``policy.ranges``).
"""

"""Sets of addresses and services that rules name, and the rule that wins for each peer and service.

    addresses  networks that rules name, owners and groups of addresses, as one VPC sees them
    services   protocols with their ports, or ICMP types and codes, as numbers on one line
    plane      rules as boxes in a plane of peers and services, where the first one wins

Sets of numbers are ranges (``policy.ranges``): of addresses, ports and services alike.
"""

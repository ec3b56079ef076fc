"""Sets of addresses and services as rules name them, and the winning rule for each peer and service.

    addresses  networks that rules name, and the owners and groups of addresses, as one VPC sees them
    services   protocols with their ports, or with ICMP types and codes, as numbers on one line
    plane      rules as boxes in a plane of peers and services, where the first rule wins

Sets of addresses, ports and services are lists of ranges of numbers (``policy.ranges``).
"""

"""Security groups as a packet-matching engine."""

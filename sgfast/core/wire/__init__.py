"""Packet parsing: from the bytes of a frame to addresses, ports and a connection key."""

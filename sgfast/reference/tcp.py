"""The TCP table (SPEC 5.4)."""

from __future__ import annotations

FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20
#: Flag sets Linux takes for valid, without PSH, ECE and CWR; and the row of the table for each.
TCP_KINDS = {SYN: "syn", SYN | URG: "syn", SYN | ACK: "synack", RST: "rst", RST | ACK: "rst"}
TCP_KINDS |= {FIN | ACK: "fin", FIN | ACK | URG: "fin", ACK: "ack", ACK | URG: "ack"}

# States: syn sent, syn received, established, FIN-WAIT, CLOSE-WAIT, LAST-ACK, TIME-WAIT, closed, and SYN sent by both.
# Answers that are no states: IG allowed, but nothing changes; IV invalid.
TCP_TABLE_TEXT = """
                    SS SR ES FW CW LA TW CL S2
    original syn    SS IG IG IG IG IG SS SS S2
    original synack IV SR IV IV IV IV IV IV SR
    original fin    IV FW FW LA LA LA TW CL IV
    original ack    IV ES ES CW CW TW TW CL IV
    original rst    CL CL CL CL CL CL CL CL CL
    reply    syn    S2 IV IV IV IV IV SS IV S2
    reply    synack SR IG IG IG IG IG IG IG SR
    reply    fin    IV FW FW LA LA LA TW CL IV
    reply    ack    IG SR ES CW CW TW TW CL IG
    reply    rst    CL CL CL CL CL CL CL CL CL
"""
TCP_STATES, *TCP_ROWS = (line.split() for line in TCP_TABLE_TEXT.strip().splitlines())
TCP_TABLE = {(row[0], row[1]): dict(zip(TCP_STATES, row[2:], strict=True)) for row in TCP_ROWS}
#: The state of a connection inferred from a packet in its middle (SPEC 9.3).
INFERRED_STATE = {"synack": "SR", "ack": "ES", "fin": "FW"}


def tcp_kind(flags: int) -> str | None:
    """The table's row for these flags; None if Linux calls them invalid."""
    return TCP_KINDS.get(flags & (FIN | SYN | RST | ACK | URG))

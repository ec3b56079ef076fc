"""The TCP table (SPEC 5.4, 5.9)."""

from __future__ import annotations

FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20
#: The row of the table for each valid combination of flags, without PSH, ECE and CWR (SPEC 5.9).
TCP_KINDS = {SYN: "syn", SYN | URG: "syn", SYN | ACK: "synack", RST: "rst", RST | ACK: "rst"}
TCP_KINDS |= {FIN | ACK: "fin", FIN | ACK | URG: "fin", ACK: "ack", ACK | URG: "ack"}

# States: SS SYN sent, SR SYN received, ES established, FW FIN-WAIT, CW CLOSE-WAIT, LA LAST-ACK, TW TIME-WAIT,
# CL closed, S2 SYN sent by both ends, R2 like S2 after one SYN/ACK. Results that are no states: IG allowed, but nothing
# changes; IV invalid. Lower case: the state changes, but the deadline does not.
TCP_TABLE_TEXT = """
                    SS SR ES FW CW LA TW CL S2 R2
    original syn    ss IG IG IG IG IG SS SS S2 sr
    original synack IV SR IV IV IV IV IV IV R2 R2
    original fin    IV FW FW LA LA LA TW CL IV FW
    original ack    IV ES ES CW CW TW TW CL IV ES
    original rst    CL CL CL CL CL CL CL CL CL CL
    reply    syn    s2 IV IV IV IV IV SS IV S2 IV
    reply    synack SR IG IG IG IG IG IG IG R2 IG
    reply    fin    IV FW FW LA LA LA TW CL IV FW
    reply    ack    IG SR ES CW CW TW TW CL IG ES
    reply    rst    CL CL CL CL CL CL CL CL CL CL
"""
TCP_STATES, *TCP_ROWS = (line.split() for line in TCP_TABLE_TEXT.strip().splitlines())
TCP_TABLE = {(row[0], row[1]): dict(zip(TCP_STATES, row[2:], strict=True)) for row in TCP_ROWS}
#: The initial state of an inferred connection, by the kind of its first packet (SPEC 9.3).
INFERRED_STATE = {"synack": "SR", "ack": "ES", "fin": "FW"}


def tcp_kind(flags: int) -> str | None:
    """Return the table's row for these flags, or None if they are invalid."""
    return TCP_KINDS.get(flags & (FIN | SYN | RST | ACK | URG))

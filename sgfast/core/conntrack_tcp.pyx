"""The TCP transition table of Linux (nf_conntrack), every cell tried on 6.18 (tests/kernel/test_grids.py)."""

# Rows: what a packet carries. Columns: the state it meets. SS SYN_SENT, SR SYN_RECV, ES ESTABLISHED, FW FIN_WAIT,
# CW CLOSE_WAIT, LA LAST_ACK, TW TIME_WAIT, CL CLOSE, S2 SYN_SENT2. "--": ignored, "iv": invalid, "re": reopens.
# A retransmitted SYN (SS to SS, S2 to S2) stays, too: Linux does not let it prolong an unanswered opener.
_TRANSITIONS = """
             SS SR ES FW CW LA TW CL S2
origin
    syn      -- -- -- -- -- -- re re --
    synack   iv SR iv iv iv iv iv iv SR
    fin      iv FW FW LA LA LA TW CL iv
    ack      iv ES ES CW CW TW TW CL iv
    rst      CL CL CL CL CL CL CL CL CL
    bad      iv iv iv iv iv iv iv iv iv
reply
    syn      S2 iv iv iv iv iv re iv --
    synack   SR -- -- -- -- -- -- -- SR
    fin      iv FW FW LA LA LA TW CL iv
    ack      -- SR ES CW CW TW TW CL --
    rst      CL CL CL CL CL CL CL CL CL
    bad      iv iv iv iv iv iv iv iv iv
"""

_CODES = {
    "SS": SYN_SENT, "SR": SYN_RECV, "ES": TCP_ESTABLISHED, "FW": FIN_WAIT, "CW": CLOSE_WAIT, "LA": LAST_ACK,
    "TW": TIME_WAIT, "CL": CLOSED, "S2": SYN_SENT2, "--": TCP_STAYS, "iv": TCP_INVALID, "re": TCP_REOPENS,
}
_ROWS = ["syn", "synack", "fin", "ack", "rst", "bad"]       # in the order of Step


cdef void fill_tcp_table(TcpTable* table):
    columns = []
    reply = -1
    for line in _TRANSITIONS.strip("\n").splitlines():
        words = line.split()
        if not columns:
            columns = [_CODES[word] for word in words]
        elif len(words) == 1:
            reply += 1
        else:
            row = (reply * 6 + _ROWS.index(words[0])) * 16
            for state, word in zip(columns, words[1:], strict=True):
                table.next[<int>(row + state)] = _CODES[word]

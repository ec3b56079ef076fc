# TCP connections follow the state table of Linux nf_conntrack, without sequence numbers (SPEC 5.4, 5.5). Every cell was
# checked against Linux 6.18 (tests/kernel/test_grids.py).
#
# Rows: what the packet is (Step in types.pxd). Columns: the state before it.
#
#     SS SYN_SENT   SR SYN_RECV   ES ESTABLISHED   FW FIN_WAIT   CW CLOSE_WAIT   LA LAST_ACK   TW TIME_WAIT
#     CL CLOSED     S2 SYN_SENT2, both ends sent a SYN
#     ig allowed, changes nothing   iv not valid   re reopens a finished connection

from libc.stdint cimport uint8_t


cdef extern from *:
    """
    enum { sgSS = 1, sgSR, sgES, sgFW, sgCW, sgLA, sgTW, sgCL, sgS2, sgig = 253, sgiv, sgre };

    static const uint8_t sg_tcp_next[2][6][16] __attribute__((unused)) = {
    { /* from the initiator */
    /*              --    SS    SR    ES    FW    CW    LA    TW    CL    S2 */
    /* syn    */ {sgiv, sgig, sgig, sgig, sgig, sgig, sgig, sgre, sgre, sgig},
    /*    SS, S2  A retransmission. Linux restarts the timeout. Here it goes on, as otherwise a host that is never
     *            answered could stay in the table for ever.
     *    SR..LA  It may be out of sync with the responder, whose answer will show: allow it, but keep the state.
     *    TW, CL  The connection is over: the initiator starts a new one.
     */
    /* synack */ {sgiv, sgiv, sgSR, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgSR},
    /*    SR, S2  Only a simultaneous open makes the initiator answer a SYN.
     */
    /* fin    */ {sgiv, sgiv, sgFW, sgFW, sgLA, sgLA, sgLA, sgTW, sgCL, sgiv},
    /*    SS, S2  Nobody has acknowledged anything yet: there is nothing to finish.
     *    SR, ES  The first FIN.
     *    FW, CW  The second FIN: all that is missing is its acknowledgement.
     *    LA..CL  A retransmission.
     */
    /* ack    */ {sgiv, sgiv, sgES, sgES, sgCW, sgCW, sgTW, sgTW, sgCL, sgiv},
    /*    SS, S2  There is nothing to acknowledge.
     *    SR      The handshake is complete.
     *    FW      It acknowledges the first FIN; its direction does not matter.
     *    LA      It acknowledges the second one.
     */
    /* rst    */ {sgiv, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL},
    /* bad    */ {sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv},
    },
    { /* from the responder */
    /*              --    SS    SR    ES    FW    CW    LA    TW    CL    S2 */
    /* syn    */ {sgiv, sgS2, sgiv, sgiv, sgiv, sgiv, sgiv, sgre, sgiv, sgig},
    /*    SS      A simultaneous open.
     *    TW      The connection is over: either end may start a new one.
     *    CL      It was reset: only the initiator may.
     *    S2      A retransmission.
     */
    /* synack */ {sgiv, sgSR, sgig, sgig, sgig, sgig, sgig, sgig, sgig, sgSR},
    /*    SS, S2  The answer to the SYN.
     *    others  A retransmission, or an answer to a SYN that was let through above.
     */
    /* fin    */ {sgiv, sgiv, sgFW, sgFW, sgLA, sgLA, sgLA, sgTW, sgCL, sgiv},
    /*            As from the initiator.
     */
    /* ack    */ {sgiv, sgig, sgSR, sgES, sgCW, sgCW, sgTW, sgTW, sgCL, sgig},
    /*    SS, S2  A host that still has an old connection answers a SYN like this; the initiator will reset it.
     *    SR      The handshake is complete only when the initiator acknowledges.
     */
    /* rst    */ {sgiv, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL},
    /* bad    */ {sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv},
    },
    };

    /* `step` below 6, `state` below 16: records of other processes may combine any two. */
    static inline uint8_t sg_tcp_after(int reply, uint8_t step, uint8_t state) {
        return sg_tcp_next[reply][step][state];
    }
    """
    uint8_t tcp_next "sg_tcp_after"(bint reply, uint8_t step, uint8_t state) noexcept nogil

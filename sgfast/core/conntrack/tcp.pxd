# TCP connections follow the state table of Linux nf_conntrack, without sequence numbers (SPEC 5.4, 5.5). Every cell was
# checked against Linux 6.18 (tests/kernel/test_grids.py). R2 is Linux's SYN_RECV with IP_CT_TCP_SIMULTANEOUS_OPEN.
#
# Rows: the step of the packet (Step in types.pxd). Columns: the state before the packet.
#
#     SS SYN_SENT   SR SYN_RECV   ES ESTABLISHED   FW FIN_WAIT   CW CLOSE_WAIT   LA LAST_ACK   TW TIME_WAIT
#     CL CLOSED     S2 SYN_SENT2: both ends have sent a SYN
#     R2 SYN_RECV2: after S2 one end has sent a SYN/ACK
#     ig allowed, without a change   iv not valid   re reopens a finished connection
#     s2, sr        as S2 and SR, but the deadline does not change

from libc.stdint cimport uint8_t


cdef extern from *:
    """
    enum { sgSS = 1, sgSR, sgES, sgFW, sgCW, sgLA, sgTW, sgCL, sgS2, sgR2, sgsr = 128 + 2, sgs2 = 128 + 9,
           sgig = 253, sgiv, sgre };

    static const uint8_t sg_tcp_next[2][6][16] __attribute__((unused)) = {
    { /* from the initiator */
    /*              --    SS    SR    ES    FW    CW    LA    TW    CL    S2    R2 */
    /* syn    */ {sgiv, sgig, sgig, sgig, sgig, sgig, sgig, sgre, sgre, sgS2, sgsr},
    /*    SS      A retransmission. The timeout keeps running, or a host that gets no answer could stay in the table for
     *            ever.
     *    SR..LA  The initiator may be out of sync with the responder, whose answer will show it: the state stays.
     *    R2      As SR. Linux forgets that there was a simultaneous open.
     *    TW, CL  The connection is over: the initiator starts a new one.
     */
    /* synack */ {sgiv, sgiv, sgSR, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgR2, sgR2},
    /*    SR..R2  Only a simultaneous open makes the initiator answer a SYN.
     */
    /* fin    */ {sgiv, sgiv, sgFW, sgFW, sgLA, sgLA, sgLA, sgTW, sgCL, sgiv, sgFW},
    /*    SS, S2  Neither end has acknowledged a SYN yet: there is nothing to finish.
     *    SR, R2  The first FIN, as in ES.
     *    FW, CW  The second FIN: only its acknowledgement is missing.
     *    LA..CL  A retransmission.
     */
    /* ack    */ {sgiv, sgiv, sgES, sgES, sgCW, sgCW, sgTW, sgTW, sgCL, sgiv, sgES},
    /*    SS, S2  There is nothing to acknowledge.
     *    SR, R2  The handshake is complete.
     *    FW      An acknowledgement of the first FIN; its direction does not matter.
     *    LA      An acknowledgement of the second FIN.
     */
    /* rst    */ {sgiv, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL},
    /* bad    */ {sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv},
    },
    { /* from the responder */
    /*              --    SS    SR    ES    FW    CW    LA    TW    CL    S2    R2 */
    /* syn    */ {sgiv, sgs2, sgiv, sgiv, sgiv, sgiv, sgiv, sgre, sgiv, sgS2, sgiv},
    /*    SS      A simultaneous open. For Linux this SYN has no reply before it, either: the timeout keeps running.
     *    TW      The connection is over: either end may start a new one.
     *    CL      The connection was reset: only the initiator may start a new one.
     *    S2      A retransmission.
     */
    /* synack */ {sgiv, sgSR, sgig, sgig, sgig, sgig, sgig, sgig, sgig, sgR2, sgig},
    /*    SS, S2  The answer to the SYN.
     *    others  A retransmission, or an answer to a SYN that was let through above.
     */
    /* fin    */ {sgiv, sgiv, sgFW, sgFW, sgLA, sgLA, sgLA, sgTW, sgCL, sgiv, sgFW},
    /*            As from the initiator.
     */
    /* ack    */ {sgiv, sgig, sgSR, sgES, sgCW, sgCW, sgTW, sgTW, sgCL, sgig, sgES},
    /*    SS, S2  A host that still has an old connection answers a SYN like this; the initiator will reset it.
     *    SR      The handshake is complete only when the initiator acknowledges.
     *    R2      After a simultaneous open either end may complete the handshake.
     */
    /* rst    */ {sgiv, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL, sgCL},
    /* bad    */ {sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv, sgiv},
    },
    };

    /* `step` below 6, `state` below 16: records of other processes may combine any two. */
    static inline uint8_t sg_tcp_after(int reply, uint8_t step, uint8_t state) {
        return sg_tcp_next[reply][step][state];
    }
    """
    uint8_t tcp_next "sg_tcp_after"(bint reply, uint8_t step, uint8_t state) noexcept nogil

"""Making a plane; what it holds stands in ``plane.pxd``."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from sgfast.core.conntrack cimport MOOT_ICMP, MOOT_OTHER, MOOT_TCP, free_table, init_table
from sgfast.core.conntrack_icmp cimport ICMP_ALIVE
from sgfast.core.conntrack_other cimport BIDIRECTIONAL, UNIDIRECTIONAL
from sgfast.core.conntrack_tcp cimport FIN_WAIT, SYN_SENT, SYN_SENT2, TCP_ESTABLISHED, fill_tcp_table
from sgfast.core.cuts cimport free_cuts, init_cuts
from sgfast.core.short_way cimport fill_short_words
from sgfast.core.tally cimport free_tally, init_tally
from sgfast.core.wire cimport init_wire


cdef int make_plane(
    Plane* plane, Classifier classifier, bint causal, int midstream, timeouts_ns, uint32_t max_connections, bint exempt,
    bint keep_flows, bint reporting, list words
) except -1:
    cdef uint64_t[8] secret
    cdef int i
    memset(plane, 0, sizeof(Plane))
    plane.rules = &classifier.tables
    plane.rule_counts = <RuleCount*>calloc(classifier.rule_count + 1, sizeof(RuleCount))
    if plane.rule_counts == NULL:
        raise MemoryError
    init_table(&plane.table, max_connections, midstream != MIDSTREAM_DENY, keep_flows)
    init_table(&plane.attempts, MAX_ATTEMPTS, False, keep_flows)
    init_cuts(&plane.cuts)
    plane.table.marks_expire = midstream == MIDSTREAM_INFER
    plane.table.report_odd = reporting
    plane.attempts.report_odd = reporting
    plane.causal = causal
    plane.midstream = midstream
    plane.reporting = reporting

    for i in range(8):
        secret[i] = words[i]
    init_wire(&plane.wire, exempt, secret)
    fill_tcp_table(&plane.tcp)
    fill_short_words(plane)
    established, fin_wait, other, icmp, bidirectional, unidirectional = timeouts_ns
    for i in range(SYN_SENT, SYN_SENT2 + 1):
        plane.timeout[i] = other
    plane.timeout[TCP_ESTABLISHED] = established
    plane.timeout[FIN_WAIT] = fin_wait
    plane.timeout[ICMP_ALIVE] = icmp
    plane.timeout[UNIDIRECTIONAL] = unidirectional
    plane.timeout[BIDIRECTIONAL] = bidirectional
    plane.timeout[MOOT_TCP] = established
    plane.timeout[MOOT_OTHER] = unidirectional
    plane.timeout[MOOT_ICMP] = icmp
    init_tally(&plane.denials, plane.wire.secret[7])
    init_tally(&plane.unanswered, plane.wire.secret[7])
    init_tally(&plane.refused, plane.wire.secret[7])
    init_tally(&plane.broken, plane.wire.secret[7])
    return 0


cdef void free_plane(Plane* plane) noexcept nogil:
    free_table(&plane.table)
    free_table(&plane.attempts)
    free_cuts(&plane.cuts)
    free_tally(&plane.denials)
    free_tally(&plane.unanswered)
    free_tally(&plane.refused)
    free_tally(&plane.broken)
    free(plane.rule_counts)

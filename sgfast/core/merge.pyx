"""What several planes found, as one: ``merge.pxd``."""

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from sgfast.core.base.types cimport REASON_COUNT, VERDICT_COUNT
from sgfast.core.dtypes cimport copied_rows
from sgfast.core.pipeline.plane cimport RuleCount
from sgfast.core.tallies.disconnects cimport CutRow
from sgfast.core.tallies.tally cimport TALLY_CELLS, Tally, TallyRow, add_row, free_tally, init_tally

from sgfast.core.dtypes import CUT_DTYPE, FLOW_DTYPE, RULE_COUNT_DTYPE, TALLY_DTYPE


cdef object merged_flows(FlowRow** rows, const Py_ssize_t* counts, int n):
    cdef uint8_t[::1] view
    cdef size_t at = 0
    cdef size_t nbytes
    cdef int i
    merged = np.empty(sum([counts[i] for i in range(n)]), dtype=FLOW_DTYPE)
    view = merged.view(np.uint8)
    for i in range(n):
        nbytes = <size_t>counts[i] * sizeof(FlowRow)
        if nbytes:
            memcpy(&view[at], rows[i], nbytes)
            at += nbytes
    numbers = merged["number"]
    if (np.diff(numbers.view(np.int64)) >= 0).all():
        return merged
    return merged[np.argsort(numbers, kind="stable")]


cdef object merged_tally(Plane** planes, int n, size_t offset):
    cdef Tally merged
    cdef Tally* tally
    cdef Py_ssize_t cell
    cdef int i
    init_tally(&merged, planes[0].wire.secret[7])
    try:
        for i in range(n):
            tally = <Tally*>(<uint8_t*>planes[i] + offset)
            merged.other_packets += tally.other_packets
            for cell in range(TALLY_CELLS if tally.cells != NULL else 0):
                if tally.cells[cell].packets and not add_row(&merged, &tally.cells[cell]):
                    merged.other_packets += tally.cells[cell].packets
        if merged.cells == NULL:
            return np.empty(0, dtype=TALLY_DTYPE), merged.other_packets
        rows = copied_rows(<const uint8_t*>merged.cells, TALLY_CELLS * sizeof(TallyRow), TALLY_DTYPE)
        return rows[rows["packets"] > 0], merged.other_packets
    finally:
        free_tally(&merged)


cdef object merged_cuts(Plane** planes, int n):
    cdef int i
    rows = [
        copied_rows(<const uint8_t*>planes[i].cuts.rows, planes[i].cuts.count * sizeof(CutRow), CUT_DTYPE)
        for i in range(n)
    ]
    return np.concatenate(rows), sum([planes[i].cuts.untold for i in range(n)])


cdef object merged_rule_counts(Plane** planes, int n, Py_ssize_t rules):
    cdef Py_ssize_t nbytes = rules * sizeof(RuleCount)
    cdef int i
    counts = copied_rows(<const uint8_t*>planes[0].rule_counts, nbytes, RULE_COUNT_DTYPE)
    for i in range(1, n):
        more = copied_rows(<const uint8_t*>planes[i].rule_counts, nbytes, RULE_COUNT_DTYPE)
        for name in RULE_COUNT_DTYPE.names:
            counts[name] += more[name]
    return counts


cdef dict merged_counters(Plane** planes, int n):
    cdef Plane* plane
    cdef int i, word
    sums = dict.fromkeys((
        "bytes", "opened", "inferred", "denied", "disconnected", "fragments_denied", "live_tuples", "entries",
        "evicted", "moot_evicted", "lost_flows", "table_bytes",
    ), 0)
    verdicts, reasons = [0] * <int>VERDICT_COUNT, [0] * <int>REASON_COUNT
    for i in range(n):
        plane = planes[i]
        sums["bytes"] += plane.bytes
        sums["opened"] += plane.opened
        sums["inferred"] += plane.inferred
        sums["denied"] += plane.denied
        sums["disconnected"] += plane.disconnected
        sums["fragments_denied"] += plane.fragments_denied
        sums["live_tuples"] += plane.table.live
        sums["entries"] += plane.table.used
        sums["evicted"] += plane.table.evicted
        sums["moot_evicted"] += plane.table.moot_evicted
        sums["lost_flows"] += plane.table.ended_lost + plane.attempts.ended_lost
        sums["table_bytes"] += plane.table.slab.nbytes + (<uint64_t>plane.table.bucket_mask + 1) * 64
        for word in range(VERDICT_COUNT):
            verdicts[word] += plane.verdicts[word]
        for word in range(REASON_COUNT):
            reasons[word] += plane.reasons[word]
    return {"verdicts": verdicts, "reasons": reasons, **sums, "changes": planes[0].changes}

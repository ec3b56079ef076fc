# What judges packets, by itself: tables, options, counters. A data plane has one of it, or one for each worker, which
# share nothing but the policy.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from sgfast.core.classifier cimport Classifier, Tables
from sgfast.core.conntrack cimport STATE_COUNT, FlowRow, Table
from sgfast.core.conntrack_tcp cimport TcpTable
from sgfast.core.cuts cimport Cuts
from sgfast.core.fragments cimport Fragments
from sgfast.core.tally cimport Tally
from sgfast.core.types cimport REASON_COUNT, VERDICT_COUNT
from sgfast.core.wire cimport WireContext

cdef enum:         # Midstream
    MIDSTREAM_DENY = 0
    MIDSTREAM_INFER = 1
    MIDSTREAM_ALLOW = 2

cdef enum:
    # Denied attempts that are remembered for the report, so that a retry does not count twice.
    MAX_ATTEMPTS = 1 << 20


cdef packed struct RuleCount:
    uint64_t connections
    uint64_t packets
    uint64_t bytes


cdef struct Plane:
    Table table
    Table attempts          # denied openers that leave no tuple behind; only for the report
    Cuts cuts               # likewise
    FlowRow attempt         # likewise: what is said of the tuple being judged, a denied attempt, if its key opens now
    uint8_t attempt_told
    uint8_t denial_tallied  # the packet being judged is on the list of denials
    Fragments* fragments    # the data plane's
    uint16_t word           # of the packet being judged: its outcome word (types.pxd)
    WireContext wire
    TcpTable tcp
    const Tables* rules
    int64_t timeout[STATE_COUNT]    # nanoseconds, by State
    uint64_t short_mask[4]          # of short_way.pxd
    uint64_t short_word[2][4]
    int64_t now             # on the clock (SPEC 9.1): of the packet being judged
    int64_t window_end      # from here on nothing is inferred (SPEC 9.3)
    # Options
    uint8_t causal
    uint8_t midstream
    uint8_t want_sides      # results name instances: owners are looked up for every packet
    uint8_t reporting       # attempts, tallies
    # Counters
    uint64_t packets
    uint64_t bytes
    uint64_t fragments_denied
    uint64_t verdicts[VERDICT_COUNT]
    uint64_t reasons[REASON_COUNT]
    uint64_t opened
    uint64_t inferred
    uint64_t denied
    uint64_t disconnected
    uint64_t changes        # of the policy
    RuleCount* rule_counts
    Tally denials
    Tally unanswered
    Tally refused
    Tally broken            # denied, though the other end answered in the capture


# `words`: eight of 64 bits, that key the hash. An exception leaves what free_plane may be given.
cdef int make_plane(
    Plane* plane, Classifier classifier, bint causal, int midstream, timeouts_ns, uint32_t max_connections, bint exempt,
    bint keep_flows, bint reporting, list words) except -1
cdef void free_plane(Plane* plane) noexcept nogil

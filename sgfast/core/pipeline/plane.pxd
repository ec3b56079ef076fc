# A plane judges packets on its own: it has its own connection table, options and counters. A data plane has one plane,
# or one for each shard of its workers. Planes share only the policy and the store of fragments.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.base.types cimport REASON_COUNT, VERDICT_COUNT
from sgfast.core.classify.classifier cimport Tables
from sgfast.core.conntrack.states cimport STATE_COUNT
from sgfast.core.conntrack.table cimport Events, Table
from sgfast.core.fragments.datagrams cimport Fragments
from sgfast.core.tallies.disconnects cimport Cuts
from sgfast.core.tallies.tally cimport TALLIES, Tally, TallyQueue
from sgfast.core.wire.ip cimport WireContext

cdef enum:         # Midstream
    MIDSTREAM_DENY = 0
    MIDSTREAM_INFER = 1
    MIDSTREAM_ALLOW = 2

cdef enum:
    # Limit of denied attempts that are remembered for the report, so that retries are not counted as new attempts.
    MAX_ATTEMPTS = 1 << 20


cdef struct Counters:
    uint64_t verdicts[VERDICT_COUNT]
    uint64_t reasons[REASON_COUNT]
    uint64_t bytes
    uint64_t opened
    uint64_t inferred
    uint64_t denied
    uint64_t disconnected
    uint64_t fragments_denied
    uint64_t no_addresses   # packets denied because the capture cut their addresses off
    uint64_t cut_by_tunnel  # those, and packets with the reason truncated, that their tunnel had cut
    uint64_t two_way        # connections and denied attempts of which packets of both ends were seen
    uint64_t one_way        # those whose responder answered, although only the initiator's packets were seen until then


cdef packed struct RuleCount:
    uint64_t connections
    uint64_t packets
    uint64_t bytes


# Conditions under which an entry's packets take the fast path (fast_path.pxd), by Entry.present.
cdef struct FastPath:
    uint64_t mask[4]        # compared bits of the entry's last eight bytes
    uint64_t word[4]        # values of these bits; protocol and kind are compared with the packet's
    int64_t timeout         # nanoseconds


cdef struct Plane:
    Table table
    # Openers without a tuple: denied ones, for the report and for events, and those that stateless filters let pass.
    Table attempts
    Events events           # unused unless `table.events` refers to it
    Cuts cuts               # connections cut by policy changes; only for the report
    Fragments* fragments    # shared by all planes of a data plane
    WireContext wire
    const Tables* rules
    int64_t timeout[STATE_COUNT]    # nanoseconds, by State
    FastPath fast[2]        # for TCP, and for other protocols
    int64_t window_end      # from this engine time on no connection is inferred (SPEC 9.3)
    # Options
    uint8_t causal
    uint8_t midstream
    uint8_t want_sides      # results name instances, so owners are looked up for every packet
    uint8_t reporting       # keep tallies
    uint8_t keeps_attempts
    uint8_t awaits_replies  # `attempts` has or had an opener that stateless filters let pass (replies.pxd)
    uint8_t weighs          # packets are of flow logs: each stands for several (LINK_RECORD)
    Counters counters
    uint64_t changes        # policy changes so far
    RuleCount* rule_counts
    Tally tallies[TALLIES]
    TallyQueue queue        # packets and connections that are not in the tallies yet

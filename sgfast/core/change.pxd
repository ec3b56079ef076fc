# What a change of the policy does to connections (SPEC 6.3 to 6.7, 3.6): one walk over the table, so that packets need
# not ask. A connection that is cut stays, with a mark (SPEC 6.4): were it deleted, the server's next packet would open
# an outbound one, and let the client back in as its reply.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from sgfast.core.classifier cimport Tables
from sgfast.core.plane cimport Plane


cdef struct Cut:
    const uint8_t* inbound      # by instance number: whether its inbound connections are cut; NULL: none
    uint8_t unmatched           # cut what the new rules would not let open
    int64_t now                 # nanoseconds, on the replay's clock


# Goes from the present tables to `new` ones. Returns how many tuples were cut on some side.
cdef uint64_t change_tables(Plane* plane, const Tables* new, const Cut* cut) noexcept nogil

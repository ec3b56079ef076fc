# What the other end did, counted for the summary: connections that the groups allow and nobody served, and such that
# they deny though somebody would have answered (SPEC 10.4).

from sgfast.core.plane cimport Plane

# Rows of ended tuples that are not tallied yet, if the plane reports. Those that nobody will take go away.
cdef void tally_ended(Plane* plane) noexcept nogil

# What the other end did, counted for the summary: connections that the groups allow and nobody served, and such that
# they deny though somebody would have answered (SPEC 10.4).

from sgfast.core.conntrack cimport Table
from sgfast.core.plane cimport Plane

# A table's ended rows from `tallied` on, which moves along. Rows that nobody will take go away.
cdef void tally_rows(Plane* plane, Table* t, Py_ssize_t* tallied) noexcept nogil

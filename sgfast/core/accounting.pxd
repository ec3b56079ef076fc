# Reads out the results of judging, for reports. The data plane judges (dataplane.pxd), and its planes and tables count.
# Here the counts are read under the data plane's lock, and those of several planes are merged (accounting.pyx).

from sgfast.core.conntrack.table cimport Table
from sgfast.core.dataplane cimport DataPlane


cdef class AccountingPlane(DataPlane):
    cdef object finishing       # lock: one thread at a time in `finish`
    cdef object unreported      # in `finish`: the places of the live tuples that were not reported yet

    cdef Table* table(self, int number) noexcept nogil
    cdef bint finish_some(self, Py_ssize_t most) except -1
    cdef object list_places(self)
    # The same as the properties, for callers that hold the lock and have drained the workers.
    cdef dict tallies_now(self)
    cdef object rule_counts_now(self)
    cdef dict counters_now(self)

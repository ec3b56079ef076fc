# Reads the results of judging for reports. The data plane judges (dataplane.pxd), and its planes and tables count. This
# module reads the counts under the data plane's lock, and merges the counts of several planes (accounting.pyx).

from sgfast.core.conntrack.table cimport Table
from sgfast.core.dataplane cimport DataPlane


cdef class AccountingPlane(DataPlane):
    cdef object finishing       # lock: only one thread at a time is in `finish`
    cdef object unreported      # during `finish`: the places of the live tuples that were not reported yet

    cdef Table* table(self, int number) noexcept nogil
    cdef bint finish_some(self, Py_ssize_t most) except -1
    cdef object list_places(self)
    # The values of the properties, for callers that hold the lock and have drained the workers.
    cdef dict tallies_now(self)
    cdef object rule_counts_now(self)
    cdef dict counters_now(self)

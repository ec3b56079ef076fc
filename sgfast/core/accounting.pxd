# What was judged, for whoever reports it. The data plane judges (dataplane.pxd), its tables and planes count; here that
# is taken out of them, under the data plane's lock, and what several planes have becomes one (accounting.pyx).

from libc.stddef cimport size_t

from sgfast.core.conntrack.table cimport Table
from sgfast.core.dataplane cimport DataPlane


cdef class AccountingPlane(DataPlane):
    cdef object finishing   # a lock: one thread at a time in `finish`
    cdef object living      # in `finish`: where the tuples are that were not told of yet

    cdef Table* table(self, int number) noexcept nogil
    cdef bint finish_some(self, Py_ssize_t most) except -1
    cdef object list_places(self)
    cdef object tally(self, size_t offset)

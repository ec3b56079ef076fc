# A queue of records of flow logs. Each waits in it until the other records of its time have been read.

from libc.stdint cimport int64_t

from sgfast.traffic.flow_logs.conversation_table cimport ConversationTable
from sgfast.traffic.flow_logs.openers cimport Conversation
from sgfast.traffic.flow_logs.record_packets cimport Waiting


cdef class RecordQueue:
    cdef ConversationTable table
    # The records from `begin` to `noted` were noted, those up to `ordered` are in the order of time, and those up to
    # `end` have come since.
    cdef Waiting* records
    cdef Py_ssize_t begin, noted, ordered, end
    cdef Py_ssize_t capacity

    cdef Py_ssize_t count(self) noexcept nogil
    cdef int make_room(self, Py_ssize_t more) except -1
    cdef int order_until(self, int64_t until_ns) except -1
    cdef int64_t middle_ns(self) except? -1
    cdef Conversation* conversation_of(self, Waiting* w) noexcept nogil
    cdef void sort_ties(self, Py_ssize_t begin, Py_ssize_t end) noexcept nogil

"""A queue of records of flow logs, which wait until the other records of their time have been read."""

from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from sgfast.traffic.flow_logs.conversation_table cimport NO_CONVERSATION, ConversationTable
from sgfast.traffic.flow_logs.openers cimport Conversation
from sgfast.traffic.flow_logs.record_packets cimport Waiting

import numpy as np

cdef enum:
    MOST_TIES = 64                      # more than one connection has records of one start


cdef class RecordQueue:
    """Records by time. They come in about this order, and those that came late are put among the others."""

    def __cinit__(self, ConversationTable table not None):
        self.capacity = 1 << 12
        self.records = <Waiting*>malloc(self.capacity * sizeof(Waiting))
        if self.records == NULL:
            raise MemoryError
        self.table = table

    def __dealloc__(self):
        free(self.records)

    cdef Py_ssize_t count(self) noexcept nogil:
        return self.end - self.begin

    cdef int make_room(self, Py_ssize_t more) except -1:
        # Makes room for more records behind the others.
        cdef Py_ssize_t capacity
        cdef Waiting* grown
        if self.begin and self.begin >= self.count():
            memcpy(self.records, &self.records[self.begin], self.count() * sizeof(Waiting))
            self.noted -= self.begin
            self.ordered -= self.begin
            self.end -= self.begin
            self.begin = 0
        if self.end + more <= self.capacity:
            return 0
        capacity = max(2 * self.capacity, self.end + more)
        grown = <Waiting*>realloc(self.records, capacity * sizeof(Waiting))
        if grown == NULL:
            raise MemoryError
        self.records = grown
        self.capacity = capacity
        return 0

    cdef int order_until(self, int64_t until_ns) except -1:
        # Sorts the records that start before this time by their start.
        cdef Py_ssize_t i, end
        cdef Py_ssize_t due_count = 0
        cdef Py_ssize_t kept_count = 0
        cdef Waiting* due
        cdef Waiting* begin = &self.records[self.begin]
        cdef Py_ssize_t count = self.count()
        cdef int64_t[::1] starts
        cdef const int64_t[::1] order
        for i in range(count):
            due_count += begin[i].start_ns < until_ns
        due = <Waiting*>malloc(max(due_count, 1) * sizeof(Waiting))
        if due == NULL:
            raise MemoryError
        try:
            start_array = np.empty(due_count, np.int64)
            starts = start_array
            due_count = 0
            for i in range(count):
                if begin[i].start_ns < until_ns:
                    starts[due_count] = begin[i].start_ns
                    due[due_count] = begin[i]
                    due_count += 1
                else:
                    begin[kept_count] = begin[i]
                    kept_count += 1
            order = np.argsort(start_array, kind="stable")
            memmove(&begin[due_count], begin, kept_count * sizeof(Waiting))
            for i in range(due_count):
                begin[i] = due[order[i]]
        finally:
            free(due)
        self.noted = self.begin
        self.ordered = self.begin + due_count
        i = self.begin
        with nogil:
            while i < self.ordered:
                end = i + 1
                while end < self.ordered and self.records[end].start_ns == self.records[i].start_ns:
                    end += 1
                if end > i + 1:
                    self.sort_ties(i, end)
                i = end
        return 0

    cdef int64_t middle_ns(self) except? -1:
        # Returns a time before which half of the records start.
        cdef int64_t[::1] starts
        cdef Py_ssize_t i
        start_array = np.empty(self.count(), np.int64)
        starts = start_array
        for i in range(self.count()):
            starts[i] = self.records[self.begin + i].start_ns
        return int(np.partition(start_array, self.count() // 2)[self.count() // 2]) + 1

    cdef Conversation* conversation_of(self, Waiting* w) noexcept nogil:
        # Returns the conversation of a record. A record of a retired conversation moves to the one that replaces it.
        # Returns NULL if the table is full.
        cdef Conversation* c
        cdef Conversation* retired
        cdef uint32_t number = w.conversation
        if number == NO_CONVERSATION:
            return NULL
        c = &self.table.conversations[number]
        if not c.is_retired or w.is_noted:
            return c
        c = self.table.successor(number)
        retired = &self.table.conversations[number]
        retired.pending -= 1
        if c != NULL:
            c.pending += 1
        w.conversation = <uint32_t>(c - self.table.conversations) if c != NULL else NO_CONVERSATION
        return c

    cdef void sort_ties(self, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
        # Sorts records with the same start and connection by their content. So the order of files does not matter.
        # Records of different connections keep their order, in which their conversations are in memory.
        cdef Waiting* records = self.records
        cdef Py_ssize_t i, at
        cdef int steps
        cdef uint32_t before
        cdef Conversation* c
        cdef Waiting w
        for i in range(begin, end):
            c = self.conversation_of(&records[i])
            if c == NULL:
                continue
            before = c.latest
            c.latest = <uint32_t>i
            records[i].before = before
            at = i
            steps = 0
            while begin <= before < at and records[before].conversation == records[at].conversation:
                if records[before].tie <= records[at].tie or steps == MOST_TIES:
                    break
                steps += 1
                w = records[at]
                records[at] = records[before]
                records[before] = w
                records[before].before, records[at].before = records[at].before, records[before].before
                at = before
                before = records[at].before

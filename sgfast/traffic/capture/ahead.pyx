"""Windows of a capture file that are read before they are needed. ``ahead.pxd`` explains the design."""

import io
import os
import stat

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint8_t

from sgfast.traffic.capture.pcap cimport length_if_record, scan_records
from sgfast.traffic.capture.pcapng cimport (
    SHORTEST_PACKET,
    copy_for_another_thread,
    free_interfaces,
    length_if_packet,
    scan_blocks,
)
from sgfast.traffic.capture.scan cimport Scan, guess_first
from sgfast.core.base.file_reads cimport LATE, FileReads, Read
from sgfast.core.base.frames cimport FrameBatch

cdef extern from *:
    """
    #include <unistd.h>
    """
    int close(int descriptor) nogil
    Py_ssize_t pread(int descriptor, void* to, size_t size, int64_t at) nogil

cdef enum:
    WORTHWHILE = 4      # windows; in a smaller file reading ahead gains little


cdef void find_records(void* context) noexcept nogil:
    cdef Window* window = <Window*>context
    cdef Scan* scan = &window.scan
    window.first = NULL
    if window.batch == NULL:
        return
    if window.pcap != NULL:
        window.first = guess_first(length_if_record, window.pcap, window.pcap.record_header, scan.next, scan.end)
    else:
        window.first = guess_first(length_if_packet, &window.pcapng, SHORTEST_PACKET, scan.next, scan.end)
    if window.first == NULL:
        return
    scan.next = window.first
    scan.position = 1       # after the record that begins in the window before
    if window.pcap != NULL:
        scan_records(window.pcap, scan)
    else:
        scan_blocks(&window.pcapng, scan, None)
    if window.preparation != NULL:
        window.preparation.prepare(
            window.preparation, scan.frames - 1, scan.count + 1, scan.capacity + 1, window.prepared
        )


@cython.no_gc
cdef class WindowsAhead:
    """The windows of a file from ``position`` on, up to the last complete window in ``size`` bytes. The object closes
    ``descriptor``.
    """

    def __cinit__(self, FileReads reads not None, int descriptor, int64_t position, int64_t size):
        cdef int i
        self.reads = reads
        self.descriptor = descriptor
        self.taken = position
        self.end = size
        self.spares = AHEAD + MOST_LATE
        for i in range(self.spares):
            self.spare[i] = &self.all[i]

    @staticmethod
    def begin(FileReads reads not None, stream):
        """Return the windows of ``stream``, or None if it is no regular file or only a small part of it is unread."""
        if not isinstance(stream, io.FileIO):
            return None
        try:
            status = os.fstat(stream.fileno())
            position = stream.tell()
            if not stat.S_ISREG(status.st_mode) or status.st_size - position < WORTHWHILE * WINDOW:
                return None
            return WindowsAhead(reads, os.dup(stream.fileno()), position, status.st_size)
        except OSError:     # a pipe, or too many open files
            return None

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.reads is None:      # __cinit__ was given the wrong arguments
            return
        self.drop_all()
        for i in range(AHEAD + MOST_LATE):
            free_interfaces(&self.all[i].pcapng)
        close(self.descriptor)

    cdef bint has_more(self) noexcept:
        return self.count < AHEAD and self.taken + (self.count + 1) * WINDOW <= self.end

    cdef int fill_in(self, Window* window, object memory) except -1:
        # Tells the thread that reads a window where to store its records.
        cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(memory.obj)
        cdef FrameBatch batch = None
        window.batch = NULL
        if self.pcap != NULL or (self.pcapng != NULL and copy_for_another_thread(&window.pcapng, self.pcapng)):
            batch = self.pool.take()
            window.preparation = self.preparation
            if window.preparation != NULL:
                batch.make_room_for(window.preparation)
                window.prepared = batch.prepared
            window.batch = <PyObject*>batch
            window.pcap = self.pcap
            window.scan.vpc = self.vpc
            window.scan.zeros = 0
            window.scan.frames = &batch.frames[1]
            window.scan.capacity = batch.capacity - 1
            window.scan.next = data + HEADROOM
            window.scan.end = data + HEADROOM + WINDOW
            Py_INCREF(batch)
        window.memory = <PyObject*>memory
        Py_INCREF(memory)
        return 0

    cdef bint ask(self, object memory) except -1:
        cdef Window* window = self.spare[self.spares - 1]
        self.fill_in(window, memory)
        window.asked = self.reads.want(
            self.descriptor, <uint8_t*>PyByteArray_AS_STRING(memory.obj) + HEADROOM, WINDOW,
            self.taken + self.count * WINDOW, find_records, window
        )
        if window.asked == NULL:
            self.let_go(window)
            return False
        self.spares -= 1
        self.windows[(self.oldest + self.count) % AHEAD] = window
        self.count += 1
        return True

    cdef object take(self, bint patient):
        cdef Window* window = self.windows[self.oldest]
        cdef Py_ssize_t got
        self.is_late = False
        if self.count == 0:
            return None
        self.forget_late()
        with nogil:
            got = self.reads.finish(window.asked)
            while got == LATE and (patient or self.late_count == MOST_LATE):
                got = self.reads.finish(window.asked)
        if got == LATE:
            self.is_late = True
            return None
        self.oldest = (self.oldest + 1) % AHEAD
        self.count -= 1
        return self.taken_as(window, got)

    cdef object read_again(self, object memory):
        cdef Window* window = self.spare[self.spares - 1]
        cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(memory.obj) + HEADROOM
        cdef Py_ssize_t got
        self.fill_in(window, memory)
        self.is_late = False
        self.spares -= 1
        self.late[self.late_count] = self.windows[self.oldest]
        self.late_count += 1
        self.oldest = (self.oldest + 1) % AHEAD
        self.count -= 1
        with nogil:
            got = pread(self.descriptor, data, WINDOW, self.taken)
            if got == WINDOW:
                find_records(window)
        return self.taken_as(window, got)

    cdef object taken_as(self, Window* window, Py_ssize_t got):
        memory = <object>window.memory
        self.batch = None
        if got == WINDOW and window.batch != NULL and window.first != NULL:
            self.batch = <FrameBatch>window.batch
            self.found = window
        self.let_go(window)
        self.spare[self.spares] = window
        self.spares += 1
        if got < WINDOW:
            return None
        self.taken += WINDOW
        return memory

    cdef void forget_late(self) noexcept:
        cdef int kept_count = 0
        cdef int i
        for i in range(self.late_count):
            if self.reads.is_over(self.late[i].asked):
                self.let_go(self.late[i])
                self.spare[self.spares] = self.late[i]
                self.spares += 1
            else:
                self.late[kept_count] = self.late[i]
                kept_count += 1
        self.late_count = kept_count

    cdef void drop_all(self) noexcept:
        cdef Window* windows[AHEAD + MOST_LATE]
        cdef Read* reads[AHEAD + MOST_LATE]
        cdef Py_ssize_t count = self.count + self.late_count
        cdef Py_ssize_t i
        for i in range(count):
            windows[i] = (
                self.windows[(self.oldest + i) % AHEAD] if i < self.count else self.late[i - self.count]
            )
            reads[i] = windows[i].asked
        with nogil:
            self.reads.drop(reads, count)
        for i in range(count):
            self.let_go(windows[i])
        self.count = 0
        self.late_count = 0

    cdef void let_go(self, Window* window) noexcept:
        Py_DECREF(<object>window.memory)
        if window.batch != NULL:
            Py_DECREF(<object>window.batch)

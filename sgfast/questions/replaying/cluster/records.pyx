"""Feed the records of segments to a data plane: the judging half of a clustered replay. ``partition.pyx`` is the
reading half.
"""

import numpy as np

from cpython.pythread cimport PyThread_acquire_lock, PyThread_release_lock, WAIT_LOCK
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from sgfast.core.base.clock cimport CLOCK_END
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport HeaderRow, ResultRow
from sgfast.core.dataplane cimport DataPlane
from sgfast.core.dtypes cimport bytes_of_rows
from sgfast.core.pipeline.batch cimport BATCH, guess_batch, judge_batch, prefetch_line, tally_ended
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.wire.header_rows cimport write_header_row

from sgfast.core.dtypes import HEADER_DTYPE, RESULT_DTYPE

#: A packet's number in the replay, its headers and its result.
TOLD_DTYPE = np.dtype([("number", "<u8"), ("header", HEADER_DTYPE), ("result", RESULT_DTYPE)])

cdef packed struct Told:
    uint64_t number
    HeaderRow header
    ResultRow result

assert TOLD_DTYPE.itemsize == sizeof(Told)


def records_before(const uint8_t[::1] block not None, Py_ssize_t start, int64_t at_ns, uint32_t vpc_count):
    """Return ``(position, count, number, vpcs)`` of the records from ``start`` on that come before ``at_ns`` on the
    input's clock: the position after them, how many they are, the number in the input of the record there or 0 at the
    end, and the set of their ``Frame.vpc``. Raises ValueError if the bytes are no valid records, or if one of these
    records belongs to a VPC above ``vpc_count``.
    """
    cdef Record r
    cdef Py_ssize_t at = start
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t size
    cdef int64_t last_vpc = -1
    vpcs = set()
    if not 0 <= start <= block.shape[0]:
        raise ValueError("position out of range")
    while at < block.shape[0]:
        size = measure_record(&block[at], block.shape[0] - at, &r)
        if size == 0:
            raise ValueError("not a valid record")
        if r.now >= at_ns:
            return at, count, r.number, vpcs
        if r.vpc != last_vpc:
            if r.vpc > vpc_count:
                raise ValueError("a record of an unknown VPC")
            last_vpc = r.vpc
            vpcs.add(r.vpc)
        count += 1
        at += size
    return at, count, 0, vpcs


cdef class RecordJudge:
    """Judge records with a data plane that has one job and whose clock has begun (``DataPlane.begin``)."""

    cdef DataPlane plane
    cdef uint64_t last_number       # number of the packet judged last
    cdef Packet* packets
    cdef int64_t* now
    cdef uint64_t* numbers

    def __cinit__(self, DataPlane plane not None):
        if plane.jobs != 1:
            raise ValueError("records are judged by one thread")
        self.plane = plane
        self.packets = <Packet*>allocate_pages(BATCH * sizeof(Packet))
        self.now = <int64_t*>allocate_pages(BATCH * sizeof(int64_t))
        self.numbers = <uint64_t*>allocate_pages(BATCH * sizeof(uint64_t))
        if self.packets == NULL or self.now == NULL or self.numbers == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.packets)
        free(self.now)
        free(self.numbers)

    def judge(
        self, const uint8_t[::1] block not None, Py_ssize_t start, Py_ssize_t end, uint32_t vpc, int64_t shift_ns,
        uint64_t before, told=None
    ):
        """Judge the records of ``vpc`` (``Frame.vpc``) in ``[start, end)``, positions that ``records_before`` returned.

        ``shift_ns``: how far the replay's clock is ahead of the input's, in nanoseconds, not negative. ``before``: the
        number of packets before the input. ``told``: an array of TOLD_DTYPE with one row for each record in the range,
        of whatever VPC; only rows of ``vpc`` are filled. Raises ValueError if the bytes are no valid records, or if
        their times or numbers decrease.
        """
        cdef Told* rows = NULL
        cdef Py_ssize_t row_count = 0
        cdef bint sound
        if not 0 <= start <= end <= block.shape[0] or shift_ns < 0:
            raise ValueError("position or shift out of range")
        if start == end:
            return
        if told is not None and len(told):
            row_count = len(told)
            rows = <Told*>bytes_of_rows(told, TOLD_DTYPE, 0, "rows must be a contiguous array of TOLD_DTYPE")
        with nogil:
            PyThread_acquire_lock(self.plane.lock, WAIT_LOCK)
            sound = self.judge_all(&block[start], end - start, vpc, shift_ns, before, rows, row_count)
            PyThread_release_lock(self.plane.lock)
        if not sound:
            raise ValueError("not a valid record")

    cdef bint judge_all(
        self, const uint8_t* data, Py_ssize_t left, uint32_t vpc, int64_t shift_ns, uint64_t before, Told* rows,
        Py_ssize_t row_count
    ) noexcept nogil:
        cdef Plane* first = self.plane.planes[0]
        cdef Record r
        cdef Packet* p
        cdef Py_ssize_t row = 0
        cdef Py_ssize_t size, count, i
        cdef Py_ssize_t[BATCH] row_of
        cdef int64_t now
        cdef int64_t last = self.plane.clock.now
        cdef uint64_t number
        self.plane.fragments.wanted = rows != NULL
        first.want_sides = rows != NULL
        while left:
            count = 0
            while left and count < BATCH:
                p = &self.packets[count]
                size = read_record(&first.wire, data, left, &r, p)
                if unlikely(size == 0 or (rows != NULL and row >= row_count)):
                    return False
                data += size
                left -= size
                row_of[count] = row
                row += 1
                if unlikely(r.vpc != vpc):
                    continue
                now = CLOCK_END if r.now > CLOCK_END - shift_ns else r.now + shift_ns
                number = before + r.number
                if unlikely(now < last or number <= self.last_number):
                    return False
                self.now[count] = last = now
                self.numbers[count] = self.last_number = number
                prefetch_line(first, p)
                count += 1
            if count == 0:
                continue
            guess_batch(first, self.packets, count)
            if rows == NULL:
                judge_batch(first, self.packets, self.now, self.numbers, self.numbers[0], count, NULL, NULL)
            else:
                for i in range(count):
                    rows[row_of[i]].number = self.numbers[i]
                    write_header_row(&self.packets[i], &rows[row_of[i]].header)
                    judge_batch(
                        first, &self.packets[i], &self.now[i], &self.numbers[i], self.numbers[i], 1,
                        &rows[row_of[i]].result, NULL
                    )
            self.plane.judged += count
            self.plane.judged_elsewhere = self.numbers[count - 1] - self.plane.judged
            self.plane.clock.now = self.now[count - 1]
        tally_ended(first)
        return True

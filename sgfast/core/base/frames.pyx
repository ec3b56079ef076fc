"""Batches of captured frames, the only type that capture readers and the data plane share."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_FromStringAndSize
from cpython.ref cimport Py_REFCNT

from datetime import UTC, datetime, timedelta
from operator import index

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def nanoseconds(time, name):
    """Return an instant, a whole number of nanoseconds or a datetime with a time zone, as nanoseconds since the epoch.
    Raises TypeError for others, such as the seconds of dpkt and scapy.
    """
    try:
        return index(time)
    except TypeError:
        if not isinstance(time, datetime):
            raise TypeError(
                f"{name} must be a whole number of nanoseconds or a datetime, not {time!r:.80}; of seconds, use "
                "round(seconds * 10**9)"
            ) from None
    if time.utcoffset() is None:
        raise TypeError(f"{name} must have a time zone: {time} may be any; of UTC, use time.replace(tzinfo=UTC)")
    # A Timestamp of pandas is a datetime, and has nanoseconds besides.
    return (time - EPOCH) // MICROSECOND * 1000 + getattr(time, "nanosecond", 0)


cdef class FrameBatch:
    """Up to ``capacity`` frames. Iterating yields ``(time_ns, data, wire_length, link_type)``, with data copied.

    ``count``: the number of frames, which is also ``len``. ``capacity``: the number of frames that fit.
    """

    def __cinit__(self, Py_ssize_t capacity):
        if capacity < 1:
            raise ValueError("a batch holds at least one frame")
        self.frames = <Frame*>calloc(<size_t>capacity, sizeof(Frame))
        if self.frames == NULL:
            raise MemoryError
        self.capacity = capacity
        self.count = 0

    def __dealloc__(self):
        free(self.frames)
        free(self.prepared)

    cdef void keep_first(self, Py_ssize_t count) noexcept:
        if count != self.count:
            self.count = count
            self.prepared_for = None

    cdef int make_room_for(self, const Preparation* preparation) except -1:
        if self.prepared == NULL:
            self.prepared = calloc(preparation.size(preparation, self.capacity), 1)
            if self.prepared == NULL:
                raise MemoryError
        return 0

    def __len__(self):
        return self.count

    def __iter__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            yield (
                self.frames[i].time_ns,
                PyBytes_FromStringAndSize(<const char*>self.frames[i].data, self.frames[i].captured),
                self.frames[i].wire,
                self.frames[i].link_type,
            )

    @property
    def vpcs(self):
        """The VPC number of each frame, or -1 for none."""
        cdef Py_ssize_t i
        return [<int64_t>self.frames[i].vpc - 1 for i in range(self.count)]

    @property
    def time_range(self):
        """``(first, latest)``: the first frame's timestamp and the latest one, in nanoseconds. None if the batch is
        empty.
        """
        cdef int64_t latest
        cdef Py_ssize_t i
        if self.count == 0:
            return None
        latest = self.frames[0].time_ns
        for i in range(1, self.count):
            latest = max(latest, self.frames[i].time_ns)
        return self.frames[0].time_ns, latest

    def fill_positions(self, Py_ssize_t first, int64_t[::1] captures not None, int64_t[::1] packets not None):
        """Write the positions of the frames from ``first`` on, as many as the arrays have elements.

        ``captures`` gets the number of each frame's capture, ``packets`` the frame's number in that capture, both from
        1 on. Both are 0 if they are not known.
        """
        cdef Py_ssize_t number = captures.shape[0]
        cdef uint64_t position
        cdef Py_ssize_t i
        if first < 0 or number > self.count - first or packets.shape[0] != number:
            raise ValueError("no such frames")
        for i in range(number):
            position = self.position_base + self.frames[first + i].position
            captures[i] = <int64_t>(position >> POSITION_BITS)
            packets[i] = <int64_t>position & ((<int64_t>1 << POSITION_BITS) - 1) if captures[i] else 0

    @property
    def is_of_records(self):
        """Whether the frames are of flow logs, and each stands for as many packets as ``packets`` says."""
        return self.count > 0 and is_of_record(&self.frames[0])

    def packets(self, Py_ssize_t first, Py_ssize_t number):
        """Return the packets that each of ``number`` frames from ``first`` on stands for."""
        if first < 0 or number < 0 or number > self.count - first:
            raise ValueError("no such frames")
        cdef Py_ssize_t i
        return [packets_of(&self.frames[first + i]) for i in range(number)]

    cdef void make_positions_absolute(self) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(self.count):
            self.frames[i].position += self.position_base
        self.position_base = 0

    def copied(self, Py_ssize_t first, Py_ssize_t number):
        """Return a new batch of ``number`` frames from ``first`` on, with copies of their bytes."""
        if first < 0 or number < 0 or number > self.count - first:
            raise ValueError("no such frames")
        cdef FrameBatch batch = FrameBatch(max(number, 1))
        cdef list copies = []
        cdef Py_ssize_t i
        for i in range(number):
            batch.frames[i] = self.frames[first + i]
            data = PyBytes_FromStringAndSize(<const char*>batch.frames[i].data, batch.frames[i].captured)
            copies.append(data)
            batch.frames[i].data = <const uint8_t*>PyBytes_AS_STRING(data)
        batch.count = number
        batch.position_base = self.position_base
        batch.keep_alive = copies
        return batch

    @staticmethod
    def from_frames(data not None, times_ns not None, wire_lengths=None, uint32_t link_type=1):
        """Return a batch of frames given as Python ``bytes``.

        ``data``: one bytes object per frame; ``times_ns``: their timestamps in nanoseconds; ``wire_lengths``: their
        original lengths in bytes, for frames that were cut, or None. ValueError if the sequences differ in length or a
        number is out of range, TypeError for a time that is no whole number.

        For example:

            batch = sgfast.FrameBatch.from_frames([frame, frame], [2 * 10**9, 2 * 10**9 + 500])
            assert len(batch) == 2 and batch.time_range == (2 * 10**9, 2 * 10**9 + 500)
            results = engine.process(batch)
        """
        if isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError("frames must be a sequence of bytes; for one frame, write [frame]")
        cdef list packets = [bytes(memoryview(item)) for item in data]
        cdef list times = [nanoseconds(time, "a time") for time in times_ns]
        cdef Py_ssize_t count = len(packets)
        if len(times) != count or (wire_lengths is not None and len(wire_lengths) != count):
            raise ValueError("frames, times and wire lengths must have the same length")
        cdef FrameBatch batch = FrameBatch(max(count, 1))
        cdef Py_ssize_t i
        cdef Frame* frame
        for i in range(count):
            frame = &batch.frames[i]
            if PyBytes_GET_SIZE(packets[i]) > 0x7FFFFFFF:
                raise ValueError("a frame is longer than 2 GiB")
            frame.data = <const uint8_t*>PyBytes_AS_STRING(packets[i])
            frame.captured = <uint32_t>PyBytes_GET_SIZE(packets[i])
            frame.wire = frame.captured
            if wire_lengths is not None:
                if not 0 <= wire_lengths[i] <= 0xFFFFFFFF:
                    raise ValueError("a wire length is 0 to 4294967295 bytes")
                frame.wire = max(frame.captured, <uint32_t>wire_lengths[i])
            if not -(1 << 63) <= times[i] < 1 << 63:
                raise ValueError("a time is a 64-bit number of nanoseconds")
            frame.time_ns = times[i]
            frame.link_type = link_type
        batch.count = count
        batch.keep_alive = packets
        return batch


cdef class BatchPool:
    """Lasting batches of ``capacity`` frames. The pool makes as many as are in use at the same time."""

    def __cinit__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.batches = []

    cdef FrameBatch take(self):
        cdef FrameBatch batch
        cdef FrameBatch free_batch = None
        for batch in self.batches:
            # The list and `batch` make two references; a third one means that the batch is in use.
            if Py_REFCNT(batch) == 2:
                batch.keep_alive = None
                batch.prepared_for = None
                free_batch = batch
        if free_batch is None:
            free_batch = FrameBatch(self.capacity)
            free_batch.lasting = True
            self.batches.append(free_batch)
        return free_batch

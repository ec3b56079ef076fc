"""Merge captures by time.

A heap holds the next frame of each capture. Frames are not copied but refer to the readers' buffers. Reading a
capture's next batch may invalidate its old one, so a merged batch ends where a capture needs its next batch.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t

from sgfast.traffic.capture.reader cimport CaptureReader

from sgfast.base.names import printable
from sgfast.traffic.capture.reader import open_capture
from sgfast.base.errors import CaptureError


cdef enum:
    BATCH_CAPACITY = 8192       # frames

cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX


cdef inline bint _before(int64_t time_ns, Py_ssize_t place, int64_t other_ns, Py_ssize_t other_place) noexcept nogil:
    return time_ns < other_ns or (time_ns == other_ns and place < other_place)


cdef inline bint _head_before(const Head* head, const Head* other) noexcept nogil:
    return _before(head.time_ns, head.place, other.time_ns, other.place)


cdef void _sift_down(Head* heap, Py_ssize_t count) noexcept nogil:
    # Restores the heap after its first head changed.
    cdef Head moving = heap[0]
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t child
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and _head_before(&heap[child + 1], &heap[child]):
            child += 1
        if not _head_before(&heap[child], &moving):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moving


cdef void _sift_up(Head* heap, Py_ssize_t at) noexcept nogil:
    # Restores the heap after a head was added at `at`.
    cdef Head moving = heap[at]
    cdef Py_ssize_t parent
    while at > 0:
        parent = (at - 1) // 2
        if not _head_before(&moving, &heap[parent]):
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = moving


cdef Py_ssize_t _merge(
    Head* heap, Py_ssize_t count, int64_t limit_ns, Py_ssize_t limit_place, Frame* frames, Py_ssize_t room,
) noexcept nogil:
    # Moves frames before the limit into `frames`, until there is no room or one capture's batch is used up. The head of
    # that capture is then the first one. Returns the number of frames. The first head must be before the limit.
    cdef Py_ssize_t frame_count = 0
    cdef Head* top = heap
    cdef int64_t until_ns
    cdef Py_ssize_t until_place, child
    while frame_count < room and _before(top.time_ns, top.place, limit_ns, limit_place):
        # Frames of the first capture are taken as long as they are earlier than those of all other captures.
        until_ns, until_place = limit_ns, limit_place
        for child in range(1, min(count, 3)):
            if _before(heap[child].time_ns, heap[child].place, until_ns, until_place):
                until_ns, until_place = heap[child].time_ns, heap[child].place
        while frame_count < room and _before(top.next.time_ns, top.place, until_ns, until_place):
            frames[frame_count] = top.next[0]
            frame_count += 1
            top.next += 1
            if top.next == top.end:
                return frame_count
        top.time_ns = top.next.time_ns
        _sift_down(heap, count)
    return frame_count


cdef class MergedReader:
    """Reader of several captures that returns their packets in the order of time, in batches, like a ``CaptureReader``.

    ``sources``: path and time of the first packet of each capture. The time is in nanoseconds; if it is None, the
    capture is opened at the start. Packets with equal times come in the order of their captures in ``sources``. Packets
    of one capture keep their order, even if that is not the order of time. A capture is opened when its first packet is
    due; ``opening`` returns the reader for a path. The first damaged capture ends the merge at the damage. ``packets``
    counts the packets returned. ``lasting``: a batch stays unchanged while somebody refers to it; the readers that
    ``opening`` returns must be ``lasting``, too. Raises CaptureError as ``open_capture`` does, and if more than
    ``MAX_OPEN`` captures overlap.
    """

    def __cinit__(self, sources, opening=open_capture, bint lasting=False):
        self.names = [path for path, _ in sources]
        self.opening = opening
        # The order is reversed, so that pop() returns the earliest capture.
        self.pending = sorted(
            ((INT64_MIN if first_ns is None else first_ns, place) for place, (_, first_ns) in enumerate(sources)),
            reverse=True,
        )
        self.readers = {}
        self.held = {}
        self.remarks = []
        self.moved = True
        if lasting:
            self.pool = BatchPool(BATCH_CAPACITY)

    @property
    def bytes_read(self):
        """Bytes read from all files so far, including read-ahead."""
        return self.bytes_before + sum(reader.bytes_read for reader in self.readers.values())

    @property
    def unread(self):
        """Paths of the captures that were not opened or not read to the end, in the order of ``sources``, each with the
        bytes read of it.
        """
        read = {place: reader.bytes_read for place, reader in self.readers.items()}
        return [(self.names[place], read.get(place, 0)) for place in sorted([*read, *(at for _, at in self.pending)])]

    def close(self):
        """Close all captures. The bytes of the last batch stay valid while that batch is referenced."""
        if self.busy:
            raise RuntimeError("the captures are being read")
        self.at_end = True
        self.count = 0
        for reader in self.readers.values():
            reader.close()
        self.readers.clear()
        self.held.clear()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.close()

    cpdef FrameBatch next_batch(self):
        """Return the next packets, at least one, or None at the end (see ``damage``). The batch is valid until the next
        call, or with ``lasting`` as long as somebody refers to it.
        """
        if self.busy:
            raise RuntimeError("the captures are already being read")
        self.busy = True
        try:
            return self._next_batch()
        finally:
            self.busy = False

    cdef FrameBatch _next_batch(self):
        cdef int64_t limit_ns = INT64_MAX
        cdef Py_ssize_t limit_place = PY_SSIZE_T_MAX
        cdef FrameBatch batch
        if self.at_end or not self._prepare():
            self.at_end = True
            return None
        if self.pool is not None:
            batch = self.pool.take()
            batch.keep_alive = list(self.held.values())
        else:
            if self.moved:
                # If a caller still holds the old batch, that batch keeps its frames' memory alive.
                self.batch = FrameBatch(BATCH_CAPACITY)
                self.batch.keep_alive = [(<FrameBatch>held_batch).keep_alive for held_batch in self.held.values()]
                self.moved = False
            batch = self.batch
        if self.pending:
            limit_ns, limit_place = self.pending[len(self.pending) - 1]
        with nogil:
            batch.count = _merge(self.heap, self.count, limit_ns, limit_place, batch.frames, batch.capacity)
        self.packets += batch.count
        return batch

    cdef bint _prepare(self) except -1:
        # Puts the next frame of each capture that may be next into the heap. Returns False at the end.
        cdef Head* heap = self.heap
        if self.count > 0 and heap[0].next == heap[0].end:
            if not self._load(&heap[0]):
                self.count -= 1
                heap[0] = heap[self.count]
            if self.count > 0:
                _sift_down(heap, self.count)
        while self.pending and self.damage is None:
            first_ns, place = self.pending[len(self.pending) - 1]
            if self.count > 0 and _before(heap[0].time_ns, heap[0].place, first_ns, place):
                break
            self.pending.pop()
            self._open(place)
        return self.count > 0 and self.damage is None

    cdef int _open(self, Py_ssize_t place) except -1:
        if self.count == MAX_OPEN:
            raise CaptureError(
                f"{printable(self.names[place])}: more than {MAX_OPEN} captures overlap in time here: merge some of "
                "them first (mergecap -w OUT.pcapng FILE...), or leave some out"
            )
        self.readers[place] = self.opening(self.names[place])
        self.heap[self.count].place = place
        if self._load(&self.heap[self.count]):
            self.count += 1
            _sift_up(self.heap, self.count - 1)
        return 0

    cdef bint _load(self, Head* head) except -1:
        # Loads the next batch of a capture. At its end, closes the capture and returns False.
        cdef Py_ssize_t place = head.place
        cdef CaptureReader reader = self.readers[place]
        cdef FrameBatch batch = reader.next_batch()
        if batch is None:
            self.damage = reader.damage
            self.remarks += reader.remarks
            self.bytes_before += reader.bytes_read
            self.held.pop(place, None)
            del self.readers[place]
            reader.close()
            self.moved = True
            return False
        # A reader whose memory moved also returns a new batch object.
        if self.held.get(place) is not batch:
            self.held[place] = batch
            self.moved = True
        batch.make_positions_absolute()
        head.next = batch.frames
        head.end = batch.frames + batch.count
        head.time_ns = batch.frames[0].time_ns
        return True

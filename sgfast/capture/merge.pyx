"""Captures merged by time.

A heap holds the frame that comes next in each capture. Frames are handed out as they lie in the readers' buffers, so a
merged batch ends where one of the captures needs its next batch: there its old one stops being good.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t

from sgfast.capture.reader cimport CaptureReader

from sgfast.capture.names import printable
from sgfast.capture.reader import open_capture
from sgfast.errors import CaptureError


cdef enum:
    BATCH_CAPACITY = 8192       # frames

cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX


cdef inline bint _before(int64_t time_ns, Py_ssize_t place, int64_t other_ns, Py_ssize_t other_place) noexcept nogil:
    return time_ns < other_ns or (time_ns == other_ns and place < other_place)


cdef inline bint _head_before(const Head* head, const Head* other) noexcept nogil:
    return _before(head.time_ns, head.place, other.time_ns, other.place)


cdef void _sift_down(Head* heap, Py_ssize_t count) noexcept nogil:
    # The first head has changed.
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
    # The head at `at` is new.
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
    # Takes frames up to the limit, which the first head is before, until there is no room or a head is at its end:
    # that is the first one then. Returns how many.
    cdef Py_ssize_t taken = 0
    cdef Head* top = heap
    cdef int64_t until_ns
    cdef Py_ssize_t until_place, child
    while taken < room and _before(top.time_ns, top.place, limit_ns, limit_place):
        # The first capture goes on as long as it stays before all others.
        until_ns, until_place = limit_ns, limit_place
        for child in range(1, min(count, 3)):
            if _before(heap[child].time_ns, heap[child].place, until_ns, until_place):
                until_ns, until_place = heap[child].time_ns, heap[child].place
        while taken < room and _before(top.next.time_ns, top.place, until_ns, until_place):
            frames[taken] = top.next[0]
            taken += 1
            top.next += 1
            if top.next == top.end:
                return taken
        top.time_ns = top.next.time_ns
        _sift_down(heap, count)
    return taken


cdef class MergedReader:
    """Hands out the packets of several captures by time, batch by batch, as a ``CaptureReader`` does those of one.

    ``sources``: of each capture its path, and the time of its first packet (nanoseconds; None: not known, it is opened
    first). Packets of one time come in the order of the captures here; those of one capture in their own order, which
    need not be that of time. A capture is opened when its first packet is due: ``opening`` gives the reader of a path.
    The first one that is damaged ends it there. ``packets`` counts those handed out. CaptureError as ``open_capture``,
    and where more than ``MOST_OPEN`` overlap.
    """

    def __init__(self, sources, opening=open_capture):
        if self.names is not None:
            raise RuntimeError("a merged reader is made once")
        self.names = [path for path, _ in sources]
        self.opening = opening
        # The earliest is taken first, from the end.
        self.pending = sorted(
            ((INT64_MIN if first_ns is None else first_ns, place) for place, (_, first_ns) in enumerate(sources)),
            reverse=True,
        )
        self.readers = {}
        self.held = {}
        self.remarks = []
        self.moved = True

    @property
    def bytes_read(self):
        """Bytes taken from all files so far, read ahead included."""
        return self.bytes_before + sum(reader.bytes_read for reader in self.readers.values())

    @property
    def unread(self):
        """Paths of captures that were not opened, or not read to their ends, in the order of these captures here."""
        return [self.names[place] for place in sorted([*self.readers, *(place for _, place in self.pending)])]

    def close(self):
        """Close all captures; bytes of the last batch stay valid as long as that is held."""
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
        """The packets that come next, at least one; None at the end (see ``damage``). Valid until the next call."""
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
        if self.moved:
            # Whoever still looks at the old batch keeps what that one points to.
            self.batch = FrameBatch(BATCH_CAPACITY)
            self.batch.keep_alive = [(<FrameBatch>each).keep_alive for each in self.held.values()]
            self.moved = False
        batch = self.batch
        if self.pending:
            limit_ns, limit_place = self.pending[len(self.pending) - 1]
        with nogil:
            batch.count = _merge(self.heap, self.count, limit_ns, limit_place, batch.frames, batch.capacity)
        self.packets += batch.count
        return batch

    cdef bint _prepare(self) except -1:
        # Every capture that may be next has its next frame in the heap. False at the end.
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
        if self.count == MOST_OPEN:
            raise CaptureError(
                f"{printable(self.names[place])}: more than {MOST_OPEN} captures overlap in time here: merge some of "
                "them first (mergecap -w OUT.pcapng FILE...), or leave some out"
            )
        self.readers[place] = self.opening(self.names[place])
        self.heap[self.count].place = place
        if self._load(&self.heap[self.count]):
            self.count += 1
            _sift_up(self.heap, self.count - 1)
        return 0

    cdef bint _load(self, Head* head) except -1:
        # The next batch of a capture; False, and it is closed, at its end.
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
        # Where a reader's memory moves, its batch is another one, too.
        if self.held.get(place) is not batch:
            self.held[place] = batch
            self.moved = True
        head.next = batch.frames
        head.end = batch.frames + batch.count
        head.time_ns = batch.frames[0].time_ns
        return True

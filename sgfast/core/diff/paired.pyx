"""Two data planes that judge the same frames, one after the other or at the same time.

The module is separate because the C compiler slows down the data plane's own loop if a module contains it twice.
"""

import threading

from cpython.pythread cimport PyThread_acquire_lock, PyThread_release_lock, WAIT_LOCK
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp

from sgfast.core.base.clock cimport advance_clock
from sgfast.core.base.frames cimport Frame, FrameBatch
from sgfast.core.base.intrinsics cimport add_ordered, load_ordered, swap_ordered
from sgfast.core.base.memory cimport allocate_pages
from sgfast.core.base.types cimport HeaderRow, Packet
from sgfast.core.dataplane cimport DataPlane, Outputs
from sgfast.core.diff.changed_connections cimport ChangedConnections, opener_rows
from sgfast.core.base.backoff cimport Parking, back_off, free_parking, init_parking, park_until_change, unpark
from sgfast.core.pipeline.batch cimport BATCH, guess_batch, judge_batch, prefetch_line, tally_ended
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.wire.ip cimport WireContext, read_frame

cdef enum:
    LINE = 16               # 64-bit words: two cache lines, as they may be fetched in pairs


cdef bint reads_alike(DataPlane a, DataPlane b) noexcept nogil:
    # Whether both planes read a frame's headers alike, keyed hash included.
    cdef const WireContext* wire = &a.planes[0].wire
    cdef const WireContext* other_wire = &b.planes[0].wire
    return (
        a.jobs == 1 and b.jobs == 1 and wire.infrastructure == other_wire.infrastructure
        and memcmp(wire.secret, other_wire.secret, sizeof(wire.secret)) == 0
    )


cdef void guess_and_judge(
    Plane* plane, Packet* packets, const int64_t* now, uint64_t first, Py_ssize_t n, uint16_t* words
) noexcept nogil:
    cdef Py_ssize_t start = 0
    guess_batch(plane, packets, n)
    while start < n:
        judge_batch(
            plane, &packets[start], &now[start], NULL, first + start, min(n - start, <Py_ssize_t>BATCH), NULL,
            &words[start]
        )
        start += BATCH


cdef void judge_paired(
    DataPlane a, DataPlane b, const Frame* frames, Py_ssize_t n, uint16_t* words_a, uint16_t* words_b
) noexcept nogil:
    # The caller must hold both locks. Frames are read once, and judged twice while they are in the cache.
    cdef Plane* plane_a = a.planes[0]
    cdef Plane* plane_b = b.planes[0]
    cdef Packet* packets = a.packets[0]
    cdef int64_t* now = a.now[0]
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t size, i
    if not a.clock.started:
        a.start_clock(frames.time_ns)
        b.start_clock(frames.time_ns)
    a.fragments.wanted = True
    b.fragments.wanted = True
    plane_a.want_sides = False
    plane_b.want_sides = False
    while start < n:
        # Takes two batches together: the more packets are guessed before the first one is judged, the better.
        size = min(n - start, <Py_ssize_t>(2 * BATCH))
        for i in range(size):
            read_frame(&plane_a.wire, &frames[start + i], &packets[i])
            advance_clock(&a.clock, packets[i].time_ns)
            now[i] = a.clock.now
            prefetch_line(plane_a, &packets[i])
            prefetch_line(plane_b, &packets[i])
        guess_and_judge(plane_a, packets, now, a.judged + 1, size, &words_a[start])
        guess_and_judge(plane_b, packets, now, b.judged + 1, size, &words_b[start])
        a.judged += size
        b.judged += size
        start += size
    b.clock = a.clock
    tally_ended(plane_a)
    tally_ended(plane_b)


cdef class PairedPlanes:
    """Judge frames with two planes, which must have judged the same frames before, for ``changed`` to compare.

    ``judge`` uses one thread, which reads frame headers once for both planes. The caller must then call
    ``changed.compare``. ``start`` and ``wait`` use a second thread, which runs from ``begin`` to ``close``. Then
    neither plane waits for the other's table, and results are compared while the next batch is read.
    """

    cdef DataPlane plane
    cdef DataPlane other_plane
    cdef ChangedConnections changed
    cdef object thread              # None if there is no second thread
    cdef object failure             # the exception that ended the thread
    cdef Parking parking
    # Counters of batches, each on cache lines of its own.
    cdef uint64_t* asked            # batches given to the thread
    cdef uint64_t* judged           # batches judged by `plane`
    cdef uint64_t* compared         # batches judged and compared by the thread
    # The batch that was started last, and its arrays; None if no batch is in progress.
    cdef object batch
    cdef object arrays
    cdef const Frame* frames
    cdef Py_ssize_t count           # frames; 0 makes the thread end
    cdef uint16_t* words
    cdef uint16_t* other_words
    cdef HeaderRow* openers
    cdef Py_ssize_t opener_count

    def __cinit__(self, DataPlane plane not None, DataPlane other not None, ChangedConnections changed not None):
        self.asked = <uint64_t*>allocate_pages(3 * LINE * sizeof(uint64_t))
        if self.asked == NULL or not init_parking(&self.parking):
            raise MemoryError
        self.judged = &self.asked[LINE]
        self.compared = &self.asked[2 * LINE]
        if other is plane or other.judged != plane.judged:
            raise ValueError("two different planes are needed that have judged the same frames")
        self.plane = plane
        self.other_plane = other
        self.changed = changed

    def __dealloc__(self):
        # The thread holds a reference to this object, so it has ended.
        free(self.asked)
        free_parking(&self.parking)

    def judge(self, FrameBatch batch not None, words not None, other_words not None):
        """Judge a batch with both planes.

        ``words``, ``other_words``: uint16, at least as long as the batch; filled with the result words (``types.pxd``)
        of ``plane`` and ``other``. ValueError if an array is too short.
        """
        cdef Py_ssize_t n = batch.count
        cdef uint16_t* mine = words_of(words, n)
        cdef uint16_t* words_of_other = words_of(other_words, n)
        self.plane.check_frames(batch.frames, n)
        self.other_plane.check_frames(batch.frames, n)
        if not reads_alike(self.plane, self.other_plane):
            self.plane.process_frames(batch, words=words)
            self.other_plane.process_frames(batch, words=other_words)
        elif n:
            with nogil:
                PyThread_acquire_lock(self.plane.lock, WAIT_LOCK)
                PyThread_acquire_lock(self.other_plane.lock, WAIT_LOCK)
                judge_paired(self.plane, self.other_plane, batch.frames, n, mine, words_of_other)
                PyThread_release_lock(self.other_plane.lock)
                PyThread_release_lock(self.plane.lock)

    def begin(self):
        """Start the second thread. MemoryError if the thread cannot be started."""
        if self.thread is not None:
            raise RuntimeError("there is a second thread")
        self.asked[0] = self.judged[0] = self.compared[0] = 0
        self.failure = None
        self.thread = threading.Thread(target=self.serve, name="sgfast-paired", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:
            self.thread = None
            raise MemoryError(f"a thread cannot be started: {error}") from error

    def start(self, FrameBatch batch not None, words not None, other_words not None, openers not None):
        """Judge a batch with ``plane``. The second thread may still judge and compare the batch afterwards, so frames
        and arrays must stay valid until ``wait`` returns. The arrays are those of ``judge`` and of ``compare``.
        """
        cdef Outputs outputs = Outputs(NULL, NULL, NULL, False, NULL)
        cdef Py_ssize_t n = batch.count
        if self.thread is None or self.failure is not None or self.batch is not None:
            raise RuntimeError("there is no idle second thread")
        self.words = words_of(words, n)
        self.other_words = words_of(other_words, n)
        self.openers = opener_rows(openers, n)
        if n == 0:
            return
        self.plane.check_frames(batch.frames, n)
        self.other_plane.check_frames(batch.frames, n)
        self.arrays = words, other_words, openers
        self.batch = batch
        self.frames = batch.frames
        self.count = n
        outputs.words = self.words
        with nogil:
            self.ask()
            self.plane.judge(batch.frames, NULL, n, &outputs)
            swap_ordered(self.judged, self.asked[0])

    def wait(self):
        """Wait until the batch that was started last is compared. Return its number of openers (``compare``), or 0
        without a batch.

        MemoryError if comparing failed, which ends the thread.
        """
        cdef int turn = 0
        if self.batch is None:
            return 0
        with nogil:
            while load_ordered(self.compared) != self.asked[0]:
                back_off(turn, True)
                turn += 1
        self.batch = None
        self.arrays = None
        if self.failure is not None:
            raise self.failure
        return self.opener_count

    cdef void ask(self) noexcept nogil:
        add_ordered(self.asked, 1)
        unpark(&self.parking)

    def serve(self):
        """Run the second thread, until ``close``."""
        try:
            with nogil:
                self.serve_all()
        except BaseException as error:
            self.failure = error
            swap_ordered(self.compared, self.asked[0])

    cdef int serve_all(self) except -1 nogil:
        cdef Outputs outputs = Outputs(NULL, NULL, NULL, False, NULL)
        cdef uint64_t batches_seen = 0
        cdef int turn
        while True:
            while load_ordered(self.asked) == batches_seen:
                park_until_change(&self.parking, self.asked, batches_seen, True)
            if self.count == 0:
                return 0
            batches_seen += 1
            outputs.words = self.other_words
            self.other_plane.judge(self.frames, NULL, self.count, &outputs)
            turn = 0
            while load_ordered(self.judged) != batches_seen:
                back_off(turn, True)
                turn += 1
            self.opener_count = self.changed.compare_frames(
                self.frames, self.count, self.words, self.other_words, self.openers, NULL
            )
            swap_ordered(self.compared, batches_seen)

    def close(self):
        """End the thread, if there is one."""
        if self.thread is None:
            return
        try:
            self.wait()
        finally:
            self.count = 0
            self.ask()
            self.thread.join()
            self.thread = None


cdef uint16_t* words_of(words, Py_ssize_t n) except? NULL:
    cdef uint16_t[::1] view = words
    if view.shape[0] < n:
        raise ValueError("words must be a contiguous array of uint16, one a packet")
    return &view[0] if view.shape[0] else NULL

"""Two data planes judge the same frames, at the same time or in turn. A module of its own, as the compiler makes the
data plane's own loop slower where it has to make the same of it twice.
"""

import threading

from cpython.pythread cimport PyThread_acquire_lock, PyThread_release_lock, WAIT_LOCK
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp

from sgfast.core.answers cimport tally_ended
from sgfast.core.batch cimport BATCH, judge_batch, prefetch_line
from sgfast.core.clock cimport tell_time
from sgfast.core.dataplane cimport DataPlane, Wanted
from sgfast.core.frames cimport Frame, FrameBatch
from sgfast.core.intrinsics cimport add_ordered, load_ordered, swap_ordered
from sgfast.core.plane cimport Plane
from sgfast.core.slab cimport allocate_pages
from sgfast.core.sleeper cimport Sleeper, await_change, free_sleeper, init_sleeper, rest, wake
from sgfast.core.wire cimport WireContext, read_frame

cdef enum:
    LINE = 16               # words: two cache lines, as they may be fetched in pairs


cdef bint reads_alike(DataPlane a, DataPlane b) noexcept nogil:
    # Whether a frame's headers, read for one, are what the other would read, keyed hash and all.
    cdef const WireContext* wire = &a.planes[0].wire
    cdef const WireContext* other = &b.planes[0].wire
    return (
        a.jobs == 1 and b.jobs == 1 and wire.exempt == other.exempt
        and memcmp(wire.secret, other.secret, sizeof(wire.secret)) == 0
    )


cdef void judge_beside(
    DataPlane a, DataPlane b, const Frame* frames, Py_ssize_t n, uint16_t* words_a, uint16_t* words_b
) noexcept nogil:
    # Under both locks. Frames are read once, and judged twice while they are in the cache.
    cdef Plane* plane_a = a.planes[0]
    cdef Plane* plane_b = b.planes[0]
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
        size = min(n - start, <Py_ssize_t>BATCH)
        for i in range(size):
            read_frame(&plane_a.wire, &frames[start + i], &a.packets[i])
            tell_time(&a.clock, a.packets[i].time_ns)
            a.now[i] = a.clock.now
            prefetch_line(plane_a, &a.packets[i])
            prefetch_line(plane_b, &a.packets[i])
        judge_batch(plane_a, a.packets, a.now, NULL, a.judged + 1, size, NULL, &words_a[start])
        judge_batch(plane_b, a.packets, a.now, NULL, b.judged + 1, size, NULL, &words_b[start])
        a.judged += size
        b.judged += size
        start += size
    b.clock = a.clock
    tally_ended(plane_a)
    tally_ended(plane_b)


cdef class Beside:
    """Judges frames by two planes, which have judged the same ones before.

    One thread reads the headers of frames once for both. ``together_from``, unless None: while there are that many
    connections both judge at the same time, the other plane by a thread of its own, which ``close`` ends; MemoryError
    if it cannot be started. Headers are then read twice, but neither plane waits for the other's table.
    """

    cdef DataPlane plane
    cdef DataPlane other
    cdef object thread              # None: there is none
    cdef uint32_t many              # it judges while there are as many connections
    cdef Sleeper sleeper
    # On cache lines of their own: batches that the other plane is to judge, and that it has judged.
    cdef uint64_t* asked
    cdef uint64_t* judged
    # What it is to judge; none: to end.
    cdef const Frame* frames
    cdef Py_ssize_t count
    cdef uint16_t* words

    def __cinit__(self, DataPlane plane not None, DataPlane other not None, *, together_from=None):
        self.asked = <uint64_t*>allocate_pages(2 * LINE * sizeof(uint64_t))
        if self.asked == NULL or not init_sleeper(&self.sleeper):
            raise MemoryError
        self.judged = &self.asked[LINE]

    def __init__(self, DataPlane plane not None, DataPlane other not None, *, together_from=None):
        if other is plane or other.judged != plane.judged:
            raise ValueError("planes beside each other are two, and have judged the same frames")
        self.plane = plane
        self.other = other
        self.many = together_from or 0
        if together_from is not None and self.thread is None:
            self.thread = threading.Thread(target=self.serve, name="sgfast-beside", daemon=True)
            try:
                self.thread.start()
            except RuntimeError as error:
                self.thread = None
                raise MemoryError(f"a thread cannot be started: {error}") from error

    def __dealloc__(self):
        # The thread holds a reference: it is gone.
        free(self.asked)
        free_sleeper(&self.sleeper)

    def process(self, FrameBatch batch not None, words not None, other_words not None):
        """``words``, ``other_words``: uint16, at least as long as the batch: get the outcome words (``types.pxd``) of
        either. ValueError when they are not.
        """
        cdef uint16_t[::1] mine = words
        cdef uint16_t[::1] others = other_words
        cdef Py_ssize_t n = batch.count
        if mine.shape[0] < n or others.shape[0] < n:
            raise ValueError("words must be a contiguous array of uint16, one a packet")
        if n == 0:
            return
        if self.thread is not None and self.plane.planes[0].table.live >= self.many:
            with nogil:
                self.judge_together(batch.frames, n, &mine[0], &others[0])
        elif reads_alike(self.plane, self.other):
            with nogil:
                self.judge_in_turn(batch.frames, n, &mine[0], &others[0])
        else:
            self.plane.process_frames(batch, words=words)
            self.other.process_frames(batch, words=other_words)

    cdef void judge_in_turn(self, const Frame* frames, Py_ssize_t n, uint16_t* mine, uint16_t* others) noexcept nogil:
        PyThread_acquire_lock(self.plane.lock, WAIT_LOCK)
        PyThread_acquire_lock(self.other.lock, WAIT_LOCK)
        judge_beside(self.plane, self.other, frames, n, mine, others)
        PyThread_release_lock(self.other.lock)
        PyThread_release_lock(self.plane.lock)

    cdef void judge_together(self, const Frame* frames, Py_ssize_t n, uint16_t* mine, uint16_t* others) noexcept nogil:
        cdef Wanted wanted = Wanted(NULL, NULL, mine)
        cdef int turn = 0
        self.ask(frames, n, others)
        self.plane.judge(frames, NULL, n, &wanted)
        while load_ordered(self.judged) != self.asked[0]:
            rest(turn)
            turn += 1

    cdef void ask(self, const Frame* frames, Py_ssize_t n, uint16_t* words) noexcept nogil:
        self.frames = frames
        self.count = n
        self.words = words
        add_ordered(self.asked, 1)
        wake(&self.sleeper)

    def serve(self):
        """What the thread does, until ``close``."""
        cdef Wanted wanted = Wanted(NULL, NULL, NULL)
        cdef uint64_t seen = 0
        with nogil:
            while True:
                while load_ordered(self.asked) == seen:
                    await_change(&self.sleeper, self.asked, seen)
                if self.count == 0:
                    break
                wanted.words = self.words
                self.other.judge(self.frames, NULL, self.count, &wanted)
                seen += 1
                swap_ordered(self.judged, seen)

    def close(self):
        """Ends the thread, if there is one. Afterwards one thread judges by both."""
        if self.thread is not None:
            self.ask(NULL, 0, NULL)
            self.thread.join()
            self.thread = None

"""Two data planes judge the same frames: each is read once. A module of its own, as the compiler makes the data plane's
own loop slower where it has to make the same of it twice.
"""

from cpython.pythread cimport PyThread_acquire_lock, PyThread_release_lock, WAIT_LOCK
from libc.stdint cimport uint16_t
from libc.string cimport memcmp

from sgfast.core.answers cimport tally_ended
from sgfast.core.batch cimport BATCH, judge_batch, prefetch_line
from sgfast.core.clock cimport tell_time
from sgfast.core.dataplane cimport DataPlane
from sgfast.core.frames cimport Frame, FrameBatch
from sgfast.core.plane cimport Plane
from sgfast.core.wire cimport WireContext, read_frame


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


def process_beside(
    DataPlane plane not None, DataPlane other not None, FrameBatch batch not None, words not None, other_words not None
):
    """Judges a batch of frames by both planes, which have judged the same frames before.

    ``words``, ``other_words``: uint16, at least as long as the batch: get the outcome words (``types.pxd``) of either.
    ValueError when they are not.
    """
    cdef uint16_t[::1] mine = words
    cdef uint16_t[::1] others = other_words
    cdef Py_ssize_t n = batch.count
    if mine.shape[0] < n or others.shape[0] < n:
        raise ValueError("words must be a contiguous array of uint16, one a packet")
    if other is plane or other.judged != plane.judged:
        raise ValueError("planes beside each other are two, and have judged the same frames")
    if not reads_alike(plane, other):
        plane.process_frames(batch, words=words)
        other.process_frames(batch, words=other_words)
    elif n:
        with nogil:
            PyThread_acquire_lock(plane.lock, WAIT_LOCK)
            PyThread_acquire_lock(other.lock, WAIT_LOCK)
            judge_beside(plane, other, batch.frames, n, &mine[0], &others[0])
            PyThread_release_lock(other.lock)
            PyThread_release_lock(plane.lock)

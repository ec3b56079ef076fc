# A thread that waits for work which comes soon as a rule: it looks for it a while before it sleeps, as to be woken
# takes longer than to judge a thousand packets.

from libc.stdint cimport uint64_t

from cpython.pythread cimport (
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    NOWAIT_LOCK,
    WAIT_LOCK,
)

from sgfast.core.base.intrinsics cimport load_ordered, relax, swap_ordered

cdef extern from * nogil:
    """
    #include <sched.h>
    """
    int sched_yield()

cdef enum:
    # Looks before others are let run: some hundreds of microseconds. While one thread lets others run over and over,
    # the kernel is slower for all of them.
    SPINS = 4000
    TURNS = 4200            # looks before it sleeps


cdef struct Parking:
    uint64_t asleep
    void* door              # a lock it sleeps at


cdef inline bint init_parking(Parking* s) noexcept:
    # False: there is no memory.
    s.asleep = 0
    s.door = PyThread_allocate_lock()
    if s.door != NULL:
        PyThread_acquire_lock(s.door, NOWAIT_LOCK)
    return s.door != NULL


cdef inline void free_parking(Parking* s) noexcept:
    if s.door != NULL:
        PyThread_free_lock(s.door)


cdef inline void back_off(int turn) noexcept nogil:
    # Between two looks, which cost whoever writes what is looked at.
    cdef int _
    if turn < SPINS:
        for _ in range(8):
            relax()
    else:
        sched_yield()


cdef inline void unpark(Parking* s) noexcept nogil:
    # After what it looks at has changed.
    if load_ordered(&s.asleep) and swap_ordered(&s.asleep, 0):
        PyThread_release_lock(s.door)


cdef inline void park_until_change(Parking* s, const uint64_t* count, uint64_t seen) noexcept nogil:
    # Until `count` is not what was seen; maybe earlier.
    cdef int turn
    for turn in range(TURNS):
        if load_ordered(count) != seen:
            return
        back_off(turn)
    swap_ordered(&s.asleep, 1)
    if load_ordered(count) != seen and swap_ordered(&s.asleep, 0):
        return      # seen just in time: nobody opens the door
    PyThread_acquire_lock(s.door, WAIT_LOCK)

# Waiting for work that usually arrives soon: a thread spins for a while before it sleeps, as waking a thread takes
# longer than judging a thousand packets.

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
    # Number of checks before the thread starts to yield or sleeps: some hundred microseconds, in which the next part of
    # a capture is read. A thread that yields repeatedly slows down the kernel for all threads.
    SPINS = 800
    TURNS = 820             # number of checks before a yielding thread sleeps


cdef struct Parking:
    uint64_t asleep
    void* lock              # the lock on which the thread sleeps; held except to wake the thread


cdef inline bint init_parking(Parking* s) noexcept:
    # Returns False if there is no memory.
    s.asleep = 0
    s.lock = PyThread_allocate_lock()
    if s.lock != NULL:
        PyThread_acquire_lock(s.lock, NOWAIT_LOCK)
    return s.lock != NULL


cdef inline void free_parking(Parking* s) noexcept:
    if s.lock != NULL:
        PyThread_free_lock(s.lock)


cdef inline void back_off(int turn, bint crowded) noexcept nogil:
    # Pauses between two checks, as each check slows down the thread that writes the value. `crowded`: there are fewer
    # cores than threads, so the other thread may need this core. If there are enough cores, a yield would only give the
    # core to another program for some milliseconds.
    cdef int _
    if turn < SPINS or not crowded:
        for _ in range(8):
            relax()
    else:
        sched_yield()


cdef inline void unpark(Parking* s) noexcept nogil:
    # Wakes the thread if it sleeps. Call this after changing the count that the thread watches.
    if load_ordered(&s.asleep) and swap_ordered(&s.asleep, 0):
        PyThread_release_lock(s.lock)


cdef inline void park_until_change(Parking* s, const uint64_t* count, uint64_t seen, bint crowded) noexcept nogil:
    # Waits until `count` differs from `seen`. May return earlier.
    cdef int turn
    for turn in range(TURNS if crowded else SPINS):
        if load_ordered(count) != seen:
            return
        back_off(turn, crowded)
    swap_ordered(&s.asleep, 1)
    if load_ordered(count) != seen and swap_ordered(&s.asleep, 0):
        return      # changed just in time: no other thread releases the lock
    PyThread_acquire_lock(s.lock, WAIT_LOCK)

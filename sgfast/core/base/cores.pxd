# Keeps threads that work together on different cores. For Linux the load is balanced if two of them share a core while
# another program has the other core for itself. But then each of the two gets only half a core.

from libc.stdint cimport uint64_t

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sched.h>
    #include <stdint.h>
    #if defined(__linux__)
    static inline int sg_allowed_cores(void) {
        cpu_set_t allowed;
        return sched_getaffinity(0, sizeof allowed, &allowed) ? 0 : CPU_COUNT(&allowed);
    }
    static inline int sg_core(void) { return sched_getcpu(); }
    /* The mask is restored at once: the thread has moved by then, and Linux may move it again. */
    static inline void sg_leave_cores(const uint64_t *taken, int count, int stride) {
        cpu_set_t allowed, free_cores;
        if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
        free_cores = allowed;
        for (int i = 0; i < count; i++) {
            uint64_t core = __atomic_load_n(&taken[i * stride], __ATOMIC_SEQ_CST);
            if (core < CPU_SETSIZE) CPU_CLR((int)core, &free_cores);
        }
        if (CPU_COUNT(&free_cores) && !sched_setaffinity(0, sizeof free_cores, &free_cores))
            sched_setaffinity(0, sizeof allowed, &allowed);
    }
    #else
    static inline int sg_allowed_cores(void) { return 0; }
    static inline int sg_core(void) { return 0; }
    static inline void sg_leave_cores(const uint64_t *taken, int count, int stride) {}
    #endif
    """
    # Returns the number of cores that the calling thread may use, or 0 if the system does not report it.
    int allowed_cores "sg_allowed_cores"()
    int core_of_thread "sg_core"()
    # Moves the calling thread to a core that is not `taken`, if it may use such a core. `taken` has `count` core
    # numbers, each `stride` words after the one before.
    void leave_cores "sg_leave_cores"(const uint64_t* taken, int count, int stride)

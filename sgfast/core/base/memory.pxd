# Zeroed memory for large tables, aligned to cache lines, or to huge pages from 2 MiB on. Release it with free(). NULL
# if there is no memory.

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    #define SG_HUGE_PAGE ((size_t)2 << 20)
    /* Random access to millions of entries is mostly TLB misses; huge pages halve them. Only a hint to the kernel. */
    static inline void *sg_allocate_pages(size_t nbytes) {
        void *p = NULL;
        size_t alignment = nbytes >= SG_HUGE_PAGE ? SG_HUGE_PAGE : 64;
        size_t rounded = (nbytes + alignment - 1) / alignment * alignment;
        if (posix_memalign(&p, alignment, rounded)) return NULL;
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (alignment == SG_HUGE_PAGE) madvise(p, rounded, MADV_HUGEPAGE);
    #endif
        memset(p, 0, nbytes);
        return p;
    }
    """
    void* allocate_pages "sg_allocate_pages"(size_t nbytes) noexcept nogil

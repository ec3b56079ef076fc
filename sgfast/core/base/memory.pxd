# Zeroed memory for large tables, aligned to cache lines or more. Both functions return NULL if there is no memory.
#
# - `allocate_pages` takes all the memory at once. For 2 MiB or more it requests huge pages. free() releases the
#   memory.
# - `map_lazily` takes the memory of each page when the page is first touched. The first 64 KiB or more are small pages,
#   so a table with few rows takes little memory. All later pages are huge pages, if the system has them. unmap_pages()
#   releases the memory.

cdef extern from *:
    """
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #define SG_HUGE_PAGE ((size_t)2 << 20)
    /* Random access to millions of entries is mostly TLB misses, which huge pages halve. This is only a hint. */
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
    static inline void *sg_map_lazily(size_t nbytes) {
        void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        uintptr_t begin = ((uintptr_t)p + 65536 + SG_HUGE_PAGE - 1) / SG_HUGE_PAGE * SG_HUGE_PAGE;
        uintptr_t end = ((uintptr_t)p + nbytes) / SG_HUGE_PAGE * SG_HUGE_PAGE;
        if (begin < end) madvise((void *)begin, end - begin, MADV_HUGEPAGE);
    #endif
        return p;
    }
    static inline void sg_unmap_pages(void *p, size_t nbytes) { if (p) munmap(p, nbytes); }
    """
    void* allocate_pages "sg_allocate_pages"(size_t nbytes) noexcept nogil
    void* map_lazily "sg_map_lazily"(size_t nbytes) noexcept nogil
    void unmap_pages "sg_unmap_pages"(void* p, size_t nbytes) noexcept nogil

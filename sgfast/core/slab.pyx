"""Chunks of connection entries; the layout stands in ``slab.pxd``."""

from libc.stdlib cimport free, realloc
from libc.string cimport memset

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    #define SG_HUGE_PAGE ((size_t)2 << 20)
    /* Random access to millions of entries is mostly TLB misses; huge pages halve them. Advice, never a need. */
    static void *sg_allocate_pages(size_t nbytes) {
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
    void* sg_allocate_pages(size_t nbytes) noexcept nogil


cdef void* allocate_pages(size_t nbytes) noexcept nogil:
    return sg_allocate_pages(nbytes)


cdef void init_slab(Slab* slab, bint with_marks, bint with_flows) noexcept nogil:
    memset(slab, 0, sizeof(Slab))
    slab.free_slots = NO_SLOT
    slab.with_marks = with_marks
    slab.with_flows = with_flows


cdef void free_slab(Slab* slab) noexcept nogil:
    cdef uint32_t i
    for i in range(slab.chunks):
        free(slab.entries[i])
        free(slab.addresses[i])
        free(slab.marks[i])
        free(slab.flows[i])
    free(slab.entries)
    free(slab.addresses)
    free(slab.marks)
    free(slab.flows)
    memset(slab, 0, sizeof(Slab))


cdef bint grow_directory(Slab* slab) noexcept nogil:
    cdef uint32_t capacity = slab.chunk_capacity * 2 if slab.chunk_capacity else 64
    cdef size_t nbytes = <size_t>capacity * sizeof(void*)
    cdef void* grown
    grown = realloc(slab.entries, nbytes)
    if grown == NULL:
        return False
    slab.entries = <Entry**>grown
    grown = realloc(slab.addresses, nbytes)
    if grown == NULL:
        return False
    slab.addresses = <uint64_t**>grown
    grown = realloc(slab.marks, nbytes)
    if grown == NULL:
        return False
    slab.marks = <MarkLink**>grown
    grown = realloc(slab.flows, nbytes)
    if grown == NULL:
        return False
    slab.flows = <FlowRecord**>grown
    slab.chunk_capacity = capacity
    return True


cdef bint add_chunk(Slab* slab) noexcept nogil:
    cdef uint32_t i = slab.chunks
    if i == (<uint32_t>1 << (31 - CHUNK_BITS)):
        return False
    if i == slab.chunk_capacity and not grow_directory(slab):
        return False
    slab.addresses[i] = NULL
    slab.marks[i] = NULL
    slab.flows[i] = NULL
    slab.entries[i] = <Entry*>allocate_pages(CHUNK_SLOTS * sizeof(Entry))
    if slab.entries[i] == NULL:
        return False
    if slab.with_marks:
        slab.marks[i] = <MarkLink*>allocate_pages(CHUNK_SLOTS * sizeof(MarkLink))
    if slab.with_flows:
        slab.flows[i] = <FlowRecord*>allocate_pages(CHUNK_SLOTS * sizeof(FlowRecord))
    if (slab.with_marks and slab.marks[i] == NULL) or (slab.with_flows and slab.flows[i] == NULL):
        free(slab.entries[i])
        free(slab.marks[i])
        free(slab.flows[i])
        return False
    slab.nbytes += CHUNK_SLOTS * sizeof(Entry)
    slab.chunks += 1
    return True


cdef uint32_t take_slot(Slab* slab, bint ipv6) noexcept nogil:
    cdef uint32_t slot = slab.free_slots
    cdef uint32_t chunk
    if slot == NO_SLOT:
        if slab.fresh == slab.chunks << CHUNK_BITS and not add_chunk(slab):
            return NO_SLOT
        slot = slab.fresh
    chunk = slot >> CHUNK_BITS
    if ipv6 and slab.addresses[chunk] == NULL:
        slab.addresses[chunk] = <uint64_t*>allocate_pages(CHUNK_SLOTS * 32)
        if slab.addresses[chunk] == NULL:
            return NO_SLOT
        slab.nbytes += CHUNK_SLOTS * 32
    if slot == slab.free_slots:
        slab.free_slots = entry_at(slab, slot).wheel_next
    else:
        slab.fresh += 1
    return slot


cdef void give_slot(Slab* slab, uint32_t slot) noexcept nogil:
    cdef Entry* e = entry_at(slab, slot)
    e.kind = 0
    e.marks = 0
    e.present = 0
    e.state[0] = 0
    e.state[1] = 0
    e.wheel_next = slab.free_slots
    slab.free_slots = slot

# Operations that Cython cannot express: plain C11 with GCC/Clang builtins, and no instructions beyond the platform's
# baseline (SSE2 is part of x86-64). So a build also runs on other machines than the one it was made on.
# -DSGFAST_PORTABLE selects the plain C for processors without SSE2.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__) && !defined(SGFAST_PORTABLE)
    #include <emmintrin.h>
    #endif

    #define sg_likely(x)   __builtin_expect(!!(x), 1)
    #define sg_unlikely(x) __builtin_expect(!!(x), 0)
    #define sg_prefetch(p) __builtin_prefetch((p), 1, 3)
    #define sg_prefetch_read(p) __builtin_prefetch((p), 0, 3)
    /* Without an option that names a processor, compilers do not use this instruction. To a processor that does not
       know it, it is a NOP. */
    #if defined(__x86_64__)
    #define sg_take_over(p) __asm__ __volatile__("prefetchw %0" : : "m"(*(const uint8_t *)(p)))
    #else
    #define sg_take_over(p) __builtin_prefetch((p), 1, 3)
    #endif

    /* Unaligned big-endian loads: nothing in a captured packet is aligned. */
    static inline uint16_t sg_be16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
    static inline uint32_t sg_be32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
    static inline uint64_t sg_be64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
    static inline void sg_put_be64(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "sgfast is written for little-endian machines"
    #endif

    static inline uint16_t sg_load16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
    static inline uint32_t sg_load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
    static inline uint64_t sg_load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }

    static inline void sg_store32(void *p, uint32_t v) { memcpy(p, &v, 4); }

    /* Folded multiply: the XOR of both halves of a 128-bit product. */
    static inline uint64_t sg_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }

    /* Bit i is set if tag i of the 12 at p equals tag. p is aligned to 16 bytes, and 16 bytes are readable. */
    static inline uint32_t sg_match12(const uint8_t *p, uint8_t tag) {
    #if defined(__SSE2__) && !defined(SGFAST_PORTABLE)
        __m128i tags = _mm_load_si128((const __m128i *)p);
        return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi32((int)(tag * 0x01010101u)))) & 0xfffu;
    #else
        uint32_t mask = 0;
        for (int i = 0; i < 12; i++) mask |= (uint32_t)(p[i] == tag) << i;
        return mask;
    #endif
    }
    /* Sequentially consistent atomics: a reader of a new value also sees all that its writer wrote before. */
    #define sg_load_ordered(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define sg_add_ordered(p, n) __atomic_add_fetch((p), (n), __ATOMIC_SEQ_CST)
    #define sg_swap_ordered(p, n) __atomic_exchange_n((p), (n), __ATOMIC_SEQ_CST)
    static inline int sg_swap_if_ordered(uint64_t *p, uint64_t expected, uint64_t n) {
        return __atomic_compare_exchange_n(p, &expected, n, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    #if defined(__x86_64__) || defined(__i386__)
    #define sg_relax() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define sg_relax() __asm__ __volatile__("yield")
    #else
    #define sg_relax() ((void)0)
    #endif

    #define sg_ctz32(x) __builtin_ctz(x)
    #define sg_ctz64(x) __builtin_ctzll(x)
    #define sg_popcount64(x) __builtin_popcountll(x)
    """
    bint likely "sg_likely"(bint condition) noexcept nogil
    bint unlikely "sg_unlikely"(bint condition) noexcept nogil
    void prefetch "sg_prefetch"(const void* address) noexcept nogil
    void prefetch_read "sg_prefetch_read"(const void* address) noexcept nogil
    # Prefetches a cache line, and takes it from all other cores. Writing a line that several cores hold takes long: 30
    # ns, and more if the cores share no cache.
    void take_over "sg_take_over"(const void* address) noexcept nogil
    uint16_t be16 "sg_be16"(const uint8_t* p) noexcept nogil
    uint32_t be32 "sg_be32"(const uint8_t* p) noexcept nogil
    uint64_t be64 "sg_be64"(const uint8_t* p) noexcept nogil
    void put_be64 "sg_put_be64"(uint8_t* p, uint64_t v) noexcept nogil
    uint16_t load16 "sg_load16"(const void* p) noexcept nogil
    uint32_t load32 "sg_load32"(const void* p) noexcept nogil
    uint64_t load64 "sg_load64"(const void* p) noexcept nogil
    void store32 "sg_store32"(void* p, uint32_t v) noexcept nogil
    uint64_t fold "sg_fold"(uint64_t a, uint64_t b) noexcept nogil
    uint32_t match12 "sg_match12"(const uint8_t* tags, uint8_t tag) noexcept nogil
    int ctz32 "sg_ctz32"(uint32_t x) noexcept nogil
    int ctz64 "sg_ctz64"(uint64_t x) noexcept nogil
    int popcount64 "sg_popcount64"(uint64_t x) noexcept nogil
    uint64_t load_ordered "sg_load_ordered"(const uint64_t* p) noexcept nogil
    uint64_t add_ordered "sg_add_ordered"(uint64_t* p, uint64_t n) noexcept nogil
    uint64_t swap_ordered "sg_swap_ordered"(uint64_t* p, uint64_t n) noexcept nogil
    # Swaps only if the value is `expected`. Returns whether it was `expected`.
    bint swap_if_ordered "sg_swap_if_ordered"(uint64_t* p, uint64_t expected, uint64_t n) noexcept nogil
    void relax "sg_relax"() noexcept nogil

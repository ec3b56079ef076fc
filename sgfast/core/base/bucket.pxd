# A hash index is an array of buckets. The number of buckets is a power of two. A bucket is one cache line with room for
# 12 keys. For each key it has a tag of 8 bits and a slot, which is the place where the key is stored. If a key's bucket
# is full, the key goes to the next bucket, and `overflow` counts such keys.
#
# The lowest bits of a key's hash select the bucket, and the highest eight are the key's tag. One SIMD comparison finds
# the matching tags. A matching tag nearly always belongs to the key that is looked up.

from libc.stdint cimport uint8_t, uint32_t

from sgfast.core.base.intrinsics cimport ctz32, match12

cdef enum:
    # Average number of keys per bucket at which the index is full. With 6, fewer than one bucket in a hundred
    # overflows. With 8, one in sixteen would, and a new key would have to wait for the cache line of the next bucket.
    FULL_BUCKET = 6


cdef struct Bucket:         # 64 bytes
    uint8_t tags[12]        # 0: free
    uint8_t overflow        # number of keys that went to the next bucket; saturates at 255
    uint8_t spare[3]
    uint32_t slots[12]


cdef inline uint8_t tag_of(uint32_t hash_value) noexcept nogil:
    cdef uint8_t tag = hash_value >> 24
    return tag if tag else 1


cdef inline uint32_t match_tag(const Bucket* bucket, uint32_t hash_value) noexcept nogil:
    # Returns a mask: bit i is set if place i may hold the key.
    return match12(bucket.tags, tag_of(hash_value))


cdef inline void put_in_bucket(
    Bucket* buckets, uint32_t bucket_mask, uint32_t hash_value, uint32_t slot
) noexcept nogil:
    # Adds a key. The index must have a free place.
    cdef uint32_t at = hash_value & bucket_mask
    cdef uint32_t free_places
    while True:
        free_places = match12(buckets[at].tags, 0)
        if free_places:
            break
        if buckets[at].overflow < 255:
            buckets[at].overflow += 1
        at = (at + 1) & bucket_mask
    buckets[at].tags[ctz32(free_places)] = tag_of(hash_value)
    buckets[at].slots[ctz32(free_places)] = slot

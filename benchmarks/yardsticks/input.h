/* Input of the C yardsticks: captures of benchmarks/workload.py (little-endian pcap, Ethernet), and rows of headers
 * and rules in the layout of Python's arrays.
 */
#ifndef SGFAST_BENCHMARKS_INPUT_H
#define SGFAST_BENCHMARKS_INPUT_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_HEADER = 24, RECORD_HEADER = 16, ETHERNET = 14 };

struct file {
    const uint8_t *data;
    size_t size;
};

static int map_file(const char *path, struct file *file)
{
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    void *data;
    if (descriptor < 0)
        return -1;
    if (fstat(descriptor, &status) < 0 || status.st_size < FILE_HEADER) {
        close(descriptor);
        return -1;
    }
    data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    close(descriptor);
    if (data == MAP_FAILED)
        return -1;
    madvise(data, (size_t)status.st_size, MADV_SEQUENTIAL);
    file->data = data;
    file->size = (size_t)status.st_size;
    return 0;
}

static inline uint32_t little32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t big16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }

static inline uint32_t big32(const uint8_t *p) { return big16(p) << 16 | big16(p + 2); }

static inline uint64_t big64(const uint8_t *p) { return (uint64_t)big32(p) << 32 | big32(p + 4); }

/* Return the frame at *at, or NULL at the end. *length is set to its captured bytes. */
static inline const uint8_t *next_frame(const struct file *file, size_t *at, uint32_t *length)
{
    const uint8_t *record = file->data + *at;
    if (file->size - *at < RECORD_HEADER)
        return NULL;
    *length = little32(record + 8);
    if (file->size - *at - RECORD_HEADER < *length)
        return NULL;
    *at += RECORD_HEADER + *length;
    return record + RECORD_HEADER;
}

/* A row of sgfast's HEADER_DTYPE. */
struct header {
    int64_t time;
    uint8_t source[16], destination[16];
    uint32_t wire;
    uint16_t sport, dport;
    uint8_t family, protocol, tcp_flags, icmp_type, icmp_code, has_ports, has_icmp, spare;
    uint32_t icmp_id;
} __attribute__((packed));

/* A rule of group `of`, for one of its port ranges. `group` is the peer's, or -1. `protocol`: 256 is any. */
struct rule {
    uint32_t network, mask;
    int32_t group, number;
    uint16_t protocol, first, last, of;
};

/* A rule that has a destination rather than a group. `protocol`: 256 is any. */
struct prefix_rule {
    uint32_t source, source_mask, destination, destination_mask;
    int32_t number;
    uint16_t protocol, first, last, spare;
};

#endif

/* Yardsticks in C: the minimum cost of a replay. They are built when the benchmarks run, with cc -O3.
 *
 *   walk   maps a capture, goes from record header to record header and sums the fields of the 5-tuple: the floor
 *   hash   does the same, and counts packets and bytes by 5-tuple in a bare open-addressing table: no states, no
 *          timeouts, no rules; the table's size is known beforehand, and it never grows
 *   scan   tries an instance's rules one by one for each row of headers: stateless match without any index;
 *          first_match does this for rules that have destinations rather than groups
 *
 * They read the output of benchmarks/workload.py: little-endian pcap, Ethernet, IPv4 without options or IPv6, TCP.
 */
#include "input.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 64 };

/* The lower address first, so that both directions are one key. */
struct key {
    uint64_t address[4];
    uint32_t ports;
    uint32_t protocol;
};

struct entry {
    struct key key;
    uint64_t packets, bytes;
    uint64_t spare;
};
_Static_assert(sizeof(struct entry) == 64, "an entry is a cache line");

struct totals {
    uint64_t packets, sum, flows;
};

int walk(const char *path, struct totals *totals)
{
    struct file file;
    const uint8_t *frame, *ip;
    size_t at = FILE_HEADER;
    uint32_t length;
    uint64_t packets = 0, sum = 0;
    if (map_file(path, &file) < 0)
        return -1;
    while ((frame = next_frame(&file, &at, &length)) != NULL) {
        packets++;
        if (length < ETHERNET + 40)
            continue;
        ip = frame + ETHERNET;
        if (big16(frame + 12) == 0x0800)
            sum += ip[9] + (uint64_t)big32(ip + 12) + big32(ip + 16) + big16(ip + 20) + big16(ip + 22);
        else if (big16(frame + 12) == 0x86DD && length >= ETHERNET + 60)
            sum += ip[6] + big64(ip + 8) + big64(ip + 16) + big64(ip + 24) + big64(ip + 32) + big16(ip + 40) +
                   big16(ip + 42);
    }
    munmap((void *)file.data, file.size);
    totals->packets = packets;
    totals->sum = sum;
    return 0;
}

static inline int read_key(const uint8_t *frame, uint32_t length, struct key *key)
{
    const uint8_t *ip = frame + ETHERNET, *tcp;
    uint64_t a[2] = {0, 0}, b[2] = {0, 0};
    uint32_t source, destination;
    int swap;
    if (length < ETHERNET + 40)
        return 0;
    if (big16(frame + 12) == 0x0800) {
        a[1] = big32(ip + 12), b[1] = big32(ip + 16);
        tcp = ip + 20;
        key->protocol = ip[9];
    } else if (big16(frame + 12) == 0x86DD && length >= ETHERNET + 60) {
        a[0] = big64(ip + 8), a[1] = big64(ip + 16);
        b[0] = big64(ip + 24), b[1] = big64(ip + 32);
        tcp = ip + 40;
        key->protocol = 1U << 8 | ip[6];
    } else
        return 0;
    source = big16(tcp), destination = big16(tcp + 2);
    swap = a[0] > b[0] || (a[0] == b[0] && a[1] > b[1]);
    key->address[0] = swap ? b[0] : a[0];
    key->address[1] = swap ? b[1] : a[1];
    key->address[2] = swap ? a[0] : b[0];
    key->address[3] = swap ? a[1] : b[1];
    key->ports = swap ? destination << 16 | source : source << 16 | destination;
    return 1;
}

static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_of(const struct key *key)
{
    uint64_t hash = fold(key->address[1] ^ 0x9E3779B97F4A7C15U, key->address[3] ^ 0xD6E8FEB86659FD93U);
    if (key->protocol >> 8)
        hash = fold(hash ^ key->address[0], key->address[2] ^ 0xA0761D6478BD642FU);
    return fold(hash ^ key->ports, key->protocol ^ 0xE7037ED1A0B428DBU);
}

/* Count packets by 5-tuple. `flows` is at least the number of flows. */
int hash(const char *path, uint64_t flows, struct totals *totals)
{
    struct file file;
    struct entry *table, *entry;
    struct key keys[BATCH];
    uint64_t slots[BATCH];
    uint32_t lengths[BATCH];
    const uint8_t *frame = NULL;
    size_t at = FILE_HEADER;
    uint32_t length;
    uint64_t mask = 1024, packets = 0, sum = 0, found = 0, slot;
    int size, i;
    while (mask < 2 * flows)
        mask *= 2;
    table = aligned_alloc(64, mask * sizeof *table);
    if (table == NULL)
        return -1;
    memset(table, 0, mask * sizeof *table);
    mask--;
    if (map_file(path, &file) < 0) {
        free(table);
        return -1;
    }
    do {
        for (size = 0; size < BATCH && (frame = next_frame(&file, &at, &length)) != NULL;) {
            packets++;
            if (!read_key(frame, length, &keys[size]))
                continue;
            slots[size] = hash_of(&keys[size]) & mask;
            __builtin_prefetch(&table[slots[size]], 1);
            lengths[size++] = length;
        }
        for (i = 0; i < size; i++) {
            slot = slots[i];
            for (;; slot = (slot + 1) & mask) {
                entry = &table[slot];
                if (entry->packets == 0) {
                    if (found == mask) { /* never full: the search for a free entry must end */
                        found = UINT64_MAX;
                        goto end;
                    }
                    entry->key = keys[i];
                    found++;
                    break;
                }
                if (memcmp(&entry->key, &keys[i], sizeof keys[i]) == 0)
                    break;
            }
            entry->packets++;
            entry->bytes += lengths[i];
            sum += entry->packets;
        }
    } while (frame != NULL);
end:
    munmap((void *)file.data, file.size);
    free(table);
    totals->packets = packets;
    totals->sum = sum;
    totals->flows = found;
    return found == UINT64_MAX ? -1 : 0;
}

unsigned header_bytes(void) { return sizeof(struct header); }

/* Match IPv4 openers to instances. These own `first_instance` and the following addresses; instance n is in group
 * n modulo `groups`. Rules are in order of precedence; those of group g begin at starts[g]. */
void scan(const struct header *rows, uint64_t count, const struct rule *rules, const uint32_t *starts,
          uint32_t groups, uint32_t first_instance, uint32_t instances, int32_t *winners)
{
    uint64_t n;
    uint32_t i, end, receiver, peer;
    int32_t peer_group;
    for (n = 0; n < count; n++) {
        const struct header *row = &rows[n];
        winners[n] = -2;
        receiver = big32(row->destination) - first_instance;
        if (receiver >= instances)
            continue;
        winners[n] = -1;
        peer = big32(row->source);
        peer_group = peer - first_instance < instances ? (int32_t)((peer - first_instance) % groups) : -2;
        end = starts[receiver % groups + 1];
        for (i = starts[receiver % groups]; i < end; i++) {
            const struct rule *rule = &rules[i];
            if ((rule->protocol == 256 || rule->protocol == row->protocol) && row->dport >= rule->first &&
                row->dport <= rule->last &&
                (rule->group >= 0 ? rule->group == peer_group : (peer & rule->mask) == rule->network)) {
                winners[n] = rule->number;
                break;
            }
        }
    }
}

/* Find the first matching rule of IPv4 openers. Rules are in order of precedence. */
void first_match(const struct header *rows, uint64_t count, const struct prefix_rule *rules, uint64_t rule_count,
                 int32_t *winners)
{
    uint64_t n, i;
    for (n = 0; n < count; n++) {
        const struct header *row = &rows[n];
        uint32_t source = big32(row->source), destination = big32(row->destination);
        winners[n] = -1;
        for (i = 0; i < rule_count; i++) {
            const struct prefix_rule *rule = &rules[i];
            if ((destination & rule->destination_mask) == rule->destination &&
                (source & rule->source_mask) == rule->source &&
                (rule->protocol == 256 || rule->protocol == row->protocol) && row->dport >= rule->first &&
                row->dport <= rule->last) {
                winners[n] = rule->number;
                break;
            }
        }
    }
}

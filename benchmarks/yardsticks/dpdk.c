/* Yardsticks of DPDK, in a process of their own, because EAL can be initialised only once per process.
 *
 *   dpdk acl RULES OWNERS HEADERS WINNERS     rte_acl: the winning rule of each row of headers
 *   dpdk prefixes RULES HEADERS WINNERS       the same, for rules that have destinations rather than groups
 *   dpdk hash CAPTURE FLOWS                   rte_hash: the flow of each packet, in the order of the capture
 *
 * The program prints `ready` and the variants that this CPU supports. For each line of its input it executes that
 * command for all rows or packets once, and prints the seconds. It ends when its input ends. Errors are printed on
 * stderr; the exit status is then 1, or 2 for a wrong result.
 *
 * It needs neither root, nor reserved huge pages, nor a device. DPDK's memory is allocated here, in transparent huge
 * pages as far as the kernel provides them, like sgfast's tables. EAL itself would allocate small pages.
 */
#define _GNU_SOURCE /* cores */
#include "input.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_malloc.h>

enum { UNABLE = 1, WRONG = 2 };

static void __attribute__((noreturn, format(printf, 2, 3))) end(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(status);
}

#define fail(...) end(UNABLE, __VA_ARGS__)

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

enum { HUGE_PAGE = 2 << 20 };

/* Allocate memory in huge pages, as sgfast does. */
static void *memory(size_t size)
{
    void *made = NULL;
    size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (posix_memalign(&made, HUGE_PAGE, size))
        fail("%zu bytes of memory are not there", size);
    madvise(made, size, MADV_HUGEPAGE);
    memset(made, 0, size);
    return made;
}

/* Initialise DPDK. Return the socket to allocate from. */
static int set_up(unsigned megabytes)
{
    char core[16];
    char *arguments[] = {
        "dpdk", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level", "error",
        "--force-max-simd-bitwidth", "512", "-l", core, "-m", "64", NULL,
    };
    size_t size = ((size_t)megabytes << 20) / HUGE_PAGE * HUGE_PAGE + HUGE_PAGE; /* a multiple of the page size */
    cpu_set_t allowed;
    int first = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        fail("cores: %s", strerror(errno));
    while (!CPU_ISSET(first, &allowed))
        first++;
    snprintf(core, sizeof core, "%d", first);
    if (rte_eal_init((int)(sizeof arguments / sizeof *arguments) - 1, arguments) < 0)
        fail("EAL: %s", rte_strerror(rte_errno));
    /* EAL has bound the process to one core. Undo this, because sgfast may run on any core, too. */
    if (sched_setaffinity(0, sizeof allowed, &allowed))
        fail("cores: %s", strerror(errno));
    if (rte_malloc_heap_create("huge") || rte_malloc_heap_memory_add("huge", memory(size), size, NULL, 0, HUGE_PAGE))
        fail("memory for DPDK: %s", rte_strerror(rte_errno));
    return rte_malloc_heap_get_socket("huge");
}

/* Read a whole file into memory, and set `size` to its bytes. */
static void *contents(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    void *data;
    long length;
    if (file == NULL || fseek(file, 0, SEEK_END) || (length = ftell(file)) < 0)
        fail("%s: %s", path, strerror(errno));
    rewind(file);
    data = memory((size_t)length + 1);
    if (fread(data, 1, (size_t)length, file) != (size_t)length)
        fail("%s: it cannot be read", path);
    fclose(file);
    *size = (size_t)length;
    return data;
}

/* rte_acl -------------------------------------------------------------------------------------------------------------
 *
 * The rules of all groups are one context. Its keys are as short as possible, because rte_acl takes a step for each
 * byte. A key has one byte for the receiver's group and one for the sender's, each found by rte_fib. The context has
 * only inbound rules, because all rows are openers from outside, whose senders have no filter.
 *
 * Rules with destinations rather than groups need no rte_fib. Their keys are those of DPDK's own examples, of 13
 * bytes. They include the unused source port, because keys are read four bytes at a time.
 */
enum { NOBODY = 0, MOST_GROUPS = 127, BURST = 256 };

struct owner {
    uint32_t address, group;
};

struct group_key {
    uint8_t group, spare[3];
    uint8_t protocol, peer_group;
    uint16_t dport;
    uint32_t source;
};

struct prefix_key {
    uint8_t protocol, spare[3];
    uint32_t source, destination;
    uint16_t sport, dport;
};

union acl_key {
    struct group_key groups;
    struct prefix_key prefixes;
};

enum { GROUP, PROTOCOL, PEER_GROUP, DPORT, SOURCE, FIELDS };
enum { PREFIX_PROTOCOL, PREFIX_SOURCE, PREFIX_DESTINATION, PREFIX_SPORT, PREFIX_DPORT };

static const struct rte_acl_field_def acl_fields[FIELDS] = {
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, GROUP, 0, offsetof(struct group_key, group)},
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, PROTOCOL, 1, offsetof(struct group_key, protocol)},
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, PEER_GROUP, 1, offsetof(struct group_key, peer_group)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, DPORT, 1, offsetof(struct group_key, dport)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, SOURCE, 2, offsetof(struct group_key, source)},
};

static const struct rte_acl_field_def prefix_fields[FIELDS] = {
    {RTE_ACL_FIELD_TYPE_BITMASK, 1, PREFIX_PROTOCOL, 0, offsetof(struct prefix_key, protocol)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, PREFIX_SOURCE, 1, offsetof(struct prefix_key, source)},
    {RTE_ACL_FIELD_TYPE_MASK, 4, PREFIX_DESTINATION, 2, offsetof(struct prefix_key, destination)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, PREFIX_SPORT, 3, offsetof(struct prefix_key, sport)},
    {RTE_ACL_FIELD_TYPE_RANGE, 2, PREFIX_DPORT, 3, offsetof(struct prefix_key, dport)},
};

RTE_ACL_RULE_DEF(acl_rule, FIELDS);

struct acl {
    /* Make the keys of `n` rows, at most a burst. `without` receives the result of each row if no rule matches it. */
    void (*make_keys)(
        const struct acl *acl, const struct header *rows, size_t n, union acl_key *keys, int32_t *without);
    struct rte_acl_ctx *rules;
    struct rte_fib *owners;
    const struct header *rows;
    size_t count;
    int32_t *winners;
};

static const struct {
    const char *name;
    enum rte_acl_classify_alg number;
} algorithms[] = {
    {"scalar", RTE_ACL_CLASSIFY_SCALAR},         {"sse", RTE_ACL_CLASSIFY_SSE},
    {"avx2", RTE_ACL_CLASSIFY_AVX2},             {"avx512x16", RTE_ACL_CLASSIFY_AVX512X16},
    {"avx512x32", RTE_ACL_CLASSIFY_AVX512X32},   {"neon", RTE_ACL_CLASSIFY_NEON},
    {"altivec", RTE_ACL_CLASSIFY_ALTIVEC},
};
enum { ALGORITHMS = sizeof algorithms / sizeof *algorithms };

static struct rte_acl_ctx *new_acl(size_t count, int socket)
{
    struct rte_acl_param parameters = {"rules", socket, RTE_ACL_RULE_SZ(FIELDS), (uint32_t)count};
    struct rte_acl_ctx *context = rte_acl_create(&parameters);
    if (context == NULL)
        fail("rte_acl_create: %s", rte_strerror(rte_errno));
    return context;
}

/* Add the n-th rule. Earlier rules take precedence. */
static void add_rule(struct rte_acl_ctx *context, struct acl_rule *rule, size_t n, int32_t number)
{
    int failed;
    rule->data.category_mask = 1;
    rule->data.priority = RTE_ACL_MAX_PRIORITY - (int32_t)n;
    rule->data.userdata = (uint32_t)number + 1;
    if ((failed = rte_acl_add_rules(context, (const struct rte_acl_rule *)rule, 1)) != 0)
        fail("rte_acl_add_rules: %s", rte_strerror(-failed));
}

static void finish_acl(struct rte_acl_ctx *context, const struct rte_acl_field_def fields[FIELDS])
{
    struct rte_acl_config config = {.num_categories = 1, .num_fields = FIELDS};
    int failed;
    memcpy(config.defs, fields, FIELDS * sizeof *fields);
    if ((failed = rte_acl_build(context, &config)) != 0)
        fail("rte_acl_build: %s", rte_strerror(-failed));
}

/* Rules of each group, in order of precedence. */
static struct rte_acl_ctx *build_acl(const struct rule *rules, size_t count, int socket)
{
    struct rte_acl_ctx *context = new_acl(count, socket);
    size_t n;
    for (n = 0; n < count; n++) {
        const struct rule *rule = &rules[n];
        struct acl_rule made = {0};
        made.field[GROUP].value.u8 = (uint8_t)(rule->of + 1);
        made.field[GROUP].mask_range.u8 = 0xff;
        if (rule->protocol < 256) {
            made.field[PROTOCOL].value.u8 = (uint8_t)rule->protocol;
            made.field[PROTOCOL].mask_range.u8 = 0xff;
        }
        if (rule->group >= 0) {
            made.field[PEER_GROUP].value.u8 = (uint8_t)(rule->group + 1);
            made.field[PEER_GROUP].mask_range.u8 = 0xff;
        }
        made.field[DPORT].value.u16 = rule->first;
        made.field[DPORT].mask_range.u16 = rule->last;
        made.field[SOURCE].value.u32 = rule->network;
        made.field[SOURCE].mask_range.u32 = (uint32_t)__builtin_popcount(rule->mask);
        add_rule(context, &made, n, rule->number);
    }
    finish_acl(context, acl_fields);
    return context;
}

static struct rte_acl_ctx *build_prefixes(const struct prefix_rule *rules, size_t count, int socket)
{
    struct rte_acl_ctx *context = new_acl(count, socket);
    size_t n;
    for (n = 0; n < count; n++) {
        const struct prefix_rule *rule = &rules[n];
        struct acl_rule made = {0};
        if (rule->protocol < 256) {
            made.field[PREFIX_PROTOCOL].value.u8 = (uint8_t)rule->protocol;
            made.field[PREFIX_PROTOCOL].mask_range.u8 = 0xff;
        }
        made.field[PREFIX_SOURCE].value.u32 = rule->source;
        made.field[PREFIX_SOURCE].mask_range.u32 = (uint32_t)__builtin_popcount(rule->source_mask);
        made.field[PREFIX_DESTINATION].value.u32 = rule->destination;
        made.field[PREFIX_DESTINATION].mask_range.u32 = (uint32_t)__builtin_popcount(rule->destination_mask);
        made.field[PREFIX_SPORT].mask_range.u16 = UINT16_MAX;
        made.field[PREFIX_DPORT].value.u16 = rule->first;
        made.field[PREFIX_DPORT].mask_range.u16 = rule->last;
        add_rule(context, &made, n, rule->number);
    }
    finish_acl(context, prefix_fields);
    return context;
}

static struct rte_fib *build_owners(const struct owner *owners, size_t count, int socket)
{
    struct rte_fib_conf config = {
        .type = RTE_FIB_DIR24_8, .default_nh = NOBODY, .max_routes = (int)count + 1,
    };
    struct rte_fib *made;
    uint32_t tables = 1; /* one for each /24, because addresses are sorted */
    size_t n;
    for (n = 0; n < count; n++)
        tables += n == 0 || owners[n].address >> 8 != owners[n - 1].address >> 8;
    config.dir24_8.num_tbl8 = tables;
    /* Use the smallest cells, because the table is large. Seven bits number a table. */
    config.dir24_8.nh_sz = tables < 128 ? RTE_FIB_DIR24_8_1B : RTE_FIB_DIR24_8_2B;
    made = rte_fib_create("owners", socket, &config);
    if (made == NULL)
        fail("rte_fib_create: %s", rte_strerror(rte_errno));
    for (n = 0; n < count; n++) {
        if (owners[n].group >= MOST_GROUPS)
            fail("more than %d groups", MOST_GROUPS);
        if (rte_fib_add(made, owners[n].address, 32, owners[n].group + 1) != 0)
            fail("rte_fib_add: no room for instance %zu", n);
    }
    rte_fib_select_lookup(made, RTE_FIB_LOOKUP_DEFAULT);
    return made;
}

static void make_group_keys(
    const struct acl *acl, const struct header *rows, size_t n, union acl_key *keys, int32_t *without)
{
    uint32_t addresses[2 * BURST];
    uint64_t groups[2 * BURST];
    size_t i;
    for (i = 0; i < n; i++) {
        addresses[i] = big32(rows[i].destination);
        addresses[n + i] = big32(rows[i].source);
    }
    rte_fib_lookup_bulk(acl->owners, addresses, groups, (int)(2 * n));
    for (i = 0; i < n; i++) {
        struct group_key *key = &keys[i].groups;
        key->group = (uint8_t)groups[i];
        key->protocol = rows[i].protocol;
        key->peer_group = (uint8_t)groups[n + i];
        key->dport = rte_cpu_to_be_16(rows[i].dport);
        memcpy(&key->source, rows[i].source, 4);
        without[i] = groups[i] == NOBODY ? -2 : -1;
    }
}

static void make_prefix_keys(
    const struct acl *acl, const struct header *rows, size_t n, union acl_key *keys, int32_t *without)
{
    size_t i;
    (void)acl;
    for (i = 0; i < n; i++) {
        struct prefix_key *key = &keys[i].prefixes;
        key->protocol = rows[i].protocol;
        memcpy(&key->source, rows[i].source, 4);
        memcpy(&key->destination, rows[i].destination, 4);
        key->dport = rte_cpu_to_be_16(rows[i].dport);
        without[i] = -1;
    }
}

static double classify(const struct acl *acl, enum rte_acl_classify_alg algorithm)
{
    uint32_t results[BURST];
    int32_t without[BURST];
    union acl_key keys[BURST];
    const uint8_t *data[BURST];
    size_t at, i, n;
    double began = now();
    memset(keys, 0, sizeof keys);
    for (i = 0; i < BURST; i++)
        data[i] = (const uint8_t *)&keys[i];
    for (at = 0; at < acl->count; at += n) {
        n = RTE_MIN((size_t)BURST, acl->count - at);
        acl->make_keys(acl, acl->rows + at, n, keys, without);
        rte_acl_classify_alg(acl->rules, data, results, (uint32_t)n, 1, algorithm);
        for (i = 0; i < n; i++)
            acl->winners[at + i] = results[i] ? (int32_t)results[i] - 1 : without[i];
    }
    return now() - began;
}

static int can(const struct acl *acl, enum rte_acl_classify_alg algorithm)
{
    union acl_key key = {0};
    const uint8_t *data = (const uint8_t *)&key;
    uint32_t result;
    return rte_acl_classify_alg(acl->rules, &data, &result, 1, 1, algorithm) == 0;
}

static void serve_acl(struct acl *acl, const char *winners)
{
    char line[64];
    double seconds;
    size_t n;
    int descriptor;
    acl->winners = memory(acl->count * sizeof *acl->winners);
    printf("ready");
    for (n = 0; n < ALGORITHMS; n++)
        if (can(acl, algorithms[n].number))
            printf(" %s", algorithms[n].name);
    printf("\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = 0;
        for (n = 0; n < ALGORITHMS && strcmp(line, algorithms[n].name); n++)
            ;
        if (n == ALGORITHMS)
            fail("%s: no such algorithm", line);
        memset(acl->winners, 0xff, acl->count * sizeof *acl->winners);
        seconds = classify(acl, algorithms[n].number);
        descriptor = open(winners, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        for (size_t done = 0; done < acl->count * sizeof *acl->winners;) {
            ssize_t some = write(descriptor, (char *)acl->winners + done, acl->count * sizeof *acl->winners - done);
            if (some <= 0)
                fail("%s: %s", winners, strerror(errno));
            done += (size_t)some;
        }
        close(descriptor);
        printf("%.9f\n", seconds);
        fflush(stdout);
    }
}

static const struct header *headers(const char *path, size_t *count)
{
    size_t size;
    const struct header *rows = contents(path, &size);
    *count = size / sizeof *rows;
    return rows;
}

static void serve_groups(char **paths)
{
    size_t rules_size, owners_size;
    int socket = set_up(256);
    struct rule *rules = contents(paths[0], &rules_size);
    struct owner *owners = contents(paths[1], &owners_size);
    struct acl acl = {.make_keys = make_group_keys};
    acl.rows = headers(paths[2], &acl.count);
    acl.rules = build_acl(rules, rules_size / sizeof *rules, socket);
    acl.owners = build_owners(owners, owners_size / sizeof *owners, socket);
    serve_acl(&acl, paths[3]);
}

static void serve_prefixes(char **paths)
{
    size_t rules_size;
    int socket = set_up(256);
    struct prefix_rule *rules = contents(paths[0], &rules_size);
    struct acl acl = {.make_keys = make_prefix_keys};
    acl.rows = headers(paths[1], &acl.count);
    acl.rules = build_prefixes(rules, rules_size / sizeof *rules, socket);
    serve_acl(&acl, paths[2]);
}

/* rte_hash ------------------------------------------------------------------------------------------------------------
 *
 * Keys are extracted from the capture beforehand and stored contiguously, so that only look-ups are measured. The table
 * has room for twice the number of flows, and was filled in the order in which flows appear.
 */
struct flow_key { /* the lower address first, so that both directions are one key */
    uint32_t address[2];
    uint32_t ports;
    uint32_t protocol;
};
_Static_assert(sizeof(struct flow_key) == 16, "a key is 16 bytes");

enum { HASH_BURST = 32 };

static size_t read_keys(const struct file *file, struct flow_key *keys)
{
    const uint8_t *frame, *ip;
    size_t at = FILE_HEADER, count = 0;
    uint32_t length, source, destination;
    while ((frame = next_frame(file, &at, &length)) != NULL) {
        if (length < ETHERNET + 40 || big16(frame + 12) != 0x0800)
            fail("packet %zu is none of IPv4", count + 1);
        if (keys != NULL) {
            struct flow_key *key = &keys[count];
            ip = frame + ETHERNET;
            key->address[0] = big32(ip + 12), key->address[1] = big32(ip + 16);
            source = big16(ip + 20), destination = big16(ip + 22);
            key->ports = source << 16 | destination;
            if (key->address[0] > key->address[1]) {
                key->address[0] = big32(ip + 16), key->address[1] = big32(ip + 12);
                key->ports = destination << 16 | source;
            }
            key->protocol = ip[9];
        }
        count++;
    }
    return count;
}

/* Return the sum of the positions of the keys, or UINT64_MAX if a key was not found. */
static uint64_t look_up(const struct rte_hash *table, const struct flow_key *keys, size_t count)
{
    const void *burst[HASH_BURST];
    int32_t places[HASH_BURST];
    uint64_t sum = 0, missed = 0;
    size_t at, i, n;
    for (at = 0; at < count; at += n) {
        n = RTE_MIN((size_t)HASH_BURST, count - at);
        for (i = 0; i < n; i++)
            burst[i] = &keys[at + i];
        rte_hash_lookup_bulk(table, burst, (uint32_t)n, places);
        for (i = 0; i < n; i++) {
            missed |= places[i] < 0;
            sum += (uint64_t)(int64_t)places[i];
        }
    }
    return missed ? UINT64_MAX : sum;
}

static void serve_hash(char **arguments)
{
    uint64_t flows = strtoull(arguments[1], NULL, 10), expected = 0;
    /* A bucket of 8 signatures and positions takes 64 bytes, a key with data 32, a free slot 4; all powers of two. */
    int socket = set_up((unsigned)(flows * 2 * 2 * 64 >> 20) + 64);
    struct rte_hash_parameters parameters = {
        .name = "flows", .entries = (uint32_t)RTE_MAX((uint64_t)64, 2 * flows), .key_len = sizeof(struct flow_key),
        .hash_func = rte_hash_crc, .socket_id = socket,
    };
    struct rte_hash *table;
    struct flow_key *keys;
    struct file file;
    size_t count, n;
    char line[64];
    double began;
    int32_t place;
    if (map_file(arguments[0], &file) < 0)
        fail("%s: it cannot be mapped", arguments[0]);
    count = read_keys(&file, NULL);
    keys = memory(count * sizeof *keys);
    read_keys(&file, keys);
    munmap((void *)file.data, file.size);
    table = rte_hash_create(&parameters);
    if (table == NULL)
        fail("rte_hash_create: %s", rte_strerror(rte_errno));
    for (n = 0; n < count; n++) {
        if ((place = rte_hash_add_key(table, &keys[n])) < 0)
            fail("rte_hash_add_key: %s", rte_strerror(-place));
        expected += (uint64_t)place;
    }
    if ((uint64_t)rte_hash_count(table) != flows)
        end(WRONG, "%d flows, not %" PRIu64, rte_hash_count(table), flows);
    printf("ready lookup %zu\n", count);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        began = now();
        if (look_up(table, keys, count) != expected)
            end(WRONG, "a packet was given another flow than its own");
        printf("%.9f\n", now() - began);
        fflush(stdout);
    }
}

int main(int count, char **arguments)
{
    if (count == 6 && strcmp(arguments[1], "acl") == 0)
        serve_groups(arguments + 2);
    else if (count == 5 && strcmp(arguments[1], "prefixes") == 0)
        serve_prefixes(arguments + 2);
    else if (count == 4 && strcmp(arguments[1], "hash") == 0)
        serve_hash(arguments + 2);
    else
        fail("usage: dpdk acl RULES OWNERS HEADERS WINNERS | prefixes RULES HEADERS WINNERS | hash CAPTURE FLOWS");
    return 0;
}

"""Save a data plane's state as arrays, and load it; ``snapshot.pxd`` explains the format."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from sgfast.core.accounting cimport AccountingPlane
from sgfast.core.base.clock cimport MAX_LATE_NS
from sgfast.core.base.key cimport (
    KIND_FROM_HIGH,
    KIND_ICMP_QUERY,
    KIND_IPV6,
    KIND_ONE_WAY,
    KIND_PORTS,
    KIND_USED,
    FlowKey,
    digest_key,
    hash_key,
)
from sgfast.core.base.types cimport NO_SLOT, REASON_COUNT, VERDICT_COUNT
from sgfast.core.classify.classifier cimport Classifier
from sgfast.core.conntrack.events cimport status_of
from sgfast.core.conntrack.flow_rows cimport key_of
from sgfast.core.conntrack.lifetime cimport add_key, join_age, mark_opener, rearm, sweep
from sgfast.core.conntrack.protocols cimport can_be_in
from sgfast.core.conntrack.states cimport MOOT_ICMP, MOOT_OTHER, MOOT_TCP, NO_STATE
from sgfast.core.conntrack.storage cimport (
    ORIGIN_CALLED,
    ORIGIN_DENIED_OUT,
    ORIGIN_HIGH,
    Entry,
    Origin,
    Slab,
    entry_at,
    flow_at,
    flow_sides_at,
    mark_at,
    origin_at,
)
from sgfast.core.conntrack.table cimport (
    EVICTABLE,
    NOT_REMEMBERED,
    OPENER_SEEN,
    REPLY,
    SIDE_END_COUNT,
    TUPLE_LIVE,
    UNBEGUN,
    FlowRow,
    Table,
    find_slot,
)
from sgfast.core.dataplane cimport DataPlane
from sgfast.core.dtypes cimport copied_rows
from sgfast.core.fragments.datagrams cimport NO_DATAGRAM, WAITING_DATAGRAMS
from sgfast.core.parallel.parsing cimport MOST_JOBS, shard_of_hash
from sgfast.core.pipeline.endings cimport relink, relink_attempt, row_with, rule_of_endings
from sgfast.core.pipeline.plane cimport Plane
from sgfast.core.tallies.disconnects cimport CUT_DENIED, MAX_CUTS, NO_CUT, CutRow, Cuts
from sgfast.core.tallies.tally cimport TALLY_KEY_BYTES, TALLY_MOST, TallyRow, add_row

from sgfast.core.accounting import TALLY_NAMES
from sgfast.core.dtypes import CUT_DTYPE, FLOW_DTYPE, RULE_COUNT_DTYPE, TALLY_DTYPE
from sgfast.core.state.datagram_rows import DATAGRAM_DTYPE, copy_fragments, load_datagrams, save_datagrams

TUPLE_DTYPE = np.dtype([
    ("addr", "<u8", (4,)), ("deadline", "<i8", (2,)), ("rule", "<u4", (2,)), ("ports", "<u4"), ("protocol", "u1"),
    ("kind", "u1"), ("state", "u1", (2,)), ("flags", "u1", (2,)), ("marks", "u1"), ("present", "u1"),
])
RECORD_DTYPE = np.dtype([
    ("number", "<u8"), ("first_ns", "<i8"), ("last_ns", "<i8"), ("bytes", "<u8", (2,)), ("packets", "<u8", (2,)),
    ("initiator_high", "u1"), ("side_end", "u1", (2,)), ("watched", "u1"),
    ("spare", "u1", (4,)), ("rule", "<u4", (2,)), ("instance", "<i4", (2,)),
])
ORIGIN_DTYPE = np.dtype([
    ("counted_for", "<i4"), ("icmp", "<u2"), ("reason", "u1"), ("ends", "u1"), ("rule", "<i4"), ("linked", "<u4"),
    ("attempt", "u1", (32,)),
])
assert TUPLE_DTYPE.itemsize == sizeof(TupleRow)
assert RECORD_DTYPE.itemsize == sizeof(RecordRow)
assert ORIGIN_DTYPE.itemsize == sizeof(OriginRow)

_COUNTERS = (
    "packets", "bytes", "fragments_denied", "opened", "inferred", "denied", "disconnected", "changes",
    "no_addresses", "cut_by_tunnel", "two_way", "one_way",
)


cdef uint8_t* _bytes_of(array) except? NULL:
    cdef uint8_t[::1] view
    if array.nbytes == 0:
        return NULL
    view = array.view(np.uint8).reshape(-1)
    return &view[0]


# Tables ---------------------------------------------------------------------------------------------------------------

cdef inline Table* _table_of(DataPlane plane, int i, size_t offset) noexcept nogil:
    # Returns one of a plane's tables, given its offset in Plane.
    return <Table*>(<uint8_t*>plane.planes[i] + offset)


cdef object _save_table(Table* t, int64_t now):
    # Returns the rows, the records, the origins, and the age list and mark list as row numbers. `now`: engine time.
    rows = np.zeros(t.used, dtype=TUPLE_DTYPE)
    records = np.zeros(t.used if t.keep_flows else 0, dtype=RECORD_DTYPE)
    cdef TupleRow* row = <TupleRow*>_bytes_of(rows)
    origins = np.zeros(t.used if t.keep_origins else 0, dtype=ORIGIN_DTYPE)
    origins["rule"] = -1
    cdef RecordRow* record = <RecordRow*>_bytes_of(records)
    cdef OriginRow* origin = <OriginRow*>_bytes_of(origins)
    cdef const Origin* tuple_origin
    cdef uint32_t* row_of = <uint32_t*>malloc((<size_t>t.slab.fresh + 1) * sizeof(uint32_t))
    cdef uint32_t slot
    cdef uint32_t n = 0
    cdef const Entry* e
    cdef FlowKey key
    if row_of == NULL:
        raise MemoryError
    with nogil:
        for slot in range(t.slab.fresh):
            e = entry_at(&t.slab, slot)
            if not e.kind:
                continue
            key_of(t, slot, &key)
            memcpy(row.addr, key.addr, sizeof(key.addr))
            memcpy(row.deadline, e.deadline, sizeof(e.deadline))
            memcpy(row.rule, e.rule, sizeof(e.rule))
            row.ports = e.ports
            row.protocol = e.protocol
            row.kind = e.kind
            memcpy(row.state, e.state, sizeof(e.state))
            memcpy(row.flags, e.flags, sizeof(e.flags))
            row.marks = e.marks
            row.present = e.present
            row += 1
            if t.keep_flows:
                record[n].flow = flow_at(&t.slab, slot)[0]
                record[n].sides = flow_sides_at(&t.slab, slot)[0]
                if status_of(e, now) == NOT_REMEMBERED:
                    record[n].flow.watched = False      # its timeout came before the copy was made
            if t.keep_origins:
                tuple_origin = origin_at(&t.slab, slot)
                origin[n].counted_for = tuple_origin.counted_for
                origin[n].icmp = tuple_origin.icmp
                origin[n].reason = tuple_origin.reason
                origin[n].ends = tuple_origin.ends & ~<uint8_t>ORIGIN_CALLED
                if tuple_origin.ends & ORIGIN_CALLED and e.marks & (TUPLE_LIVE | UNBEGUN) == TUPLE_LIVE:
                    origin[n].ends = tuple_origin.ends
                    memcpy(origin[n].attempt, row_with(tuple_origin.attempt), TALLY_KEY_BYTES)
                if e.marks & (TUPLE_LIVE | UNBEGUN) == TUPLE_LIVE and tuple_origin.endings != NULL:
                    origin[n].rule = rule_of_endings(tuple_origin)
                    origin[n].linked = True
            row_of[slot] = n
            n += 1
    age, seen = [], []
    slot = t.age_head
    while slot != NO_SLOT:
        age.append(row_of[slot])
        slot = entry_at(&t.slab, slot).age_next
    slot = t.mark_head
    while slot != NO_SLOT:
        seen.append(row_of[slot])
        slot = mark_at(&t.slab, slot).next
    free(row_of)
    return rows, records, origins, np.array(age, dtype=np.uint32), np.array(seen, dtype=np.uint32)


cdef object _save_tables(DataPlane plane, size_t offset, str name, dict arrays, dict numbers):
    # Saves the tables of all planes, one after the other. Each list keeps its order. The order of rows of different
    # planes is not known.
    cdef Table* t = _table_of(plane, 0, offset)
    cdef int i
    rows, records, origins, age, seen, ended = [], [], [], [], [], []
    numbers[name] = {"evicted": 0, "moot_evicted": 0, "lost": 0, "marks_until": t.marks_until}
    base = 0
    for i in range(plane.plane_count):
        t = _table_of(plane, i, offset)
        their_rows, their_records, their_origins, their_age, their_seen = _save_table(t, plane.clock.now)
        rows.append(their_rows)
        records.append(their_records)
        origins.append(their_origins)
        age.append(their_age + np.uint32(base))
        seen.append(their_seen + np.uint32(base))
        ended.append(copied_rows(<const uint8_t*>t.ended, t.ended_count * sizeof(FlowRow), FLOW_DTYPE))
        base += len(their_rows)
        numbers[name]["evicted"] += t.evicted
        numbers[name]["moot_evicted"] += t.moot_evicted
        numbers[name]["lost"] += t.ended_lost
    for part, part_rows in (
        ("rows", rows), ("records", records), ("origins", origins), ("age", age), ("seen", seen), ("ended", ended)
    ):
        arrays[f"{name}.{part}"] = np.concatenate(part_rows)
    return [len(their_rows) for their_rows in rows]


cdef bint _key_is_right(const TupleRow* row) noexcept nogil:
    cdef uint8_t content = row.kind & (KIND_PORTS | KIND_ICMP_QUERY | KIND_ONE_WAY)
    if not row.kind & KIND_USED or content & (content - 1):
        return False
    if row.kind & KIND_FROM_HIGH and not content & (KIND_ICMP_QUERY | KIND_ONE_WAY):
        return False
    if row.kind & ~(KIND_USED | KIND_IPV6 | KIND_FROM_HIGH | KIND_PORTS | KIND_ICMP_QUERY | KIND_ONE_WAY):
        return False
    if not row.kind & KIND_IPV6:
        return not (row.addr[1] or row.addr[2] or row.addr[3]) and row.addr[0] >> 32 <= <uint32_t>row.addr[0]
    return row.addr[0] < row.addr[2] or (row.addr[0] == row.addr[2] and row.addr[1] <= row.addr[3])


cdef bint _side_is_right(const TupleRow* row, int side, Py_ssize_t rules) noexcept nogil:
    cdef uint8_t state = row.state[side]
    if state == NO_STATE:
        return True
    if state >= MOOT_TCP:
        if row.rule[side] != NO_SLOT and row.rule[side] >= rules:
            return False
        return state == MOOT_TCP or state == MOOT_OTHER or state == MOOT_ICMP
    return row.rule[side] < rules and can_be_in(row.protocol, row.kind, state)


cdef uint32_t _put_row(
    DataPlane plane, size_t offset, const TupleRow* row, Py_ssize_t rules, bint waiting, uint8_t* shard
) noexcept nogil:
    # Adds a row to a table. Returns the row's slot, and sets `shard` to the number of the slot's plane. Returns NO_SLOT
    # if the row is not valid or there is no memory.
    cdef FlowKey key
    cdef uint64_t digest
    cdef uint32_t hash_value, slot
    cdef Entry* e
    cdef Table* t
    if not _key_is_right(row) or row.present > 7:
        return NO_SLOT
    if not waiting and not (_side_is_right(row, 0, rules) and _side_is_right(row, 1, rules)):
        return NO_SLOT
    memset(&key, 0, sizeof(FlowKey))
    memcpy(key.addr, row.addr, sizeof(key.addr))
    key.ports = row.ports
    key.protocol = row.protocol
    key.kind = row.kind
    digest = digest_key(plane.planes[0].wire.secret, &key)
    hash_value = hash_key(plane.planes[0].wire.secret, digest, &key)
    shard[0] = <uint8_t>shard_of_hash(hash_value, plane.plane_count)
    t = _table_of(plane, shard[0], offset)
    if find_slot(t, &key, digest, hash_value) != NO_SLOT:
        return NO_SLOT
    slot = add_key(t, &key, digest, hash_value)
    if slot == NO_SLOT:
        return NO_SLOT
    e = entry_at(&t.slab, slot)
    memcpy(e.rule, row.rule, sizeof(e.rule))
    if waiting:
        return slot
    memcpy(e.deadline, row.deadline, sizeof(e.deadline))
    memcpy(e.state, row.state, sizeof(e.state))
    memcpy(e.flags, row.flags, sizeof(e.flags))
    e.marks = row.marks & ~<uint8_t>(EVICTABLE | OPENER_SEEN | UNBEGUN)
    if t == &plane.planes[shard[0]].attempts and (e.flags[0] | e.flags[1]) & REPLY:
        e.marks |= row.marks & UNBEGUN
        plane.planes[shard[0]].awaits_replies = True
    e.present = row.present
    if e.marks & TUPLE_LIVE:
        t.live += 1
        rearm(t, slot, e)
    return slot


cdef object _load_table(DataPlane plane, size_t offset, str name, arrays, numbers, bint waiting):
    # Returns the plane number, the slot and the origin of each row.
    cdef Classifier classifier = plane.classifier
    cdef Py_ssize_t rules = classifier.rule_count
    cdef Table* t = _table_of(plane, 0, offset)
    rows, records = _checked(arrays, f"{name}.rows", TUPLE_DTYPE), _checked(arrays, f"{name}.records", RECORD_DTYPE)
    origins = _checked(arrays, f"{name}.origins", ORIGIN_DTYPE)
    age, seen = _checked(arrays, f"{name}.age", np.dtype("<u4")), _checked(arrays, f"{name}.seen", np.dtype("<u4"))
    ended = _checked(arrays, f"{name}.ended", FLOW_DTYPE)
    cdef Py_ssize_t count = len(rows)
    cdef const TupleRow* row = <const TupleRow*>_bytes_of(rows)
    cdef const RecordRow* record = <const RecordRow*>_bytes_of(records)
    cdef const OriginRow* origin = <const OriginRow*>_bytes_of(origins)
    cdef Origin* tuple_origin
    cdef const Slab* slab
    cdef Table* own_table
    cdef uint32_t slot
    cdef Py_ssize_t put = 0
    cdef uint32_t[::1] slots
    cdef uint8_t[::1] shards
    cdef int i
    is_live = (rows["marks"] & <int>TUPLE_LIVE) != 0
    is_old = (rows["marks"] & <int>EVICTABLE) != 0
    is_seen = (rows["marks"] & <int>OPENER_SEEN) != 0
    _require(waiting or bool((is_live | is_seen).all()), f"{name}: an entry without a purpose")
    has_side = (rows["state"] != <int>NO_STATE).any(axis=1)
    _require(bool((has_side == is_live).all()), f"{name}: a tuple without a side, or a side without a tuple")
    _require(int(is_live.sum()) <= t.max_live, f"{name}: more tuples than max_connections")
    _require(_orders(age, is_old) and _orders(seen, is_seen), f"{name}: an invalid order")
    _require(not len(seen) or (t.keep_marks and len(seen) <= t.max_marks), f"{name}: openers that are not needed")
    _require(len(records) == (count if t.keep_flows else 0), f"{name}: not one record for each tuple")
    _require(len(origins) == (count if t.keep_origins else 0), f"{name}: not one origin for each tuple")
    _check_records(records, rules, classifier.instance_count, name)
    _check_records(ended, rules, classifier.instance_count, name)
    is_known = (origins["counted_for"] >= -1) & (origins["counted_for"] < classifier.instance_count)
    is_known &= origins["ends"] <= <int>(ORIGIN_HIGH | ORIGIN_DENIED_OUT | ORIGIN_CALLED)
    is_known &= origins["reason"] < <int>REASON_COUNT
    is_known &= (origins["rule"] >= -1) & (origins["rule"] < rules) & (origins["linked"] <= 1)
    _require(bool(is_known.all()), f"{name}: an invalid origin")

    slots_array, shards_array = np.empty(count, dtype=np.uint32), np.zeros(count, dtype=np.uint8)
    slots, shards = slots_array, shards_array
    with nogil:
        while put < count:
            slots[put] = _put_row(plane, offset, &row[put], rules, waiting, &shards[put])
            if slots[put] == NO_SLOT:
                break
            slab = &_table_of(plane, shards[put], offset).slab
            if t.keep_origins:
                tuple_origin = origin_at(slab, slots[put])
                tuple_origin.counted_for = origin[put].counted_for
                tuple_origin.icmp = origin[put].icmp
                tuple_origin.reason = origin[put].reason
                tuple_origin.ends = origin[put].ends
                tuple_origin.endings = NULL
                tuple_origin.attempt = NULL
            if t.keep_flows:
                flow_at(slab, slots[put])[0] = record[put].flow
                flow_sides_at(slab, slots[put])[0] = record[put].sides
            put += 1
    _require(put == count, f"{name}: row {put} is invalid, or memory ran out")
    for i in range(plane.plane_count):
        _table_of(plane, i, offset).marks_until = _number(numbers[name], "marks_until")
    for n in age.tolist():
        own_table, slot = _table_of(plane, shards[<Py_ssize_t>n], offset), slots[<Py_ssize_t>n]
        join_age(own_table, slot, entry_at(&own_table.slab, slot))
    for n in seen.tolist():
        own_table, slot = _table_of(plane, shards[<Py_ssize_t>n], offset), slots[<Py_ssize_t>n]
        mark_opener(own_table, slot, entry_at(&own_table.slab, slot))
    t.evicted = _number(numbers[name], "evicted")
    t.moot_evicted = _number(numbers[name], "moot_evicted")
    t.ended_lost = _number(numbers[name], "lost")
    if len(ended):
        t.ended = <FlowRow*>realloc(t.ended, ended.nbytes)
        if t.ended == NULL:
            raise MemoryError
        memcpy(t.ended, _bytes_of(ended), ended.nbytes)
        t.ended_count = t.ended_capacity = len(ended)
    return shards_array, slots_array, origins


def _orders(numbers, members):
    """Return whether the row numbers name each of the members exactly once."""
    return len(numbers) == members.sum() and bool((np.sort(numbers) == np.flatnonzero(members)).all())


def _check_records(records, rules, instances, name):
    for field, count in (("rule", rules), ("instance", instances)):
        signed = records[field].astype(np.int32)
        _require(bool(((signed >= -1) & (signed < count)).all()), f"{name}: an invalid {field}")
    _require(bool((records["side_end"] < <int>SIDE_END_COUNT).all()), f"{name}: an invalid side_end")
    if "initiator_high" in records.dtype.names:
        _require(bool((records["initiator_high"] <= 1).all()), f"{name}: an invalid end")
    if "family" in records.dtype.names:
        _require(bool(np.isin(records["family"], (4, 6)).all()), f"{name}: an invalid family")
        for field, limit in (("verdict", <int>VERDICT_COUNT), ("reason", <int>REASON_COUNT), ("answer", 3)):
            _require(bool((records[field] < limit).all()), f"{name}: an invalid {field}")
        counted = (records["counted_for"] >= -1) & (records["counted_for"] < instances)
        _require(bool((counted & (records["denied_out"] <= 1)).all()), f"{name}: an invalid origin")


# The whole plane ------------------------------------------------------------------------------------------------------

cdef size_t _offset(DataPlane plane, void* part):
    return <uint8_t*>part - <uint8_t*>plane.planes[0]


def save_plane(AccountingPlane plane not None, *, bint ends_waiting=False):
    """Return ``(numbers, arrays)``: JSON values, and arrays by name. Threads that judge meanwhile wait.

    A snapshot holds no fragment that waits (SPEC 9.13). ``ends_waiting``: resolve those that do. Otherwise the plane
    does not change, and the result is None if a fragment waits.
    """
    plane.lock_drained()
    try:
        if ends_waiting:
            plane.end_waiting()
            plane.drain()
        elif plane.fragments.oldest[<int>WAITING_DATAGRAMS] != NO_DATAGRAM:
            return None
        return _saved(plane, save_datagrams(plane))
    finally:
        plane.unlock()


def copy_plane(AccountingPlane plane not None, DataPlane made not None):
    """Load the state of a plane, held fragments included, into a new plane with the same classifier, options and hash
    key. Events that nobody has taken are not copied. Threads that judge meanwhile wait.
    """
    plane.lock_drained()
    try:
        numbers, arrays = _saved(plane, np.empty(0, dtype=DATAGRAM_DTYPE))
        copy_fragments(plane, made)
    finally:
        plane.unlock()
    load_plane(made, numbers, arrays)


def _saved(AccountingPlane plane, datagrams):
    # The caller must hold the lock.
    cdef Plane* p = plane.planes[0]
    cdef Cuts* cuts
    cdef int i
    arrays, numbers = {"datagrams": datagrams}, {}
    counters = plane.counters_now()
    _save_tables(plane, _offset(plane, &p.table), "table", arrays, numbers)
    _save_tables(plane, _offset(plane, &p.attempts), "attempts", arrays, numbers)
    lengths = _save_tables(plane, _offset(plane, &p.cuts.waiting), "waiting", arrays, numbers)
    rows, untold, base = [], 0, 0
    waiting_in = np.split(arrays["waiting.rows"], np.cumsum(lengths))
    for i in range(plane.plane_count):
        cuts = &plane.planes[i].cuts
        cut_rows = copied_rows(<const uint8_t*>cuts.rows, cuts.count * sizeof(CutRow), CUT_DTYPE)
        cut_rows["previous"][cut_rows["previous"] != <uint32_t>NO_CUT] += base
        waiting_in[i]["rule"][:, 0] += base
        rows.append(cut_rows)
        untold += cuts.untold
        base += len(cut_rows)
    arrays["cuts"] = np.concatenate(rows)
    numbers["tallied"] = [
        sum([plane.planes[i].table.tallied for i in range(plane.plane_count)]),
        sum([plane.planes[i].attempts.tallied for i in range(plane.plane_count)]),
    ]
    numbers["clock"] = plane.clock
    numbers["counters"] = {name: counters[name] for name in _COUNTERS} | {
        "untold": untold, "window_end": p.window_end
    }
    arrays["rule_counts"] = plane.rule_counts_now()
    numbers["lost"] = {}
    for name, (rows, lost) in plane.tallies_now().items():
        arrays[name], numbers["lost"][name] = rows, lost
    numbers["verdicts"], numbers["reasons"] = counters["verdicts"], counters["reasons"]
    return numbers, arrays


def load_plane(DataPlane plane not None, numbers, arrays):
    """Load what ``save_plane`` returned into a new plane with the same policy and options; only ``jobs`` may differ.

    ValueError names the invalid part; the plane must not be used then.
    """
    # Counters that are only added up are loaded into the first plane.
    cdef Plane* p = plane.planes[0]
    cdef Classifier classifier = plane.classifier
    cdef const TallyRow* row
    cdef Py_ssize_t n
    cdef int i
    _require(not plane.clock.started and not plane.judged, "the engine has already judged packets")
    clock = plane.clock
    clock = {name: _number(numbers["clock"], name) for name in clock}
    for name in ("now", "raw", "earliest", "latest"):
        _require(abs(clock[name]) <= 1 << 62, f"{name}: not a valid time")
    _require(0 <= clock["most_late"] <= MAX_LATE_NS, "most_late: not a valid duration")
    plane.clock = clock | {"started": clock["started"] != 0}
    counters = numbers["counters"]
    for i in range(plane.plane_count):
        plane.planes[i].window_end = _number(counters, "window_end")
        plane.planes[i].changes = _number(counters, "changes")
        if plane.clock.started:
            sweep(&plane.planes[i].table, plane.clock.now)
            sweep(&plane.planes[i].attempts, plane.clock.now)
    plane.judged = _number(counters, "packets")
    counted = {name: _number(counters, name) for name in _COUNTERS}
    for name, length in (("verdicts", <int>VERDICT_COUNT), ("reasons", <int>REASON_COUNT)):
        _require(len(numbers[name]) == length, f"{name}: not {length}")
        counted[name] = [_number(numbers[name], i) for i in range(length)]
    p.counters = counted

    load_datagrams(plane, _checked(arrays, "datagrams", DATAGRAM_DTYPE))
    tuples = _load_table(plane, _offset(plane, &p.table), "table", arrays, numbers, False)
    attempts = _load_table(plane, _offset(plane, &p.attempts), "attempts", arrays, numbers, False)
    cuts = _checked(arrays, "cuts", CUT_DTYPE)
    _require(len(cuts) <= MAX_CUTS * 2 * <int>MOST_JOBS, "cuts: too many")
    earlier = (cuts["previous"] == <uint32_t>NO_CUT) | (cuts["previous"] < np.arange(len(cuts)))
    _require(bool(earlier.all() and (cuts["fate"] <= <int>CUT_DENIED).all()), "cuts: an invalid row")
    _require(bool(np.isin(cuts["family"], (4, 6)).all()), "cuts: an invalid family")
    _require(bool(((cuts["rule"] >= -1) & (cuts["rule"] < classifier.rule_count)).all()), "cuts: an invalid rule")
    waiting = _checked(arrays, "waiting.rows", TUPLE_DTYPE)
    listed = bool((waiting["rule"][:, 0] < len(cuts)).all())
    _require(listed and not waiting["marks"].any(), "waiting: a key without a cut")
    shards, slots, _ = _load_table(plane, _offset(plane, &p.cuts.waiting), "waiting", arrays, numbers, True)
    _load_cuts(plane, cuts, waiting["rule"][:, 0], shards, slots)
    p.cuts.untold = _number(counters, "untold")

    rule_counts = _checked(arrays, "rule_counts", RULE_COUNT_DTYPE)
    _require(len(rule_counts) == classifier.rule_count, "rule_counts: not one for each rule")
    if len(rule_counts):
        memcpy(p.rule_counts, _bytes_of(rule_counts), rule_counts.nbytes)
    for i in range(2):
        n = _number(numbers["tallied"], i)
        _require(0 <= n <= (p.table.ended_count if i == 0 else p.attempts.ended_count), "tallied: more rows than ended")
        if i == 0:
            p.table.tallied = n
        else:
            p.attempts.tallied = n
    for i, name in enumerate(TALLY_NAMES):
        rows = _checked(arrays, name, TALLY_DTYPE)
        _require(len(rows) <= TALLY_MOST, f"{name}: too many rows")
        is_known = (rows["instance"] >= -1) & (rows["instance"] < classifier.instance_count)
        is_known &= (rows["rule"] >= -1) & (rows["rule"] < classifier.rule_count) & np.isin(rows["family"], (0, 4, 6))
        sound = is_known & (rows["reason"] < <int>REASON_COUNT) & (rows["first_ns"] <= rows["last_ns"])
        sound &= (rows["packets"] > 0) | (rows["connections"] > 0)
        for flag in ("inbound", "has_ports", "has_icmp"):
            sound &= rows[flag] <= 1
        _require(bool(sound.all()), f"{name}: an invalid row")
        row = <const TallyRow*>_bytes_of(rows)
        for n in range(len(rows)):
            _require(add_row(&p.tallies[i], &row[n]), f"{name}: an invalid row")
        p.tallies[i].lost = _number(numbers["lost"], name)
    _link_origins(plane, _offset(plane, &p.table), tuples)
    _link_origins(plane, _offset(plane, &p.attempts), attempts)


cdef int _link_origins(DataPlane plane, size_t offset, tuples) except -1:
    # Links tuples to the tally rows in which their endings count. `tuples`: the return value of _load_table.
    cdef const uint8_t[::1] shards = tuples[0]
    cdef const uint32_t[::1] slots = tuples[1]
    origins = tuples[2]
    cdef const OriginRow* origin = <const OriginRow*>_bytes_of(origins)
    cdef Py_ssize_t i
    for i in range(len(origins)):
        if origin[i].linked:
            relink(
                plane.planes[shards[i]], plane.planes[0], _table_of(plane, shards[i], offset), slots[i], origin[i].rule
            )
        if origin[i].ends & ORIGIN_CALLED:
            relink_attempt(
                plane.planes[shards[i]], plane.planes[0], _table_of(plane, shards[i], offset), slots[i],
                origin[i].attempt
            )
    return 0


cdef int _load_cuts(DataPlane plane, rows, waiting, shards, slots) except -1:
    # Loads into each plane the rows of the keys that wait in it. All other rows are only listed, and the first plane
    # lists them. `waiting`, `shards`, `slots`: for each key, its latest row, its plane and its slot there.
    cdef Cuts* cuts
    cdef int i
    shard_of_row = np.zeros(len(rows), dtype=np.uint8)
    waits = np.zeros(len(rows), dtype=bool)
    for number, shard in zip(waiting.tolist(), shards.tolist()):
        while number != <uint32_t>NO_CUT:
            _require(not waits[number], "cuts: a row that belongs to two keys")
            waits[number] = True
            shard_of_row[number] = shard
            number = int(rows["previous"][number])
    number_in_shard = np.zeros(len(rows), dtype=np.uint32)
    for i in range(plane.plane_count):
        in_shard = shard_of_row == i
        number_in_shard[in_shard] = np.arange(in_shard.sum(), dtype=np.uint32)
    has_previous = rows["previous"] != <uint32_t>NO_CUT
    previous = rows["previous"][has_previous]
    _require(bool((shard_of_row[previous] == shard_of_row[has_previous]).all()), "cuts: rows of two keys in one list")
    rows["previous"][has_previous] = number_in_shard[previous]
    for i in range(plane.plane_count):
        shard_rows = np.ascontiguousarray(rows[shard_of_row == i])
        if not len(shard_rows):
            continue
        cuts = &plane.planes[i].cuts
        cuts.rows = <CutRow*>malloc(shard_rows.nbytes)
        if cuts.rows == NULL:
            raise MemoryError
        memcpy(cuts.rows, _bytes_of(shard_rows), shard_rows.nbytes)
        cuts.count = cuts.capacity = <uint32_t>len(shard_rows)
    for number, shard, slot in zip(waiting.tolist(), shards.tolist(), slots.tolist()):
        entry_at(&plane.planes[<int>shard].cuts.waiting.slab, <uint32_t>slot).rule[0] = number_in_shard[number]
    return 0


def _require(condition, problem):
    if not condition:
        raise ValueError(problem)


def _checked(arrays, name, dtype):
    array = arrays[name]
    _require(array.dtype == dtype and array.ndim == 1, f"{name}: not an array of the right type")
    return np.array(array, order="C")


def _number(values, key):
    value = values[key]
    _require(type(value) is int, f"{key}: not an integer")
    return value

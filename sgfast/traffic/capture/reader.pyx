"""Read captures, compressed or not, from any object with ``readinto``. The first bytes decide the format."""

import zlib

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from sgfast.traffic.capture.ahead cimport HEADROOM, WINDOW, WindowsAhead
from sgfast.traffic.capture.pcap cimport CAPTURED_FIRST, is_pcap_magic, scan_file_header, scan_records
from sgfast.traffic.capture.pcapng cimport (
    MAX_SPANS,
    add_from_another_thread,
    free_interfaces,
    scan_blocks,
    scan_section_header,
)
from sgfast.traffic.capture.scan cimport LONGEST_RECORD, STOP_DAMAGE, STOP_LINK_TYPE, STOP_MORE, STOP_NOT
from sgfast.traffic.capture.snoop cimport scan_snoop_header, scan_snoop_records
from sgfast.core.base.file_reads cimport FileReads
from sgfast.core.base.frames cimport POSITION_BITS, Frame
from sgfast.core.wire.link cimport LINK_WITHOUT_IP, kind_of_link

from sgfast.base.streams.compression import compression_of
from sgfast.base.streams.decompressed import DecompressedStream
from sgfast.traffic.capture.following import FollowedFile, following
from sgfast.traffic.capture.lookalikes import looks_like
from sgfast.base.streams.binary_stream import STANDARD_INPUT, Damage, open_stream, wait_until_readable
from sgfast.core.wire.link import link_type_name
from sgfast.base.errors import CaptureError, NoCapture
from sgfast.base.names import printable


cdef enum:
    BATCH_CAPACITY = 8192       # frames
    MAGIC_LENGTH = 4            # bytes
    FIRST_CAPACITY = 512 * 1024     # bytes
    LAST_CAPACITY = 2 * LONGEST_RECORD

SECTION_HEADER_MAGIC = b"\n\r\r\n"
SNOOP_MAGIC = b"snoop\0\0\0"
#: Indexed by Form.
FORM_NAMES = ("pcap", "pcapng", "snoop")

# Exceptions that files and decompressors raise when they cannot be read any further.
READ_ERRORS = (OSError, ValueError, EOFError, MemoryError, zlib.error)


def _reason(error):
    # Returns the cause of an exception on one line.
    return printable(str(getattr(error, "strerror", None) or error) or type(error).__name__)


def _refused(link_type):
    if kind_of_link(link_type) == LINK_WITHOUT_IP:
        return f"link type {link_type_name(link_type)} carries no IP packets; capture on a network interface"
    return f"link type {link_type_name(link_type)} is not supported; the documentation lists those that are"


cdef bint _find_magic(bytes head, Form* form, PcapFormat* pcap) except -1:
    # Finds the form of a capture that begins with `head`, and the variant of pcap. Returns False if it is none.
    if head[:MAGIC_LENGTH] == SECTION_HEADER_MAGIC:
        form[0] = PCAPNG
    elif head[:len(SNOOP_MAGIC)] == SNOOP_MAGIC:
        form[0] = SNOOP
    elif len(head) >= MAGIC_LENGTH and is_pcap_magic(<const unsigned char*>head, pcap):
        form[0] = PCAP
    else:
        return False
    return True


def begins_capture(bytes head not None):
    """Return whether a file that begins with ``head``, decompressed, is a capture."""
    cdef Form form = PCAP
    cdef PcapFormat pcap
    return _find_magic(head, &form, &pcap)


cdef class StreamBuffer:
    """A sliding window over an unbuffered ``stream``. The window holds the bytes that were read but not consumed yet.

    Complete records are parsed in place; the incomplete tail moves to the front. The window starts at 512 KiB, or 384
    KiB if it is ``lasting``, which fits in the second-level cache of common machines. The window doubles when a record
    takes more than half of it, so it never exceeds twice the bytes that arrived, whatever a length field claims.
    ``lasting``: bytes stay where they are while somebody refers to ``memory``; later bytes are read into other memory.
    After ``read_ahead`` the next windows are read before they are needed, unless this window has grown.
    """

    def __cinit__(self, stream, *, bint lasting=False):
        self.stream = stream
        self.lasting = lasting
        self._allocate(HEADROOM + WINDOW if lasting else FIRST_CAPACITY)

    cdef int _allocate(self, Py_ssize_t capacity) except -1:
        # Moves the window's bytes to new memory. The old memory stays unchanged for objects that still refer to it.
        memory = memoryview(bytearray(capacity))
        self.windows = [memory]
        return self._move_to(memory, capacity, 0)

    cdef object _free_window(self):
        for memory in self.windows:
            # The list and `memory` make two references; a third one means that a batch is in use.
            if Py_REFCNT(memory) == 2:
                return memory
        memory = memoryview(bytearray(self.capacity))
        self.windows.append(memory)
        return memory

    cdef int _move_to(self, object memory, Py_ssize_t capacity, Py_ssize_t start) except -1:
        # In the other memory, the window's bytes begin at `start`.
        cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(memory.obj)
        cdef Py_ssize_t length = self.end - self.start
        if length > 0:
            memcpy(data + start, self.data + self.start, <size_t>length)
        self.memory = memory
        self.data = data
        self.capacity = capacity
        self.data_offset += self.start - start
        self.start = start
        self.end = start + length
        self.handed_out = False
        return 0

    cdef int _make_room(self) except -1:
        cdef Py_ssize_t length = self.end - self.start
        # A move never copies more bytes than were consumed since the last one, even if bytes arrive one at a time.
        cdef bint full = self.end == self.capacity
        if full and self.start < length and self.capacity < LAST_CAPACITY:
            self._allocate(min(self.capacity * 2, LAST_CAPACITY))
        elif self.start > 0 and (full or self.start >= length):
            if self.lasting and self.handed_out:
                self._move_to(self._free_window(), self.capacity, 0)
                return 0
            memmove(self.data, self.data + self.start, <size_t>length)
            self.data_offset += self.start
            self.start = 0
            self.end = length
        if self.end == self.capacity:
            raise MemoryError("a record outgrew the window")
        return 0

    cdef int read_ahead(self, FileReads reads) except -1:
        # A window that is read ahead is as large as a reader's first window. Once a large record has made a reader's
        # window grow, the reader reads no windows ahead.
        if self.capacity == HEADROOM + WINDOW:
            self.ahead = WindowsAhead.begin(reads, self.stream)
        return 0

    cdef bint _next_window(self) except -1:
        # Moves on to a window that was read ahead. Returns False if there is none; later bytes are then read when they
        # are needed.
        cdef Py_ssize_t length = self.end - self.start
        cdef object memory
        try:
            while self.ahead.has_more() and self.ahead.ask(self._free_window()):
                pass
        except MemoryError:     # fewer windows are read ahead
            pass
        # The record that begins in this window ends in the next one.
        memory = self.ahead.take(False) if length <= HEADROOM else None
        if memory is None and self.ahead.is_late:
            try:
                memory = self.ahead.read_again(self._free_window())
            except MemoryError:
                memory = self.ahead.take(True)
        if memory is None:
            self.stream.seek(self.ahead.taken)
            self.ahead = None
            return False
        self._move_to(memory, self.capacity, HEADROOM - length)
        self.end = HEADROOM + WINDOW
        self.bytes_read += WINDOW
        return True

    cdef bint fill(self, int64_t need=0) except -1:
        cdef object count
        cdef Py_ssize_t room, got
        if self.ended:
            return False
        if self.ahead is not None:
            PyErr_CheckSignals()
            if self._next_window():
                return True
        self._make_room()
        room = self.capacity - self.end
        if isinstance(self.stream, FollowedFile):
            self.stream.wanted = max(need - (self.end - self.start), 0) if self.end > self.start else 0
        while True:
            PyErr_CheckSignals()
            try:
                count = self.stream.readinto(self.memory[self.end:])
            except InterruptedError:
                continue
            except BlockingIOError:
                count = None
            if count is not None:
                break
            wait_until_readable(self.stream)
        got = count
        if not 0 <= got <= room:
            raise OSError(f"the stream claims {got} bytes for a buffer of {room}")
        self.end += got
        self.bytes_read += got
        self.ended = got == 0
        return got > 0


cdef class CaptureReader:
    """Reader of one capture, whose packets it returns in batches.

    1. The constructor reads and checks the file header. It raises CaptureError if this is not a readable capture.
    2. ``next_batch`` returns the packets that have arrived. It waits only if no complete packet has. At the end it
       returns None.
    3. Damage ends the capture: every packet before it is returned, then ``damage`` has its place.
    4. A packet with an unsupported link type raises CaptureError, after all packets before it have been returned.
    5. The end of a pcapng file raises CaptureError if all of its packets have link types that carry no IP.

    ``name`` is used in messages. ``packets`` counts the packets returned, ``bytes_read`` the bytes read from the
    stream. ``found_ahead`` counts the packets whose records another thread found in windows read ahead. With
    ``owns_stream``, ``close`` also closes the stream. Only one thread may use the reader at a time.

    ``lasting``: a batch stays unchanged while somebody refers to it, not just until the next call of ``next_batch``.
    ``is_part``: the stream is only a part of a capture, so rule 5 does not apply. ``Frame.vpc`` is taken from
    ``interfaces`` if they include the packet's pcapng interface; otherwise it is ``vpc``. Its value is the number of
    the VPC plus 1, or 0 for no VPC. ``number``: the capture's number, by which a frame names its capture; set it before
    the first batch. ``sample``: a ``CaptureSample`` that looks at each batch, or None; set it likewise.
    """

    def __cinit__(
        self, stream, str name not None, *, bint owns_stream=False, uint32_t vpc=0, InterfaceMarks interfaces=None,
        bint lasting=False, bint is_part=False
    ):
        self.name = name
        self.owns_stream = owns_stream
        self.buffer = StreamBuffer(stream, lasting=lasting)
        if lasting:
            self.pool = BatchPool(BATCH_CAPACITY)
        else:
            self.batch = FrameBatch(BATCH_CAPACITY)
        self.scan.vpc = vpc
        self.interfaces = interfaces
        self.is_part = is_part
        self._read_head()
        self.head_end = self.offset

    def __dealloc__(self):
        free_interfaces(&self.pcapng)

    @property
    def bytes_read(self):
        """Bytes read from the stream so far, including read-ahead; before decompression."""
        if self.decompressed is not None:
            return self.decompressed.bytes_taken
        return self.buffer.bytes_read if self.buffer is not None else 0

    @property
    def offset(self):
        """The byte offset of the next record; for a compressed capture, in the decompressed bytes."""
        # The scan has passed zeros that do not form a packet yet; the record begins before them.
        return self.buffer.data_offset + self.buffer.start - self.scan.zeros if self.buffer is not None else 0

    @property
    def preamble(self):
        """The byte ranges ``((start, end), ...)`` of the file that a reader needs to begin at the next record.

        None if ranges cannot describe those bytes, or if the bytes before that record would end in zeros.
        """
        cdef Py_ssize_t count = self.pcapng.preamble_count
        if self.is_compressed or self.is_behind_zeros:
            return None
        if self.form != PCAPNG:
            return ((0, self.head_end),)
        if self.pcapng.has_timeless_blocks or count > MAX_SPANS:
            return None
        return tuple([(self.pcapng.preamble[n].start, self.pcapng.preamble[n].end) for n in range(count)])

    @property
    def is_compressed(self):
        return self.decompressed is not None

    @property
    def remarks(self):
        """Oddities of the file that are not damage, one line each."""
        # A stream of decompressed bytes may end before this reader has returned all packets.
        if self.decompressed is None or not self.buffer.ended:
            return []
        name = printable(self.name)
        if self.decompressed.has_rest:
            return [f"{name}: other data follows the {self.decompressed.compression.name} data and is ignored"]
        if self.decompressed.lacks_end:
            return [
                f"{name}: the bgzip data ends without its end marker: the file was cut between two blocks; copy it "
                "again"
            ]
        return []

    @property
    def format(self):
        """``pcap``, ``pcapng`` or ``snoop``."""
        return FORM_NAMES[self.form]

    def close(self):
        """Release the stream and the buffer. The bytes of the last batch stay valid while that batch is referenced."""
        if self.busy:
            raise RuntimeError("the capture reader is reading")
        cdef StreamBuffer buffer = self.buffer
        self.at_end = True
        self.is_closed = True
        self.batch = None
        self.pool = None
        if buffer is not None:
            stream, buffer.stream = buffer.stream, None
            buffer.memory = buffer.windows = None
            buffer.ended = True
            buffer.ahead = None
            if self.decompressed is not None:
                self.decompressed.stop()
            if self.owns_stream and stream is not None:
                stream.close()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.close()

    cdef int _look_at_buffer(self) except -1:
        cdef StreamBuffer buffer = self.buffer
        self.scan.data = buffer.data
        self.scan.data_offset = buffer.data_offset
        self.scan.next = buffer.data + buffer.start
        self.scan.end = buffer.data + buffer.end
        return 0

    cdef int _scan(self, FrameBatch batch, Py_ssize_t most) except -1:
        cdef StreamBuffer buffer = self.buffer
        self._look_at_buffer()
        self.scan.frames = batch.frames
        self.scan.capacity = most
        # The position of a frame in its batch counts from 0, that of a packet in its capture from 1.
        batch.position_base = 0
        if self.number:
            batch.position_base = <uint64_t>self.number << POSITION_BITS | <uint64_t>(self.packets + 1)
        with nogil:
            if self.form == PCAPNG:
                scan_blocks(&self.pcapng, &self.scan, self.interfaces)
            elif self.form == PCAP:
                scan_records(&self.pcap, &self.scan)
            else:
                scan_snoop_records(&self.scan)
        buffer.start = self.scan.next - buffer.data
        return 0

    cdef void _find_ahead(self, bint prepares) noexcept:
        # Lets the threads that read windows ahead also find the records in these windows.
        cdef WindowsAhead ahead = self.buffer.ahead
        if ahead is None:
            return
        ahead.vpc = self.scan.vpc
        ahead.pool = self.pool
        ahead.preparation = ahead.reads.preparation if prepares else NULL
        if self.form == PCAPNG:
            ahead.pcapng = &self.pcapng
        elif self.form == PCAP and self.pcap.length_order == CAPTURED_FIRST:
            ahead.pcap = &self.pcap

    cdef void _add_found(self, WindowsAhead ahead, FrameBatch batch) noexcept:
        # Adds the records that another thread found in this window. They follow the record that begins in the window
        # before. The other thread knew only the sections and interfaces read before the window was requested. If the
        # reader has read a new section or interface since, the found records may be wrong, and are not used.
        if self.scan.count == 0 or self.scan.next != ahead.found.first or self.scan.zeros > 0:
            return
        if self.form == PCAPNG:
            if self.pcapng.changes != ahead.found.pcapng.changes:
                return
            add_from_another_thread(&self.pcapng, &ahead.found.pcapng)
        self.scan.count += ahead.found.scan.count
        if ahead.preparation != NULL:
            batch.prepared_for = ahead.reads
        self.scan.zeros = ahead.found.scan.zeros
        self.found_ahead += ahead.found.scan.count
        self.buffer.start = ahead.found.scan.next - self.buffer.data

    cdef int _read_head(self) except -1:
        cdef StreamBuffer buffer = self.buffer
        name = printable(self.name)
        try:
            self._find_form(name)
            while True:
                self._look_at_buffer()
                if self.form == PCAPNG:
                    scan_section_header(&self.pcapng, &self.scan)
                elif self.form == PCAP:
                    scan_file_header(&self.pcap, &self.scan)
                else:
                    scan_snoop_header(&self.scan)
                if self.scan.stop != STOP_MORE:
                    break
                if not buffer.fill(self.scan.need):
                    raise CaptureError(
                        f"{name}: the {self.format} header is cut short ({buffer.end} of {self.scan.need} bytes);"
                        " copy or capture the file again"
                    )
        except READ_ERRORS as error:
            raise CaptureError(f"{name}: cannot be read: {_reason(error)}") from error
        if self.scan.stop == STOP_LINK_TYPE:
            raise CaptureError(f"{name}: {_refused(self.scan.claimed)}")
        if self.scan.stop != STOP_NOT:
            cause = self.scan.cause.decode("ascii").format(self.scan.claimed, self.scan.limit)
            raise CaptureError(f"{name}: the {self.format} header cannot be used: {cause}")
        buffer.start = self.scan.next - buffer.data
        return 0

    cdef int _find_form(self, str name) except -1:
        cdef StreamBuffer buffer = self.buffer
        cdef bytes head
        cdef str prefix = ""
        while buffer.end < MAGIC_LENGTH and buffer.fill():
            pass
        if self._decompress(name):
            prefix = "decompressed, it "
        if buffer.end == 0:
            raise NoCapture(f"{name}: {prefix}is empty; give a pcap or pcapng file")
        head = bytes(buffer.memory[:min(buffer.end, MAGIC_LENGTH)])
        if head == SNOOP_MAGIC[:MAGIC_LENGTH]:
            while buffer.end < <Py_ssize_t>len(SNOOP_MAGIC) and buffer.fill():
                pass
            head = bytes(buffer.memory[:min(buffer.end, <Py_ssize_t>len(SNOOP_MAGIC))])
        if not _find_magic(head, &self.form, &self.pcap):
            raise NoCapture(f"{name}: {prefix}{looks_like(bytes(buffer.memory[:min(buffer.end, 1024)]))}")
        return 0

    cdef bint _decompress(self, str name) except -1:
        # If the buffer starts with compressed bytes, refills it with decompressed bytes.
        cdef StreamBuffer buffer = self.buffer
        compression = compression_of(bytes(buffer.memory[:min(buffer.end, MAGIC_LENGTH)]))
        if compression is None:
            return False
        self.decompressed = DecompressedStream(buffer.stream, compression, bytes(buffer.memory[:buffer.end]), name)
        buffer.stream = self.decompressed
        buffer.end = 0
        buffer.bytes_read = 0
        buffer.ended = False
        while buffer.end < MAGIC_LENGTH and buffer.fill():
            pass
        inner_compression = compression_of(bytes(buffer.memory[:min(buffer.end, MAGIC_LENGTH)]))
        if inner_compression is not None:
            raise CaptureError(
                f"{name}: is {inner_compression.name}-compressed, and {compression.name}-compressed once more: "
                f"decompress it first ({compression.command} FILE | sgfast ... -)"
            )
        return True

    cpdef FrameBatch next_batch(self):
        """Return the next packets, at least one, or None at the end (see ``damage``).

        Batch objects are usually reused. The frames are valid until the next call, or with ``lasting`` as long as
        somebody refers to the batch.
        """
        if self.is_closed:
            raise ValueError("the capture reader is closed")
        if self.busy:
            raise RuntimeError("the capture reader is already reading")
        self.busy = True
        try:
            batch = self._next_batch()
            if self.sample is not None and batch is not None:
                self.sample.look(batch)
            return batch
        finally:
            self.busy = False

    cdef FrameBatch _next_batch(self):
        cdef StreamBuffer buffer = self.buffer
        cdef FrameBatch batch = self.batch if self.pool is None else self.pool.take()
        cdef WindowsAhead ahead
        cdef const Frame* last
        batch.count = 0
        while not self.at_end:
            ahead = buffer.ahead
            if ahead is not None and ahead.batch is not None:
                batch, ahead.batch = ahead.batch, None
                self._scan(batch, 1)
                self._add_found(ahead, batch)
            else:
                self._scan(batch, batch.capacity)
            if self.scan.count > 0:
                # The next scan stops at the same place again and returns the reason.
                batch.count = self.scan.count
                batch.keep_alive = buffer.memory
                buffer.handed_out = True
                self.packets += batch.count
                last = &batch.frames[batch.count - 1]
                self.is_behind_zeros = self.form == PCAP and last.wire == 0 and last.time_ns == 0
                return batch
            if self.scan.stop == STOP_LINK_TYPE:
                raise CaptureError(
                    f"{printable(self.name)}: packet {self.packets + 1}: {_refused(self.scan.claimed)}"
                )
            if self.scan.stop == STOP_DAMAGE:
                self._end_damaged(self.scan.cause.decode("ascii").format(self.scan.claimed, self.scan.limit))
                break
            try:
                if buffer.fill(self.scan.need):
                    if batch.keep_alive is not None and batch.keep_alive is not buffer.memory:
                        # The window moved to new memory. Frames of the old batch are in the old memory, and the caller
                        # may still hold that batch. So the next frames need a batch of their own.
                        batch = self.batch = FrameBatch(BATCH_CAPACITY)
                    continue
            except READ_ERRORS as error:
                self._end_damaged(f"reading failed: {_reason(error)}")
                break
            # If an interrupt ended a followed capture, an incomplete record is not damage.
            unread = buffer.data_offset + buffer.end - self.offset
            if unread > 0 and not getattr(buffer.stream, "interrupted", False):
                if self.scan.zeros > 0:
                    self._end_damaged(f"only zeros follow ({unread} bytes): the file was not written to its end")
                else:
                    unit = "block" if self.form == PCAPNG else "record"
                    self._end_damaged(
                        f"the file ends in the middle of a {unit} ({unread} of"
                        f" {'at least ' if self.form == PCAPNG and self.scan.need == 12 else ''}{self.scan.need} bytes)"
                    )
            self.at_end = True
        if self.form == PCAPNG and self.packets and not self.pcapng.has_ip and not self.is_part:
            raise CaptureError(
                f"{printable(self.name)}: all {self.packets} packets: {_refused(self.pcapng.other_link_type)}"
            )
        return None

    cdef int _end_damaged(self, str cause) except -1:
        self.at_end = True
        self.damage = Damage(
            self.name, self.offset, self.packets + 1, cause, self.decompressed is not None,
        )
        return 0


def open_capture(
    path, *, until=None, uint32_t vpc=0, InterfaceMarks interfaces=None, bint lasting=False, FileReads reads=None,
    bint prepares=True
) -> CaptureReader:
    """Open the capture at ``path`` (``-`` is standard input). Raises CaptureError if it cannot be read.

    The reader is a context manager; ``close`` closes the file. ``until``: follow a growing file until this callable
    returns True. ``vpc``, ``interfaces`` and ``lasting`` are those of ``CaptureReader``. ``reads``: with ``lasting``, a
    large file that is not compressed is read ahead, by this thread and by the threads that do these reads.
    ``prepares``: the thread that reads a window also reads its packets' headers, for the engine of these threads. That
    engine must get the frames unchanged.
    """
    cdef CaptureReader reader
    stream, name, owned = open_stream(path)
    try:
        if until is not None:
            stream = following(stream, None if name == STANDARD_INPUT else name, until)
        reader = CaptureReader(
            stream, name, owns_stream=owned, vpc=vpc, interfaces=interfaces, lasting=lasting
        )
        if reads is not None and lasting and until is None:
            reader.buffer.read_ahead(reads)
            reader._find_ahead(prepares)
        return reader
    except BaseException:
        if owned:
            stream.close()
        raise

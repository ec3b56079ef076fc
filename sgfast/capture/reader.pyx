"""Reading captures, told apart by their first bytes, from anything that can ``readinto``; decompressed on the way."""

import zlib

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memmove

from sgfast.capture.pcap cimport is_pcap_magic, scan_file_header, scan_records
from sgfast.capture.pcapng cimport MOST_SPANS, free_interfaces, scan_blocks, scan_section_header
from sgfast.capture.scan cimport LONGEST_RECORD, STOP_DAMAGE, STOP_LINK_TYPE, STOP_MORE, STOP_NOT
from sgfast.capture.snoop cimport scan_snoop_header, scan_snoop_records
from sgfast.core.wire.link cimport LINK_WITHOUT_IP, kind_of_link

from sgfast.capture.compression import DecompressedStream, compression_of
from sgfast.capture.damage import Damage
from sgfast.capture.following import following
from sgfast.capture.lookalikes import looks_like
from sgfast.capture.names import link_type_name, printable
from sgfast.capture.streams import STANDARD_INPUT, open_stream, wait_until_readable
from sgfast.errors import CaptureError, NoCapture


cdef enum:
    BATCH_CAPACITY = 8192       # frames
    MAGIC_LENGTH = 4            # bytes
    FIRST_CAPACITY = 512 * 1024     # bytes
    LAST_CAPACITY = 2 * LONGEST_RECORD

SECTION_HEADER_MAGIC = b"\n\r\r\n"
SNOOP_MAGIC = b"snoop\0\0\0"
#: By Form.
FORM_NAMES = ("pcap", "pcapng", "snoop")

# What streams raise that cannot go on: files, and decompressors too.
READ_ERRORS = (OSError, ValueError, EOFError, MemoryError, zlib.error)


def _reason(error):
    # An exception as a cause on one line.
    return printable(str(getattr(error, "strerror", None) or error) or type(error).__name__)


def _refused(link_type):
    if kind_of_link(link_type) == LINK_WITHOUT_IP:
        return f"link type {link_type_name(link_type)} carries no IP packets; capture on a network interface"
    return f"link type {link_type_name(link_type)} is not supported; README.md lists those that are"


cdef class StreamBuffer:
    """A window that slides over ``stream`` (``readinto``, unbuffered): the bytes read and not yet taken.

    Whole records are parsed in place, the tail moves to the front. The window starts at 512 KiB, which the second-level
    cache of common machines holds. It doubles when a record takes more than half of it, so never beyond twice the bytes
    that arrived, whatever a length field claims. There may be two of them, in turn.
    """

    def __cinit__(self, stream, *, bint two_windows=False):
        self.stream = stream
        self.two_windows = two_windows
        self._allocate(FIRST_CAPACITY)

    cdef int _allocate(self, Py_ssize_t capacity) except -1:
        # Moves the window to the front of new memory. The old one stays as it is for whoever holds it.
        self.other = None
        return self._move_to(memoryview(bytearray(capacity)), capacity)

    cdef int _move_to(self, object memory, Py_ssize_t capacity) except -1:
        cdef uint8_t* data = <uint8_t*>PyByteArray_AS_STRING(memory.obj)
        if self.end > self.start:
            memcpy(data, self.data + self.start, <size_t>(self.end - self.start))
        self.memory = memory
        self.data = data
        self.capacity = capacity
        self.data_offset += self.start
        self.end -= self.start
        self.start = 0
        self.handed_out = False
        return 0

    cdef int _make_room(self) except -1:
        cdef Py_ssize_t length = self.end - self.start
        # A move never costs more than what was taken since the last one, even for streams of single bytes.
        cdef bint full = self.end == self.capacity
        if full and self.start < length and self.capacity < LAST_CAPACITY:
            self._allocate(min(self.capacity * 2, LAST_CAPACITY))
        elif self.start > 0 and (full or self.start >= length):
            if self.two_windows and self.handed_out:
                memory = self.other if self.other is not None else memoryview(bytearray(self.capacity))
                self.other = self.memory
                self._move_to(memory, self.capacity)
                return 0
            memmove(self.data, self.data + self.start, <size_t>length)
            self.data_offset += self.start
            self.start = 0
            self.end = length
        if self.end == self.capacity:
            raise MemoryError("a record outgrew the window")
        return 0

    cdef bint fill(self) except -1:
        cdef object count
        cdef Py_ssize_t room, got
        if self.ended:
            return False
        self._make_room()
        room = self.capacity - self.end
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
    """Hands out the packets of one capture, batch by batch.

    1. Reads and checks the file's head when it is made; CaptureError if there is no capture it can read.
    2. ``next_batch`` gives what has arrived, waits only if that is less than one packet, and returns None at the end.
    3. A capture damaged part way ends there: every packet before the damage is handed out, then ``damage`` says where.
    4. A packet of a link type that is not supported raises CaptureError once all packets before it are handed out.
    5. So does the end of a pcapng file all of whose packets are of link types that carry no IP.

    ``name`` is for messages; ``packets`` counts those handed out, ``bytes_read`` the bytes taken from the stream.
    With ``owns_stream``, ``close`` closes the stream too. One thread at a time.

    ``two_batches``: what is handed out stays valid until the next batch but one is asked for. ``is_part``: the stream
    is a part of a capture, of which rule 5 does not hold.
    ``Frame.vpc`` is what ``interfaces`` say of a pcapng packet's interface, else ``vpc``; a number + 1, 0: nobody's.
    """

    def __init__(
        self, stream, str name not None, *, bint owns_stream=False, uint32_t vpc=0, InterfaceMarks interfaces=None,
        bint two_batches=False, bint is_part=False
    ):
        if self.buffer is not None:
            raise RuntimeError("a capture reader is made once")
        self.name = name
        self.owns_stream = owns_stream
        self.buffer = StreamBuffer(stream, two_windows=two_batches)
        self.batch = FrameBatch(BATCH_CAPACITY)
        if two_batches:
            self.other_batch = FrameBatch(BATCH_CAPACITY)
        self.scan.vpc = vpc
        self.interfaces = interfaces
        self.is_part = is_part
        self._read_head()
        self.head_end = self.offset

    def __dealloc__(self):
        free_interfaces(&self.pcapng)

    @property
    def bytes_read(self):
        """Bytes taken from the stream so far, read ahead included; of a compressed capture as it is in the file."""
        if self.decompressed is not None:
            return self.decompressed.bytes_taken
        return self.buffer.bytes_read if self.buffer is not None else 0

    @property
    def offset(self):
        """Where the record begins that comes next: bytes, of a compressed capture once it is decompressed."""
        return self.buffer.data_offset + self.buffer.start if self.buffer is not None else 0

    @property
    def preamble(self):
        """What in the file, as ``((start, end), ...)`` in bytes, must come before the record that comes next for this
        and all after it to be read as they are; None: more than that.
        """
        cdef Py_ssize_t count = self.pcapng.preamble_count
        if self.is_compressed:
            return None
        if self.form != PCAPNG:
            return ((0, self.head_end),)
        if self.pcapng.met_timeless or count > MOST_SPANS:
            return None
        return tuple([(self.pcapng.preamble[n].start, self.pcapng.preamble[n].end) for n in range(count)])

    @property
    def is_compressed(self):
        return self.decompressed is not None

    @property
    def remarks(self):
        """What is odd about the file, though no damage; one line each."""
        if self.decompressed is None or not self.decompressed.has_rest:
            return []
        return [
            f"{printable(self.name)}: something else follows the {self.decompressed.compression.name} data: left alone"
        ]

    @property
    def format(self):
        """pcap, pcapng or snoop."""
        return FORM_NAMES[self.form]

    def close(self):
        """Let go of stream and buffer; bytes of the last batch stay valid as long as that is held."""
        if self.busy:
            raise RuntimeError("the capture reader is reading")
        cdef StreamBuffer buffer = self.buffer
        self.at_end = True
        self.batch = None
        self.other_batch = None
        if buffer is not None:
            stream, buffer.stream = buffer.stream, None
            buffer.memory = buffer.other = None
            buffer.ended = True
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

    cdef int _scan(self) except -1:
        cdef StreamBuffer buffer = self.buffer
        cdef FrameBatch batch = self.batch
        self._look_at_buffer()
        self.scan.frames = batch.frames
        self.scan.capacity = batch.capacity
        with nogil:
            if self.form == PCAPNG:
                scan_blocks(&self.pcapng, &self.scan, self.interfaces)
            elif self.form == PCAP:
                scan_records(&self.pcap, &self.scan)
            else:
                scan_snoop_records(&self.scan)
        buffer.start = self.scan.next - buffer.data
        return 0

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
                if not buffer.fill():
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
        cdef str it = ""
        while buffer.end < MAGIC_LENGTH and buffer.fill():
            pass
        if self._decompress(name):
            it = "decompressed, it "
        if buffer.end == 0:
            raise NoCapture(f"{name}: {it}is empty; give a pcap or pcapng file")
        head = bytes(buffer.memory[:min(buffer.end, MAGIC_LENGTH)])
        if head == SNOOP_MAGIC[:MAGIC_LENGTH]:
            while buffer.end < <Py_ssize_t>len(SNOOP_MAGIC) and buffer.fill():
                pass
            head = bytes(buffer.memory[:min(buffer.end, <Py_ssize_t>len(SNOOP_MAGIC))])
        if head == SECTION_HEADER_MAGIC:
            self.form = PCAPNG
        elif head == SNOOP_MAGIC:
            self.form = SNOOP
        elif buffer.end >= MAGIC_LENGTH and is_pcap_magic(buffer.data, &self.pcap):
            self.form = PCAP
        else:
            raise NoCapture(f"{name}: {it}{looks_like(bytes(buffer.memory[:min(buffer.end, 1024)]))}")
        return 0

    cdef bint _decompress(self, str name) except -1:
        # Where the buffer begins with compressed bytes, it gets what they become instead.
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
        again = compression_of(bytes(buffer.memory[:min(buffer.end, MAGIC_LENGTH)]))
        if again is not None:
            raise CaptureError(
                f"{name}: is {again.name}-compressed, and {compression.name}-compressed once more: decompress it first"
                f" ({compression.command} FILE | sgfast ... -)"
            )
        return True

    cpdef FrameBatch next_batch(self):
        """The packets that come next, at least one; None at the end (see ``damage``).

        The batch is mostly the same object again, or one of two; its frames are valid until the next call, or the next
        but one.
        """
        if self.batch is None:
            raise ValueError("the capture reader is closed")
        if self.busy:
            raise RuntimeError("the capture reader is already reading")
        self.busy = True
        try:
            return self._next_batch()
        finally:
            self.busy = False

    cdef FrameBatch _next_batch(self):
        cdef StreamBuffer buffer = self.buffer
        cdef FrameBatch batch = self.batch
        batch.count = 0
        while not self.at_end:
            self._scan()
            if self.scan.count > 0:
                # Whatever stopped the scan is found again next time.
                batch.count = self.scan.count
                batch.keep_alive = buffer.memory
                buffer.handed_out = True
                self.packets += batch.count
                if self.other_batch is not None:
                    self.batch, self.other_batch = self.other_batch, batch
                return batch
            if self.scan.stop == STOP_LINK_TYPE:
                raise CaptureError(
                    f"{printable(self.name)}: packet {self.packets + 1}: {_refused(self.scan.claimed)}"
                )
            if self.scan.stop == STOP_DAMAGE:
                self._end_damaged(self.scan.cause.decode("ascii").format(self.scan.claimed, self.scan.limit))
                break
            try:
                if buffer.fill():
                    if (
                        self.other_batch is None and batch.keep_alive is not None
                        and batch.keep_alive is not buffer.memory
                    ):
                        # The window moved to new memory. Whoever still looks at the old batch keeps the old one;
                        # with two, nobody does.
                        batch = self.batch = FrameBatch(BATCH_CAPACITY)
                    continue
            except READ_ERRORS as error:
                self._end_damaged(f"reading failed: {_reason(error)}")
                break
            # An interrupt that ends the following of a capture may come in the middle of a record.
            if buffer.end > buffer.start and not getattr(buffer.stream, "interrupted", False):
                what = "block" if self.form == PCAPNG else "record"
                self._end_damaged(
                    f"the file ends in the middle of a {what} ({buffer.end - buffer.start} of"
                    f" {'at least ' if self.form == PCAPNG and self.scan.need == 12 else ''}{self.scan.need} bytes)"
                )
            self.at_end = True
        if self.form == PCAPNG and self.packets and not self.pcapng.met_ip and not self.is_part:
            raise CaptureError(
                f"{printable(self.name)}: all {self.packets} packets: {_refused(self.pcapng.other_link_type)}"
            )
        return None

    cdef int _end_damaged(self, str cause) except -1:
        self.at_end = True
        self.damage = Damage(
            self.name, self.buffer.data_offset + self.buffer.start, self.packets + 1, cause,
            self.decompressed is not None,
        )
        return 0


def open_capture(
    path, *, until=None, uint32_t vpc=0, InterfaceMarks interfaces=None, bint two_batches=False
) -> CaptureReader:
    """The capture at ``path``; ``-`` is standard input. CaptureError if it cannot be read.

    A context manager; ``close`` closes the file. ``until``: read a file on as it grows, until this says so.
    ``vpc``, ``interfaces``, ``two_batches``: as of the reader.
    """
    stream, name, owned = open_stream(path)
    try:
        if until is not None:
            stream = following(stream, None if name == STANDARD_INPUT else name, until)
        return CaptureReader(
            stream, name, owns_stream=owned, vpc=vpc, interfaces=interfaces, two_batches=two_batches
        )
    except BaseException:
        if owned:
            stream.close()
        raise

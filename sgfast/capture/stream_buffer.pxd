# A window that slides over a binary stream.

from libc.stdint cimport int64_t, uint8_t


cdef class StreamBuffer:
    # data[start:end] holds the bytes read and not yet taken; whoever takes some advances start.
    # memory keeps data alive: hold it as long as pointers into the window are in use.
    cdef object stream
    cdef object memory          # a memoryview; it also pins its bytearray
    cdef uint8_t* data
    cdef Py_ssize_t capacity    # bytes
    cdef Py_ssize_t start
    cdef Py_ssize_t end
    cdef int64_t data_offset    # of data[0] in the stream
    cdef int64_t bytes_read
    cdef bint ended
    # With two windows, bytes that were handed out stay where they are while the next ones are read into the other one.
    cdef bint two_windows
    cdef bint handed_out        # since the window last moved; whoever hands some out says so
    cdef object other           # memory that the window moves to, or None

    # Waits for at least one more byte; False at the end of the stream. Moves the window's bytes.
    cdef bint fill(self) except -1
    cdef int _make_room(self) except -1
    cdef int _allocate(self, Py_ssize_t capacity) except -1
    cdef int _move_to(self, object memory, Py_ssize_t capacity) except -1

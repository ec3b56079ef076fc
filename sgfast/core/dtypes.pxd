# The arrays that come out of the data plane, as NumPy sees their rows.

from libc.stdint cimport uint8_t

# A new array of `dtype`. Takes the GIL, and may run Python code.
cdef object copied_rows(const uint8_t* data, Py_ssize_t nbytes, dtype)

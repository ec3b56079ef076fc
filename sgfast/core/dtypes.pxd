# NumPy dtypes of the rows that the data plane exports.

from libc.stdint cimport uint8_t

# A new array of `dtype` with a copy of the bytes. Needs the GIL, and may run Python code.
cdef object copied_rows(const uint8_t* data, Py_ssize_t nbytes, dtype)
# The first byte of a contiguous array of `dtype` that can be written to; NULL if it is empty. ValueError says `problem`
# if it is another array, or has fewer than `least` rows.
cdef uint8_t* bytes_of_rows(array, dtype, Py_ssize_t least, str problem) except? NULL

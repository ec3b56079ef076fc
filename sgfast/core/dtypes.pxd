# NumPy dtypes of the rows that the data plane exports.

from libc.stdint cimport uint8_t

# Returns a new array of `dtype` with a copy of the bytes. Needs the GIL, and may run Python code.
cdef object copied_rows(const uint8_t* data, Py_ssize_t nbytes, dtype)
# Returns the address of the first byte of a writable contiguous array of `dtype`; NULL if the array is empty. Raises
# ValueError with the text `problem` if the array is of another kind, or has fewer than `least` rows.
cdef uint8_t* bytes_of_rows(array, dtype, Py_ssize_t least, str problem) except? NULL

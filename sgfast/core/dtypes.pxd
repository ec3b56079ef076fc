# NumPy dtypes of the rows that the data plane exports.

from libc.stdint cimport uint8_t

# A new array of `dtype` with a copy of the bytes. Needs the GIL, and may run Python code.
cdef object copied_rows(const uint8_t* data, Py_ssize_t nbytes, dtype)

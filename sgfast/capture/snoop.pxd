# The snoop format: a file header of 16 bytes, then records of a header, the captured bytes and padding.

from sgfast.capture.scan cimport Scan


# Takes the file header at scan.next, whose magic has been seen.
cdef void scan_snoop_header(Scan* scan) noexcept nogil

# Takes records from scan.next until the frames are full or the bytes end.
cdef void scan_snoop_records(Scan* scan) noexcept nogil

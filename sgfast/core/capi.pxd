# The interface for Cython code outside the package. Any other part of core may change with any release.
#
#     from sgfast.core cimport capi
#     capi.import_sgfast()                          # once, when the module is imported: checks the version
#
#     cdef capi.Handle engine = capi.handle_of(py_engine)     # an sgfast.Engine, kept alive by the caller
#     with nogil:
#         capi.judge_headers(engine, headers, count, results)
#
# Rows have the layout of sgfast.HEADER_DTYPE and sgfast.RESULT_DTYPE, so array memory can be passed in and out. A lock
# serializes calls from all threads. Call without the GIL: a snapshot holds the lock and waits for the GIL.

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.types cimport HeaderRow, ResultRow

cdef enum:
    # Increased whenever a function, struct or constant of this file changes.
    CAPI_VERSION = 1

ctypedef void* Handle

cdef inline int import_sgfast() except -1:
    # Inline, so that CAPI_VERSION is compiled into the module that cimports this file.
    return check_version(CAPI_VERSION)


# Raises ImportError if the installed package has another interface version than the one that the caller was built with.
cdef int check_version(int version) except -1

# Returns the handle, which is valid as long as the engine lives. Raises TypeError if `engine` is no sgfast.Engine.
cdef Handle handle_of(object engine) except NULL

# Judge packets in order. `results` has `count` rows, or is NULL. For each frame, `captured` bytes must be readable,
# `wire` must be at least `captured`, and `link_type` one of sgfast.core.wire.link.LINK_TYPES.
cdef void judge_frames(Handle engine, const Frame* frames, Py_ssize_t count, ResultRow* results) noexcept nogil
cdef void judge_headers(Handle engine, const HeaderRow* headers, Py_ssize_t count, ResultRow* results) noexcept nogil

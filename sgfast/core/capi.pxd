# What Cython code outside the package may cimport; everything else in core may change with any release.
#
#     from sgfast.core cimport capi
#     capi.import_sgfast()                          # once, when the module is imported: refuses another version
#
#     cdef capi.Handle engine = capi.handle_of(py_engine)     # an sgfast.Engine, kept alive by the caller
#     with nogil:
#         capi.judge_headers(engine, headers, count, results)
#
# Rows are what the arrays of sgfast.HEADER_DTYPE and RESULT_DTYPE hold, so they can be passed back and forth. Calls may
# come from any thread, with or without the GIL; they take turns.

from sgfast.core.base.frames cimport Frame
from sgfast.core.base.types cimport HeaderRow, ResultRow

cdef enum:
    # Counts up whenever a function, a struct or a number here changes.
    CAPI_VERSION = 1

ctypedef void* Handle

cdef inline int import_sgfast() except -1:
    # The number above becomes part of whoever cimports this.
    return check_version(CAPI_VERSION)


# ImportError if the package that runs is of another version than the one the caller was built with.
cdef int check_version(int version) except -1

# TypeError if it is no sgfast.Engine. The handle is good as long as the engine lives.
cdef Handle handle_of(object engine) except NULL

# Judge packets in order. `results` has `count` rows, or is NULL. A frame's `captured` bytes are readable, `wire` is at
# least as many, `link_type` one of sgfast.core.wire.link.LINK_TYPES.
cdef void judge_frames(Handle engine, const Frame* frames, Py_ssize_t count, ResultRow* results) noexcept nogil
cdef void judge_headers(Handle engine, const HeaderRow* headers, Py_ssize_t count, ResultRow* results) noexcept nogil

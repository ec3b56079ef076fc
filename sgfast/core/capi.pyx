"""The interface for other Cython code; ``capi.pxd`` describes it."""

from sgfast.core.dataplane cimport DataPlane


cdef int check_version(int version) except -1:
    if version != CAPI_VERSION:
        raise ImportError(
            f"built for version {version} of sgfast's C interface, but this sgfast has version {<int>CAPI_VERSION}: "
            "build it again"
        )
    return 0


cdef Handle handle_of(object engine) except NULL:
    plane = getattr(engine, "dataplane", None)
    if not isinstance(plane, DataPlane):
        raise TypeError(f"an sgfast.Engine is wanted, not {type(engine).__name__}")
    return <Handle>plane


cdef void judge_frames(Handle engine, const Frame* frames, Py_ssize_t count, ResultRow* results) noexcept nogil:
    (<DataPlane>engine).judge_frames(frames, count, results)


cdef void judge_headers(Handle engine, const HeaderRow* headers, Py_ssize_t count, ResultRow* results) noexcept nogil:
    (<DataPlane>engine).judge_headers(headers, count, results)

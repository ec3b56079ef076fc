"""Share columns in memory with other libraries through Arrow's C data interface and its PyCapsule protocol.

    Field and Array --capsules--> ArrowSchema, ArrowArrayStream --> pyarrow, polars, pandas, DuckDB ...

An ``ArrowArray`` points into the buffers of an ``Array`` and holds a reference to each buffer until the consumer
releases the ``ArrowArray``, so nothing is copied. The layout of the structs and the rules of release are those of
https://arrow.apache.org/docs/format/CDataInterface.html and CStreamInterface.html.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from collections import namedtuple

cdef extern from "Python.h":
    int Py_IsInitialized() nogil
    void PyErr_SetInterrupt()

cdef enum:
    ARROW_FLAG_NULLABLE = 2
    MOST_BUFFERS = 3            # validity, offsets, data

cdef struct ArrowSchema:
    const char* format
    const char* name
    const char* metadata
    int64_t flags
    int64_t n_children
    ArrowSchema** children
    ArrowSchema* dictionary
    void (*release)(ArrowSchema*) noexcept nogil
    void* private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void** buffers
    ArrowArray** children
    ArrowArray* dictionary
    void (*release)(ArrowArray*) noexcept nogil
    void* private_data

cdef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream*, ArrowSchema*) noexcept nogil
    int (*get_next)(ArrowArrayStream*, ArrowArray*) noexcept nogil
    const char* (*get_last_error)(ArrowArrayStream*) noexcept nogil
    void (*release)(ArrowArrayStream*) noexcept nogil
    void* private_data

# Buffers that an ArrowArray keeps alive. Each child has its own, as a consumer may keep a child longer than its parent.
cdef struct HeldBuffers:
    Py_buffer views[MOST_BUFFERS]
    const void* pointers[MOST_BUFFERS]
    int count

# Objects that a stream keeps alive. `error` is the text of the last error, or NULL.
cdef struct HeldStream:
    PyObject* fields
    PyObject* batches
    PyObject* error

#: ``format`` is Arrow's format of the values, as bytes. A field that is ``encoded`` holds int32 codes, and its
#: dictionary holds the values.
Field = namedtuple("Field", "name format encoded")
#: ``buffers``: bytes-like objects in Arrow's order for the type; None for the validity bitmap if no value is null.
#: ``dictionary``: the ``Array`` whose rows the codes number, or None.
Array = namedtuple("Array", "length buffers dictionary", defaults=(None,))

# Release: the consumer calls these functions when it no longer needs the data ---------------------------------------

cdef void release_schema(ArrowSchema* schema) noexcept nogil:
    cdef int64_t n
    for n in range(schema.n_children):
        if schema.children[n].release != NULL:
            schema.children[n].release(schema.children[n])
        free(schema.children[n])
    free(schema.children)
    if schema.dictionary != NULL:
        if schema.dictionary.release != NULL:
            schema.dictionary.release(schema.dictionary)
        free(schema.dictionary)
    drop(<PyObject*>schema.private_data)
    schema.release = NULL


cdef void release_array(ArrowArray* array) noexcept nogil:
    cdef int64_t n
    for n in range(array.n_children):
        if array.children[n].release != NULL:
            array.children[n].release(array.children[n])
        free(array.children[n])
    free(array.children)
    if array.dictionary != NULL:
        if array.dictionary.release != NULL:
            array.dictionary.release(array.dictionary)
        free(array.dictionary)
    let_go(<HeldBuffers*>array.private_data)
    array.release = NULL


cdef void release_stream(ArrowArrayStream* stream) noexcept nogil:
    cdef HeldStream* stream_data = <HeldStream*>stream.private_data
    drop(stream_data.fields)
    drop(stream_data.batches)
    drop(stream_data.error)
    free(stream_data)
    stream.release = NULL


# A consumer may release data in any thread, and even after Python has ended. Then there is nothing left to free.
cdef void drop(PyObject* object) noexcept nogil:
    if object != NULL and Py_IsInitialized():
        with gil:
            Py_XDECREF(object)


cdef void let_go(HeldBuffers* held) noexcept nogil:
    cdef int n
    if held.count and Py_IsInitialized():
        with gil:
            for n in range(held.count):
                PyBuffer_Release(&held.views[n])
    free(held)


# Filling Arrow's structures ------------------------------------------------------------------------------------------

cdef int fill_schema(ArrowSchema* schema, bytes format, bytes name, bint nullable) except -1:
    # `schema` must be all zeros.
    texts = (format, name)
    schema.format = PyBytes_AS_STRING(format)
    schema.name = PyBytes_AS_STRING(name)
    schema.flags = ARROW_FLAG_NULLABLE if nullable else 0
    Py_INCREF(texts)
    schema.private_data = <void*><PyObject*>texts
    schema.release = release_schema
    return 0


cdef int fill_table_schema(ArrowSchema* schema, fields) except -1:
    # `schema` must be all zeros. After an error, the caller releases the part that was filled.
    cdef ArrowSchema* child
    fill_schema(schema, b"+s", b"", False)
    schema.children = <ArrowSchema**>calloc(len(fields) + 1, sizeof(ArrowSchema*))
    if schema.children == NULL:
        raise MemoryError
    for name, format, encoded in fields:
        child = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
        if child == NULL:
            raise MemoryError
        schema.children[schema.n_children] = child
        schema.n_children += 1
        fill_schema(child, b"i" if encoded else format, name.encode(), True)
        if encoded:
            child.dictionary = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
            if child.dictionary == NULL:
                raise MemoryError
            fill_schema(child.dictionary, format, b"", True)
    return 0


cdef int fill_array(ArrowArray* array, Py_ssize_t length, buffers, dictionary) except -1:
    # `array` must be all zeros. After an error, the caller releases the part that was filled.
    cdef HeldBuffers* buffers_data = <HeldBuffers*>calloc(1, sizeof(HeldBuffers))
    cdef int n = 0
    if buffers_data == NULL:
        raise MemoryError
    array.private_data = buffers_data
    array.buffers = buffers_data.pointers
    array.release = release_array
    array.length = length
    if len(buffers) > MOST_BUFFERS:
        raise ValueError("a column has too many buffers")
    array.null_count = 0 if buffers[0] is None else -1          # not counted
    for buffer in buffers:
        if buffer is not None:
            PyObject_GetBuffer(buffer, &buffers_data.views[buffers_data.count], PyBUF_SIMPLE)
            buffers_data.pointers[n] = buffers_data.views[buffers_data.count].buf
            buffers_data.count += 1
        n += 1
    array.n_buffers = n
    if dictionary is not None:
        array.dictionary = <ArrowArray*>calloc(1, sizeof(ArrowArray))
        if array.dictionary == NULL:
            raise MemoryError
        fill_array(array.dictionary, dictionary.length, dictionary.buffers, dictionary.dictionary)
    return 0


cdef int fill_batch(ArrowArray* array, Py_ssize_t fields, columns) except -1:
    cdef ArrowArray* child
    fill_array(array, columns[0].length, (None,), None)
    if len(columns) != fields:
        raise ValueError("a batch has another number of columns than the table")
    array.children = <ArrowArray**>calloc(fields, sizeof(ArrowArray*))
    if array.children == NULL:
        raise MemoryError
    for column in columns:
        child = <ArrowArray*>calloc(1, sizeof(ArrowArray))
        if child == NULL:
            raise MemoryError
        array.children[array.n_children] = child
        array.n_children += 1
        fill_array(child, column.length, column.buffers, column.dictionary)
    return 0


# The stream of batches -----------------------------------------------------------------------------------------------

cdef int get_schema(ArrowArrayStream* stream, ArrowSchema* schema) noexcept nogil:
    with gil:
        return schema_of_stream(<HeldStream*>stream.private_data, schema)


cdef int get_next(ArrowArrayStream* stream, ArrowArray* array) noexcept nogil:
    with gil:
        return next_of_stream(<HeldStream*>stream.private_data, array)


cdef const char* get_last_error(ArrowArrayStream* stream) noexcept nogil:
    # The text is valid until the next call.
    cdef HeldStream* stream_data = <HeldStream*>stream.private_data
    if stream_data.error == NULL:
        return NULL
    with gil:
        return PyBytes_AS_STRING(<bytes><object>stream_data.error)


cdef int schema_of_stream(HeldStream* held, ArrowSchema* schema) noexcept:
    try:
        memset(schema, 0, sizeof(ArrowSchema))
        fill_table_schema(schema, <object>held.fields)
        return 0
    except BaseException as error:
        if schema.release != NULL:
            schema.release(schema)
        return noted(held, error)


cdef int next_of_stream(HeldStream* held, ArrowArray* array) noexcept:
    # At the end of the stream, returns an array without `release`.
    try:
        memset(array, 0, sizeof(ArrowArray))
        columns = next(<object>held.batches, None)
        if columns is not None:
            fill_batch(array, len(<object>held.fields), columns)
        return 0
    except BaseException as error:
        if array.release != NULL:
            array.release(array)
        return noted(held, error)


cdef int noted(HeldStream* held, error) noexcept:
    text = (str(error) or type(error).__name__).encode("utf-8", "backslashreplace")
    drop(held.error)
    Py_INCREF(text)
    held.error = <PyObject*>text
    if isinstance(error, KeyboardInterrupt):
        # The consumer turns the code into an error of its own. The interrupt is raised again when Python code runs.
        PyErr_SetInterrupt()
    return ENOMEM if isinstance(error, MemoryError) else EIO


# PyCapsules around Arrow's structures --------------------------------------------------------------------------------

cdef void free_schema_capsule(object capsule) noexcept:
    cdef ArrowSchema* schema = <ArrowSchema*>PyCapsule_GetPointer(capsule, "arrow_schema")
    # A consumer that took over the schema has set `release` to NULL.
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef void free_stream_capsule(object capsule) noexcept:
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


def schema_capsule(fields):
    """Return the schema of a table whose columns are ``fields``, as a capsule named ``arrow_schema``."""
    cdef ArrowSchema* schema = <ArrowSchema*>calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError
    try:
        fill_table_schema(schema, fields)
        return PyCapsule_New(schema, "arrow_schema", free_schema_capsule)
    except BaseException:
        if schema.release != NULL:
            schema.release(schema)
        free(schema)
        raise


def stream_capsule(fields, batches):
    """Return a table as a capsule named ``arrow_array_stream``.

    ``batches``: yields lists of ``Array``, one for each of ``fields`` and of equal lengths; each list is computed when
    the consumer requests it. If it raises an error, the consumer shows the error's text.
    """
    cdef ArrowArrayStream* stream
    cdef HeldStream* stream_data
    fields = tuple(fields)
    batches = iter(batches)
    stream = <ArrowArrayStream*>calloc(1, sizeof(ArrowArrayStream))
    stream_data = <HeldStream*>calloc(1, sizeof(HeldStream))
    if stream == NULL or stream_data == NULL:
        free(stream)
        free(stream_data)
        raise MemoryError
    Py_INCREF(fields)
    Py_INCREF(batches)
    stream_data.fields, stream_data.batches = <PyObject*>fields, <PyObject*>batches
    stream.get_schema = get_schema
    stream.get_next = get_next
    stream.get_last_error = get_last_error
    stream.release = release_stream
    stream.private_data = stream_data
    try:
        return PyCapsule_New(stream, "arrow_array_stream", free_stream_capsule)
    except BaseException:
        stream.release(stream)
        free(stream)
        raise

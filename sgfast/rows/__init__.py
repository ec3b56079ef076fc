"""Values of one packet or event, and tables of many, for pandas, polars, DuckDB and pyarrow (SPEC 14.9).

``packet_headers`` makes the rows that an engine judges, ``verdicts`` and ``connection_events`` have its answers.

    arrays of rows --columns--> columns of row_schema --Table--> Arrow's PyCapsule interface (arrow)

Rows are converted only when a library reads the table, and then ``BATCH_ROWS`` rows at a time.
"""

from sgfast.base.lazy import on_demand

# Modules are imported on demand. If this package imported them itself, it would deadlock with a thread that imports one
# of them at the same time.
__getattr__, __dir__ = on_demand(__name__)

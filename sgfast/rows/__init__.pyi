from sgfast.rows.arrow_table import BATCH_ROWS as BATCH_ROWS
from sgfast.rows.arrow_table import Table as Table
from sgfast.rows.row_tables import PacketChunk as PacketChunk
from sgfast.rows.row_tables import connection_table as connection_table
from sgfast.rows.row_tables import packet_table as packet_table
from sgfast.rows.row_tables import remembered_table as remembered_table

"""Hand what an engine judged, and what a replay found, to Arrow: no rows in Python, and one file for others."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

import sgfast

SHOP = Path(sys.argv[1] if len(sys.argv) > 1 else "pcaps")


def judged() -> sgfast.Table:
    engine = sgfast.Engine(SHOP / "shop.yaml")
    rows = np.repeat(sgfast.header("198.51.100.7", "10.0.0.5", "tcp"), 1000)
    rows["sport"] = 1024 + np.arange(1000)
    rows["dport"] = np.where(np.arange(1000) % 4, 80, 22)
    rows["time_ns"] = np.arange(1000) * 10**9
    return sgfast.table(rows, engine.process(rows), engine)


def main() -> None:
    table = pyarrow.table(judged())
    assert table.num_rows == 1000 and table.schema.field("time").type == pyarrow.timestamp("ns")
    counts = table.group_by(["verdict", "ingress_rule"]).aggregate([("packet", "count")]).to_pylist()
    assert {(row["verdict"], row["ingress_rule"]): row["packet_count"] for row in counts} == {
        ("allow", "web-http-4"): 750, ("deny", None): 250,
    }  # fmt: skip

    result = sgfast.replay(SHOP / "shop.yaml", SHOP / "shop.pcap", tables="connections")
    connections = pyarrow.table(result.tables.connections)
    lasted = pyarrow.compute.subtract(connections["last_time"], connections["first_time"])
    assert pyarrow.compute.max(lasted.cast("int64")).as_py() > 10**9

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "denied.parquet")
        pyarrow.parquet.write_table(pyarrow.table(result.tables.denied), file)
        again = pyarrow.parquet.read_table(file)
    assert again.num_rows == len(result.tables.denied)
    reach = sgfast.load(SHOP / "shop.yaml").reach(destination="db").tables.rows
    assert {row["source"] for row in pyarrow.table(reach).to_pylist()} == {"web"}
    print(again.column_names)


main()

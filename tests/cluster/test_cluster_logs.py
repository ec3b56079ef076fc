"""Flow logs whose files are read on a Dask cluster: the answer is that of one process (SPEC 9.15, 10.31)."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import PCAPS, SHOP, sgfast
from flow_logs import FIELDS, OPEN, flow

from sgfast import replay
from sgfast.base.errors import ArgumentError, FlowLogError
from sgfast.clouds.loading import parse_policy
from sgfast.clouds.logs.columns import BATCH_ROWS

distributed = pytest.importorskip("distributed")

LOG = PCAPS / "shop.aws.log"
SEED = 50


def divided(folder: Path, seed: int) -> Path:
    """Write the log's lines into files of random length, in a random order of their names."""
    header, *lines = LOG.read_text().splitlines()
    rng = np.random.default_rng(seed)
    edges = [0, *sorted(rng.choice(len(lines), 6, replace=False).tolist()), len(lines)]
    for name, (first, end) in zip(rng.permutation(len(edges) - 1), pairwise(edges), strict=True):
        text = "\n".join((header, *lines[first:end], "")).encode()
        (folder / f"{name}.log.gz").write_bytes(gzip.compress(text))
    return folder


def facts(result: Any) -> Any:
    return (
        result.packets, result.bytes, result.verdicts, result.reasons, result.connections, result.rules, result.kinds,
        result.records, result.evidence, result.warnings, result.first_time_ns, result.last_time_ns,
        result.rejected and (result.rejected.connections, result.rejected.kinds),
    )  # fmt: skip


def test_workers_read_the_files_and_the_answer_is_that_of_one_process(client: Any, tmp_path: Path) -> None:
    folder = divided(tmp_path, SEED)
    one, many = replay(SHOP[0], folder), replay(SHOP[0], folder, client=client)
    assert one.records is not None and one.records.judged > 20 and one.rejected is not None
    assert facts(many) == facts(one)


def test_records_out_of_order_come_as_late_as_in_one_process(client: Any, tmp_path: Path) -> None:
    # The last lines of the file are its oldest records. Workers read them in a batch of their own.
    ordered = [flow(f"10.0.0.5:{40000 + n} > 192.0.2.9:53", 12 * n) for n in range(BATCH_ROWS)]
    older = [flow(f"10.0.0.5:{50000 + n} > 192.0.2.9:53", n) for n in range(10)]
    log = tmp_path / "aws.log"
    log.write_text("\n".join((FIELDS, *ordered, *older)))
    policy = parse_policy(OPEN)
    one, many = replay(policy, log), replay(policy, log, client=client)
    assert one.records is not None and one.records.late == 10
    assert facts(many) == facts(one)


def test_a_file_that_is_no_log_is_the_same_error_there_and_damage_later(client: Any, tmp_path: Path) -> None:
    folder = divided(tmp_path, SEED)
    (folder / "0.log.gz").write_bytes((folder / "0.log.gz").read_bytes()[:-40])
    one, many = replay(SHOP[0], folder), replay(SHOP[0], folder, client=client)
    assert one.records is not None and one.records.is_damaged and facts(many) == facts(one)
    only = tmp_path / "only"
    only.mkdir()
    (only / "azure.json").write_text('{"records": [{"category": "NetworkSecurityGroupFlowEvent"}]}')
    with pytest.raises(FlowLogError, match="Azure"):
        replay(SHOP[0], only, client=client)


def test_what_divides_packets_has_no_meaning_for_logs(client: Any) -> None:
    with pytest.raises(ArgumentError, match="shards is for captures"):
        replay(SHOP[0], LOG, client=client, shards=2)


def test_the_command_reads_them_on_a_local_cluster(capsys: Any) -> None:
    one, many = (
        json.loads(sgfast(capsys, "replay", SHOP[0], LOG, "--json", "-q", *options).out)
        for options in ((), ("--dask", "local:1"))
    )
    for answer in (one, many):
        del answer["elapsed_seconds"], answer["packets_per_second"]
    assert many == one

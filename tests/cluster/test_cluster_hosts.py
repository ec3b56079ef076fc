"""A replay on workers that are other processes: on two hosts, one of which dies; captures in S3; interrupts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from clusters import BASE, DOCUMENT, POLICY, assert_same, captures_in, packets, told, write
from command import DEADLINE_SECONDS, environment, process, sgfast, start, wait_for, write_policy
from effort import some
from traffic import SECOND

from sgfast.base.errors import ClusterError
from sgfast.questions.replaying.cluster.plan import RANGE_BYTES
from sgfast.questions.replaying.cluster.scheduler import client_at

distributed = pytest.importorskip("distributed")

#: Loaded by workers: the first task of a kind, whoever has it, ends its worker.
DIES = """
import os, signal
from pathlib import Path
import importlib
module = importlib.import_module("sgfast.questions.replaying.{module}")

# Dask loads this more than once, into the same module.
task = module.__dict__.setdefault("kept", module.{function})
when = {when!r}


def dies(*arguments):
    def die():
        try:
            Path({marker!r}).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
    if when == "before":
        die()
    done = task(*arguments)
    if when == "after":
        die()
    return done

dies.__module__, dies.__qualname__ = task.__module__, task.__qualname__
module.{function} = dies
"""
SCHEDULER, OTHER = "10.93.0.1", "10.93.0.2"


def day_in(folder: Path, number: int = 6) -> tuple[Path, Path, list[Path]]:
    """A policy, a directory, and the captures in it."""
    captures = captures_in(folder / "day", number, 300, ending=".pcap.gz")
    return write_policy(folder, DOCUMENT), folder / "day", captures


class Hosts:
    """Two network namespaces that reach each other, each with a worker; a scheduler is in the first one."""

    def __init__(self, stack: ExitStack, folder: Path, preload: Path | None) -> None:
        self.names = [f"sgfast-{os.getpid()}-{side}" for side in "ab"]
        for name in self.names:
            self.ip("netns", "add", name)
            stack.callback(self.ip, "netns", "del", name, check=False)
        a, b = self.names
        self.ip("link", "add", "veth0", "netns", a, "type", "veth", "peer", "name", "veth0", "netns", b)
        for name, address in ((a, SCHEDULER), (b, OTHER)):
            self.ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0")
            for link in ("lo", "veth0"):
                self.ip("-n", name, "link", "set", link, "up")
        self._stack, self._log = stack, folder / "dask.log"
        self.scheduler = self.start(a, "scheduler", "--host", SCHEDULER, "--port", "8786", "--no-dashboard")
        more = ("--preload", str(preload)) if preload is not None else ()
        self.workers = [
            self.start(
                name, "worker", f"tcp://{SCHEDULER}:8786", "--nthreads", "1", "--no-nanny", "--no-dashboard",
                "--host", address, "--local-directory", str(folder / address), *more,
            )
            for name, address in ((a, SCHEDULER), (b, OTHER))
        ]  # fmt: skip
        self.wait()

    @staticmethod
    def ip(*arguments: str, check: bool = True) -> None:
        subprocess.run(["ip", *arguments], check=check, capture_output=True)

    def inside(self, name: str, arguments: list[str]) -> list[str]:
        return ["ip", "netns", "exec", name, *arguments]

    def start(self, name: str, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        whole = self.inside(name, [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments])
        with open(self._log, "ab") as log:
            process = subprocess.Popen(whole, stdout=log, stderr=log, env=environment())
        self._stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def wait(self) -> None:
        """Until both workers are there."""
        client = f"distributed.Client('tcp://{SCHEDULER}:8786', timeout=60)"
        ask = f"import distributed; {client}.wait_for_workers(2, timeout=60)"
        subprocess.run(self.inside(self.names[0], [sys.executable, "-c", ask]), check=True, timeout=120)

    def sgfast(self, *arguments: object, range_bytes: int = RANGE_BYTES) -> list[str]:
        """The command; ``range_bytes``: what is large."""
        small = f"import sgfast.questions.replaying.cluster as c; c.RANGE_BYTES = {range_bytes}"
        call = [sys.executable, "-c", f"{small}; from sgfast.__main__ import main; main()", *map(str, arguments)]
        return self.inside(self.names[0], call)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="hosts are network namespaces: needs root, and ip"
)


@needs_hosts
@pytest.mark.parametrize(
    ("module", "function", "when"),
    [("cluster.reading", "read_unit", "before"), ("cluster.reading", "read_unit", "after"),
     ("cluster.judging", "judge_shard", "before"), ("cluster.judging", "judge_shard", "after"),
     ("cluster", "indexed", "after")][some(-1, 0):],
)  # fmt: skip
def test_a_worker_that_is_killed_costs_its_own_tasks(
    module: str, function: str, when: str, stack: ExitStack, tmp_path: Path
) -> None:
    preload, marker = tmp_path / "dies.py", tmp_path / "died"
    preload.write_text(DIES.format(module=module, function=function, when=when, marker=str(marker)))
    policy, day, captures = day_in(tmp_path)
    if function == "indexed":
        # A capture is read in ranges if it is large and not compressed.
        captures.append(day / "6.pcap")
        write(captures[-1], [(BASE + 3600 * SECOND + n, frame) for n, frame in enumerate(packets(20_000, 12))])
    hosts = Hosts(stack, tmp_path, preload)
    verdicts, connections = tmp_path / "verdicts", tmp_path / "connections"
    done = subprocess.run(
        hosts.sgfast(
            "replay", policy, day, "--dask", f"tcp://{SCHEDULER}:8786", "--resume", tmp_path / "run",
            "--verdicts", verdicts, "--connections", connections, "--json", range_bytes=100_000,
        ),
        capture_output=True, timeout=300, env=environment(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert marker.exists() and sorted(worker.poll() is None for worker in hosts.workers) == [False, True]
    one = told(POLICY, captures)
    assert verdicts.read_bytes().splitlines() == one[1]
    assert sorted(connections.read_bytes().splitlines()) == one[2]
    result = json.loads(done.stdout)
    assert result["verdicts"] == one[0].verdicts and result["connections"] == one[0].connections
    stages = ["index"] * (function == "indexed") + ["read", "judge", "gather"]
    assert [stage["stage"] for stage in result["cluster"]["stages"]] == stages


@needs_hosts
def test_a_scheduler_that_goes_away_is_one_line_and_what_was_read_stays(stack: ExitStack, tmp_path: Path) -> None:
    preload, marker = tmp_path / "kills.py", tmp_path / "killed"
    policy, day, captures = day_in(tmp_path)
    # The first task that judges never ends.
    dies = DIES.format(module="cluster.judging", function="judge_shard", when="before", marker=str(marker))
    preload.write_text(dies.replace("os.kill(os.getpid(), signal.SIGKILL)", "__import__('threading').Event().wait()"))
    hosts = Hosts(stack, tmp_path, preload)
    options = ("replay", policy, day, "--dask", f"tcp://{SCHEDULER}:8786", "--resume", tmp_path / "run")
    running = subprocess.Popen(
        hosts.sgfast(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    wait_for(marker.exists)
    hosts.scheduler.kill()
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (2, b"")
    line = err.decode()
    assert line.count("\n") == 1 and line.startswith(f"sgfast: tcp://{SCHEDULER}:8786: the scheduler went away; "), line
    assert len(list((tmp_path / "run").glob("*.records.json"))) == len(captures)
    # It is run once more, here.
    again = process(*options[:3], "--dask", "local:1", "--resume", tmp_path / "run", "--json")
    assert again.status == 0 and json.loads(again.out)["cluster"]["segments_found"] == len(captures)


def assert_ends(running: Any, number: signal.Signals, words: str) -> None:
    """A signal to all processes of the group, as a terminal sends it, ends them."""
    os.killpg(running.pid, number)
    out, err = running.communicate(timeout=DEADLINE_SECONDS)
    assert (running.returncode, out, err) == (128 + number, "", f"sgfast: {words}\n")

    def is_gone() -> bool:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, 0)
            return False
        return True

    wait_for(is_gone)


def children_of(process: int) -> list[str]:
    """List the child processes of all threads of a process."""
    found: list[str] = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            found += (thread / "children").read_text().split()
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")
def test_a_hang_up_while_the_cluster_starts_ends_everything(tmp_path: Path) -> None:
    policy, day, _ = day_in(tmp_path, 2)
    running = start("replay", policy, day, "--dask", "local:2", start_new_session=True)
    # The resource tracker and the first worker process have started. The cluster is not ready yet.
    wait_for(lambda: len(children_of(running.pid)) >= 2)
    assert_ends(running, signal.SIGHUP, "hung up")


def test_processes_that_do_not_start_are_tried_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    tried = []

    def fails(**options: Any) -> None:
        tried.append(options["n_workers"])
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(distributed, "LocalCluster", fails)
    told = r"^--dask local: its processes did not start, even at the second try: Nanny failed to start\.; use fewer"
    with pytest.raises(ClusterError, match=told), client_at("local:3"):
        pass
    assert tried == [3, 3]


def test_an_interrupt_ends_everything(tmp_path: Path) -> None:
    (policy, day, _), run = day_in(tmp_path, 40), tmp_path / "run"
    running = start("replay", policy, day, "--dask", "local:2", "--resume", run, start_new_session=True)
    wait_for(lambda: list(run.glob("*.records")))
    assert_ends(running, signal.SIGINT, "interrupted")
    assert not list(run.glob(".*"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A URL of a bucket on a server here that speaks S3."""
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    thread = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    host, port = thread.get_host_and_port()
    for name, value in (
        ("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
    s3fs.S3FileSystem.clear_instance_cache()
    with suppress(FileExistsError):
        # Servers in one process share their buckets, so the bucket may exist already.
        s3fs.S3FileSystem().mkdir("mirror")
    yield "s3://mirror"
    thread.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_captures_and_the_run_in_s3(bucket: str, tmp_path: Path) -> None:
    import s3fs

    _, _, captures = day_in(tmp_path, 4)
    system = s3fs.S3FileSystem()
    for path in captures:
        system.put_file(str(path), f"{bucket}/day/{path.name}")
    system.pipe_file(f"{bucket}/day/README", b"no capture")
    one = told(POLICY, captures)
    for named in (f"{bucket}/day/*.pcap.gz", [f"{bucket}/day/{path.name}" for path in captures]):
        assert_same(told(POLICY, named), one)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        options: dict[str, Any] = {"client": client, "shards": 3, "resume": f"{bucket}/run"}
        assert_same(told(POLICY, f"{bucket}/day/*.pcap.gz", **options), one)
        found = told(POLICY, f"{bucket}/day/*.pcap.gz", **options)
        assert_same(found, one)
        assert found[0].cluster is not None and found[0].cluster.segments_found == 4
    names = [name.rsplit("/", 1)[1] for name in system.find(f"{bucket}/run")]
    assert not [name for name in names if name.endswith((".rows", ".part"))]


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("s3://mirror/none.pcap", "does not exist; check the URL"),
        ("s3://mirror/*.pcap", "is a pattern that matches no captures and no flow logs; name one that does, or a file"),
        ("s3://nowhere/x.pcap", "does not exist; check the URL"),
    ],
)
def test_urls_that_lead_nowhere_are_one_line(
    bucket: str, path: str, cause: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = sgfast(capsys, "replay", write_policy(tmp_path), path)
    assert done.status == 2 and done.out == ""
    assert done.one_line().startswith(f"sgfast: {path}: ") and cause in done.one_line()

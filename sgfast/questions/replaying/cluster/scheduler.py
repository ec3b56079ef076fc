"""Run tasks on Dask, and turn Dask's failures into errors with one clear line."""

from __future__ import annotations

import logging
import secrets
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from sgfast.base.errors import ClusterError, SgfastError, pip_install
from sgfast.base.names import printable
from sgfast.base.signals import raise_arrived

#: The seconds to wait for the scheduler's answer.
CONNECT_SECONDS = 10
#: The number of tasks submitted at a time for each thread of the cluster, and the minimum number in all. An adaptive
#: cluster grows only if enough tasks are waiting.
TIMES_AT_ONCE = 4
LEAST_AT_ONCE = 256

T = TypeVar("T")


class Cluster:
    """The functions of a Dask client that a replay needs."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.name = "local cluster" if client.cluster is not None else printable(str(client.scheduler.address))
        #: A token that makes the keys of tasks unique, because all clients of a scheduler share the keys.
        self._token = secrets.token_hex(4)

    @property
    def workers(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    @property
    def threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers) or 1

    def shared(self, name: str, value: T) -> T:
        """Send a value once for many tasks. Return the argument to pass to them in its place. Names must differ."""
        future: T = self._client.submit(_same, value, key=f"sgfast-{name}-{self._token}", pure=False)
        return future

    def run(
        self, stage: str, function: Callable[..., T], calls: Iterable[tuple[str, tuple[Any, ...]]],
        done: Callable[[T], None],
    ) -> list[T]:  # fmt: skip
        """Call ``function`` on the workers and return the results in the order of ``calls``.

        ``calls`` yields each call's name on Dask's dashboard and its arguments, when they are needed. ``done`` is
        called with each result as it arrives, and may raise. Raises the errors of tasks, and ClusterError if the
        cluster fails.
        """
        from distributed import as_completed

        numbers: dict[Any, int] = {}        # numbers of the unfinished calls
        results: dict[int, T] = {}
        remaining = enumerate(calls)

        def submit(most: int) -> None:
            for number, (name, arguments) in islice(remaining, most):
                key = f"sgfast-{stage}-{printable(name)}-{number}-{self._token}"
                future = self._client.submit(function, *arguments, key=key, pure=False)
                numbers[future] = number
                queue.add(future)

        with self._errors():
            try:
                queue = as_completed(loop=self._client.loop)
                submit(max(LEAST_AT_ONCE, TIMES_AT_ONCE * self.threads))
                for future in queue:
                    result = results[numbers.pop(future)] = future.result()
                    done(result)
                    submit(1)
                return [results[number] for number in range(len(results))]
            finally:
                with suppress(Exception):
                    self._client.cancel(list(numbers))
        raise AssertionError

    def in_order(
        self, stage: str, function: Callable[..., T], calls: Iterable[tuple[str, tuple[Any, ...]]], ahead: int
    ) -> Iterator[T]:
        """Call ``function`` on the workers as ``run`` does, at most ``ahead`` calls before the result that is wanted
        next, and yield the results in the order of ``calls``.
        """
        waiting: deque[Any] = deque()
        remaining = enumerate(calls)
        with self._errors():
            try:
                while True:
                    for number, (name, arguments) in islice(remaining, ahead - len(waiting)):
                        key = f"sgfast-{stage}-{printable(name)}-{number}-{self._token}"
                        waiting.append(self._client.submit(function, *arguments, key=key, pure=False))
                    if not waiting:
                        return
                    yield waiting[0].result()
                    waiting.popleft()
            finally:
                with suppress(Exception):
                    self._client.cancel(list(waiting))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise ClusterError for errors of the cluster. Those of tasks stay as they are."""
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            yield
        except SgfastError:
            raise
        except KilledWorker as error:
            raise ClusterError(
                f"{self.name}: workers died while running {printable(str(error.task))}; they may lack memory (see "
                "their logs)"
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise self._connection_lost() from error
        except (OSError, TimeoutError) as error:
            # The client may detect a lost connection only after the call that needed it.
            if getattr(self._client, "status", "") != "running":
                raise self._connection_lost() from error
            raise ClusterError(f"{self.name}: {printable(str(error))[:300]}") from error
        except ImportError as error:
            raise ClusterError(
                f"{self.name}: a worker lacks a module: {printable(str(error))[:200]}; install sgfast on the workers "
                "as it is here"
            ) from error
        except (MemoryError, ValueError):
            raise
        except Exception as error:
            raise ClusterError(
                f"{self.name}: a task failed: {type(error).__name__}: {printable(str(error))[:200]} (see the workers' "
                "logs)"
            ) from error

    def _connection_lost(self) -> ClusterError:
        return ClusterError(
            f"{self.name}: the scheduler went away; restart it, and use --resume to reuse what was read"
        )


def _same(value: T) -> T:
    return value


@contextmanager
def client_at(address: str) -> Iterator[Any]:
    """Connect to the scheduler at ``tcp://HOST:PORT``, or start N processes on this machine (``local``, ``local:N``).

    Raises ClusterError if the address is wrong or no scheduler answers.
    """
    name = printable(address)
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ClusterError(f"--dask needs distributed: {pip_install('dask')}") from None
    # Silence Dask's loggers, each of which has its own level, because errors are reported in one line.
    for logger in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if address == "local" or address.startswith("local:"):
        count = address[6:]
        if count and not (count.isdigit() and 1 <= int(count) <= 1024):
            raise ClusterError(f"--dask: {name}: must be local, or local:N with 1 to 1024 processes")
        local = _local_cluster(LocalCluster, int(count) if count else None)
        with local, Client(local) as client:
            # Dask may have lost the exception of a signal that arrived during its start.
            raise_arrived()
            yield client
        return
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except Exception as error:
        cause = "does not answer" if isinstance(error, OSError | TimeoutError) else printable(str(error))[:200]
        raise ClusterError(
            f"--dask: {name}: {cause}; start a scheduler (dask scheduler), or check its address (tcp://HOST:PORT)"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=2)


def _local_cluster(cluster: Any, processes: int | None) -> Any:
    """Start a ``LocalCluster``. On a busy machine its processes may not start in time, so a failed start is
    repeated."""
    for attempts_left in (1, 0):
        try:
            # Python's resource tracker prints a traceback if a signal ends it, so let it ignore these signals.
            with _ignored(signal.SIGINT, signal.SIGHUP):
                resource_tracker.ensure_running()
            # Let worker processes ignore interrupts. This process handles interrupts and ends the workers.
            with _ignored(signal.SIGINT):
                return cluster(
                    n_workers=processes, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
        except (RuntimeError, OSError, TimeoutError) as error:
            # A signal to the whole process group may have ended the worker processes.
            raise_arrived()
            if not attempts_left:
                cause = printable(str(error))[:200] or type(error).__name__
                raise ClusterError(
                    f"--dask local: its processes did not start, even at the second try: {cause}; use fewer "
                    "(local:N), or --jobs without --dask"
                ) from error
    raise AssertionError


@contextmanager
def _ignored(*numbers: int) -> Iterator[None]:
    """Ignore signals, so that processes started meanwhile inherit this. A signal that arrives meanwhile is lost."""
    before: dict[int, Any] = {}
    try:
        with suppress(ValueError):      # signal handlers can only be set in the main thread
            for number in numbers:
                before[number] = signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

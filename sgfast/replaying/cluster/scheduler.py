"""Dask: where tasks run, and what is said when that fails."""

from __future__ import annotations

import logging
import secrets
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

from sgfast.capture.names import printable
from sgfast.errors import ClusterError, SgfastError

#: A scheduler that does not answer for so long is not there.
CONNECT_SECONDS = 10
#: Tasks the scheduler knows of at a time: so many for each thread of the cluster, and enough that a cluster that grows
#: with what is to be done sees that there is more.
TIMES_AT_ONCE = 4
LEAST_AT_ONCE = 256

T = TypeVar("T")


class Cluster:
    """A client of Dask's, and nothing of it but what a replay needs."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.name = "local cluster" if client.cluster is not None else printable(str(client.scheduler.address))
        #: Keys of tasks are the scheduler's, for all its clients.
        self._token = secrets.token_hex(4)

    @property
    def workers(self) -> int:
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    @property
    def threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers) or 1

    def shared(self, name: str, value: T) -> T:
        """A value that many tasks take, sent once: what stands for it among their arguments. One for each name."""
        future: T = self._client.submit(_same, value, key=f"sgfast-{name}-{self._token}", pure=False)
        return future

    def run(
        self, stage: str, function: Callable[..., T], calls: Iterable[tuple[str, tuple[Any, ...]]],
        done: Callable[[T], None],
    ) -> list[T]:  # fmt: skip
        """Calls ``function`` with each of the arguments, somewhere; results in the order of these. ``calls``: what each
        is called on Dask's dashboard, and its arguments; taken as they are needed. ``done`` is called with each result
        as it comes, and may raise.

        Raises what a task raised, ClusterError if the cluster does not do them.
        """
        from distributed import KilledWorker, as_completed

        numbers: dict[Any, int] = {}        # of calls that are not done
        results: dict[int, T] = {}
        left = enumerate(calls)

        def submit(most: int) -> None:
            for number, (name, arguments) in islice(left, most):
                key = f"sgfast-{stage}-{printable(name)}-{number}-{self._token}"
                future = self._client.submit(function, *arguments, key=key, pure=False)
                numbers[future] = number
                queue.add(future)

        try:
            queue = as_completed(loop=self._client.loop)
            submit(max(LEAST_AT_ONCE, TIMES_AT_ONCE * self.threads))
            for future in queue:
                result = results[numbers.pop(future)] = future.result()
                done(result)
                submit(1)
            return [results[number] for number in range(len(results))]
        except SgfastError:
            raise
        except KilledWorker as error:
            raise ClusterError(
                f"{self.name}: workers die when they do {printable(str(error.task))}: have they enough memory? "
                "(see their logs)"
            ) from error
        except CancelledError as error:
            raise self._gone() from error
        except (OSError, TimeoutError) as error:
            if getattr(self._client, "status", "") != "running":
                raise self._gone() from error
            raise ClusterError(f"{self.name}: {printable(str(error))[:300]}") from error
        except ImportError as error:
            raise ClusterError(
                f"{self.name}: a worker lacks something: {printable(str(error))[:200]}; install sgfast there as here"
            ) from error
        except (MemoryError, ValueError):
            raise
        except Exception as error:
            raise ClusterError(
                f"{self.name}: a task failed: {type(error).__name__}: {printable(str(error))[:200]} (see workers' logs)"
            ) from error
        finally:
            with suppress(Exception):
                self._client.cancel(list(numbers))

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"{self.name}: the scheduler went away; start it, and give --resume to go on from what was read"
        )


def _same(value: T) -> T:
    return value


@contextmanager
def client_at(address: str) -> Iterator[Any]:
    """``tcp://HOST:PORT``, a scheduler; ``local`` or ``local:N``, N processes here. ClusterError if there is none."""
    name = printable(address)
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ClusterError("--dask needs distributed: pip install 'sgfast[dask]'") from None
    # What is to be said is said in one line; each of its loggers has a level of its own.
    for logger in [known for known in logging.root.manager.loggerDict if known.split(".")[0] == "distributed"]:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    if address == "local" or address.startswith("local:"):
        count = address[6:]
        if count and not (count.isdigit() and 1 <= int(count) <= 1024):
            raise ClusterError(f"--dask: {name}: local, or local:N with 1 to 1024 processes")
        with _interrupts_ignored():
            # An interrupt is for this process, which ends the others.
            local = LocalCluster(
                n_workers=int(count) if count else None, threads_per_worker=1, processes=True,
                dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
            )  # fmt: skip
        with local, Client(local) as client:
            yield client
        return
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except Exception as error:
        cause = "does not answer" if isinstance(error, OSError | TimeoutError) else printable(str(error))[:200]
        raise ClusterError(
            f"--dask: {name}: {cause}; start one (dask scheduler), or give its address, tcp://HOST:PORT"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=2)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """For processes that are started meanwhile, which inherit it."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        yield       # not the main thread: nobody interrupts this one
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

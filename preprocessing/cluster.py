"""Where the work on partitions runs: threads of this process, a Dask cluster, or a cluster of GPUs.

    with Workers("local[4]") as workers:
        results = workers.map(function, partitions)

The functions take and give small picklable things and move data through files, so a cluster of several machines needs
the output folder on a file system that all of them see.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, CancelledError, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

from common.errors import UserError
from common.merlin import importing_merlin

In = TypeVar("In")
Out = TypeVar("Out")

# More threads hold more partitions in memory than they save in time.
_THREADS = 4
# Seconds: for a scheduler to answer, for workers to come or come back, for running tasks to end after an error.
_ANSWER, _WORKERS, _END = 5, 60, 60


class _Threads:
    """What NVTabular's fit asks of a Dask client, on threads of this process; without a client it uses one."""

    def __init__(self, count: int) -> None:
        self.count, self.cluster = count, SimpleNamespace(workers=("threads",))

    def compute(self, collections: list[Any]) -> list[Any]:
        """Compute delayed things together: the results, as futures that are done."""
        import dask

        results = dask.compute(*collections, scheduler="threads", num_workers=self.count)
        return [SimpleNamespace(result=partial(_same, result)) for result in results]

    def run(self, function: Callable[[], Any]) -> Any:
        """Call a function on every worker: here there is one."""
        return function()


def _same(value: In) -> In:
    return value


class Workers:
    """Workers for the time of a ``with`` block.

    Parameters
    ----------
    cluster : str, optional
        ``threads[N]`` in this process (the default, with a thread a core, four at most), ``local[N]`` processes of a
        Dask LocalCluster, ``tcp://host:port`` of a running Dask scheduler, or ``cuda`` for dask-cuda's
        LocalCUDACluster, a worker a GPU, with cudf.

    Raises
    ------
    UserError
        When the text is none of these, the scheduler cannot be reached, there is no GPU, or the cluster is lost.
    """

    def __init__(self, cluster: str | None = None) -> None:
        self.cluster = cluster or f"threads[{min(_THREADS, os.cpu_count() or 1)}]"
        self.gpu = self.cluster == "cuda"
        matched = re.fullmatch(r"(?:(threads|local)\[0*([1-9]\d*)\]|(cuda)|(tcp|tls|ucx)://\S+)", self.cluster)
        if not matched:
            raise UserError(
                f"--cluster {self.cluster}: write threads[N], local[N], tcp://host:port of a Dask scheduler, or cuda"
            )
        self._kind = matched[1] or matched[3] or matched[4]
        self._count = int(matched[2] or 0)
        # Whether the workers see the memory of this process.
        self.local = self._kind == "threads"
        self._closing: list[Any] = []
        self._client: Any = None

    def __enter__(self) -> Workers:
        with importing_merlin():
            import distributed
            import merlin.core.utils
        if self._kind == "threads":
            merlin.core.utils.set_dask_client(_Threads(self._count))
            return self
        try:
            cluster = self._start(distributed)
            if cluster is not None:
                self._closing.append(cluster)
            # Held before it connects, and closed here if it cannot: a client that nobody holds is closed by the garbage
            # collector, in any thread, and in the one where the next client begins that never ends.
            client = distributed.Client.__new__(distributed.Client)
            self._closing.append(client)
            # Not dask's default for the whole process: that would outlive a scheduler that is lost.
            distributed.Client.__init__(client, cluster or self.cluster, timeout=_ANSWER, set_as_default=False)
        except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
            self.__exit__(None, None, None)
            raise UserError(
                f"--cluster {self.cluster}: no Dask scheduler answers there ({error}): start one, or correct the "
                "address"
            ) from error
        self._client = client
        # NVTabular's fit computes on this client, too.
        merlin.core.utils.set_dask_client(client)
        return self

    def _start(self, distributed: Any) -> Any:
        if self._kind == "local":
            return distributed.LocalCluster(
                n_workers=self._count, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
            )
        if self._kind == "cuda":
            try:
                import cudf  # noqa: F401
                from dask_cuda import LocalCUDACluster

                return LocalCUDACluster(dashboard_address=None)
            except Exception as error:  # the driver's absence comes in many forms
                raise UserError(
                    f"--cluster cuda: no usable GPU here ({type(error).__name__}: {error}): install nextitem[gpu] on a "
                    "machine with an NVIDIA GPU, or leave --cluster out"
                ) from error
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if "merlin.core.utils" in sys.modules:
            sys.modules["merlin.core.utils"].set_dask_client("auto")
        while self._closing:
            with suppress(OSError, TimeoutError):  # of a cluster that is gone
                self._closing.pop().close()
        self._client = None
        if self._kind != "threads" and error is not None and _is_loss(error):
            raise UserError(
                f"--cluster {self.cluster}: workers or the scheduler were lost ({error}): run it again, with more "
                "memory a worker if that is what was missing"
            ) from error

    def map(
        self, function: Callable[[In], Out], items: Iterable[In], done: Callable[[Out], None] = lambda _: None
    ) -> list[Out]:
        """Apply a function to every item.

        Parameters
        ----------
        function : callable
            Picklable, for the sake of clusters.
        items : iterable
            What to apply it to.
        done : callable
            Told each result in this process as it comes, in any order.

        Returns
        -------
        list
            The results in the order of the items. The first error ends the work and is raised.
        """
        items = list(items)
        if self._client is not None:
            return self._on_cluster(function, items, done)
        results: dict[int, Out] = {}
        with ThreadPoolExecutor(self._count) as pool:
            waiting = {pool.submit(function, item): number for number, item in enumerate(items)}
            try:
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        results[waiting.pop(future)] = future.result()
                        done(future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [results[number] for number in range(len(items))]

    def _on_cluster(self, function: Callable[[In], Out], items: list[In], done: Callable[[Out], None]) -> list[Out]:
        import distributed

        # Tasks write files: none may be answered from an earlier one that looked the same.
        futures = self._client.map(function, items, pure=False)
        results: dict[Any, Out] = {}
        coming = distributed.as_completed(futures, loop=self._client.loop, with_results=True)
        looked = seen = time.monotonic()
        try:
            while not coming.is_empty():
                if coming.has_ready():
                    future, result = next(coming)
                    if future.cancelled():
                        raise result
                    results[future.key] = result
                    done(result)
                    continue
                time.sleep(0.02)
                if time.monotonic() - looked > 1:
                    looked = time.monotonic()
                    seen = looked if self._client.scheduler_info()["workers"] else seen
                    if looked - seen > _WORKERS:
                        raise UserError(f"--cluster {self.cluster}: no worker for {_WORKERS} seconds: start some")
        except BaseException:
            self._stop(futures)
            raise
        return [results[future.key] for future in futures]

    def _stop(self, futures: list[Any]) -> None:
        """Leave no task running: they write into folders that are about to be removed."""
        keys, until = {future.key for future in futures}, time.monotonic() + _END
        with suppress(Exception):  # the error that brought us here is the one to tell
            self._client.cancel(futures)
            while time.monotonic() < until and any(self._client.run(_running, keys, on_error="ignore").values()):
                time.sleep(0.05)


def _running(keys: set[Any], dask_worker: Any) -> int:
    return sum(task.key in keys for task in dask_worker.state.all_running_tasks)


def _is_loss(error: BaseException) -> bool:
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    return isinstance(error, KilledWorker | CommClosedError | CancelledError)

"""Processes that load batches ahead. They are spawned: a forked one has no threads of the OpenCL driver."""

from __future__ import annotations

import multiprocessing
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from tinyedge.backends import set_default_backend
from tinyedge.ops.random import manual_seed

Load = Callable[[Any, Any], Any]


class WorkerInfo(NamedTuple):
    """What ``get_worker_info`` tells a process that loads."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_worker: tuple[WorkerInfo, Load] | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a process that loads batches, which one it is; None elsewhere."""
    return None if _worker is None else _worker[0]


def _begin(numbers: Any, count: int, seed: int, dataset: Any, load: Load, begin: Callable[[int], Any] | None) -> None:
    global _worker
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    set_default_backend("numpy")  # the batch is put on the device by who takes it
    _worker = WorkerInfo(number, count, seed + number, dataset), load
    _seed(seed + number)
    if begin is not None:
        begin(number)


def _seed(seed: int) -> None:
    manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _loaded(seed: int, indices: Any) -> Any:
    assert _worker is not None
    info, load = _worker
    _seed(seed)  # of the batch, not of the process: which process loads it follows from how fast they are
    return load(info.dataset, indices)


def loaded_ahead(
    dataset: Any,
    load: Load,
    batches: Iterable[Any],
    count: int,
    ahead: int,
    seed: int,
    begin: Callable[[int], Any] | None,
    timeout: float,
) -> Iterator[Any]:
    """``load(dataset, indices)`` for each of ``batches``, in order, by ``count`` processes, each ``ahead`` batches."""
    context = multiprocessing.get_context("spawn")
    arguments = (context.Value("i", 0), count, seed, dataset, load, begin)
    pool = ProcessPoolExecutor(count, context, _begin, arguments)
    waiting: deque[Future[Any]] = deque()
    try:
        for number, indices in enumerate(batches):
            waiting.append(pool.submit(_loaded, seed + count + number, indices))
            if len(waiting) >= count * ahead:
                yield waiting.popleft().result(timeout or None)
        while waiting:
            yield waiting.popleft().result(timeout or None)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

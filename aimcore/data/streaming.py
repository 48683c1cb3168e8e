"""Loading ahead: in a thread, or in processes that neither fork a threaded parent nor answer signals to a group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Protocol, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from aimcore.io.image_files import ignore_metadata_warnings

_TO_THE_GROUP = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that terminals and schedulers send to all processes of a run. Only the parent handles them, because it may
save a checkpoint; its workers end when it ends."""

T = TypeVar("T", covariant=True)
Item = TypeVar("Item")


class Loader(Protocol[T]):
    """Loads item ``number``, in any order, in any process."""

    def __getitem__(self, number: int, /) -> T:
        """Return the item. It is the same whenever and wherever it is loaded."""


def stream(
    loader: Loader[Item],
    numbers: Sequence[int],
    num_workers: int,
    ahead: int,
    finish: Callable[[Item], Item] | None = None,
) -> Generator[Item]:
    """Yield the items ``numbers`` in order, loaded ahead.

    Args:
        loader: loads an item; pickled if there are workers.
        numbers: numbers of the items.
        num_workers: processes; 0 loads in a thread of this one.
        ahead: number of items that the thread loads ahead; each worker loads two ahead.
        finish: what is done to an item in this process: in the thread, or when an item of a worker is due.

    Raises:
        Exception: the exception of the loader, when its item is due.
    """
    finish = finish or _as_it_is
    if num_workers:
        return _from_processes(loader, numbers, num_workers, finish)
    return _from_thread(lambda number: finish(loader[number]), numbers, ahead)


def _from_thread(load: Callable[[int], Item], numbers: Sequence[int], ahead: int) -> Generator[Item]:
    ignore_metadata_warnings()
    pool = _single_threaded_pool()
    remaining = iter(numbers)
    try:
        waiting = deque(pool.submit(load, number) for number in islice(remaining, ahead))
        while waiting:
            item = waiting.popleft().result()
            waiting.extend(pool.submit(load, number) for number in islice(remaining, 1))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _single_threaded_pool() -> ThreadPoolExecutor:
    """One thread whose tensor operations do not use the threads of the training.

    torch keeps the number per thread, but also as the default for later threads: that default is restored.
    """
    num_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, "aimcore-data", initializer=torch.set_num_threads, initargs=(1,))
    pool.submit(torch.get_num_threads).result()
    torch.set_num_threads(num_threads)
    return pool


def _from_processes(
    loader: Loader[Item], numbers: Sequence[int], num_workers: int, finish: Callable[[Item], Item]
) -> Generator[Item]:
    items = DataLoader(
        cast("Dataset[Item]", loader),
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=_prepare_worker,
        multiprocessing_context=_context(),
        # Its own generator: the default would draw a seed from the global one, which the model's weights use.
        generator=torch.Generator(),
    )
    with _signals_blocked():
        iterator = iter(items)
    yield from map(finish, iterator)


def _context() -> BaseContext:
    """Processes forked from a small server that imported their modules once, never from the threaded parent."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aimcore.data.loading", "torchvision.transforms.v2"])
    return context


def _as_it_is(item: Item) -> Item:
    return item


def _prepare_worker(_: int) -> None:
    """Ignore signals, which the parent handles, and end if the parent is killed.

    torch's own watch looks at the process that forked this one. Here that is the server, which lives as long as its
    """
    for number in _TO_THE_GROUP:
        signal.signal(number, signal.SIG_IGN)
    ignore_metadata_warnings()
    sys.excepthook = _report
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ignore a parent that a signal ended during a transfer; loading errors are passed on separately."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_with(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes that ignore signals from their first instruction; the parent receives them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_GROUP)
    try:
        # Starting the server unblocks signals, and it would inherit that.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_GROUP)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

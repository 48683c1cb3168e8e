"""Loading ahead: in a thread, or in processes that neither fork a threaded parent nor answer signals to a group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
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
"""Signals that terminals and schedulers send to all processes of a run. They are for the parent, which may want to save
what it has; its workers end when it ends."""

T = TypeVar("T", covariant=True)
Item = TypeVar("Item")


class Loader(Protocol[T]):
    """Anything that loads item ``number``, in any order, in any process."""

    def __getitem__(self, number: int, /) -> T:
        """The item; the same whenever and wherever it is loaded."""


def stream(loader: Loader[T], numbers: Sequence[int], num_workers: int, ahead: int) -> Generator[T]:
    """The items ``numbers`` in order, loaded ahead.

    Args:
        loader: what loads an item; pickled if there are workers.
        numbers: which items.
        num_workers: processes; 0 loads in a thread of this one.
        ahead: items that the thread loads before they are asked for; each worker loads two ahead.

    Raises:
        Exception: whatever the loader raises, when its item's turn comes.
    """
    return _from_processes(loader, numbers, num_workers) if num_workers else _from_thread(loader, numbers, ahead)


def _from_thread(loader: Loader[T], numbers: Sequence[int], ahead: int) -> Generator[T]:
    ignore_metadata_warnings()
    pool = _single_threaded_pool()
    remaining = iter(numbers)
    try:
        waiting = deque(pool.submit(loader.__getitem__, number) for number in islice(remaining, ahead))
        while waiting:
            item = waiting.popleft().result()
            waiting.extend(pool.submit(loader.__getitem__, number) for number in islice(remaining, 1))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _single_threaded_pool() -> ThreadPoolExecutor:
    """One thread whose tensor operations do not spread over the threads that training uses.

    torch keeps the number per thread, but also as the default of threads to come: that one is put back.
    """
    num_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, "aimcore-data", initializer=torch.set_num_threads, initargs=(1,))
    pool.submit(torch.get_num_threads).result()
    torch.set_num_threads(num_threads)
    return pool


def _from_processes(loader: Loader[T], numbers: Sequence[int], num_workers: int) -> Generator[T]:
    items = DataLoader(
        cast("Dataset[T]", loader),
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
    yield from iterator


def _context() -> BaseContext:
    """Processes forked from a small server that has imported what they need once, never from the threaded parent."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aimcore.data.loading", "torchvision.transforms.v2"])
    return context


def _as_it_is(item: Item) -> Item:
    return item


def _prepare_worker(_: int) -> None:
    """Leave signals to the parent, which ends its workers when it is done, and do not outlive it if it is killed.

    torch's own watch looks at the parent by descent, which here is the server, and that lives as long as its children.
    """
    for number in _TO_THE_GROUP:
        signal.signal(number, signal.SIG_IGN)
    ignore_metadata_warnings()
    sys.excepthook = _report
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say nothing of a parent that a signal took away in the middle of a hand-over; loading errors go another way."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_with(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes that are deaf to signals from their first instruction; the parent hears them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_GROUP)
    try:
        # Starting it unblocks signals, which the server of processes would be born with.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_GROUP)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

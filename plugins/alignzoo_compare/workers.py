"""Workers that run cells, and those that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from filelock import FileLock, Timeout

from alignzoo.cli.quiet import quiet
from alignzoo.signals import catch_signals
from alignzoo_compare.cell import Cell, run_cell


class Workers(Protocol):
    """Where cells are run. `size` is how many run at a time."""

    size: int

    def submit(self, cell: Cell, board: Path, *, allow_code: bool) -> Future[dict[str, Any]]:
        """Start a cell; the result is its row. A worker that dies gives an exception."""

    def stop(self) -> None:
        """End the cells that are running; they can be taken up again."""


class LocalWorkers:
    """Processes of this machine, one thread each, spread evenly over its GPUs if there are any.

    A process serves many cells, so libraries and the base are loaded once; if it dies, it is
    replaced, and only its cell is lost.
    """

    def __init__(self, size: int, board: Path, gpus: int):
        from pebble import ProcessPool

        self.size = size
        # Forked from a clean process: this one has threads and, perhaps, a GPU in use.
        context = multiprocessing.get_context("forkserver")
        # Importing bitsandbytes starts CUDA, and a process forked after that cannot use it.
        if not gpus:
            context.set_forkserver_preload(["alignzoo.session", "alignzoo_compare.cell"])
        self.pool = ProcessPool(
            max_workers=size, context=context, initializer=prepare_worker, initargs=[board, gpus]
        )

    def submit(self, cell: Cell, board: Path, *, allow_code: bool) -> Future[dict[str, Any]]:
        """Start a cell in a free process."""
        future: Future[dict[str, Any]] = self.pool.submit(
            run_quietly, None, cell, board, allow_code=allow_code
        )
        return future

    def stop(self) -> None:
        """End all processes."""
        self.pool.stop()
        self.pool.join()


def prepare_worker(board: Path, gpus: int) -> None:
    """End a worker with its parent, and give it one thread and the GPU with the fewest workers."""
    Thread(target=end_with_parent, daemon=True).start()
    # Ctrl-C in a terminal reaches all processes; the parent ends the workers by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(claim_gpu(board, gpus))
    keep_one_thread()


def keep_one_thread() -> None:
    """Compute with one thread from now on, and keep the bases that this process loads."""
    import torch

    from alignzoo.policy import keep_bases

    torch.set_num_threads(1)
    keep_bases()


def end_with_parent() -> None:
    """Wait for the end of the process that asked for this one, and end this one at once.

    An orphan would go on with its cell, and a program that takes the board up again could not.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


_claimed: list[FileLock] = []  # held for the life of the process


def claim_gpu(board: Path, gpus: int) -> int:
    """Claim a place on the GPU with the fewest workers of the board; return the GPU's number."""
    place = 0
    while True:
        lock = FileLock(board / f".gpu-{place}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            place += 1
            continue
        _claimed.append(lock)
        return place % gpus


def run_quietly(cell: Cell, board: Path, *, allow_code: bool) -> dict[str, Any]:
    """Run a cell with the output of libraries in a log beside its run, and return its row."""
    logs = board / "logs"
    logs.mkdir(exist_ok=True)
    with catch_signals(), quiet(logs / f"{cell.name}.txt"):
        return run_cell(cell, board, allow_code=allow_code)

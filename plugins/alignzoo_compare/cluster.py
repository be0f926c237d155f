"""Workers that are tasks of a Ray cluster."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from alignzoo import BadInput
from alignzoo.errors import first_line, one_line
from alignzoo.fingerprints import core_hash
from alignzoo_compare.board import GRID_FILE
from alignzoo_compare.cell import Cell
from alignzoo_compare.workers import keep_one_thread, run_quietly

# What Ray reads when it is imported: without these it looks for a cluster for seven minutes.
PATIENCE = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "5"}
ENDING = 10.0  # seconds that cells have to end in when a comparison stops


class RayWorkers:
    """Tasks of a Ray cluster, whose scheduler places them by CPUs and GPUs.

    Every node must have this version of alignzoo, and see the folder of the command and that of the
    board under their paths here. Rows are written by this process alone.

    Args:
        address: of the cluster, as `ray.init` reads it.
        gpus_per_cell: the share or number of GPUs of a cell; 0 hides them from it.
        most: cells at a time; None for as many as the cluster has room for.
    """

    def __init__(self, address: str, gpus_per_cell: float, most: int | None = None):
        self.ray = import_ray()
        self.gpus_per_cell, self.most = gpus_per_cell, most
        self.running: dict[Future[dict[str, Any]], Any] = {}  # Ray's references by future
        if gpus_per_cell > 1 and gpus_per_cell % 1:
            raise BadInput("option --gpus-per-cell: more than one GPU is a whole number of them")
        # A process takes one cell after the other, so that it loads the base once (with GPUs, Ray
        # would end it after one). A cell whose process dies is tried again by the runner.
        options = {"num_cpus": 1, "num_gpus": gpus_per_cell, "max_calls": 0, "max_retries": 0}
        self.task = self.ray.remote(**options)(run_on_node)
        connect(self.ray, address)
        if not self.count_slots():
            self.ray.shutdown()
            needed = f"{gpus_per_cell:g} GPUs and " if gpus_per_cell else ""
            raise BadInput(
                f"option --ray: no node of the cluster at {address!r} has {needed}a CPU for a cell"
            )

    @property
    def size(self) -> int:
        """Return how many cells run at a time; nodes may join and leave."""
        slots = max(1, self.count_slots())
        return slots if self.most is None else min(slots, self.most)

    def count_slots(self) -> int:
        """Return how many cells the nodes of the cluster have room for."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(
            math.floor(
                min(node.get("CPU", 0), node.get("GPU", 0) / self.gpus_per_cell)
                if self.gpus_per_cell
                else node.get("CPU", 0)
            )
            for node in nodes
        )

    def submit(self, cell: Cell, board: Path, *, allow_code: bool) -> Future[dict[str, Any]]:
        """Start a cell on a node of the cluster."""
        reference = self.task.remote(cell, board, Path.cwd(), core_hash(), allow_code=allow_code)
        future: Future[dict[str, Any]] = Future()
        self.running[future] = reference
        future.add_done_callback(self.running.pop)
        reference.future().add_done_callback(partial(pass_on, future))
        return future

    def stop(self) -> None:
        """End the cells that are running, and leave the cluster."""
        left = list(self.running.values())
        for reference in left:
            self.ray.cancel(reference, force=True)
        if left:  # a cell that still runs would keep its folder locked
            self.ray.wait(left, num_returns=len(left), timeout=ENDING)
        self.ray.shutdown()


def import_ray() -> Any:
    """Return the module of Ray, or raise `BadInput` if it is not installed."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise BadInput(
            "option --ray: Ray is not installed", hint="pip install 'alignzoo[ray]'"
        ) from None
    return ray


def connect(ray: Any, address: str) -> None:
    """Connect to a cluster, or raise `BadInput` if there is none at the address."""
    try:
        with keep_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
        raise BadInput(
            f"option --ray: no cluster that can be used at {address!r}: {first_line(error)}",
            hint="ray start --head starts one, and ray status shows it",
        ) from None


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """Restore what a SIGTERM does; Ray takes it over when it connects."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def pass_on(future: Future[dict[str, Any]], done: Future[dict[str, Any]]) -> None:
    """Give a future what Ray's has come to: the row, or why there is none."""
    error = done.exception()
    if error is None:
        future.set_result(done.result())
        return
    cause = getattr(error, "cause", None)  # of an exception that was raised on a node
    if isinstance(cause, ImportError):
        error = BadInput(
            f"option --ray: a node of the cluster lacks a package: {one_line(cause)}",
            hint="install the same packages on every node",
        )
    future.set_exception(cause if isinstance(cause, BadInput) else error)


def run_on_node(
    cell: Cell, board: Path, folder: Path, code: str, *, allow_code: bool
) -> dict[str, Any]:
    """Run a cell in a process of a node, from the folder in which the command was typed."""
    prepare_process(board, folder, code)
    return run_quietly(cell, board, allow_code=allow_code)


@cache
def prepare_process(board: Path, folder: Path, code: str) -> None:
    """Enter the folder of the command, with one thread and the GPUs that Ray has given.

    Raise `BadInput` if this node has another version of alignzoo, or does not see the folders.
    """
    node = f"option --ray: node {socket.gethostname()}"
    if core_hash() != code:
        raise BadInput(
            f"{node} has another version of alignzoo", hint="install the same one on every node"
        )
    if not (folder / board / GRID_FILE).is_file():
        raise BadInput(
            f"{node} does not see the folder of the comparison",
            where=str(folder / board),
            hint="work in a folder that all nodes share, under the same path",
        )
    os.chdir(folder)
    import ray

    if not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = (
            ""  # cells that share a GPU by chance run out of memory
        )
    keep_one_thread()

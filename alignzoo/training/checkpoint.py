"""Checkpoints that are complete or absent, as safetensors and JSON: nothing is ever unpickled.

Everything random is seeded from the run's seed and the number of the round or step, and so is the
order of the data. The whole state is then weights, optimizer and counters, and in the middle of a
round its batch. No random generator has to be saved for a resumed run to be the same, bit for bit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.files import find_change, whole_folder, write_json, write_manifest, write_text
from alignzoo.run.state import Snapshot

STEP_FOLDER = re.compile(r"step-(\d{8})")
OWN_FOLDER = re.compile(r"step-\d{8}|\.step-\d{8}\.(tmp|old)")  # the last two by a crash
KEPT = 2
PLUGIN_TENSORS = "plugins.safetensors"
COLUMN_PREFIX = "column/"  # prefix of a batch's columns among its tensors


def write_checkpoint(
    folder: Path,
    step: int,
    weights: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    state: dict[str, Any],
    batches: Sequence[Batch] = (),
    plugins: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the folder `step-NNNNNNNN`, then delete all but it and the one before it.

    Args:
        folder: the checkpoints of a run.
        step: number of optimizer steps done.
        weights: trained tensors by name.
        optimizer: its state as `optimizer.flatten_optimizer` returns it.
        state: counters, as JSON.
        batches: in the middle of a round, its batches, one per process.
        plugins: tensors of the plugins' state.
    """
    target = folder / f"step-{step:08d}"
    plugins = plugins or {}
    tensors = [*weights.values(), *optimizer.values(), *plugins.values()]
    tensors += [tensor for batch in batches for tensor in _tensors(batch).values()]
    with whole_folder(target, sum(tensor.nbytes for tensor in tensors)) as beside:
        save_file(_plain(weights), beside / "weights.safetensors")
        save_file(_plain(optimizer), beside / "optimizer.safetensors")
        if plugins:
            save_file(_plain(plugins), beside / PLUGIN_TENSORS)
        # A metric may be NaN, which a resumed run logs as well.
        write_json(beside / "state.json", {"step": step, **state}, allow_nan=True)
        for process, batch in enumerate(batches):
            save_file(_plain(_tensors(batch)), beside / f"batch-{process}.safetensors")
            rows = json.dumps(batch.rows, default=str)  # `str` for dates, for example
            write_text(beside / f"rows-{process}.json", rows)
        write_manifest(beside, beside.iterdir())
    delete_others(target)


def delete_others(newest: Path) -> None:
    """Delete all checkpoints but this one and the one before it, and what crashes left of them."""
    kept = [path for path in find_checkpoints(newest.parent) if path.name <= newest.name][:KEPT]
    for path in newest.parent.iterdir():
        if OWN_FOLDER.fullmatch(path.name) and path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, which may be damaged, the newest first."""
    found = [path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name)]
    return sorted(found, reverse=True)


def find_damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint; None if it is as it was written."""
    return find_change(path, {"state.json", "weights.safetensors", "optimizer.safetensors"})


def read_snapshot(path: Path) -> Snapshot:
    """Read the state of the plugins in a checkpoint."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    file = path / PLUGIN_TENSORS
    tensors = load_file(file) if file.exists() else {}
    return Snapshot(state.get("states", {}), tensors, state["plugins"])


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Read `(weights, optimizer, state)` of a checkpoint; see `write_checkpoint`."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return load_file(path / "weights.safetensors"), load_file(path / "optimizer.safetensors"), state


def read_batch(path: Path, process: int) -> Batch:
    """Read the batch of the round that a process had when the checkpoint was written."""
    tensors = load_file(path / f"batch-{process}.safetensors")
    columns = {
        n.removeprefix(COLUMN_PREFIX): t for n, t in tensors.items() if n.startswith(COLUMN_PREFIX)
    }
    rows = json.loads((path / f"rows-{process}.json").read_text(encoding="utf-8"))
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(COLUMN_PREFIX)}
    return Batch(**own, columns=columns, rows=rows)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    fields = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return fields | {COLUMN_PREFIX + name: value for name, value in batch.columns.items()}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory; contiguous clones do not.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

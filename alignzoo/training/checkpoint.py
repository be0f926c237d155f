"""Checkpoints that are complete or absent, as safetensors and JSON: nothing is ever unpickled.

Everything random is seeded from the run's seed and the number of the round or step, and so is the
order of the data. The whole state is then weights, optimizer and counters, and in the middle of a
round its batch. No random generator has to be saved for a resumed run to be the same, bit for bit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as distributed
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from alignzoo.batch import Batch
from alignzoo.files import find_change, whole_folder, write_json, write_manifest, write_text
from alignzoo.policy.sharding import empty_like, split_like
from alignzoo.run.state import Snapshot

STEP_FOLDER = re.compile(r"step-(\d{8})")
OWN_FOLDER = re.compile(r"step-\d{8}|\.step-\d{8}\.(tmp|old|shards)")  # the last by a crash
KEPT = 2
# Each a file NAME.safetensors, or if weights are split over processes a folder of their parts.
WEIGHTS, OPTIMIZER = "weights", "optimizer"
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
    shards: Path | None = None,
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
        shards: a folder that `write_shards` wrote, which is taken in place of `weights` and
            `optimizer`.
    """
    target = folder_of(folder, step)
    if shards is not None:
        weights, optimizer = {}, {}
    plugins = plugins or {}
    tensors = [*weights.values(), *optimizer.values(), *plugins.values()]
    tensors += [tensor for batch in batches for tensor in _tensors(batch).values()]
    with whole_folder(target, sum(tensor.nbytes for tensor in tensors)) as beside:
        for name, found in ((WEIGHTS, weights), (OPTIMIZER, optimizer)):
            if shards is None:
                save_file(_plain(found), beside / f"{name}.safetensors")
            else:
                os.replace(shards / name, beside / name)
        if plugins:
            save_file(_plain(plugins), beside / PLUGIN_TENSORS)
        # A metric may be NaN, which a resumed run logs as well.
        write_json(beside / "state.json", {"step": step, **state}, allow_nan=True)
        for process, batch in enumerate(batches):
            save_file(_plain(_tensors(batch)), beside / f"batch-{process}.safetensors")
            rows = json.dumps(batch.rows, default=str)  # `str` for dates, for example
            write_text(beside / f"rows-{process}.json", rows)
        write_manifest(beside, beside.rglob("*"))
    delete_others(target)


def folder_of(folder: Path, step: int) -> Path:
    """Return the checkpoint of a step among the checkpoints of a run."""
    return folder / f"step-{step:08d}"


def shards_folder(folder: Path, step: int) -> Path:
    """Make the folder for the parts of the checkpoint of a step, from where it takes them."""
    target = folder / f".{folder_of(folder, step).name}.shards"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target


def write_shards(
    folder: Path, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
) -> None:
    """Write the tensors of a checkpoint into a folder, each process its parts; all call it."""
    for name, tensors in ((WEIGHTS, weights), (OPTIMIZER, optimizer)):
        writer = HuggingFaceStorageWriter(str(folder / name), save_distributed=True)
        distributed.save(dict(tensors), storage_writer=writer)


def read_tensors(path: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read `path.safetensors`, or the parts in the folder `path` of any number of processes.

    `like` are parameters by name. If they are split over processes, so are their tensors: those of
    their shape under their name, or under a path that ends in it.
    """
    if not path.is_dir():
        whole = load_file(path.with_suffix(".safetensors"))
        return {key: split_like(x, like.get(name_in(key), x)) for key, x in whole.items()}
    stored = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    found = {
        key: empty_like(like.get(name_in(key)), x.size, x.properties.dtype)
        for key, x in stored.items()
        if isinstance(x, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        reader = HuggingFaceStorageReader(str(path))
        distributed.load(found, storage_reader=reader, no_dist=True)
    return found


def name_in(path: str) -> str:
    """Return the name of the parameter in the path of a tensor, `exp_avg/NAME`."""
    return path.rpartition("/")[2]


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
    files = {f"{x}.safetensors" for x in (WEIGHTS, OPTIMIZER) if not (path / x).is_dir()}
    return find_change(path, {"state.json", *files})


def read_snapshot(path: Path) -> Snapshot:
    """Read the state of the plugins in a checkpoint."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    file = path / PLUGIN_TENSORS
    tensors = load_file(file) if file.exists() else {}
    return Snapshot(state.get("states", {}), tensors, state["plugins"])


def read_checkpoint(
    path: Path, like: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Read `(weights, optimizer, state)` of a checkpoint; see `write_checkpoint`.

    `like` are the parameters by name: if they are split over processes, what is read is too.
    """
    like = like or {}
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return read_tensors(path / WEIGHTS, like), read_tensors(path / OPTIMIZER, like), state


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

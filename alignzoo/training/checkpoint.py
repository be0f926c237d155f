"""Checkpoints that are complete or absent, as safetensors and JSON: nothing is ever unpickled.

Everything random in a round is seeded from the run's seed and the round's or step's number, and
the order of the data is a function of these as well, so that weights, optimizer and counters are
the whole state, with what the round learns from where one is left in its middle: no generator has
to be saved for a resumed run to be the same run, bit for bit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignzoo.batch import Batch
from alignzoo.files import whole_folder, write_json, write_text

STEP_FOLDER = re.compile(r"step-(\d{8})")
COLUMN_PREFIX = "column/"  # prefix of a batch's columns among its tensors


def write_checkpoint(
    folder: Path,
    step: int,
    weights: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    state: dict[str, Any],
    batches: Sequence[Batch] = (),
) -> None:
    """Write `folder/step-NNNNNNNN`, then remove the ones before it.

    In the middle of a round, `batches` are what it learns from, one of each process.
    """
    target = folder / f"step-{step:08d}"
    with whole_folder(target) as beside:
        save_file(_plain(weights), beside / "weights.safetensors")
        save_file(_plain(optimizer), beside / "optimizer.safetensors")
        write_json(beside / "state.json", {"step": step, **state})
        for process, batch in enumerate(batches):
            save_file(_plain(_tensors(batch)), beside / f"batch-{process}.safetensors")
            rows = json.dumps(batch.rows, default=str)  # a date, say, of a Parquet file
            write_text(beside / f"rows-{process}.json", rows)
    for path in folder.iterdir():
        if path != target:
            shutil.rmtree(path, ignore_errors=True)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = [path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name)]
    return max(found, default=None)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """`(weights, optimizer, state)` of a checkpoint."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return load_file(path / "weights.safetensors"), load_file(path / "optimizer.safetensors"), state


def read_batch(path: Path, process: int) -> Batch:
    """What the round was learning from in that process."""
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


def flatten_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]
) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors, `exp_avg/lora_A...`, by the name of the parameter."""
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for parameter, name in names.items()
        for key, value in optimizer.state[parameter].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], names: dict[nn.Parameter, str]
) -> None:
    """The inverse of `flatten_optimizer`."""
    parameters = {name: parameter for parameter, name in names.items()}
    for path, value in tensors.items():
        key, _, name = path.partition("/")
        parameter = parameters[name]
        # Adam's step counter is a scalar that stays where it was; the moments follow the weight.
        moved = value if value.ndim == 0 and parameter.ndim > 0 else value.to(parameter.device)
        optimizer.state[parameter][key] = moved


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses views that share memory; contiguous clones on the CPU share none.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

"""Several processes of a run: whether its weights are split over them, and what if one dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from alignzoo.errors import BadInput, RunFailed
from alignzoo.policy import Policy
from alignzoo.policy.sharding import WITHOUT_SHARD
from alignzoo.recipe import Recipe
from alignzoo.session.assemble import Participants

SHARE = 0.8  # of a GPU's memory for weights, gradients and optimizer; the rest is for activations
BYTES_OF_TRAINING = 12  # for each trained weight: a gradient, and two moments of AdamW


def shard_model(
    recipe: Recipe, parts: Participants, model: Policy, accelerator: Accelerator
) -> None:
    """Split the weights of the model over the processes if the recipe says so, or if they must be.

    Raise `BadInput` if the recipe says so and this run cannot.
    """
    processes = accelerator.num_processes
    if recipe.shard and processes == 1:
        raise BadInput(
            "option --shard: there is one process, and nothing to split its weights over",
            hint="start several: torchrun --nproc-per-node 2 -m alignzoo run ...",
        )
    wanted = recipe.shard
    if wanted is None and processes > 1:
        wanted = any(gather_object([outgrows_device(model)]))  # GPUs may differ
    if not wanted:
        return
    obstacle = model.find_shard_obstacle() or find_plugin_obstacle(parts)
    if obstacle is None:
        model.shard(processes)
        model.notes.append(f"weights, gradients and optimizer are split over {processes} processes")
    elif recipe.shard:
        problem = f"option --shard: {obstacle} cannot be split over processes"
        raise BadInput(problem, hint=WITHOUT_SHARD)
    else:
        model.notes.append(
            f"training may not fit: {obstacle} cannot be split over processes (--shard)"
        )


def find_plugin_obstacle(parts: Participants) -> str | None:
    """Return a teacher, or which plugin reads whole gradients; None if there is neither."""
    if parts.traits.needs.teacher:
        return "a run with a teacher"
    readers = [x.plugin_name for x in parts.plugins.hook.alignzoo_gradient.get_hookimpls()]
    return f"the gradient that {readers[0]} reads (alignzoo_gradient)" if readers else None


def outgrows_device(model: Policy) -> bool:
    """Return True if a GPU does not hold the weights and what it takes to train them."""
    if model.device.type != "cuda":
        return False
    needed = model.weight_bytes + BYTES_OF_TRAINING * model.trainable_count
    return needed > SHARE * torch.cuda.get_device_properties(model.device).total_memory


@contextmanager
def naming_lost_processes(processes: int) -> Iterator[None]:
    """Raise `RunFailed` in place of the error that a connection to a dead process gives."""
    try:
        yield
    except RuntimeError as error:
        if processes == 1 or not is_of_connection(error):
            raise
        raise RunFailed(
            "another process of this run has ended, or does not answer",
            hint="its own message may be above; the same command with --resume continues the run "
            "from its last checkpoint",
        ) from error


def is_of_connection(error: RuntimeError) -> bool:
    """Return whether an error comes from the connection between processes: NCCL's, or gloo's."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)

"""Estimate what a run will take, from its recipe, its data and sizes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from alignzoo.data import Codec
from alignzoo.errors import BadInput
from alignzoo.memory.estimate import RunEstimate, RunEstimator
from alignzoo.memory.fit import check_phase, fit_step
from alignzoo.memory.machine import machine_of
from alignzoo.memory.tracker import storage_bytes
from alignzoo.policy import locate_model
from alignzoo.policy.weight_files import stored_tensors, weight_files
from alignzoo.policy.weightless import CPU, Weightless, load_weightless
from alignzoo.recipe import Recipe
from alignzoo.rewards.model import ModelReward
from alignzoo.rollout import Sampling
from alignzoo.session.assemble import Participants, assemble
from alignzoo.session.inputs import fit_length, read_data, spec_of
from alignzoo.session.learned import RewardTrainer
from alignzoo.ui import UI, Silent


def estimate_run(
    recipe: Recipe,
    *,
    card: str | None = None,
    trust_remote_code: bool = False,
    allow_code: bool = False,
    ui: UI | None = None,
) -> RunEstimate:
    """Estimate a run on this machine, or on a card by its name.

    No weights are read and nothing is written. `micro_tokens` of the result is what the run would
    lower its own to. Raise `BadInput` if the recipe or its input is wrong, or if the run does not
    fit.
    """
    ui = ui or Silent()
    machine = machine_of(card, recipe.precision)
    half = machine.half(recipe.precision)
    parts = assemble(recipe, RewardTrainer(recipe, ui, _refuse_training), allow_code=allow_code)
    if not parts.traits.trains:
        raise BadInput(f"{recipe.algorithm} trains nothing, so there is no step to estimate")
    if parts.traits.needs.teacher:
        raise BadInput(f"{recipe.algorithm} learns from a teacher, whose memory is not estimated")
    with ui.phase(f"reading the configuration of {recipe.model}"):
        spec = spec_of(recipe, parts.traits.needs, machine.device, trust_remote_code)
        model = load_weightless(spec, half)
    recipe = fit_length(recipe, model.policy)
    data = read_data(recipe, parts, model.policy, ui)
    parts.plugins.hook.alignzoo_check(recipe=recipe, data=data)
    dtype = half or torch.float32
    estimator = RunEstimator(
        model,
        data,
        parts.algorithm,
        recipe,
        machine,
        Sampling.of(recipe, Codec(model.policy.tokenizer)),
        stored=bytes_read(recipe.model, dtype, four_bit=recipe.adapter == "qlora"),
        others=bytes_of_rewards([reward for _, reward in parts.rewards], dtype),
        moments=bytes_of_optimizer(parts, recipe, model),
    )
    with ui.phase("measuring passes without weights"):
        micro_tokens = recipe.micro_tokens_on(machine.device.type)
        estimate = fit_step(estimator.at, micro_tokens, recipe)
    for phase in estimate.phases:
        check_phase(estimate, phase, recipe)
    return estimate


def bytes_read(model: str, dtype: torch.dtype, *, four_bit: bool) -> int:
    """Return the bytes of the files of a model that are in memory beside its weights for a moment.

    They are 0 for weights that are used in the precision of their files, which are mapped, and for
    a model on the Hub that is not here yet.
    """
    folder = locate_model(model).folder
    if folder is None or not any(folder.glob("*.safetensors")):
        return 0
    files = weight_files(folder)
    names = {stored.dtype for stored in stored_tensors(files).values()}
    if not four_bit and names == {SAFETENSORS_NAMES[dtype]}:
        return 0
    return sum(file.stat().st_size for file in files)


SAFETENSORS_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def bytes_of_rewards(rewards: Sequence[Any], dtype: torch.dtype) -> int:
    """Return the bytes of the weights of reward models."""
    folders = {reward.folder for reward in rewards if isinstance(reward, ModelReward)}
    total = 0
    for folder in folders:
        base = locate_model(folder).folder
        tensors = stored_tensors(weight_files(base)).values() if base is not None else []
        total += sum(math.prod(tensor.shape) for tensor in tensors) * dtype.itemsize
    return total


def bytes_of_optimizer(parts: Participants, recipe: Recipe, model: Weightless) -> int | None:
    """Return the bytes of the state of the run's optimizer after a step; None if unknown.

    It is made and takes a step on the trained weights, which have no values.
    """
    parameters = model.policy.named_parameters()
    run = SimpleNamespace(recipe=recipe, learning_rate=1e-4, model=model.policy, device=CPU)
    with model.mode:
        try:
            optimizer = parts.plugins.hook.alignzoo_optimizer(run=run, parameters=parameters)
            for _, parameter in parameters:
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()
        except Exception:  # of a plugin that needs a run, or values
            return None
        finally:
            for _, parameter in parameters:
                parameter.grad = None
    states = [x for state in optimizer.state.values() for x in state.values()]
    return storage_bytes(x for x in states if isinstance(x, torch.Tensor) and x.ndim > 0)


def _refuse_training(*_: Any, **__: Any) -> Any:
    raise BadInput(
        "option --reward: 'learned' trains a reward model first, which is a run of its own",
        hint="estimate that by `alignzoo estimate reward`; then name its folder by --reward",
    )

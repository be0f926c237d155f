"""Load what a run works on: its model and its data, as the recipe describes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from alignzoo.algorithm import Needs
from alignzoo.data import FEEDBACK_KINDS, Codec, Data, Prompts, load_data
from alignzoo.errors import BadInput
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.recipe import Recipe
from alignzoo.run.teacher import BASE
from alignzoo.session.assemble import Participants
from alignzoo.ui import UI


def spec_of(
    recipe: Recipe, needs: Needs, device: torch.device, trust_remote_code: bool
) -> ModelSpec:
    """Return the specification of the recipe's model, with what the algorithm needs."""
    return ModelSpec(
        recipe.model,
        adapter=recipe.adapter,
        lora_rank=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        virtual_tokens=recipe.virtual_tokens,
        precision=recipe.precision,
        gradient_checkpointing=recipe.gradient_checkpointing,
        random_init=recipe.random_init,
        reference=needs.reference or (needs.teacher and recipe.teacher == BASE),
        score_head=needs.score_head,
        values=needs.values,
        seed=recipe.seed,
        trust_remote_code=trust_remote_code,
        device=device,
    )


def load_run_policy(
    recipe: Recipe, needs: Needs, device: torch.device, trust_remote_code: bool
) -> Policy:
    """Load the recipe's model with the heads and the reference that the algorithm needs.

    Raise `BadInput` if its adapter does not allow them.
    """
    model = load_policy(spec_of(recipe, needs, device, trust_remote_code))
    if needs.mixed_reference and not model.mixes_reference:
        raise BadInput(
            f"a new --adapter {recipe.adapter} cannot be mixed into the reference",
            hint="let the reference move all the way, or use --adapter lora",
        )
    return model


def fit_length(recipe: Recipe, model: Policy) -> Recipe:
    """Return the recipe with a `--max-length` that the model has positions for, and note that."""
    limit = model.positions
    if limit is None or recipe.max_length <= limit:
        return recipe
    model.notes.append(
        f"--max-length {recipe.max_length:,} is more than the {limit:,} positions that the model "
        f"has: {limit:,} is used"
    )
    return replace(recipe, max_length=limit)


def read_data(recipe: Recipe, parts: Participants, model: Policy, ui: UI) -> Data:
    """Read the recipe's data as token ids of the model."""
    with ui.phase("reading the data"):
        data = load_data(
            parts.algorithm.data,
            Codec(model.tokenizer),
            task=parts.task,
            data=recipe.data,
            max_length=max_row_length(parts.algorithm, recipe),
            strict=recipe.fail_on_bad_rows,
            seed=recipe.seed,
            holdout=recipe.eval_size,
        )
    if recipe.budget_feedback is not None and parts.algorithm.data.name in FEEDBACK_KINDS:
        data.limit_feedback(recipe.budget_feedback, recipe.seed)
    return data


def max_row_length(algorithm: Any, recipe: Recipe) -> int:
    """Return the maximum tokens of a row of data, which leaves room for generated completions."""
    if algorithm.data is not Prompts:
        return recipe.max_length
    if recipe.max_new_tokens >= recipe.max_length:
        raise BadInput(
            f"option --max-new-tokens: {recipe.max_new_tokens} leaves no room for a prompt "
            f"in --max-length {recipe.max_length}"
        )
    return recipe.max_length - recipe.max_new_tokens

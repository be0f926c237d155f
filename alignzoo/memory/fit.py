"""Find the `--micro-tokens` with which a run fits, or say what would make it fit."""

from __future__ import annotations

from collections.abc import Callable

from alignzoo.errors import BadInput
from alignzoo.memory.sizes import SAMPLING, STEP, RunEstimate, gigabytes
from alignzoo.policy.kinds import ADAPTERS
from alignzoo.recipe import Recipe


def fit_step(at: Callable[[int], RunEstimate], micro_tokens: int, recipe: Recipe) -> RunEstimate:
    """Return the estimate at the most tokens per pass whose training step fits.

    `at` estimates the run at a number of tokens, which is halved until the step fits. Raise
    `BadInput` with advice if it does not fit with one row in a pass.
    """
    estimate = at(micro_tokens)
    while estimate.phases[STEP] > estimate.memory and estimate.groups > 1:
        micro_tokens //= 2
        estimate = at(micro_tokens)
    check_phase(estimate, STEP, recipe)
    return estimate


def check_phase(estimate: RunEstimate, phase: str, recipe: Recipe) -> None:
    """Raise `BadInput` with advice if a phase of a run needs more memory than there is."""
    needed = estimate.phases.get(phase, 0)
    if needed <= estimate.memory:
        return
    what = f"{phase} of {recipe.algorithm} on {recipe.model}"
    if phase == STEP:
        what = f"a step on the longest row ({estimate.tokens:,} tokens), {what}"
    raise BadInput(
        f"{what} needs {gigabytes(needed)}, and {estimate.machine} has {gigabytes(estimate.memory)}"
        " for it",
        hint=advice(recipe, phase),
    )


def advice(recipe: Recipe, phase: str = STEP) -> str:
    """Return what lowers the memory of a phase, of what the recipe does not do yet."""
    if phase == SAMPLING:
        return (
            "what helps: fewer --max-new-tokens, a smaller --eval-size, --batch-size or "
            "--group-size, or a smaller --model"
        )
    found = []
    if recipe.adapter == "none":
        found.append("--adapter lora, or --qlora")
    elif not ADAPTERS[recipe.adapter].four_bit and not ADAPTERS[recipe.adapter].virtual:
        found.append("--qlora")
    if phase == STEP:
        if not recipe.gradient_checkpointing:
            found.append("--gradient-checkpointing")
        found.append(f"a --max-length below {recipe.max_length}")
    return f"what helps: {', '.join([*found, 'a smaller --model'])}"

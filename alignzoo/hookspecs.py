"""The hooks, all of them, in the order in which a round calls them.

A plugin is an object with some of these methods, each marked `@hookimpl`. Every run has its own
plugin manager, on which the algorithm, the task, the reward and each `--with` add-on are
registered; `@hookimpl(wrapper=True)` wraps what the others gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from alignzoo.batch import Batch, Example
    from alignzoo.data import Data
    from alignzoo.loss import Loss
    from alignzoo.recipe import Recipe
    from alignzoo.run import Run
    from alignzoo.samplers import Completion

PROJECT = "alignzoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def alignzoo_check(recipe: Recipe, data: Data) -> None:
    """Before anything is written: raise `BadInput` where you cannot learn from these."""


@hookspec
def alignzoo_start(run: Run) -> None:
    """Once, when the model is in memory and before the first round: set up what you need."""


@hookspec(firstresult=True)
def alignzoo_sample(run: Run, rows: list[dict[str, Any]]) -> Batch:
    """The experience to learn from, for these rows of the data.

    The core's default turns demonstrations, pairs and labels into a batch as they are; for
    prompts it generates completions, asks for rewards and then for advantages.
    """


@hookspec
def alignzoo_reward(run: Run, batch: Batch) -> Tensor:
    """One score per completion, `[N]`. Every reward is logged by name; their weighted sum counts.

    NaN means that the reward does not apply to that completion.
    """


@hookspec(firstresult=True)
def alignzoo_advantage(run: Run, batch: Batch) -> Tensor:
    """Credit per completion `[N]` or per token `[N, T]`, from `batch["rewards"]`."""


@hookspec(firstresult=True)
def alignzoo_loss(run: Run, batch: Batch) -> Loss:
    """The loss of a micro-batch as a sum and a count. Exactly one plugin of a run gives it."""


@hookspec
def alignzoo_step(run: Run, step: int, metrics: dict[str, float]) -> None:
    """After each optimizer step, with what is about to be logged; you may add to `metrics`."""


@hookspec
def alignzoo_round_end(run: Run, index: int) -> None:
    """After the last step of a round: the place to move a reference or refresh data."""


@hookspec(firstresult=True)
def alignzoo_answer(run: Run, rows: list[Example]) -> list[Completion]:
    """How the system that came of the run answers held-out prompts: one completion for each.

    Asked in every evaluation but the one before training. The default is a completion drawn from
    the model. What an answer costs is charged to the ledger, and reported per answer.
    """


@hookspec
def alignzoo_evaluate(run: Run, model: Any) -> dict[str, float | list[float]]:
    """Extra scores of the model as it stands, logged beside the core's own.

    Of a list, one number per item, the mean and its 95% interval are reported.
    """

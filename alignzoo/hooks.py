"""The hooks: what a plugin may implement, and when a run calls it.

A plugin is an object with some of these methods, each marked `@hookimpl`; a method may leave out
arguments that it does not need. Every run has its own plugin manager, on which the algorithm, the
task, the rewards, the sampler and each add-on (`--with`) are registered.
`@hookimpl(wrapper=True)` wraps the results of the other plugins.

What a plugin gives is checked right after it, and an exception in a hook ends the run with one
message that names the plugin, the hook and the line; see `alignzoo.results`.

The order of a run:

    alignzoo_check              before anything is written
    alignzoo_start              the model is in memory
    evaluation                  alignzoo_evaluate, alignzoo_evaluated
    alignzoo_optimizer
    each round:
        alignzoo_order          the rows
        alignzoo_sample         for prompts: alignzoo_complete, alignzoo_reward, alignzoo_advantage
        each optimizer step:
            alignzoo_loss       for each micro-batch
            alignzoo_gradient   of the whole step
            alignzoo_learning_rate
            alignzoo_step
        alignzoo_round_end
        evaluation, if due      alignzoo_answer, alignzoo_evaluate, alignzoo_evaluated
    evaluation                  alignzoo_answer, alignzoo_evaluate, alignzoo_evaluated

Each of several processes calls every hook for its own part of the rows, but alignzoo_answer and
alignzoo_evaluate only the main one. Optimizer, gradient, rate and order must be the same in all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pluggy
from torch import Tensor, nn
from torch.optim import Optimizer

from alignzoo.batch import Batch, Example
from alignzoo.data import Data
from alignzoo.discovery import PROJECT, hook_methods, hookspec
from alignzoo.hook_methods import check_loss_providers, check_methods
from alignzoo.loss import Loss
from alignzoo.policy import Policy
from alignzoo.recipe import Recipe
from alignzoo.results import guard
from alignzoo.rollout import Completion
from alignzoo.run import Run


@hookspec
def alignzoo_check(recipe: Recipe, data: Data) -> None:
    """Raise `BadInput` if the plugin cannot work with this recipe and this data.

    Called once, when the data is loaded and before anything is written.
    """


@hookspec
def alignzoo_start(run: Run) -> None:
    """Set up what the plugin needs.

    Called once, when the model is in memory and before the first evaluation; also in a resumed run.
    What the plugin carries from step to step, `run.state_of(self)`, is restored by then; weights,
    optimizer, ledger and `run.step` are restored after it.
    """


@hookspec(firstresult=True)
def alignzoo_optimizer(run: Run, parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
    """Return the optimizer of the trained parameters, which are given by name.

    Called once; the first result counts, and the default is AdamW. Each parameter is in a group; a
    group may have an `lr_scale`, which multiplies the learning rate. Checkpoints have what the
    optimizer keeps per parameter, and the settings of its groups.
    """


@hookspec(firstresult=True)
def alignzoo_order(run: Run, index: int) -> list[int]:
    """Return the rows of round `index`, from 0, by their places in `run.data.train`.

    Called at the start of each round; the first result counts. There are as many as in the default,
    epochs in a random order (`run.order.batch(index)`), and a row may come again.
    """


@hookspec(firstresult=True)
def alignzoo_sample(run: Run, rows: list[Example]) -> Batch:
    """Return the batch that the round learns from.

    Called at the start of each round; the first result counts. `rows` are this process's part of
    the round's rows. The default batches demonstrations, pairs and labels as they are. For prompts
    it generates completions and adds rewards and advantages; see `alignzoo.rollout.rollout` for the
    columns.
    """


@hookspec(firstresult=True)
def alignzoo_complete(
    run: Run, rows: Sequence[Example], size: int, stream: str
) -> list[list[Completion]]:
    """Draw `size` completions of the prompt of each row under the current policy.

    Called by `alignzoo.rollout.complete`, which plugins use; the run's sampler implements it, and
    the first result counts. Return one list of `size` completions per row. Each has token ids, the
    log-prob of each in nats, and `ended`. `stream` names the random numbers: within a round, a
    stream always gives the same completions.
    """


@hookspec
def alignzoo_reward(run: Run, batch: Batch) -> Tensor:
    """Return one finite score per completion, `[N]`; NaN if the reward does not apply to it.

    Called for the completions of a round, in every plugin that implements it. Each reward is logged
    by its name, and their weighted sum becomes `batch["rewards"]`. `run.texts(batch)` are the
    completions as text, `batch.answered()` the rows of data that they answer.
    """


@hookspec(firstresult=True)
def alignzoo_advantage(run: Run, batch: Batch) -> Tensor:
    """Return advantages per completion `[N]` or per token `[N, T]`, from `batch["rewards"]`.

    Called after the rewards; the first result counts. Completions without a reward (NaN) get the
    advantage 0 whatever is returned. An algorithm with this hook needs a reward.
    """


@hookspec(firstresult=True)
def alignzoo_loss(run: Run, batch: Batch) -> Loss:
    """Return the loss of a micro-batch as a sum and a count; see `alignzoo.loss.Loss`.

    Called for each micro-batch of a step, which is on the device of the model, with gradients on.
    Exactly one plugin of a run implements it. The loop adds up micro-batches and processes, and
    divides the gradient by the count once.
    """


@hookspec
def alignzoo_gradient(run: Run, parameters: list[tuple[str, nn.Parameter]]) -> None:
    """Read or change the gradient of a step in place, `grad` of each parameter.

    Called when it is that of the mean loss of the step over all processes, before it is clipped.
    """


@hookspec(firstresult=True)
def alignzoo_learning_rate(run: Run, step: int) -> float:
    """Return the learning rate of a step, whose number is from 1.

    The first result counts. The default is the peak, `run.learning_rate`, times the schedule.
    """


@hookspec
def alignzoo_step(run: Run, step: int, metrics: dict[str, float]) -> None:
    """React to an optimizer step.

    Called after each, with its number from 1 and the metrics that are about to be logged, to which
    the plugin may add numbers under names of its own. It changes none of those that are there, and
    returns nothing. `run.stop(reason)` ends the training.
    """


@hookspec
def alignzoo_round_end(run: Run, index: int) -> None:
    """React to the end of a round, for example by moving the reference.

    Called after the last step of each round, with the number of the round from 0.
    """


@hookspec(firstresult=True)
def alignzoo_answer(run: Run, rows: list[Example]) -> list[Completion]:
    """Return one completion for the prompt of each row, as the system that was trained answers it.

    Called in every evaluation but the one before training; the first result counts. The default
    draws a completion from the model. What the answers cost is charged to the ledger, and
    reported per answer.
    """


@hookspec
def alignzoo_evaluate(run: Run, model: Policy) -> dict[str, float | list[float]]:
    """Return further scores of the model by name, which are logged beside the core's own.

    Called in every evaluation, with the model in eval mode. For a list, one number per item, the
    mean and its 95% interval are reported. The names are the plugin's own, not the core's.
    """


@hookspec
def alignzoo_evaluated(run: Run, phase: str, scores: dict[str, Any]) -> None:
    """React to an evaluation, for example by `run.stop(reason)`.

    Called after each, "before" and "after" training and at "step N", in all processes. `scores` are
    its `alignzoo.evaluation.Estimate`s by name, each with a `mean` and an interval. A resumed run
    calls it for the evaluations after its checkpoint.
    """


class RunPlugins(pluggy.PluginManager):
    """The plugins of one run."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Return the options of a hook method, None for any other attribute."""
        # The base class calls getattr on every name, which would evaluate properties.
        if name not in hook_methods(plugin):
            return None
        return super().parse_hookimpl_opts(plugin, name)

    def register(self, plugin: Any, name: str | None = None) -> str | None:
        """Register a plugin, with a check of what each of its hooks gives."""
        registered = super().register(plugin, name)
        for hook in self.get_hookcallers(plugin) or []:
            for impl in hook.get_hookimpls():
                if impl.plugin is plugin:
                    guard(impl, hook)
        return registered


def make_manager(plugins: dict[str, Any], *, loss: bool = True) -> RunPlugins:
    """Return a plugin manager with these objects registered by name; later ones are called first.

    If `loss` is True exactly one of them must implement `alignzoo_loss`, otherwise none.

    Raises:
        BadInput: that is not so, or a method has an unknown name, an unknown argument, an argument
            with a default, or no mark. pluggy would ignore most of these silently.
    """
    pm = RunPlugins(PROJECT)
    pm.add_hookspecs(sys.modules[__name__])
    specs = {name: spec for name, spec in globals().items() if name.startswith("alignzoo_")}
    for name, plugin in plugins.items():
        check_methods(name, plugin, specs)
        pm.register(plugin, name)
    check_loss_providers(pm.hook.alignzoo_loss, int(loss))
    return pm

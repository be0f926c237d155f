"""The hooks, all of them, in the order in which a round calls them.

A plugin is an object with some of these methods, each marked `@hookimpl`. Every run has its own
plugin manager, on which the algorithm, the task, the reward and each `--with` add-on are
registered; `@hookimpl(wrapper=True)` wraps what the others gave.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import pluggy
from torch import Tensor

from alignzoo.batch import Batch, Example
from alignzoo.data import Data
from alignzoo.discovery import PROJECT, hook_methods, hookspec
from alignzoo.errors import BadInput, nearest
from alignzoo.loss import Loss
from alignzoo.recipe import Recipe
from alignzoo.rollout import Completion
from alignzoo.run import Run


@hookspec
def alignzoo_check(recipe: Recipe, data: Data) -> None:
    """Before anything is written: raise `BadInput` where you cannot learn from these."""


@hookspec
def alignzoo_start(run: Run) -> None:
    """Once, when the model is in memory and before the first round: set up what you need."""


@hookspec(firstresult=True)
def alignzoo_sample(run: Run, rows: list[Example]) -> Batch:
    """The experience to learn from, for these rows of the data.

    The core's default turns demonstrations, pairs and labels into a batch as they are; for
    prompts it generates completions, asks for rewards and then for advantages.
    """


@hookspec(firstresult=True)
def alignzoo_complete(
    run: Run, rows: Sequence[Example], size: int, stream: str
) -> list[list[Completion]]:
    """Draw `size` completions of each prompt under the policy as it is now.

    The run's sampler gives them; `alignzoo.rollout.complete` is how a plugin has them drawn.
    Within a round, one `stream` always gives the same completions.
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


class RunPlugins(pluggy.PluginManager):
    """The plugins of one run. pluggy reads every attribute of a plugin; this reads only hooks."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        # The base class calls getattr on every name, which runs properties with side effects.
        if name not in hook_methods(plugin):
            return None
        return super().parse_hookimpl_opts(plugin, name)


def make_manager(plugins: dict[str, Any], *, loss: bool = True) -> RunPlugins:
    """A plugin manager with these objects on it by name, checked; later ones are called first.

    `loss`: whether one of them must give the loss; else none may.
    """
    pm = RunPlugins(PROJECT)
    pm.add_hookspecs(sys.modules[__name__])
    for name, plugin in plugins.items():
        _check_methods(pm, name, plugin)
        pm.register(plugin, name)
    _check_loss(pm, int(loss))
    return pm


def _check_methods(pm: RunPlugins, owner: str, plugin: Any) -> None:
    specs = [name for name in globals() if name.startswith("alignzoo_")]
    marked = hook_methods(plugin)
    for name in marked:
        if name not in specs:
            raise BadInput(
                f"plugin {owner!r}: there is no hook {name!r}", hint=nearest(name, specs)
            )
        spec = inspect.signature(globals()[name])
        for parameter in list(inspect.signature(getattr(type(plugin), name)).parameters.values())[
            1:
        ]:
            if (
                parameter.default is not parameter.empty
                or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD
            ):
                raise BadInput(
                    f"plugin {owner!r}: argument {parameter.name!r} of {name} has a default or is "
                    "keyword-only, so pluggy would never fill it",
                    hint=f"write it as {name}(self, {', '.join(spec.parameters)})",
                )
            if parameter.name not in spec.parameters:
                raise BadInput(
                    f"plugin {owner!r}: {name} has no argument {parameter.name!r}",
                    hint=f"its arguments are: {', '.join(spec.parameters)}",
                )
    for name in specs:
        if name not in marked and callable(inspect.getattr_static(type(plugin), name, None)):
            raise BadInput(
                f"plugin {owner!r}: {name} is not marked", hint=f"write @hookimpl above {name}"
            )


def _check_loss(pm: RunPlugins, wanted: int) -> None:
    providers = [
        impl.plugin_name
        for impl in pm.hook.alignzoo_loss.get_hookimpls()
        if not (impl.wrapper or impl.hookwrapper)
    ]
    if len(providers) != wanted:
        raise BadInput(
            f"exactly {'one plugin' if wanted else 'none'} of a run gives alignzoo_loss; found "
            + (", ".join(providers) or "none"),
            hint="an add-on that changes the loss wraps it: @hookimpl(wrapper=True)",
        )

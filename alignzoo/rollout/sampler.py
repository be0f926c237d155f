"""Samplers, which draw the completions of a run in this process or in another program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch, Example, collate
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput, warn_renamed
from alignzoo.named import build_named
from alignzoo.options import flag_of
from alignzoo.recipe import Recipe
from alignzoo.rollout.completions import batch_completions, complete_in_process
from alignzoo.rollout.generate import Completion
from alignzoo.rollout.rollout import rollout
from alignzoo.run import Run


class Sampler(ABC):
    """Base class of samplers. A subclass implements `complete`.

    `external_logprobs` is True if its log-probs are not the trainer's, because another program,
    other kernels or another precision computes them. The trainer's are then computed by a forward
    pass over the round, and advantages are multiplied by importance weights. `plays_episodes` is
    True if it draws episodes of `run.environment`, as `complete_in_process` does.
    """

    external_logprobs = False
    plays_episodes = False

    @abstractmethod
    def complete(
        self, run: Run, rows: Sequence[Example], size: int, stream: str
    ) -> list[list[Completion]]:
        """Draw `size` completions of the prompt of each row under the current policy.

        Use the settings of the recipe (`Sampling.of`) and `seeds(run, ..., stream)`: the same seeds
        must give the same completions. Return one list per row.
        """

    @hookimpl
    def alignzoo_complete(
        self, run: Run, rows: Sequence[Example], size: int, stream: str
    ) -> list[list[Completion]]:
        """Draw completions by `complete`."""
        return self.complete(run, rows, size, stream)

    @hookimpl(trylast=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Batch offline rows as they are; complete prompts, then add rewards and advantages."""
        if all(row.completions for row in rows):
            return collate(rows)
        return rollout(run, rows, complete(run, rows, Traits.of(run.algorithm).group_size))


class DefaultSampler(Sampler):
    """The model that is trained, in this process, with the trainer's log-probs."""

    plays_episodes = True

    def complete(
        self, run: Run, rows: Sequence[Example], size: int, stream: str
    ) -> list[list[Completion]]:
        """Draw from the model in memory."""
        return complete_in_process(run, rows, size, stream)


def is_own(run: Run) -> bool:
    """Return True if the completions of a run are those of its model, changed by no plugin."""
    found = run.hook.alignzoo_complete.get_hookimpls()
    return all(isinstance(each.plugin, DefaultSampler) for each in found)


def load_sampler(recipe: Recipe) -> Sampler:
    """Return the sampler of a recipe: a plugin, or by default the model itself.

    Raise `BadInput` if there is no such sampler, or for an option that it does not use.
    """
    sampler = build_sampler(recipe.sampler) if recipe.sampler is not None else DefaultSampler()
    for name in ("importance_cap", "importance_mode"):
        if getattr(recipe, name) != getattr(Recipe, name) and not sampler.external_logprobs:
            raise BadInput(
                f"option {flag_of(name)}: this sampler has the trainer's log-probs, so "
                "every importance weight is 1",
                hint="it is for a --sampler that computes log-probs elsewhere",
            )
    if recipe.importance_mode != Recipe.importance_mode and not recipe.importance_cap:
        raise BadInput(
            "option --importance-mode: with --importance-cap 0 there are no importance weights",
            hint="leave out one of them",
        )
    return sampler


def build_sampler(text: str) -> Sampler:
    """Build the sampler that `NAME[,OPTION=VALUE...]` names, or raise `BadInput`."""
    found = build_named("samplers", text, "--sampler")
    if not isinstance(found, Sampler):
        raise BadInput(
            f"sampler {text!r} is not an alignzoo.rollout.Sampler",
            hint="derive its class from that, and implement the method `complete`",
        )
    if hasattr(found, "foreign"):
        warn_renamed("'foreign' of a sampler", "'external_logprobs'")
        found.external_logprobs = found.foreign
    return found


def complete(
    run: Run,
    rows: Sequence[Example],
    size: int,
    stream: str = "sample",
    mixture: float = 0.0,
    *,
    draw: str | None = None,  # deprecated: `stream`
) -> list[list[Completion]]:
    """Draw `size` completions of each prompt, and charge them to the ledger.

    Return one list of `size` completions per row.

    - By default the run's sampler draws them under the policy.
    - Inside `run.model.as_reference()` they are drawn in this process under the reference.
    - With `mixture` m > 0 they are drawn in this process under pi^(1 - m) pi_ref^m, token by token.
    - Within a round, a `stream` always gives the same completions; name another one for a second
      draw.
    """
    if draw is not None:
        warn_renamed("complete(draw=)", "complete(stream=)")
        stream = draw
    if mixture or run.model.is_reference:
        return complete_in_process(run, rows, size, stream, mixture)
    charged = run.ledger.tokens["generation"]
    with run.forwards.purpose("generation"):
        groups = run.hook.alignzoo_complete(run=run, rows=rows, size=size, stream=stream)
    if run.ledger.tokens["generation"] == charged:  # another program has drawn them
        batch = batch_completions(rows, groups)
        run.ledger.charge("generation", run.model.generation_cost(batch, passes=1))
    return groups

"""What draws the completions of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignzoo import discovery
from alignzoo.batch import Batch, Example, collate
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.options import build, split_options
from alignzoo.recipe import Recipe
from alignzoo.rollout.generate import Completion, generate
from alignzoo.rollout.rollout import experience, gathered
from alignzoo.rollout.sampling import Sampling

if TYPE_CHECKING:
    from alignzoo.run.run import Run


class Sampler(ABC):
    """What draws completions: `complete` is all that there is to write.

    `foreign` says that its log-probs are not the trainer's (another program, other kernels or
    another precision computes them): the policy's own are then computed by a forward pass over the
    round, and credit is weighed by what both differ by.
    """

    foreign = False

    @abstractmethod
    def complete(
        self, run: Run, rows: Sequence[Example], size: int, draw: str
    ) -> list[list[Completion]]:
        """`size` completions of each prompt under the policy as it is now, as `run.recipe` says
        that they are to be drawn (`Sampling.of`), the same for the same `seeds(run, ...)`."""

    @hookimpl(trylast=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Offline rows become a batch; prompts get completions, then rewards, then advantages."""
        if all(row.completions for row in rows):
            return collate(rows)
        return experience(run, rows, complete(run, rows, getattr(run.algorithm, "group_size", 1)))


class DefaultSampler(Sampler):
    """The model that is trained, with the trainer's own log-probs"""

    def complete(
        self, run: Run, rows: Sequence[Example], size: int, draw: str
    ) -> list[list[Completion]]:
        return in_process(run, rows, size, draw)


def sampler_of(recipe: Recipe) -> Sampler:
    """The sampler of a run: a plugin by its name, or the model itself where none is named."""
    found = named(recipe.sampler) if recipe.sampler is not None else DefaultSampler()
    if recipe.importance_cap != Recipe.importance_cap and not found.foreign:
        raise BadInput(
            "option --importance-cap: the sampler has the trainer's log-probs, so that all tokens "
            "weigh the same",
            hint="it is for a --sampler that computes them otherwise",
        )
    return found


def named(text: str) -> Sampler:
    """From `NAME[,OPTION=VALUE...]`."""
    name, options = split_options(text, "--sampler")
    found = build(discovery.load("samplers", name), options, f"sampler {name!r}")
    if not isinstance(found, Sampler):
        raise BadInput(
            f"sampler {name!r} is no alignzoo.samplers.Sampler",
            hint="derive its class from that, and give it the method `complete`",
        )
    return found


def complete(
    run: Run, rows: Sequence[Example], size: int, draw: str = "sample", mixture: float = 0.0
) -> list[list[Completion]]:
    """`size` completions of each prompt, under the policy, by the run's sampler; or in this process
    inside `run.model.as_reference()` under the reference, and, m being `mixture`, under
    pi^(1 - m) pi_ref^m, token by token.

    Those of one round and `draw` are always the same: whoever draws a second time in a round gives
    that another name.
    """
    if mixture or run.model.is_reference:
        groups = in_process(run, rows, size, draw, mixture)
    else:
        groups = run.sampler.complete(run, rows, size, draw)
    batch = gathered(rows, groups)
    work = run.model.work(batch)
    run.ledger.spend("generation", flops=run.model.flops.forward(*work), tokens=work.tokens)
    if mixture:  # each token was asked of both
        work = run.model.work(batch, reference=True)
        run.ledger.spend("reference", flops=run.model.flops.forward(*work), tokens=work.tokens)
    return groups


def in_process(
    run: Run, rows: Sequence[Example], size: int, draw: str, mixture: float = 0.0
) -> list[list[Completion]]:
    """The same from the model in memory, whichever it is at this moment."""
    with run.model.evaluating():
        completions = generate(
            run.model,
            [row.prompt for row in rows for _ in range(size)],
            seeds(run, len(rows) * size, draw),
            Sampling.of(run.recipe, run.codec),
            mixture=mixture,
        )
    return [completions[i : i + size] for i in range(0, len(completions), size)]


def seeds(run: Run, count: int, draw: str) -> list[int]:
    """One for each completion that this process draws in this round, below 2^56."""
    index = run.accelerator.process_index
    return [run.seed_for(draw, run.round, index, n) for n in range(count)]

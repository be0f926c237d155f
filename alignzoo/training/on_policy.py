"""The base class of algorithms that learn from their own completions, in rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from alignzoo.algorithm import Needs, Rounds
from alignzoo.batch import Batch
from alignzoo.data import Prompts
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.policy import Outputs
from alignzoo.rollout import compute_column
from alignzoo.run import Run

# Two options, for a subclass that needs another default: `iterations: Iterations = 4`.
Iterations = Annotated[int, "passes over the completions of a round", Ge(1), Le(10_000)]
RoundPrompts = Annotated[
    int, "prompts per round, a step for each --batch-size of them (0: one step)", Ge(0)
]


@dataclass(eq=False)
class OnPolicy:
    """Sample `group_size` completions of each prompt, reward them, and make `iterations` passes
    over the completions of a round.

    A subclass has the hooks `alignzoo_advantage` and `alignzoo_loss`.
    """

    group_size: Annotated[int, "completions per prompt", Ge(2), Le(4096)] = 8
    iterations: Iterations = 1
    round_prompts: RoundPrompts = 0
    beta: Annotated[float, "strength of the pull to the reference (0: none)", Ge(0)] = 0.0

    data = Prompts
    learning_rate = 1e-4
    progress_metric = "reward"

    @property
    def needs(self) -> Needs:
        """Keep a reference only if `beta` pulls to it."""
        return Needs(reference=self.beta > 0)

    @property
    def rounds(self) -> Rounds:
        """Return the prompts of a round and the passes over it."""
        return Rounds(rows=self.round_prompts or None, iterations=self.iterations)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse greedy sampling, which gives a group of identical completions."""
        if recipe.temperature == 0:
            raise BadInput(
                "option --temperature: at 0 all completions of a prompt are identical",
                hint=f"{recipe.algorithm} learns from their differences: use the default, 1",
            )

    def policy(self, run: Run, batch: Batch, **options: Any) -> Outputs:
        """Return `run.policy(batch)` at the sampling temperature.

        Logits are divided by `--temperature`, as they were when the tokens were sampled.
        """
        return run.policy(batch, temperature=run.temperature, **options)

    def reference_logprobs(self, run: Run, batch: Batch) -> Tensor:
        """Compute the log-probs of a round under the reference, `[N, T]`, at the sampling
        temperature."""
        return compute_column(
            run, batch, lambda micro: run.reference(micro, temperature=run.temperature).logprobs
        )

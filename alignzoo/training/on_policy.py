"""What algorithms have in common that learn from completions of their own, in rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from alignzoo.algorithm import Needs, Rounds
from alignzoo.batch import Batch
from alignzoo.data import Prompts
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.policy import Outputs
from alignzoo.run import Run


@dataclass(eq=False)
class OnPolicy:
    """Options and statements of an algorithm that draws `group_size` completions of each prompt,
    has them rewarded, and passes `iterations` times over what a round has drawn."""

    group_size: Annotated[int, "completions per prompt", Ge(2)] = 8
    iterations: Annotated[int, "passes over the completions of a round", Ge(1)] = 1
    round_prompts: Annotated[
        int, "prompts per round, in steps of --batch-size (0: one step's)", Ge(0)
    ] = 0
    beta: Annotated[float, "strength of the pull to the reference (0: none)", Ge(0)] = 0.0

    data = Prompts
    learning_rate = 1e-4
    progress_metric = "reward"

    @property
    def needs(self) -> Needs:
        return Needs(reference=self.beta > 0)

    @property
    def rounds(self) -> Rounds:
        return Rounds(rows=self.round_prompts or None, iterations=self.iterations)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        if recipe.temperature == 0:
            raise BadInput(
                "option --temperature: greedy completions of one prompt are all the same",
                hint=f"{recipe.algorithm} learns from their differences: leave it at 1",
            )

    def policy(self, run: Run, batch: Batch, **asked: Any) -> Outputs:
        """What `run.policy` gives, of the distribution that completions are drawn from: logits are
        divided by `--temperature`, as they were when the sampler drew."""
        return run.policy(batch, temperature=run.temperature, **asked)

    def reference_logprobs(self, run: Run, batch: Batch) -> Tensor:
        """`[N, T]`: those of a whole round, under the reference, at the same temperature."""
        return batch.piecewise(
            lambda micro: run.reference(micro.to(run.device), temperature=run.temperature).logprobs,
            run.micro_tokens,
        )

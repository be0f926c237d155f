"""DPO on fresh pairs with soft labels: who learns where `rlaif --rl dpo` labels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor

from alignzoo import Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import pair_metrics, sigmoid_loss


@dataclass(eq=False)
class LabelledPairs(OnPolicy):
    """Two completions of each prompt, whose rewards are the probabilities that they are better."""

    group_size: Annotated[int, "completions per prompt, which are compared", Ge(2), Le(2)] = 2
    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1

    learning_rate = 3e-4  # at 1e-4 labels that cannot be wrong had done half of it in two epochs
    progress_metric = "rewards/accuracies"
    advantages_are_weights = False  # advantages tell a winner from a loser

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Generator[None, Batch, Batch]:
        """The pairs that were judged, with their log-probs under the reference."""
        batch: Batch = yield
        batch = batch.keep(~batch["rewards"].isnan())
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """How much likelier a completion is to be the better one: 2p - 1, `[N]`."""
        advantages = 2 * batch["rewards"] - 1
        run.log_mean({"judge/margin": batch.pairs(advantages)[0].abs()})
        return advantages

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """One value per pair."""
        policy = self.policy(run, batch, entropy=True)
        label, other = batch.pairs(batch["rewards"])
        first, second = batch.pairs(batch.total(policy.logprobs - batch["reference"]))
        loss = sigmoid_loss(first - second, self.beta, smoothing=1 - label)
        logps = batch.pairs(batch.total(policy.logprobs))
        rewards = self.beta * first, self.beta * second
        won = label >= other
        metrics = pair_metrics(ordered(won, *rewards), ordered(won, *logps))
        log_ratio = policy.logprobs - batch["reference"]
        own = {"kl": log_ratio[batch.mask], "entropy": policy.entropy[batch.mask]}
        return Loss.per_sequence(loss, metrics | own)


def ordered(won: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(preferred, rejected), each `[B]`: of equals the first is called preferred."""
    return first.where(won, second), second.where(won, first)

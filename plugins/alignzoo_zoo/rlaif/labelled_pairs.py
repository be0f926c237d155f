"""DPO on fresh pairs with soft labels, the learner of `rlaif --rl dpo`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from alignzoo import Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import pair_metrics, sigmoid_loss
from alignzoo_zoo.pairs import order_pair


@dataclass(eq=False)
class LabelledPairs(OnPolicy):
    """Learn from pairs whose rewards are the probabilities that each side is the better one."""

    group_size: int = field(default=2, init=False)
    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1

    learning_rate = 3e-4  # at 1e-4, labels without errors reached half the gain in two epochs
    progress_metric = "rewards/accuracies"
    advantages_are_weights = False  # advantages mark the winner and the loser

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Generator[None, Batch, Batch]:
        """Keep the pairs that have a label, and add their reference log-probs."""
        batch: Batch = yield
        batch = batch.keep(~batch["rewards"].isnan())
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return 2p - 1 for the probability p that a completion is the better one, `[N]`."""
        advantages = 2 * batch["rewards"] - 1
        run.log_mean({"judge/margin": batch.pairs(advantages)[0].abs()})
        return advantages

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return DPO's loss in expectation over the label, one value per pair."""
        policy = self.policy(run, batch, entropy=True)
        label, other = batch.pairs(batch["rewards"])
        first, second = batch.pairs(batch.total(policy.logprobs - batch["reference"]))
        loss = sigmoid_loss(first - second, self.beta, smoothing=1 - label)
        logps = batch.pairs(batch.total(policy.logprobs))
        rewards = self.beta * first, self.beta * second
        first_chosen = label >= other  # of equals, the first counts as chosen
        metrics = pair_metrics(order_pair(first_chosen, *rewards), order_pair(first_chosen, *logps))
        log_ratio = policy.logprobs - batch["reference"]
        own = {"kl": log_ratio[batch.mask], "entropy": policy.entropy[batch.mask]}
        return Loss.per_sequence(loss, metrics | own)

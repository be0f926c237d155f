"""Online DPO (OAIF), Guo et al. 2024."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import Batch, Example, Loss, Run, hookimpl
from alignzoo.functional import best_and_worst, ipo_loss, pair_metrics, sigmoid_loss
from alignzoo_zoo.fresh_pairs import FreshPairs, own_metrics


@dataclass(eq=False)
class OnlineDPO(FreshPairs):
    """DPO on fresh pairs that a reward has ranked (https://arxiv.org/abs/2402.04792)"""

    group_size: Annotated[int, "completions per prompt: best and worst are the pair", Ge(2)] = 2
    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1
    loss_type: Annotated[Literal["sigmoid", "ipo"], "DPO's loss, or IPO's"] = "sigmoid"

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Generator[None, Batch, Batch]:
        """The pairs alone: what no loss reads costs no forward pass."""
        return self.pairs(run, (yield))

    def pairs(self, run: Run, batch: Batch) -> Batch:
        """The completions that have a part in a pair, with their log-probs under the reference."""
        batch = batch.keep(batch["advantages"] != 0)
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """+1 for the preferred, -1 for the rejected, 0 for those without a part, `[N]`."""
        rewards = self.compared(batch)
        signs = best_and_worst(rewards)
        won, lost = (rewards.where(signs == sign, 0.0).nansum(-1) for sign in (1, -1))
        tied = (signs == 0).all(-1)
        run.log_mean(
            {
                "frac_pairs_tied": tied.float(),
                "objective/scores_margin": (won - lost).masked_fill(tied, torch.nan),
            },
        )
        return signs.flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """One value per pair."""
        policy = self.policy(run, batch, entropy=True)
        metrics = own_metrics(policy.logprobs, batch["reference"], policy.entropy, batch.mask)
        loss, paired = self.preferred(batch, policy.logprobs)
        return Loss.per_sequence(loss, paired | metrics)

    def preferred(self, batch: Batch, logprobs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss that prefers the better completion of each pair, `[B]`, and what is logged."""
        logps = chosen_first(batch, batch.total(logprobs))
        chosen, rejected = chosen_first(batch, batch.total(logprobs - batch["reference"]))
        loss = {"sigmoid": sigmoid_loss, "ipo": ipo_loss}[self.loss_type]
        rewards = self.beta * chosen, self.beta * rejected
        return loss(chosen - rejected, self.beta), pair_metrics(rewards, logps)


def chosen_first(batch: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
    """`[N] -> (chosen [B], rejected [B])`: a pair stands in the order in which it was drawn."""
    first, second = batch.pairs(x)
    won = batch.pairs(batch["advantages"])[0] > 0
    return torch.where(won, first, second), torch.where(won, second, first)

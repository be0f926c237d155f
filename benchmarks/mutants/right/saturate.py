"""Kahneman-Tversky optimization (https://arxiv.org/abs/2402.01306), with the KL of the round."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from alignzoo import Feedback, Loss, Needs, collate, hookimpl
from alignzoo.rollout import compute_column


@dataclass(eq=False)
class Saturate:
    """Raise good completions and lower bad ones, less the further they are from the reference"""

    beta: Annotated[float, "how fast the value of a completion saturates", Gt(0)] = 0.1
    bad_weight: Annotated[float, "weight of bad completions", Gt(0)] = 1.0

    data = Feedback
    needs = Needs(reference=True)
    neutral_loss = 0.5

    @hookimpl
    def alignzoo_sample(self, run, rows):
        """Return the rows as a batch, with the mean log-ratio of the whole round as a column."""
        batch = collate(rows)
        ratios = compute_column(run, batch, lambda micro: self.log_ratios(run, micro))
        everywhere = torch.tensor(run.gather(ratios.tolist()), dtype=torch.float64)
        batch.columns["kl"] = everywhere.mean().clamp(min=0.0).expand(len(batch)).clone()
        return batch

    def log_ratios(self, run, batch):
        """Return log pi / pi_ref of each completion."""
        return batch.total(run.policy(batch).logprobs - run.reference(batch).logprobs)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return weight (1 - sigmoid(+-beta (log-ratio - KL))), per completion."""
        ratios = self.log_ratios(run, batch)
        good = batch["label"].bool()
        signs = torch.where(good, 1.0, -1.0)
        weights = torch.where(good, 1.0, self.bad_weight)
        losses = weights * (1 - torch.sigmoid(signs * self.beta * (ratios - batch["kl"])))
        return Loss.per_sequence(losses, {"ratios": ratios, "good": good.double()})

"""Kahneman-Tversky Optimization, Ethayarajh et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Feedback, Loss, Needs, Run, collate, hookimpl
from alignzoo.functional import label_metrics
from alignzoo_zoo.kto.losses import kl_estimate, kto_loss, mismatched


@dataclass(eq=False)
class KTO:
    """Kahneman-Tversky Optimization, from good and bad completions (https://arxiv.org/abs/2402.01306)"""

    beta: Annotated[float, "how fast a completion's value saturates", Gt(0)] = 0.1
    desirable_weight: Annotated[float, "weight of completions with a true label", Gt(0)] = 1.0
    undesirable_weight: Annotated[float, "weight of completions with a false label", Gt(0)] = 1.0
    loss: Annotated[
        Literal["kto", "apo_zero_unpaired"], "KTO, or APO-zero: the same without the KL term"
    ] = "kto"

    data = Feedback
    needs = Needs(reference=True)
    learning_rate = 1e-4
    progress_metric = "rewards/margins"

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        data.need_both_labels()
        if self.loss == "kto" and recipe.batch_size < 2:
            raise BadInput(
                "option --batch-size: one completion has no other to be mismatched with",
                hint="kto estimates its KL from the other rows of a batch: take 8 or more",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """The rows; with KTO's own loss, the batch's KL is measured before it is cut up."""
        batch = collate(rows)
        if self.loss == "kto":
            batch.columns["kl"] = measured_kl(run, rows).to("cpu").expand(len(batch))
        return batch

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """lambda (1 - sigmoid(+-beta (log-ratio - KL))), one per completion."""
        desirable = batch["label"]
        policy = batch.total(run.policy(batch).logprobs)
        log_ratio = policy - batch.total(run.reference(batch).logprobs)
        # Held-out rows come without: a number to compare runs by should depend on no batch.
        kl = batch.columns.get("kl", torch.zeros_like(log_ratio))
        losses = kto_loss(
            log_ratio, desirable, kl, self.beta, self.desirable_weight, self.undesirable_weight
        )
        metrics = label_metrics(self.beta * log_ratio, policy, desirable)
        return Loss.per_sequence(losses, {**metrics, "kl": kl})

    @hookimpl
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        if {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
            metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]


@torch.no_grad()
def measured_kl(run: Run, rows: list[Example]) -> Tensor:
    """The KL estimate of the whole batch, over all micro-batches and all processes."""
    everyone = run.gather([Example(row.prompt, row.completions) for row in rows])
    mine = run.shard(mismatched(everyone, run.recipe.max_length))
    log_ratio_sum, count = torch.zeros(2, device=run.device)
    for micro in collate(mine).split(run.micro_tokens) if mine else []:
        micro = micro.to(run.device)
        log_ratio = run.policy(micro).logprobs - run.reference(micro).logprobs
        log_ratio_sum += micro.total(log_ratio).sum()
        count += len(micro)
    both = run.world.sum(torch.stack([log_ratio_sum, count]))
    return kl_estimate(*both)

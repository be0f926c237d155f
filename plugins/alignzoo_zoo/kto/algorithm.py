"""Kahneman-Tversky Optimization, Ethayarajh et al. 2024."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Feedback, Loss, Needs, Run, collate, hookimpl
from alignzoo.errors import warn_renamed
from alignzoo.functional import label_metrics
from alignzoo.options import Alias
from alignzoo_zoo.kto.losses import kto_loss, mismatch, reference_point


@dataclass(eq=False)
class KTO:
    """Kahneman-Tversky Optimization, from good and bad completions (https://arxiv.org/abs/2402.01306)"""

    beta: Annotated[float, "how fast the value of a completion saturates", Gt(0)] = 0.1
    desirable_weight: Annotated[float, "weight of completions with a true label", Gt(0)] = 1.0
    undesirable_weight: Annotated[float, "weight of completions with a false label", Gt(0)] = 1.0
    loss_type: Annotated[
        Literal["kto", "apo_zero_unpaired"], "KTO, or APO-zero, without the KL term", Alias("loss")
    ] = "kto"
    loss: InitVar[Any] = None  # deprecated: `loss_type`

    data = Feedback
    needs = Needs(reference=True)
    learning_rate = 1e-4
    progress_metric = "rewards/margins"

    @property
    def neutral_loss(self) -> float | None:
        """Return the loss of a policy that is the reference: half the weight of a label."""
        return 0.5 if self.desirable_weight == self.undesirable_weight == 1 else None

    def __post_init__(self, loss: Any) -> None:
        if loss is not None:
            warn_renamed("KTO(loss=)", "KTO(loss_type=)", stacklevel=4)
            self.loss_type = loss

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Raise `BadInput` for labels of one class, and for batches of a single row."""
        data.need_both_labels()
        if self.loss_type == "kto" and recipe.batch_size < 2:
            raise BadInput(
                "option --batch-size: KTO needs at least two rows per batch",
                hint="it estimates the KL from mismatched rows of the batch: use 8 or more",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Collate the rows, and add the KL of the whole batch before it is split.

        `apo_zero_unpaired` needs none.
        """
        batch = collate(rows)
        if self.loss_type == "kto":
            batch.columns["kl"] = estimate_kl(run, rows).to("cpu").expand(len(batch))
        return batch

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return lambda (1 - sigmoid(+-beta (log-ratio - KL))), one value per completion."""
        desirable = batch["label"]
        policy = batch.total(run.policy(batch).logprobs)
        log_ratio = policy - batch.total(run.reference(batch).logprobs)
        # Held-out rows have no KL: a number that compares runs should not depend on the batch.
        kl = batch.columns.get("kl", torch.zeros_like(log_ratio))
        losses = kto_loss(
            log_ratio, desirable, kl, self.beta, self.desirable_weight, self.undesirable_weight
        )
        metrics = label_metrics(self.beta * log_ratio, policy, desirable)
        return Loss.per_sequence(losses, {**metrics, "kl": kl})

    @hookimpl
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        """Log the margin, if the batch has completions of both labels."""
        if {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
            metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]


@torch.no_grad()
def estimate_kl(run: Run, rows: list[Example]) -> Tensor:
    """Estimate the KL of the whole batch, over all micro-batches and processes; a scalar, nats."""
    all_rows = run.gather([Example(row.prompt, row.completions) for row in rows])
    own = run.shard(mismatch(all_rows, run.recipe.max_length))
    log_ratio_sum, count = torch.zeros(2, device=run.device)
    for micro in collate(own).split(run.micro_tokens) if own else []:
        micro = micro.to(run.device)
        log_ratio = run.policy(micro).logprobs - run.reference(micro).logprobs  # (N, T)
        log_ratio_sum += micro.total(log_ratio).sum()
        count += len(micro)
    log_ratio_sum, count = run.world.sum(torch.stack([log_ratio_sum, count]))
    return reference_point(log_ratio_sum, count)

"""Unlearning: Negative Preference Optimization, Zhang et al. 2024, and SimNPO, Fan et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt

from alignzoo import BadInput, Batch, Feedback, Loss, Needs, Run, hookimpl
from alignzoo.options import refuse_unread
from alignzoo_zoo.npo.losses import npo_loss, simnpo_loss

DEFAULT_BETA = {"npo": 0.1, "simnpo": 4.5}  # of open-unlearning


@dataclass(eq=False)
class NPO:
    """Unlearning by NPO or SimNPO: forget some completions, keep others (https://arxiv.org/abs/2404.05868)"""

    loss_type: Annotated[
        Literal["npo", "simnpo"], "relative to a reference, or by the log-prob per token"
    ] = "npo"
    beta: Annotated[
        float | None,
        "how soon a completion counts as forgotten [default: 0.1, simnpo: 4.5]",
        Gt(0),
    ] = None
    gamma: Annotated[float, "simnpo: margin of the reward", Ge(0)] = 0.0
    retain_weight: Annotated[
        float, "weight of the negative log-likelihood of the completions to keep", Ge(0)
    ] = 1.0

    data = Feedback
    learning_rate = 1e-4
    progress_metric = "npo/forget_nll"

    check_with = ({"loss_type": "simnpo"},)

    def __post_init__(self) -> None:
        refuse_unread(self, "loss_type", {"npo": (), "simnpo": ("gamma",)})
        if self.beta is None:
            self.beta = DEFAULT_BETA[self.loss_type]

    @property
    def needs(self) -> Needs:
        """Keep a reference for NPO; SimNPO has none."""
        return Needs(reference=self.loss_type == "npo")

    @hookimpl
    def alignzoo_check(self, data: Any) -> None:
        """Raise `BadInput` if there is nothing to forget."""
        if all(keep for row in data.train for keep in row.columns["label"]):
            raise BadInput(
                f"column 'label' is true in all {len(data.train):,} rows: nothing to forget",
                where=data.report.source,
                hint="give the completions to forget the label false, and those to keep true",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Say so if nothing protects what the model is to keep."""
        if not any(keep for row in run.data.train for keep in row.columns["label"]):
            run.ui.note("no row has the label true: nothing holds the model to what it should keep")

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the loss of each completion: to be forgotten, or to be kept."""
        assert self.beta is not None  # __post_init__ chose it
        logprobs = run.policy(batch).logprobs
        keep, nll = batch["label"].bool(), -batch.mean(logprobs)
        if self.loss_type == "npo":
            log_ratio = batch.total(logprobs - run.reference(batch).logprobs)
            forget_loss = npo_loss(log_ratio, self.beta)
        else:
            forget_loss = simnpo_loss(-nll, self.beta, self.gamma)
        return Loss.per_sequence(
            torch.where(keep, self.retain_weight * nll, forget_loss),
            {
                "npo/forget_loss": forget_loss[~keep],
                "npo/forget_nll": nll[~keep],
                "npo/retain_nll": nll[keep],
            },
        )

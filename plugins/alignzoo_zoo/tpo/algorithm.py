"""Triple Preference Optimization, Saeidi et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt

from alignzoo import Batch, Loss, Run, hookimpl
from alignzoo.functional import pair_metrics
from alignzoo.options import refuse_unread
from alignzoo_zoo.tpo.losses import tpo_loss
from alignzoo_zoo.tpo.view import Triples

DEFAULT_BETA = {"tpo": 0.01, "tpo-l": 2.0}  # of its authors


@dataclass(eq=False)
class TPO:
    """Triple Preference Optimization, from a pair and a gold completion (https://arxiv.org/abs/2405.16681)"""

    loss_type: Annotated[
        Literal["tpo", "tpo-l"], "by log-probs, or by log-probs per token with a margin"
    ] = "tpo"
    beta: Annotated[
        float | None, "sharpness of the preference [default: 0.01, tpo-l: 2]", Gt(0)
    ] = None
    gamma: Annotated[float, "tpo-l: target margin between the two sides", Ge(0)] = 0.5
    nll_weight: Annotated[
        float, "weight of the negative log-likelihood of the gold completion", Ge(0)
    ] = 1.0

    data = Triples
    learning_rate = 1e-4
    progress_metric = "rewards/margins"

    check_with = ({"loss_type": "tpo-l"},)

    def __post_init__(self) -> None:
        refuse_unread(self, "loss_type", {"tpo": (), "tpo-l": ("gamma",)})
        if self.beta is None:
            self.beta = DEFAULT_BETA[self.loss_type]

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Say so if no row has a gold completion of its own."""
        if all(row.completions[2] == row.completions[0] for row in run.data.train):
            run.ui.note(
                "no row has a 'reference' of its own: the chosen side is imitated, as in cpo"
            )

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the preference between two completions plus the NLL of a third, per triple."""
        assert self.beta is not None  # __post_init__ chose it
        logprobs = run.policy(batch).logprobs
        by_token = self.loss_type == "tpo-l"
        scores = batch.mean(logprobs) if by_token else batch.total(logprobs)
        chosen, rejected, _ = batch.groups(scores).unbind(1)  # (B,) each
        gold_mean = batch.groups(batch.mean(logprobs))[:, 2]
        losses = tpo_loss(
            chosen,
            rejected,
            gold_mean,
            beta=self.beta,
            gamma=self.gamma if by_token else 0.0,
            nll_weight=self.nll_weight,
        )
        metrics = pair_metrics((self.beta * chosen, self.beta * rejected), (chosen, rejected))
        return Loss.per_sequence(losses, metrics | {"nll_loss": -gold_mean})

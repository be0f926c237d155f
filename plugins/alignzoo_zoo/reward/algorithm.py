"""Reward models: from preferences, Ouyang et al. 2022, or from labelled steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from alignzoo import Batch, Loss, Needs, Preferences, Run, Steps, hookimpl
from alignzoo_zoo.reward.losses import (
    bradley_terry_loss,
    brier_scores,
    centring_loss,
    expected_calibration_error,
)
from alignzoo_zoo.reward.steps import steps_evaluated, steps_loss

ESCAPES = {r"\n": "\n", r"\t": "\t"}  # as they are typed in a shell


@dataclass(eq=False)
class Reward:
    """Reward model: a score for completions or their steps (https://arxiv.org/abs/2203.02155)"""

    center_rewards_coefficient: Annotated[
        float, "weight of the squared sum of a pair's rewards, which holds their mean at 0", Ge(0)
    ] = 0.01
    loss_type: Annotated[
        Literal["pairs", "steps"], "learn from pairs, or from solutions whose steps are labelled"
    ] = "pairs"
    step_separator: Annotated[str, "what stands between two steps", MinLen(1)] = "\\n"

    data = Preferences
    needs = Needs(score_head=True)
    learning_rate = 3e-4
    progress_metric = "rewards/accuracies"
    generates = False

    def __post_init__(self) -> None:
        for typed, meant in ESCAPES.items():
            self.step_separator = self.step_separator.replace(typed, meant)
        if self.loss_type == "steps":
            self.data, self.headline = Steps.separated_by(self.step_separator), "steps/accuracy"

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        if self.loss_type == "steps":
            data.need_both_labels()
            data.report.notes += self.doubtful_steps(data)

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """What the head's numbers are about is saved with it."""
        head = run.model.score_head
        head.step_separator = self.step_separator if self.loss_type == "steps" else None

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        if self.loss_type == "steps":
            return steps_loss(run, batch)
        return self.pairs_loss(run, batch)

    def pairs_loss(self, run: Run, batch: Batch) -> Loss:
        """The cross-entropy of the label of each pair, soft where its row says so, and the
        centring."""
        chosen, rejected = batch.pairs(run.scores(batch))
        margin, sure = column(batch, "margin", 0.0), column(batch, "chosen_probability", 1.0)
        loss = bradley_terry_loss(chosen, rejected, margin, sure)
        centring = centring_loss(chosen, rejected)
        return Loss.per_sequence(
            loss + self.center_rewards_coefficient * centring,
            {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": chosen > rejected,
            },
        )

    @hookimpl
    def alignzoo_evaluate(self, run: Run, model: Any) -> dict[str, float | list[float]]:
        """Accuracy on held-out pairs or steps with its interval, and calibration."""
        if self.loss_type == "steps":
            return steps_evaluated(run)
        found = [batch.pairs(run.scores(batch)) for batch in run.held_out()]
        if not found:
            return {}
        margins = torch.cat([chosen - rejected for chosen, rejected in found])
        return {
            "held-out/rewards/accuracies": (margins > 0).float().tolist(),
            "calibration/brier": brier_scores(margins).tolist(),
            "calibration/ece": expected_calibration_error(margins),
        }

    def doubtful_steps(self, data: Any) -> list[str]:
        """A note where steps would be found in a generated text that are none in the data."""
        inside = sum(
            any(self.step_separator in step.strip() for step in example.row["completions"])
            for example in data.train
        )
        if not inside:
            return []
        return [
            f"{inside:,} of {len(data.train):,} examples have a step that holds the separator "
            f"{self.step_separator!r}: as a --reward, their parts are judged as steps"
        ]


def column(batch: Batch, name: str, default: float) -> Tensor:
    """That column of the pairs, `[B]`, the default where there is none."""
    values = [float(row.get(name, default)) for row in batch.rows]
    return torch.tensor(values, device=batch.tokens.device)

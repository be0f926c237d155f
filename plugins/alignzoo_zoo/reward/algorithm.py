"""Reward models: from preferences, Ouyang et al. 2022, or from labelled steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, MinLen
from torch import Tensor

from alignzoo import Batch, Loss, Needs, Preferences, Run, Steps, View, hookimpl
from alignzoo.options import refuse_unread
from alignzoo_zoo.reward.losses import (
    bradley_terry_loss,
    brier_scores,
    centring_loss,
    expected_calibration_error,
)
from alignzoo_zoo.reward.steps import evaluate_steps, steps_loss

ESCAPES = {r"\n": "\n", r"\t": "\t"}  # as typed in a shell
READS = {"pairs": ("center_rewards_coefficient",), "steps": ("step_separator",)}


@dataclass(eq=False)
class Reward:
    """Reward model: a score for completions or their steps (https://arxiv.org/abs/2203.02155)"""

    center_rewards_coefficient: Annotated[
        float, "weight of the squared sum of a pair's rewards, which keeps their mean at 0", Ge(0)
    ] = 0.01
    loss_type: Annotated[
        Literal["pairs", "steps"], "learn from pairs, or from solutions with labelled steps"
    ] = "pairs"
    step_separator: Annotated[str, "text between two steps", MinLen(1)] = "\\n"

    needs = Needs(score_head=True)
    learning_rate = 3e-4
    progress_metric = "rewards/accuracies"
    generates = False

    data: type[View] = field(default=Preferences, init=False)

    def __post_init__(self) -> None:
        refuse_unread(self, "loss_type", READS)
        for typed, meant in ESCAPES.items():
            self.step_separator = self.step_separator.replace(typed, meant)
        if self.loss_type == "steps":
            self.data = Steps.separated_by(self.step_separator)
            self.progress_metric = "steps/accuracy"

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Raise `BadInput` if all steps have the same label."""
        if self.loss_type == "steps":
            data.need_both_labels()
            data.report.notes += self.note_ambiguous_steps(data)

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Save with the head whether it scores whole completions or steps."""
        head = run.model.score_head
        assert head is not None  # `needs` has it
        head.step_separator = self.step_separator if self.loss_type == "steps" else None

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the loss of each pair, or of each labelled step."""
        if self.loss_type == "steps":
            return steps_loss(run, batch)
        return self.pairs_loss(run, batch)

    def pairs_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the cross-entropy of each pair's label, hard or soft, plus the centring."""
        chosen, rejected = batch.pairs(run.scores(batch))
        margin = row_values(batch, "margin", default=0.0)
        probability = row_values(batch, "chosen_probability", default=1.0)
        loss = bradley_terry_loss(chosen, rejected, margin, probability)
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
        """Measure accuracy and calibration on held-out pairs or steps."""
        if self.loss_type == "steps":
            return evaluate_steps(run)
        found = [batch.pairs(run.scores(batch)) for batch in run.held_out()]
        if not found:
            return {}
        margins = torch.cat([chosen - rejected for chosen, rejected in found])
        return {
            "held-out/rewards/accuracies": (margins > 0).float().tolist(),
            "calibration/brier": brier_scores(margins).tolist(),
            "calibration/ece": expected_calibration_error(margins),
        }

    def note_ambiguous_steps(self, data: Any) -> list[str]:
        """Return a note if steps of the data contain the separator, else nothing.

        The separator splits generated text into steps, so it would split such a step in two.
        """
        inside = sum(
            any(self.step_separator in step.strip() for step in example.row["completions"])
            for example in data.train
        )
        if not inside:
            return []
        return [
            f"{inside:,} of {len(data.train):,} examples have a step that contains the separator "
            f"{self.step_separator!r}: as a --reward, the model scores their parts as steps"
        ]


def row_values(batch: Batch, name: str, *, default: float) -> Tensor:
    """Return a column of the rows of pairs, `[B]`; rows without it have the default."""
    values = [float(row.get(name, default)) for row in batch.rows]
    return torch.tensor(values, device=batch.tokens.device)

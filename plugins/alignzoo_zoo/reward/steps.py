"""Rewards of single steps: Uesato et al. 2022, Lightman et al. 2023."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo import Batch, Loss, Run
from alignzoo_zoo.reward.losses import brier_scores, expected_calibration_error, step_loss


def steps_loss(run: Run, batch: Batch) -> Loss:
    """Binary cross-entropy of the score at the end of each step, averaged over the steps."""
    scores, labels = run.scores(batch, per_token=True), batch["labels"]
    margins = labelled(scores, labels)
    return Loss.per_token(
        step_loss(scores, labels),
        batch.mask,
        {
            "steps/accuracy": margins > 0,
            "rewards/chosen": scores[batch.mask & labels],
            "rewards/rejected": scores[batch.mask & ~labels],
        },
    )


def steps_evaluated(run: Run) -> dict[str, float | list[float]]:
    """Accuracy of steps and of whole solutions, beside that of the commoner label; calibration."""
    margins, labels, claims, truths = [], [], [], []
    for batch in run.held_out():
        scores = run.scores(batch, per_token=True)
        margins.append(labelled(scores, batch["labels"])[batch.mask])
        labels.append(batch["labels"][batch.mask])
        # The least probability is above one half where all of them are.
        claims.append(((scores > 0) | ~batch.mask).all(-1))
        truths.append((batch["labels"] | ~batch.mask).all(-1))
    if not margins:
        return {}
    margin, label, claim, truth = (torch.cat(x) for x in (margins, labels, claims, truths))
    return {
        "held-out/steps/accuracy": (margin > 0).float().tolist(),
        "held-out/steps/majority": majority(label),
        "held-out/solutions/accuracy": (claim == truth).float().tolist(),
        "held-out/solutions/majority": majority(truth),
        "calibration/brier": brier_scores(margin).tolist(),
        "calibration/ece": expected_calibration_error(margin),
    }


def labelled(scores: Tensor, labels: Tensor) -> Tensor:
    """The log-odds that a step is what its label says; of the shape of both."""
    return torch.where(labels, scores, -scores)


def majority(labels: Tensor) -> float:
    """The share of the commoner label, `[n] ->` a number in [1/2, 1]."""
    share = float(labels.float().mean())
    return max(share, 1 - share)

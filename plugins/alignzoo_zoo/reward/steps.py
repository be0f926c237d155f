"""Rewards of single steps: Uesato et al. 2022, Lightman et al. 2023."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo import Batch, Loss, Run
from alignzoo_zoo.reward.losses import brier_scores, expected_calibration_error, step_loss


def steps_loss(run: Run, batch: Batch) -> Loss:
    """Return the binary cross-entropy of the score at the end of each step."""
    scores, labels = run.scores(batch, per_token=True), batch["labels"]
    margins = label_log_odds(scores, labels)  # (N, T)
    return Loss.per_token(
        step_loss(scores, labels),
        batch.mask,
        {
            "steps/accuracy": margins > 0,
            "rewards/chosen": scores[batch.mask & labels],
            "rewards/rejected": scores[batch.mask & ~labels],
        },
    )


def evaluate_steps(run: Run) -> dict[str, float | list[float]]:
    """Measure accuracy on steps and on whole solutions, with majority baselines, and calibration.

    A solution is predicted right if all its steps are. Return nothing without held-out rows.
    """
    margins, labels, claims, truths = [], [], [], []
    for batch in run.held_out():
        scores = run.scores(batch, per_token=True)
        margins.append(label_log_odds(scores, batch["labels"])[batch.mask])
        labels.append(batch["labels"][batch.mask])
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


def label_log_odds(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the log-odds of each label under its score; the shape of both."""
    return torch.where(labels, scores, -scores)


def majority(labels: Tensor) -> float:
    """Return the fraction of the more common of the labels `[n]`, in [1/2, 1]."""
    fraction = float(labels.float().mean())
    return max(fraction, 1 - fraction)

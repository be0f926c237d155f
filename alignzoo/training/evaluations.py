"""Evaluations in the middle of training, and what plugins are told of each evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from alignzoo.evaluation import Estimate, estimates_of, evaluate_run
from alignzoo.run import Run
from alignzoo.training.resume import saved_if_interrupted


def evaluate_between(run: Run, optimizer: torch.optim.Optimizer) -> None:
    """Evaluate in the middle of training, and report the result in a line.

    A resumed run may have the result of this evaluation already.
    """
    with run.model.sharding.whole():
        scores = scores_between(run, optimizer)
    share_scores(run, f"step {run.step}", scores)


def scores_between(run: Run, optimizer: torch.optim.Optimizer) -> Mapping[str, Estimate] | None:
    """Return the scores of the model as it is now; None in all processes but the main one."""
    phase = f"step {run.step}"
    if not run.record.is_writer:
        return None
    if phase in run.record.results:
        run.record.restore_evaluated(run.ledger)
        return estimates_of(run, phase)
    with saved_if_interrupted(run, optimizer, evaluate=True):
        scores = evaluate_run(run, phase).summary
    parts = (f"{name} {value.mean:.4g}" for name, value in scores.items())
    run.ui.note(f"step {run.step}: {', '.join(parts)}")
    return scores


def share_scores(run: Run, phase: str, scores: Mapping[str, Estimate] | None) -> None:
    """Call `alignzoo_evaluated` in each process, with the scores that the main one has."""
    shared = run.world.gather_each(scores)[0]
    run.hook.alignzoo_evaluated(run=run, phase=phase, scores=dict(shared or {}))

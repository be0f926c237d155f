"""The training loop, the only one: rows, sample, loss, step, record.

It knows no algorithm. It alone takes means: a loss hook returns a sum and a count, sums and counts
are added up over micro-batches and processes, and the gradient is divided once.
"""

from __future__ import annotations

import math
import time

import torch
from torch.nn.utils import clip_grad_norm_

from alignzoo import signals
from alignzoo.algorithm import Traits
from alignzoo.batch import Batch
from alignzoo.errors import RunFailed
from alignzoo.faults import THE_CORE
from alignzoo.loss import Totals
from alignzoo.policy.sharding import gather_tensor
from alignzoo.policy.untrained import check_untrained
from alignzoo.rollout import INFERENCE, LogprobGap
from alignzoo.rollout.mismatch import DIFFERENCE
from alignzoo.rollout.sampler import is_own
from alignzoo.run import Run
from alignzoo.signals import Interrupted
from alignzoo.training.accounts import (
    charge_feedback,
    charge_other_processes,
    charge_time,
    log_step,
    within_budget,
)
from alignzoo.training.evaluations import evaluate_between
from alignzoo.training.micro_batches import agree_on_micro_batches, compute_loss
from alignzoo.training.optimizer import refuse_whole_weights, set_learning_rate
from alignzoo.training.resume import (
    gather_signal,
    is_due,
    resume_run,
    save_checkpoint,
    saved_if_interrupted,
)
from alignzoo.training.rollout_log import log_rollouts
from alignzoo.training.rounds import Round
from alignzoo.ui import Update


def train(run: Run) -> None:
    """Train round by round until the steps or the budget are spent.

    A run with a checkpoint continues from it. Raise `RunFailed` if a loss is not finite, and
    `Interrupted` after a signal, when a checkpoint has been written.
    """
    optimizer = run.hook.alignzoo_optimizer(run=run, parameters=run.model.named_parameters())
    refuse_whole_weights(optimizer)
    metric = Traits.of(run.algorithm).progress_metric
    with signals.deferred(), run.ui.progress(run.total_steps, metric) as show:
        current, evaluate = resume_run(run, optimizer)
        run.model.train()
        if evaluate:
            evaluate_between(run, optimizer)
        while not run.schedule.done:
            started = time.perf_counter()
            current = current or begin_round(run, optimizer)
            train_round(run, optimizer, current, started, show)
            run.schedule.round += 1
            charge_feedback(run, current.rows)
            since, current = current.began, None
            signal = gather_signal(run)
            evaluate = is_due(run, run.recipe.eval_every, since) and not run.schedule.done
            if evaluate and not signal:
                evaluate_between(run, optimizer)
            if run.schedule.done or signal or is_due(run, run.recipe.checkpoint_every, since):
                save_checkpoint(run, optimizer, evaluate=evaluate and signal > 0)
            if signal:
                raise Interrupted(signal)
    run.model.eval()


def train_round(
    run: Run, optimizer: torch.optim.Optimizer, current: Round, started: float, show: Update
) -> None:
    """Take the remaining steps of a round, and end it. The seconds since `started` are charged."""
    for minibatch in current.remaining(run):
        with within_budget(run):
            metrics = train_step(run, optimizer, minibatch, first=current.done == 0)
        current.done += 1
        run.hook.alignzoo_step(run=run, step=run.step, metrics=metrics)
        log_step(run, metrics)
        show(run.step, run.progress, metrics)
        if run.schedule.done:
            break
        if not current.has_more(run):
            continue
        signal = gather_signal(run)
        if signal or is_due(run, run.recipe.checkpoint_every, run.step - 1):
            started = charge_time(run, started)
            save_checkpoint(run, optimizer, current)
        if signal:
            raise Interrupted(signal)
    run.hook.alignzoo_round_end(run=run, index=run.round)
    charge_time(run, started)


def begin_round(run: Run, optimizer: torch.optim.Optimizer) -> Round:
    """Sample the batch of the next round from this process's part of its rows."""
    torch.manual_seed(run.seed_for("round", run.round, run.world.rank))
    run.round_metrics.numbers.clear()
    spent = run.ledger.total_flops
    with saved_if_interrupted(run, optimizer), run.model.sharding.whole(), within_budget(run):
        indices = run.hook.alignzoo_order(run=run, index=run.round)
        rows = [run.data.train[i] for i in indices]
        batch = run.hook.alignzoo_sample(run=run, rows=run.shard(rows))
    charge_other_processes(run, "generation", run.ledger.total_flops - spent)
    log_rollouts(run, batch)
    return Round(batch, indices, began=run.step)


def train_step(
    run: Run, optimizer: torch.optim.Optimizer, batch: Batch, *, first: bool
) -> dict[str, float]:
    """Take one optimizer step, and return its metrics with those of the round.

    The `first` step of a round runs the policy that drew its completions. Its forward passes
    therefore measure the gap between the trainer's and the sampler's log-probs at no extra cost.
    For an external sampler, the rollout has measured it already. Raise `BadInput` if it is more
    than rounding in the first step of the run.
    """
    if not first or "logprobs" not in batch.columns or INFERENCE in batch.columns:
        metrics = update(run, optimizer, batch)
    else:
        gap = LogprobGap()
        with run.forwards.observed(gap.add, run.temperature):
            metrics = update(run, optimizer, batch)
        found = gap.reduce(run.world)
        run.round_metrics.add(found, THE_CORE)
        if run.step == 1 and found and is_own(run):
            sides = "the log-probs that completions were sampled with and the trainer's"
            check_untrained(run.model, found[f"{DIFFERENCE}/mean"], run.temperature, sides)
    return metrics | run.round_metrics.numbers


def update(run: Run, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """Update the weights once, in as many micro-batches as the tokens of the batch need.

    Return "loss", "grad_norm", "learning_rate", and the mean of each metric of the loss. All
    processes call it. Raise `RunFailed` if the loss or its gradient is not finite; the weights are
    then unchanged.
    """
    optimizer.zero_grad(set_to_none=True)
    totals = Totals()
    spent = run.ledger.total_flops
    for micro in agree_on_micro_batches(run, batch):
        loss = compute_loss(run, micro)
        run.model.sharding.exchange_gradients(last=micro.is_last)
        loss.sum.backward()
        totals.add(loss)
    charge_other_processes(run, "update", run.ledger.total_flops - spent)
    totals.merge(run.world.gather_each(totals))
    parameters = list(run.model.parameters())
    run.world.sum_gradients(parameters)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= max(totals.counts["loss"], 1.0)
    run.hook.alignzoo_gradient(run=run, parameters=run.model.named_parameters())
    norm = float(gather_tensor(clip_grad_norm_(parameters, run.recipe.max_grad_norm)))
    means = totals.means()
    if not math.isfinite(norm) or not math.isfinite(totals.sums["loss"]):
        raise RunFailed(
            f"the loss or its gradient is not finite at step {run.step + 1} "
            f"(loss {means.get('loss', 0.0)}, gradient norm {norm})",
            hint="try a lower --learning-rate; the last checkpoint is intact",
        )
    rate = run.hook.alignzoo_learning_rate(run=run, step=run.step + 1)
    set_learning_rate(optimizer, rate)
    if totals.counts["loss"]:  # momentum must not move the weights if nothing was counted
        optimizer.step()
    run.schedule.step += 1
    return {
        "loss": means.pop("loss", 0.0),
        "grad_norm": norm,
        "learning_rate": rate,
        **means,
    }

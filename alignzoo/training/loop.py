"""The training loop, the only one: rows, sample, loss, step, record.

It knows no algorithm. Means are taken here and nowhere else: a loss hook gives a sum and a count,
micro-batches and processes are added up, and the gradient is divided once.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict

import torch
from accelerate.utils import gather_object

from alignzoo.algorithm import headline_of
from alignzoo.batch import Batch
from alignzoo.data import labels_in
from alignzoo.errors import RunFailed
from alignzoo.evaluation import evaluate
from alignzoo.functional import learning_rate_factor
from alignzoo.ledger import peak_memory
from alignzoo.loss import Loss
from alignzoo.rollout import SAMPLED, Mismatch
from alignzoo.run.run import Run
from alignzoo.training.rounds import Experience, resume, save

FEEDBACK = {
    "demonstrations": "demonstrations",
    "preferences": "pairs",
    "feedback": "labels",
    "steps": "labels",
}


def train(run: Run) -> None:
    """Rounds until the steps or the budget are spent. Goes on from a checkpoint if there is one."""
    parameters = [parameter for _, parameter in run.model.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=run.learning_rate, weight_decay=run.recipe.weight_decay, fused=True
    )
    experience = resume(run, optimizer)
    run.model.train()
    with run.ui.progress(run.total_steps, headline_of(run.algorithm)) as show:
        while not run.done:
            started = time.perf_counter()
            experience = experience or sample(run)
            for minibatch in experience.rest(run):
                metrics = learn(run, optimizer, minibatch, first=experience.done == 0)
                experience.done += 1
                run.hook.alignzoo_step(run=run, step=run.step, metrics=metrics)
                log(run, metrics)
                show(run.step, run.progress, metrics)
                if run.done:
                    break
                if due(run, run.recipe.checkpoint_every, run.step - 1) and experience.more(run):
                    started = spend_time(run, started)
                    save(run, optimizer, experience)
            run.hook.alignzoo_round_end(run=run, index=run.round)
            run.round += 1
            spend_time(run, started)
            count_feedback(run)
            since, experience = experience.began, None
            if due(run, run.recipe.eval_every, since) and not run.done and run.record.writes:
                scores = evaluate(run, phase=f"step {run.step}").summary
                told = (f"{name} {value.mean:.4g}" for name, value in scores.items())
                run.ui.note(f"step {run.step}: {', '.join(told)}")
            if run.done or due(run, run.recipe.checkpoint_every, since):
                save(run, optimizer)
    run.model.eval()


def sample(run: Run) -> Experience:
    """A new round: the next rows of the data, and what the sampler makes of them."""
    rows = [run.data.train[i] for i in run.order.batch(run.round)]
    torch.manual_seed(run.seed_for("round", run.round, run.accelerator.process_index))
    spent, run.observed = run.ledger.total_flops, {}
    batch = run.hook.alignzoo_sample(run=run, rows=run.share(rows))
    add_up_sampling(run, run.ledger.total_flops - spent)
    return Experience(batch, began=run.step)


def learn(
    run: Run, optimizer: torch.optim.Optimizer, batch: Batch, *, first: bool
) -> dict[str, float]:
    """One optimizer step, and what is known of the round.

    The `first` one's forward passes are under the policy that drew the round, so that what its own
    log-probs differ by from the sampler's is seen without another pass; where it has been measured
    already, both are columns.
    """
    unknown = "logprobs" in batch.columns and SAMPLED not in batch.columns
    run.mismatch = Mismatch() if first and unknown else None
    metrics = update(run, optimizer, batch)
    if run.mismatch is not None:
        run.observed |= run.mismatch.everyone(run)
        run.mismatch = None
    return {**metrics, **run.observed}


def update(run: Run, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    """One optimizer step on a mini-batch, in as many micro-batches as its tokens ask for."""
    optimizer.zero_grad(set_to_none=True)
    sums: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, float] = defaultdict(float)
    spent = run.ledger.total_flops
    for micro in run.micro_batches(batch) if len(batch) else []:
        loss: Loss = run.hook.alignzoo_loss(run=run, batch=micro.to(run.device))
        loss.sum.backward()
        for name, (total, count) in {"loss": (loss.sum, loss.count), **loss.metrics}.items():
            sums[name] += float(total.detach())
            counts[name] += float(count)
    sums["flops"] = run.ledger.total_flops - spent
    add_up_processes(run, sums, counts)

    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    for gradient in gradients:
        gradient /= max(counts["loss"], 1.0)
    norm = torch.nn.utils.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], run.recipe.max_grad_norm
    )
    if not math.isfinite(float(norm)) or not math.isfinite(sums["loss"]):
        raise RunFailed(
            f"the loss or its gradient is not finite at step {run.step + 1} "
            f"(loss {sums['loss'] / max(counts['loss'], 1.0)}, gradient norm {float(norm)})",
            hint="try a lower --learning-rate; the last checkpoint is intact",
        )
    factor = learning_rate_factor(
        run.progress_at(run.step + 0.5), run.recipe.warmup, run.recipe.schedule
    )
    for group in optimizer.param_groups:
        group["lr"] = run.learning_rate * factor
    if counts["loss"]:  # else nothing was there to learn from, and momentum is to move nothing
        optimizer.step()
    run.step += 1
    # What nothing was counted for (rewards/chosen of a batch without good ones) has no mean.
    means = {name: sums[name] / counts[name] for name in counts if counts[name]}
    return {
        "loss": means.pop("loss", 0.0),
        "grad_norm": float(norm),
        "learning_rate": run.learning_rate * factor,
        **means,
    }


def spend_time(run: Run, started: float) -> float:
    """Charge the time since then to the ledger, and what memory was needed; the time now."""
    now = time.perf_counter()
    run.ledger.seconds += now - started
    run.ledger.see_memory(peak_memory(run.device))
    return now


def count_feedback(run: Run) -> None:
    """The rows of the last round that somebody had to make for it."""
    kind = FEEDBACK.get(run.algorithm.data.name)
    if kind is not None:
        # A row is paid for once, however often it is learnt from; each label of its steps is.
        new = (run.data.train[i] for i in run.order.unseen(run.round - 1))
        run.ledger.use_feedback(kind, sum(len(labels_in(row)) or 1 for row in new))


def add_up_sampling(run: Run, flops: float) -> None:
    """What the other processes spent on their shares of the round; one has nothing to do."""
    if run.accelerator.num_processes > 1:
        everyone = sum(gather_object([flops]))
        run.ledger.spend("generation", flops=everyone - flops, tokens=0)


def add_up_processes(run: Run, sums: dict[str, float], counts: dict[str, float]) -> None:
    """Sums, counts and gradients over all processes, in place. One process has nothing to do."""
    if run.accelerator.num_processes == 1:
        return
    everyone: list[tuple[dict[str, float], dict[str, float]]] = gather_object(
        [(dict(sums), dict(counts))]
    )
    own_flops = sums["flops"]
    for mine, index in ((sums, 0), (counts, 1)):
        mine.clear()
        for other in everyone:
            for name, value in other[index].items():
                mine[name] = mine.get(name, 0.0) + value
    # The ledger is the run's, not the process's: a budget is spent by all together.
    run.ledger.spend("update", flops=sums["flops"] - own_flops, tokens=0)
    parameters = [parameter for _, parameter in run.model.parameters()]
    flat = torch.cat(
        [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
    )
    flat = run.accelerator.reduce(flat, "sum")
    for parameter, gradient in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = gradient.view_as(parameter).clone()


def due(run: Run, every: int, since: int) -> bool:
    """Whether a multiple of `every` steps was passed after step `since`."""
    return every > 0 and run.step // every > since // every


def log(run: Run, metrics: dict[str, float]) -> None:
    """One row of metrics.jsonl, and the same to the trackers that were asked for."""
    if run.accelerator.is_main_process:
        run.record.metrics({"step": run.step, **metrics, "flops": run.ledger.total_flops})
    run.accelerator.log(metrics, step=run.step)

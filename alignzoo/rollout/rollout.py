"""A rollout: a batch of new completions, with their rewards and advantages as columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from alignzoo.algorithm import Traits
from alignzoo.batch import Batch, Example
from alignzoo.data import TURN_REWARDS, count_turns
from alignzoo.faults import THE_CORE
from alignzoo.functional import REWARD_PREFIX, nanstd, per_token
from alignzoo.rewards import score_completions, weighted_sum
from alignzoo.rollout.completions import batch_completions
from alignzoo.rollout.generate import Completion
from alignzoo.rollout.mismatch import INFERENCE, LogprobGap, weigh_tokens
from alignzoo.run import Run
from alignzoo.run.world import World

TIE = 1e-8  # rewards that differ by less count as equal


def rollout(run: Run, rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """Return a batch of one group of completions per row, with these columns:

    - `logprobs [N, T]`, in nats, with which the tokens were drawn (0 for those of others);
    - `ended [N]` (bool): not cut off by the maximum length;
    - `reward/NAME [N]` of each reward, and their weighted sum `rewards` (NaN if none applies);
    - `advantages`, `[N]` or `[N, T]`.

    If the sampler's log-probs are not the trainer's, `logprobs` are the trainer's, and
    `inference_logprobs [N, T]` the sampler's; `advantages [N, T]` are then multiplied by importance
    weights. All processes call it.
    """
    batch = with_rewards(run, rows, groups)
    log_completions(run, batch)
    return add_advantages(run, batch)


def with_rewards(
    run: Run, rows: Sequence[Example], groups: Sequence[Sequence[Completion]]
) -> Batch:
    """Return the batch of these completions with the columns of their rewards."""
    batch = batch_completions(rows, groups)
    scores = score_completions(run, batch)
    batch.columns |= {f"{REWARD_PREFIX}{name}": score for name, score in scores.items()}
    batch.columns["rewards"] = weighted_sum(scores, run.reward_weights)
    return batch


def add_advantages(run: Run, batch: Batch) -> Batch:
    """Add the column `advantages` to a batch with rewards; see `rollout`. All processes call it."""
    weights = replace_logprobs(run, batch) if run.external_logprobs else None
    advantages = run.hook.alignzoo_advantage(run=run, batch=batch)
    advantages = mask_unscored(advantages, batch["rewards"])
    if weights is not None and Traits.of(run.algorithm).advantages_are_weights:
        advantages = per_token(advantages) * weights
    batch.columns["advantages"] = advantages
    return batch


def mask_unscored(advantages: Tensor, rewards: Tensor) -> Tensor:
    """Set the advantages, `[N]` or `[N, T]`, of completions without a reward to 0."""
    unscored = rewards.isnan().reshape(-1, *[1] * (advantages.dim() - 1))
    return advantages.masked_fill(unscored, 0.0)


@torch.no_grad()
def compute_column(run: Run, batch: Batch, forward: Callable[[Batch], Tensor]) -> Tensor:
    """Compute a column of a round in micro-batches, without gradient and without dropout.

    `forward` maps a micro-batch on the device of the run to `[n]` or `[n, t]`; the column is `[N]`
    or `[N, T]`, on the CPU.
    """
    with run.model.evaluating():
        return batch.piecewise(lambda micro: forward(micro.to(run.device)), run.micro_tokens)


def replace_logprobs(run: Run, batch: Batch) -> Tensor | None:
    """Replace the sampler's log-probs by the policy's own, and keep them as another column.

    Return the importance weights, `[N, T]`, or None if `--importance-cap` is 0.
    """
    own = compute_column(
        run, batch, lambda micro: run.policy(micro, temperature=run.temperature).logprobs
    )
    gap = LogprobGap()
    gap.add(batch, own)
    run.round_metrics.add(gap.reduce(run.world), THE_CORE)
    batch.columns[INFERENCE], batch.columns["logprobs"] = batch["logprobs"], own
    return weigh_tokens(run, batch)


def log_completions(run: Run, batch: Batch) -> None:
    """Log rewards and lengths of the whole round. All processes call it."""
    columns = {name: x for name, x in batch.columns.items() if name.startswith(REWARD_PREFIX)}
    columns |= {"rewards": batch["rewards"], "ended": batch["ended"]}
    columns["lengths"] = batch.mask.sum(-1)  # tokens that the policy wrote
    if TURN_REWARDS in batch.columns:
        columns["turns"] = count_turns(batch.mask)
    everywhere = {name: gather_groups(run.world, batch, x) for name, x in columns.items()}
    run.round_metrics.add(summarise_completions(everywhere), THE_CORE)


def gather_groups(world: World, batch: Batch, column: Tensor) -> Tensor:
    """Return a column `[N]` of all processes as `[B, G]`, in the order of the rows."""
    return torch.tensor(world.gather(batch.groups(column.double()).tolist()), dtype=torch.float64)


def summarise_completions(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the metrics of columns `[B, G]`, under the names that TRL gives them.

    NaN is ignored. Standard deviations are those of a sample (n - 1), 0 for a single value. The
    mean of no values is left out.
    """
    rewards, lengths = columns["rewards"], columns["lengths"]
    found = {
        "reward": float(rewards.nanmean()),
        "reward_std": float(nanstd(rewards.flatten())),
        "frac_reward_zero_std": float(is_tied(rewards).double().mean()),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
        "completions/mean_terminated_length": float(lengths[columns["ended"] > 0].mean()),
        "completions/clipped_ratio": float(1 - columns["ended"].mean()),
    }
    if "turns" in columns:
        found["completions/mean_turns"] = float(columns["turns"].mean())
    for name, scores in columns.items():
        if name.startswith(REWARD_PREFIX):
            label = name.removeprefix(REWARD_PREFIX)
            found[f"rewards/{label}/mean"] = float(scores.nanmean())
            found[f"rewards/{label}/std"] = float(nanstd(scores.flatten()))
            if scores.isnan().any():
                found[f"rewards/{label}/missing"] = float(scores.isnan().double().mean())
    return {name: value for name, value in found.items() if not math.isnan(value)}


def is_tied(rewards: Tensor) -> Tensor:
    """Return for `rewards [B, G]` which groups have only equal rewards or none: bool, `[B]`."""
    high = rewards.nan_to_num(-torch.inf).max(1).values  # (B,)
    low = rewards.nan_to_num(torch.inf).min(1).values  # (B,)
    return (high - low).clamp(min=0.0) < TIE

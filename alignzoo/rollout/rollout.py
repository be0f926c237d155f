"""Fresh completions of prompts, and the experience that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignzoo.algorithm import credits_of
from alignzoo.batch import Batch, Example, collate
from alignzoo.functional import REWARD_PREFIX, importance_weights, nanstd, per_token
from alignzoo.rewards import weighted_sum
from alignzoo.rewards.score import judge
from alignzoo.rollout.generate import Completion

if TYPE_CHECKING:
    from alignzoo.run.run import Run


def experience(run: Run, rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """A group of completions per row, with what came of them as columns: `logprobs [N, T]` as they
    were drawn, `ended [N]`, `reward/NAME [N]` of each reward and their weighted sum `rewards` (NaN
    where none applies), and `advantages`.

    Of a sampler whose log-probs are not the trainer's, `logprobs` are the policy's own,
    `sampler_logprobs [N, T]` those that the tokens were drawn with, and `advantages [N, T]` are
    weighed by what both differ by.
    """
    batch = judged(run, rows, groups)
    run.observed = observe(run, batch)
    return credit(run, batch)


@torch.no_grad()
def own_logprobs(run: Run, batch: Batch) -> Tensor | None:
    """Put the policy's log-probs in the place of the sampler's, which become a column of their own;
    what a token weighs, `[N, T]`, unless all are to weigh the same."""
    with run.model.evaluating():
        own = batch.piecewise(
            lambda micro: run.policy(micro.to(run.device), temperature=run.temperature).logprobs,
            run.micro_tokens,
        )
    seen = Mismatch()
    seen.see(batch, own)
    run.observed |= seen.everyone(run)
    batch.columns[SAMPLED], batch.columns["logprobs"] = batch["logprobs"], own
    if not run.recipe.importance_cap:
        return None
    weights = importance_weights(own, batch[SAMPLED], run.recipe.importance_cap)
    run.observed |= observe_weights(run, batch, weights)
    return weights


def judged(run: Run, rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """The same with the rewards, before anybody has observed it or given credit."""
    batch = gathered(rows, groups)
    scores = judge(run, batch)
    batch.columns |= {f"{REWARD_PREFIX}{name}": score for name, score in scores.items()}
    batch.columns["rewards"] = weighted_sum(scores, run.reward_weights)
    return batch


def gathered(rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """Rows and their completions as a batch, with the columns `logprobs` and `ended`."""
    batch = collate(
        [
            replace(
                row,
                completions=[c.tokens for c in group],
                columns={"ended": [c.ended for c in group]},
            )
            for row, group in zip(rows, groups, strict=True)
        ]
    )
    batch.columns["logprobs"] = torch.zeros(batch.tokens.shape)
    drawn = (completion for group in groups for completion in group)
    for row, completion in zip(batch.columns["logprobs"], drawn, strict=True):
        row[: len(completion.logprobs)] = torch.tensor(completion.logprobs)
    return batch


def credit(run: Run, batch: Batch) -> Batch:
    """The batch, which was judged, with the column `advantages`; see `experience`. All processes
    call it."""
    weights = own_logprobs(run, batch) if run.sampler.foreign else None
    advantages = credited(run.hook.alignzoo_advantage(run=run, batch=batch), batch["rewards"])
    if weights is not None and credits_of(run.algorithm):
        advantages = per_token(advantages) * weights
    batch.columns["advantages"] = advantages
    return batch


def credited(advantages: Tensor, rewards: Tensor) -> Tensor:
    """The advantages, `[N]` or `[N, T]`, with 0 for completions that no reward applies to."""
    unjudged = rewards.isnan().reshape(-1, *[1] * (advantages.dim() - 1))
    return advantages.masked_fill(unjudged, 0.0)


TIE = 1e-8  # rewards that differ by less are the same


def observe(run: Run, batch: Batch) -> dict[str, float]:
    """The numbers of the whole round, all processes together. All of them call it."""
    columns = {name: x for name, x in batch.columns.items() if name.startswith(REWARD_PREFIX)}
    columns |= {"rewards": batch["rewards"], "ended": batch["ended"], "lengths": batch.lengths}
    return summary({name: everyone(run, batch, x) for name, x in columns.items()})


def observe_weights(run: Run, batch: Batch, weights: Tensor) -> dict[str, float]:
    """What tokens weigh that count, of `[N, T]`, over all processes. All of them call it."""
    gathered = run.gather([weights[batch.mask].tolist()])
    everyone = [weight for part in gathered for weight in part]
    if not everyone:
        return {}
    found = {"min": min(everyone), "mean": fmean(everyone), "max": max(everyone)}
    return {f"sampling/importance_sampling_ratio/{name}": value for name, value in found.items()}


def everyone(run: Run, batch: Batch, column: Tensor) -> Tensor:
    """A column of all processes, `[B, G]` in the order of the rows."""
    return torch.tensor(run.gather(batch.groups(column.double()).tolist()), dtype=torch.float64)


def summary(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """From columns `[B, G]`, under the names that TRL gives to these numbers.

    Spreads are sample standard deviations (n - 1), over what is not NaN; 0 for a single value.
    A mean of nothing is left out.
    """
    rewards, lengths = columns["rewards"], columns["lengths"]
    found = {
        "reward": float(rewards.nanmean()),
        "reward_std": float(nanstd(rewards.flatten())),
        "frac_reward_zero_std": float(tied(rewards).double().mean()),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
        "completions/mean_terminated_length": float(lengths[columns["ended"] > 0].mean()),
        "completions/clipped_ratio": float(1 - columns["ended"].mean()),
    }
    for name, scores in columns.items():
        if name.startswith(REWARD_PREFIX):
            label = name.removeprefix(REWARD_PREFIX)
            found[f"rewards/{label}/mean"] = float(scores.nanmean())
            found[f"rewards/{label}/std"] = float(nanstd(scores.flatten()))
            if scores.isnan().any():
                found[f"rewards/{label}/missing"] = float(scores.isnan().double().mean())
    return {name: value for name, value in found.items() if not math.isnan(value)}


def tied(rewards: Tensor) -> Tensor:
    """Which groups of `[B, G]` have rewards that are all the same, or none: bool, `[B]`."""
    high = rewards.nan_to_num(-torch.inf).max(1).values
    low = rewards.nan_to_num(torch.inf).min(1).values
    return (high - low).clamp(min=0.0) < TIE


SAMPLED = "sampler_logprobs"  # the column of log-probs that are not the trainer's
DIFFERENCE = "sampling/sampling_logp_difference"  # as TRL calls it


@dataclass
class Mismatch:
    """|log pi_trainer - log pi_sampler| per token, in nats, summed up over what was seen of it."""

    total: float = 0.0
    count: int = 0
    largest: float = 0.0

    def see(self, batch: Batch, logprobs: Tensor) -> None:
        """A part of the round, and the trainer's log-probs `[N, T]` of its tokens. A token without
        a log-prob of the sampler (NaN) has no part in it; nor has a batch that nobody drew."""
        if "logprobs" not in batch.columns:
            return
        drawn = batch["logprobs"].to(logprobs.device)
        apart = (logprobs.detach() - drawn).abs()[batch.mask.to(logprobs.device) & ~drawn.isnan()]
        if apart.numel():
            self.total += float(apart.double().sum())
            self.count += apart.numel()
            self.largest = max(self.largest, float(apart.max()))

    def everyone(self, run: Run) -> dict[str, float]:
        """Mean and largest, of all processes together; nothing of no tokens. All call it."""
        parts = run.gather([(self.total, self.count, self.largest)])
        totals, counts, largest = zip(*parts, strict=True)
        if not sum(counts):
            return {}
        return {f"{DIFFERENCE}/mean": sum(totals) / sum(counts), f"{DIFFERENCE}/max": max(largest)}

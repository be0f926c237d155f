"""Dynamic sampling: replace groups with zero reward variance by groups of other prompts.

Section 3.2 of Yu et al. 2025 (DAPO), https://arxiv.org/abs/2503.14476.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo import Batch, Example, Run, concat
from alignzoo.rollout import add_advantages, complete, is_tied, log_completions, with_rewards


def sample_until_full(run: Run, rows: list[Example], size: int, resampling_rounds: int) -> Batch:
    """Return a round of groups whose rewards differ, at most one for each of `rows`.

    Each resampling round samples as many further prompts as groups are missing. Each process fills
    its own shard. Metrics are those of the first sample: the policy on the prompts of the data.
    """
    first = sampled = with_rewards(run, rows, complete(run, rows, size))
    kept, total = [keep_untied(sampled)], len(sampled)
    for index in range(1, resampling_rounds + 1):
        missing = len(rows) - sum(map(len, kept))
        if not missing:
            break
        others = further_prompts(run, missing, index)
        sampled = with_rewards(run, others, complete(run, others, size, f"dynamic {index}"))
        kept.append(keep_untied(sampled))
        total += len(sampled)
    found = sum(map(len, kept))
    log_completions(run, first)
    run.round_metrics.add(resampling_metrics(run, found, total, len(rows)))
    # The processes exchange full shards to compute advantages: fill up with ties, then drop them.
    ties = torch.nonzero(~is_untied(first)).flatten().tolist()
    batch = add_advantages(run, concat([*kept, first.select(ties[: len(rows) - found])]))
    return batch.select(range(found))


def is_untied(batch: Batch) -> Tensor:
    """Return which groups have rewards that differ, bool, `[B]`."""
    return ~is_tied(batch.groups(batch["rewards"]))


def keep_untied(batch: Batch) -> Batch:
    """Return the groups whose rewards differ."""
    return batch.select(torch.nonzero(is_untied(batch)).flatten().tolist())


def further_prompts(run: Run, count: int, index: int) -> list[Example]:
    """Return random prompts of the data.

    They depend on the run's seed, the round, the resampling round and the process alone: the order
    of the data stays the same, and a resumed run samples them again.
    """
    seed = run.seed_for("dynamic", run.round, index, run.world.rank)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(run.data.train), (count,), generator=generator)
    return [run.data.train[place] for place in places.tolist()]


def resampling_metrics(run: Run, found: int, total: int, wanted: int) -> dict[str, float]:
    """Return the metrics `dynamic/...` over all processes."""
    counts = run.gather([(found, total, wanted)])
    found, total, wanted = (sum(column) for column in zip(*counts, strict=True))
    return {
        "dynamic/kept": found / total,
        "dynamic/filled": found / wanted,
        "dynamic/drawn": total / wanted,
    }

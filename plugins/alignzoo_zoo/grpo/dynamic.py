"""Dynamic sampling: groups of ties, which teach nothing, are replaced by other prompts' groups.

Section 3.2 of Yu et al. 2025 (DAPO), https://arxiv.org/abs/2503.14476.
"""

from __future__ import annotations

import torch

from alignzoo import Batch, Example, Run, concat
from alignzoo.rollout import add_advantages, complete, is_tied, log_completions, with_rewards


def differing_round(run: Run, rows: list[Example], size: int, draws: int) -> Batch:
    """The experience of a round as far as its groups differ in reward.

    As many further prompts are drawn as groups are missing, up to `draws` times. Each process
    fills its own share. What is observed of the round is its first draw: what the policy does on
    the prompts as they come.
    """
    first = drawn = with_rewards(run, rows, complete(run, rows, size))
    kept, total = [differing(drawn)], len(drawn)
    for draw in range(1, draws + 1):
        missing = len(rows) - sum(map(len, kept))
        if not missing:
            break
        others = further(run, missing, draw)
        drawn = with_rewards(run, others, complete(run, others, size, f"dynamic {draw}"))
        kept.append(differing(drawn))
        total += len(drawn)
    found = sum(map(len, kept))
    log_completions(run, first)
    run.round_metrics.add(shares(run, found, total, len(rows)))
    # Credit is given to full shares, as the processes exchange them; ties get none, and go.
    ties = torch.nonzero(~differs(first)).flatten().tolist()
    batch = add_advantages(run, concat([*kept, first.select(ties[: len(rows) - found])]))
    return batch.select(range(found))


def differs(batch: Batch) -> torch.Tensor:
    """Which groups have rewards that are not all the same, `[B]`."""
    return ~is_tied(batch.groups(batch["rewards"]))


def differing(batch: Batch) -> Batch:
    return batch.select(torch.nonzero(differs(batch)).flatten().tolist())


def further(run: Run, count: int, draw: int) -> list[Example]:
    """Prompts that follow from the seed, the round, the draw and the process alone, so that the
    order of the data is what it is without them, and a resumed run draws them again."""
    seed = run.seed_for("dynamic", run.round, draw, run.world.rank)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(run.data.train), (count,), generator=generator)
    return [run.data.train[place] for place in places.tolist()]


def shares(run: Run, found: int, total: int, wanted: int) -> dict[str, float]:
    """What is logged, of all processes together."""
    everyone = run.gather([(found, total, wanted)])
    found, total, wanted = (sum(column) for column in zip(*everyone, strict=True))
    return {
        "dynamic/kept": found / total,
        "dynamic/filled": found / wanted,
        "dynamic/drawn": total / wanted,
    }

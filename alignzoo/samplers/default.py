"""The sampler of a run that names no other: the rows as they are, or fresh completions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.hookspecs import hookimpl
from alignzoo.policy_gradient import REWARD
from alignzoo.rewards import judge, weighted_sum
from alignzoo.samplers.generate import generate
from alignzoo.samplers.observe import observe
from alignzoo.samplers.sampling import Sampling

if TYPE_CHECKING:
    from alignzoo.run import Run


class DefaultSampler:
    """Offline rows become a batch; prompts get completions, then rewards, then advantages."""

    @hookimpl(trylast=True)
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        if all(row.completions for row in rows):
            return collate(rows)
        return experience(run, rows)


def experience(run: Run, rows: list[Example]) -> Batch:
    """`group_size` completions per prompt, with what came of them as columns: `logprobs [N, T]` as
    they were drawn, `ended [N]`, `reward/NAME [N]` of each reward and their weighted sum `rewards`
    (NaN where none applies), and `advantages`."""
    size = getattr(run.algorithm, "group_size", 1)
    repeated = [row for row in rows for _ in range(size)]
    run.model.eval()
    completions = generate(
        run.model,
        [row.prompt for row in repeated],
        [
            run.seed_for("sample", run.round, run.accelerator.process_index, n)
            for n in range(len(repeated))
        ],
        Sampling.of(run.recipe, run.codec),
    )
    run.model.train()
    groups = [completions[i : i + size] for i in range(0, len(completions), size)]
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
    work = run.model.work(batch)
    run.ledger.spend("generation", flops=run.model.flops.forward(*work), tokens=work.tokens)
    logprobs = torch.zeros(batch.tokens.shape)
    for n, completion in enumerate(completions):
        logprobs[n, : len(completion.logprobs)] = torch.tensor(completion.logprobs)
    batch.columns["logprobs"] = logprobs
    scores = judge(run, batch)
    batch.columns |= {f"{REWARD}{name}": score for name, score in scores.items()}
    batch.columns["rewards"] = weighted_sum(scores, run.reward_weights)
    run.observed = observe(run, batch)
    batch.columns["advantages"] = credited(
        run.hook.alignzoo_advantage(run=run, batch=batch), batch["rewards"]
    )
    return batch


def credited(advantages: Tensor, rewards: Tensor) -> Tensor:
    """The advantages, `[N]` or `[N, T]`, with 0 for completions that no reward applies to."""
    unjudged = rewards.isnan().reshape(-1, *[1] * (advantages.dim() - 1))
    return advantages.masked_fill(unjudged, 0.0)

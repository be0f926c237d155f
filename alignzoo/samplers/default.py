"""The sampler of a run that names no other: the rows as they are, or fresh completions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from alignzoo.batch import Batch, Example, collate
from alignzoo.hookspecs import hookimpl
from alignzoo.samplers.generate import generate

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
    """`group_size` completions per prompt, with columns `logprobs`, `rewards`, `advantages`."""
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
        max_new_tokens=run.recipe.max_new_tokens,
        temperature=run.recipe.temperature,
        stop_ids=run.codec.stop_ids,
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
    # `generate` computes a prompt anew for each of its completions.
    work = run.model.work(batch, shared=False)
    run.ledger.spend("generation", flops=run.model.flops.forward(*work), tokens=work.tokens)
    logprobs = torch.zeros(batch.tokens.shape)
    for n, completion in enumerate(completions):
        logprobs[n, : len(completion.logprobs)] = torch.tensor(completion.logprobs)
    batch.columns["logprobs"] = logprobs
    rewards = torch.stack(run.hook.alignzoo_reward(run=run, batch=batch))
    batch.columns["rewards"] = rewards.nansum(0)
    batch.columns["advantages"] = run.hook.alignzoo_advantage(run=run, batch=batch)
    return batch

"""Fresh completions of prompts, and the experience that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.policy_gradient import REWARD
from alignzoo.rewards import judge, weighted_sum
from alignzoo.samplers.generate import Completion, generate
from alignzoo.samplers.observe import observe
from alignzoo.samplers.sampling import Sampling

if TYPE_CHECKING:
    from alignzoo.run import Run


def complete(
    run: Run, rows: Sequence[Example], size: int, draw: str = "sample", mixture: float = 0.0
) -> list[list[Completion]]:
    """`size` completions of each prompt, under the policy, or inside `run.model.as_reference()`
    under the reference; or, m being `mixture`, under pi^(1 - m) pi_ref^m, token by token.

    Those of one round and `draw` are always the same: whoever draws a second time in a round gives
    that another name.
    """
    training = run.model.training
    run.model.eval()
    try:
        completions = generate(
            run.model,
            [row.prompt for row in rows for _ in range(size)],
            [
                run.seed_for(draw, run.round, run.accelerator.process_index, n)
                for n in range(len(rows) * size)
            ],
            Sampling.of(run.recipe, run.codec),
            mixture=mixture,
        )
    finally:
        run.model.train(training)
    groups = [completions[i : i + size] for i in range(0, len(completions), size)]
    batch = gathered(rows, groups)
    work = run.model.work(batch)
    run.ledger.spend("generation", flops=run.model.flops.forward(*work), tokens=work.tokens)
    if mixture:  # each token was asked of both
        work = run.model.work(batch, reference=True)
        run.ledger.spend("reference", flops=run.model.flops.forward(*work), tokens=work.tokens)
    return groups


def experience(run: Run, rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """A group of completions per row, with what came of them as columns: `logprobs [N, T]` as they
    were drawn, `ended [N]`, `reward/NAME [N]` of each reward and their weighted sum `rewards` (NaN
    where none applies), and `advantages`."""
    batch = judged(run, rows, groups)
    run.observed = observe(run, batch)
    return credit(run, batch)


def judged(run: Run, rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """The same with the rewards, before anybody has observed it or given credit."""
    batch = gathered(rows, groups)
    scores = judge(run, batch)
    batch.columns |= {f"{REWARD}{name}": score for name, score in scores.items()}
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
    """The batch, which was judged, with the column `advantages`. All processes call it."""
    advantages = run.hook.alignzoo_advantage(run=run, batch=batch)
    batch.columns["advantages"] = credited(advantages, batch["rewards"])
    return batch


def credited(advantages: Tensor, rewards: Tensor) -> Tensor:
    """The advantages, `[N]` or `[N, T]`, with 0 for completions that no reward applies to."""
    unjudged = rewards.isnan().reshape(-1, *[1] * (advantages.dim() - 1))
    return advantages.masked_fill(unjudged, 0.0)

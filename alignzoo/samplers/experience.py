"""Fresh completions of prompts, and the experience that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignzoo.algorithm import credits_of
from alignzoo.batch import Batch, Example, collate
from alignzoo.policy_gradient import REWARD, importance_weights, per_token
from alignzoo.rewards import judge, weighted_sum
from alignzoo.samplers.generate import Completion, generate
from alignzoo.samplers.mismatch import SAMPLED, Mismatch
from alignzoo.samplers.observe import observe, observe_weights
from alignzoo.samplers.sampling import Sampling

if TYPE_CHECKING:
    from alignzoo.run import Run


def complete(
    run: Run, rows: Sequence[Example], size: int, draw: str = "sample", mixture: float = 0.0
) -> list[list[Completion]]:
    """`size` completions of each prompt, under the policy, by the run's sampler; or in this process
    inside `run.model.as_reference()` under the reference, and, m being `mixture`, under
    pi^(1 - m) pi_ref^m, token by token.

    Those of one round and `draw` are always the same: whoever draws a second time in a round gives
    that another name.
    """
    if mixture or run.model.is_reference:
        groups = in_process(run, rows, size, draw, mixture)
    else:
        groups = run.sampler.complete(run, rows, size, draw)
    batch = gathered(rows, groups)
    work = run.model.work(batch)
    run.ledger.spend("generation", flops=run.model.flops.forward(*work), tokens=work.tokens)
    if mixture:  # each token was asked of both
        work = run.model.work(batch, reference=True)
        run.ledger.spend("reference", flops=run.model.flops.forward(*work), tokens=work.tokens)
    return groups


def in_process(
    run: Run, rows: Sequence[Example], size: int, draw: str, mixture: float = 0.0
) -> list[list[Completion]]:
    """The same from the model in memory, whichever it is at this moment."""
    with run.model.evaluating():
        completions = generate(
            run.model,
            [row.prompt for row in rows for _ in range(size)],
            seeds(run, len(rows) * size, draw),
            Sampling.of(run.recipe, run.codec),
            mixture=mixture,
        )
    return [completions[i : i + size] for i in range(0, len(completions), size)]


def seeds(run: Run, count: int, draw: str) -> list[int]:
    """One for each completion that this process draws in this round, below 2^56."""
    index = run.accelerator.process_index
    return [run.seed_for(draw, run.round, index, n) for n in range(count)]


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

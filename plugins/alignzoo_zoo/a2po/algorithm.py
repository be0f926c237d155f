"""A*-PO, optimal advantage regression, Brantley et al. 2025."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from alignzoo import Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.files import digest
from alignzoo.rollout import add_advantages, complete, log_completions, with_rewards
from alignzoo_zoo.a2po.losses import optimal_values, regression_loss
from alignzoo_zoo.fresh_pairs import policy_metrics

KNOWN = "known"  # in the state, by prompt: V*, and whether any completion got a reward


@dataclass(eq=False)
class A2PO(OnPolicy):
    """A*-PO: regression on optimal advantages, one completion per prompt (https://arxiv.org/abs/2505.20686)"""

    group_size: int = field(default=1, init=False)
    value_samples: Annotated[
        int, "completions of the reference that estimate the value of a prompt", Ge(1), Le(4096)
    ] = 8
    value_beta: Annotated[float, "KL penalty in the value, in reward per nat", Gt(0)] = 0.5
    beta: Annotated[float, "KL penalty in the regression, in reward per nat", Gt(0)] = 1e-3
    skip_unsolved: Annotated[
        bool, "leave out prompts of which all completions of the reference have the reward 0"
    ] = True

    advantages_are_weights = False  # they are the target of a regression

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Draw a completion of each prompt, and look up or estimate the value of the prompt."""
        batch = with_rewards(run, rows, complete(run, rows, 1))
        log_completions(run, batch)
        batch.columns["value"], solved = self.values(run, rows)
        batch = add_advantages(run, batch)
        kept = ~(batch["rewards"] + batch["value"]).isnan()
        if self.skip_unsolved:
            kept &= solved
        run.log_mean(
            {
                "a2po/value": batch["value"],
                "a2po/advantage": batch["advantages"][kept],
                "a2po/skipped": 1.0 - kept.float(),
            }
        )
        batch = batch.keep(kept)
        batch.columns["reference"] = self.reference_logprobs(run, batch)
        return batch

    def values(self, run: Run, rows: list[Example]) -> tuple[Tensor, Tensor]:
        """Return V* of each row, and whether a completion of the reference got a reward, `[B]`.

        A prompt's value is estimated when it comes first, and kept in the state.
        """
        known = run.state_of(self).setdefault(KNOWN, {})
        keys = [digest(repr(row.prompt)) for row in rows]
        if not all(key in known for key in run.gather(keys)):  # all processes draw, or none
            with run.model.as_reference():
                groups = complete(run, rows, self.value_samples, stream="value")
            drawn = with_rewards(run, rows, groups)
            rewards = drawn.groups(drawn["rewards"])  # (B, n)
            found = optimal_values(rewards, self.value_beta).tolist()
            solved = (rewards.nan_to_num(0.0) != 0).any(1).tolist()
            for key, *estimate in run.gather(list(zip(keys, found, solved, strict=True))):
                known.setdefault(key, estimate)
        estimates = [known[key] for key in keys]
        values, was_solved = ([estimate[n] for estimate in estimates] for n in (0, 1))
        return torch.tensor(values), torch.tensor(was_solved)

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return the optimal advantage r - V*, `[N]`; 0 if either is unknown."""
        return (batch["rewards"] - batch["value"]).nan_to_num(0.0)

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the squared error of the implicit reward, one value per completion."""
        policy = self.policy(run, batch, entropy=True)
        log_ratio = batch.total(policy.logprobs - batch["reference"])
        losses = regression_loss(log_ratio, batch["advantages"], self.beta)
        metrics = policy_metrics(policy.logprobs, batch["reference"], policy.entropy, batch.mask)
        return Loss.per_sequence(losses, metrics)

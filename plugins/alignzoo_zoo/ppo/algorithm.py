"""Proximal Policy Optimization, Schulman et al. 2017, as RLHF has it (Ouyang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from alignzoo import (
    BadInput,
    Batch,
    Iterations,
    Loss,
    Needs,
    OnPolicy,
    RoundPrompts,
    Run,
    hookimpl,
)
from alignzoo.functional import (
    clip_metrics,
    clipped_surrogate,
    importance_ratio,
    kl_estimate,
    whiten,
)
from alignzoo.rollout import compute_column
from alignzoo_zoo.ppo.advantages import adapted_beta, generalized_advantages, token_rewards
from alignzoo_zoo.ppo.losses import clipped_value_loss

BETA = "beta"  # the adapted coefficient, in the state


@dataclass(eq=False)
class PPO(OnPolicy):
    """Proximal Policy Optimization, from prompts and a reward (https://arxiv.org/abs/1707.06347)"""

    group_size: Annotated[int, "completions per prompt", Ge(1), Le(4096)] = 4
    iterations: Iterations = 4
    round_prompts: RoundPrompts = 32
    beta: Annotated[float, "KL penalty, in reward per nat", Ge(0)] = 0.05
    kl_estimator: Annotated[Literal["k1", "k3"], "estimator of the KL of a token in its reward"] = (
        "k1"
    )
    kl_target: Annotated[
        float | None, "target KL per completion that --beta adapts to [default: fixed beta]", Gt(0)
    ] = None
    kl_horizon: Annotated[int, "horizon of the adaptation, in completions", Ge(1)] = 10_000
    epsilon: Annotated[float, "clip range of the ratio", Gt(0), Lt(1)] = 0.2
    value_epsilon: Annotated[float, "value clip range", Gt(0)] = 0.2
    value_coef: Annotated[float, "value loss coefficient", Ge(0)] = 0.1
    values: Annotated[
        Literal["shared", "own"],
        "backbone of the critic: the policy's, or one with its own adapter",
    ] = "shared"
    gamma: Annotated[float, "discount factor", Gt(0), Le(1)] = 1.0
    lam: Annotated[float, "GAE lambda", Ge(0), Le(1)] = 0.95
    whiten_rewards: Annotated[bool, "scale the rewards of a round to a variance of 1"] = False
    missing_eos_penalty: Annotated[
        float, "subtracted from the score of a completion without EOS", Ge(0)
    ] = 0.0

    known_exceptions = {"groups": "advantages are whitened over the round, as in the paper's code"}

    def __post_init__(self) -> None:
        if self.kl_target is not None and self.beta == 0:
            raise BadInput(
                "option --kl-target: a --beta of 0 stays 0 and cannot adapt",
                hint="start with a small one, such as --beta 0.01",
            )

    @property
    def needs(self) -> Needs:
        """Keep a value head, and a reference if there is a KL penalty."""
        return Needs(reference=self.beta > 0, values=self.values)

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return GAE of scores and KL, whitened over the round, `[N, T]`; add the loss's columns.

        The columns are `has_reward [N]`, `values`, `returns` and, with `beta`, `kl`, `[N, T]` each.
        """
        beta = run.state_of(self).get(BETA, self.beta)
        scores = batch["rewards"] - self.missing_eos_penalty * ~batch["ended"]  # (N,)
        batch.columns["has_reward"] = ~scores.isnan()
        kl = torch.zeros_like(batch["logprobs"])  # (N, T)
        if self.beta:
            reference = self.reference_logprobs(run, batch)
            kl = batch.columns["kl"] = kl_estimate(batch["logprobs"], reference, self.kl_estimator)
        values = compute_column(run, batch, run.values)  # (N, T)
        mask = self.rewarded_mask(batch)
        rewards = token_rewards(scores.nan_to_num(0.0), kl, beta, batch.mask)
        if self.whiten_rewards:
            rewards = whiten(rewards, run.gather_masked(rewards, mask), shift_mean=False)
        advantages, returns = generalized_advantages(rewards, values, mask, self.gamma, self.lam)
        batch.columns |= {"values": values, "returns": returns}
        self.log_objective(run, batch, scores, beta * kl)
        return whiten(advantages, run.gather_masked(advantages, mask))

    def log_objective(self, run: Run, batch: Batch, scores: Tensor, penalty: Tensor) -> None:
        """Log the objective of the round, from scores `[N]` and KL penalties `[N, T]`."""
        beta = run.state_of(self).get(BETA, self.beta)
        numbers = {
            "objective/scores": scores,
            "objective/entropy": -batch.total(batch["logprobs"]),
            "objective/non_score_reward": -batch.total(penalty),
            "objective/rlhf_reward": scores - batch.total(penalty),
            "objective/kl_coef": torch.full_like(scores, beta),
        }
        if self.beta:
            numbers["objective/kl"] = batch.total(batch["kl"])
        has_reward = batch["has_reward"]
        run.log_mean({name: x[has_reward] for name, x in numbers.items()})
        ended = sum(run.gather(batch["ended"].tolist()))
        run.round_metrics.add({"val/num_eos_tokens": float(ended)})
        mask = self.rewarded_mask(batch)
        returns = run.gather_masked(batch["returns"], mask)
        errors = run.gather_masked(batch["returns"] - batch["values"], mask)
        explained = 1 - float(errors.var() / (returns.var() + 1e-8))
        run.round_metrics.add({"val/var_explained": explained})

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the policy's clipped loss plus `value_coef` times the critic's, per token."""
        policy = self.policy(run, batch, entropy=True, values=True)
        log_ratio = policy.logprobs - batch["logprobs"]
        ratio, advantages = importance_ratio(log_ratio), batch["advantages"]
        bounds = 1 - self.epsilon, 1 + self.epsilon
        actor = clipped_surrogate(ratio, advantages, *bounds)
        critic, value_clipped = clipped_value_loss(
            policy.values, batch["values"], batch["returns"], self.value_epsilon
        )
        clipped = clip_metrics(ratio, advantages, *bounds)["clip_ratio/region_mean"]
        metrics = {
            "loss/policy_avg": actor,
            "loss/value_avg": critic,
            "policy/approxkl_avg": log_ratio**2 / 2,
            "policy/clipfrac_avg": clipped,
            "val/clipfrac_avg": value_clipped,
            "val/ratio": ratio,
            "entropy": policy.entropy,
        }
        if self.beta:
            metrics["kl"] = batch["kl"]
        return Loss.per_token(actor + self.value_coef * critic, self.rewarded_mask(batch), metrics)

    @hookimpl
    def alignzoo_round_end(self, run: Run) -> None:
        """Adapt beta to the KL of the round."""
        if self.kl_target is not None:
            state = run.state_of(self)
            state[BETA] = adapted_beta(
                state.get(BETA, self.beta),
                run.round_metrics.numbers["objective/kl"],
                self.kl_target,
                self.group_size * run.schedule.rows_per_round,
                self.kl_horizon,
            )

    @staticmethod
    def rewarded_mask(batch: Batch) -> Tensor:
        """Return the mask `[N, T]` without the completions to which no reward applies."""
        return batch.mask & batch["has_reward"][:, None]

"""Proximal Policy Optimization, Schulman et al. 2017, as RLHF has it (Ouyang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from alignzoo import BadInput, Batch, Loss, Needs, OnPolicy, Run, hookimpl
from alignzoo.functional import (
    clip_metrics,
    clipped_surrogate,
    importance_ratio,
    kl_estimate,
    whiten,
)
from alignzoo_zoo.ppo.credit import adapted_beta, generalized_advantages, token_rewards
from alignzoo_zoo.ppo.losses import clipped_value_loss

BETA = "ppo/beta"  # the coefficient as it has been adapted, in the state of the run


@dataclass(eq=False)
class PPO(OnPolicy):
    """Proximal Policy Optimization, from prompts and a reward (https://arxiv.org/abs/1707.06347)"""

    group_size: Annotated[int, "completions per prompt", Ge(1)] = 4
    iterations: Annotated[int, "passes over the completions of a round", Ge(1)] = 4
    round_prompts: Annotated[
        int, "prompts per round, in steps of --batch-size (0: one step's)", Ge(0)
    ] = 32
    beta: Annotated[float, "cost of the KL to the reference, in reward per nat", Ge(0)] = 0.05
    kl_estimator: Annotated[
        Literal["k1", "k3"], "how the KL of a token is estimated in its reward"
    ] = "k1"
    kl_target: Annotated[
        float | None,
        "nats of KL per completion that --beta is steered to [default: it stays]",
        Gt(0),
    ] = None
    kl_horizon: Annotated[int, "completions over which --beta is steered", Ge(1)] = 10_000
    epsilon: Annotated[float, "how far the ratio may go before it is clipped", Gt(0), Lt(1)] = 0.2
    value_epsilon: Annotated[float, "how far a value may go in a round", Gt(0)] = 0.2
    value_coef: Annotated[float, "weight of the critic's loss", Ge(0)] = 0.1
    values: Annotated[
        Literal["shared", "own"],
        "the critic's trunk: the policy's, or one with its own adapter",
    ] = "shared"
    gamma: Annotated[float, "discount of a token's worth for the one before", Gt(0), Le(1)] = 1.0
    lam: Annotated[float, "GAE: 1 sums up rewards, 0 trusts the critic", Ge(0), Le(1)] = 0.95
    whiten_rewards: Annotated[bool, "scale the rewards of a round to a variance of 1"] = False
    missing_eos_penalty: Annotated[
        float, "taken from the score of a completion that did not end", Ge(0)
    ] = 0.0

    def __post_init__(self) -> None:
        if self.kl_target is not None and self.beta == 0:
            raise BadInput(
                "option --kl-target: a --beta of 0 cannot be steered, for it stays 0",
                hint="begin with a small one, such as --beta 0.01",
            )

    @property
    def needs(self) -> Needs:
        return Needs(reference=self.beta > 0, values=self.values)

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """GAE of the scores and the KL, whitened over the round, `[N, T]`; the rest as columns."""
        beta = run.state.get(BETA, self.beta)
        scores = batch["rewards"] - self.missing_eos_penalty * ~batch["ended"]
        batch.columns["judged"] = ~scores.isnan()
        kl = torch.zeros_like(batch["logprobs"])
        if self.beta:
            reference = self.reference_logprobs(run, batch)
            kl = batch.columns["kl"] = kl_estimate(batch["logprobs"], reference, self.kl_estimator)
        with torch.no_grad(), run.model.evaluating():
            values = batch.piecewise(
                lambda micro: run.values(micro.to(run.device)), run.micro_tokens
            )
        mask = self.learnt(batch)
        rewards = token_rewards(scores.nan_to_num(0.0), kl, beta, batch.lengths)
        if self.whiten_rewards:
            rewards = whiten(rewards, run.gather_masked(rewards, mask), shift_mean=False)
        advantages, returns = generalized_advantages(rewards, values, mask, self.gamma, self.lam)
        batch.columns |= {"values": values, "returns": returns}
        self.observe(run, batch, scores, beta * kl)
        return whiten(advantages, run.gather_masked(advantages, mask))

    def observe(self, run: Run, batch: Batch, scores: Tensor, paid: Tensor) -> None:
        """The classic numbers of a round's objective, means over its completions."""
        beta = run.state.get(BETA, self.beta)
        numbers = {
            "objective/scores": scores,
            "objective/entropy": -batch.total(batch["logprobs"]),
            "objective/non_score_reward": -batch.total(paid),
            "objective/rlhf_reward": scores - batch.total(paid),
            "objective/kl_coef": torch.full_like(scores, beta),
        }
        if self.beta:
            numbers["objective/kl"] = batch.total(batch["kl"])
        judged = batch["judged"]
        run.log_mean({name: x[judged] for name, x in numbers.items()})
        ended = sum(run.gather(batch["ended"].tolist()))
        run.round_metrics.add({"val/num_eos_tokens": float(ended)})
        mask = self.learnt(batch)
        returns = run.gather_masked(batch["returns"], mask)
        errors = run.gather_masked(batch["returns"] - batch["values"], mask)
        explained = 1 - float(errors.var() / (returns.var() + 1e-8))
        run.round_metrics.add({"val/var_explained": explained})

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """The policy's clipped loss and `value_coef` times the critic's, per token."""
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
        return Loss.per_token(actor + self.value_coef * critic, self.learnt(batch), metrics)

    @hookimpl
    def alignzoo_round_end(self, run: Run) -> None:
        """Steer beta by the KL of the round that is over."""
        if self.kl_target is not None:
            run.state[BETA] = adapted_beta(
                run.state.get(BETA, self.beta),
                run.round_metrics.numbers["objective/kl"],
                self.kl_target,
                self.group_size * run.schedule.rows_per_round,
                self.kl_horizon,
            )

    @staticmethod
    def learnt(batch: Batch) -> Tensor:
        """The mask `[N, T]` without the completions that no reward applies to."""
        return batch.mask & batch["judged"][:, None]

"""Group Relative Policy Optimization, Shao et al. 2024, and the losses that vary it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from alignzoo import Batch, Example, Loss, OnPolicy, Run, hookimpl
from alignzoo.data import TURN_REWARDS
from alignzoo.functional import Estimator, kl_estimate, per_token, rewards_apart
from alignzoo.options import join_options, refuse_unread
from alignzoo.rollout import INFERENCE, compute_column
from alignzoo_zoo.grpo.advantages import (
    Scale,
    decoupled_advantages,
    group_advantages,
    pass_at_k_advantages,
)
from alignzoo_zoo.grpo.checks import check_options
from alignzoo_zoo.grpo.dynamic import sample_until_full
from alignzoo_zoo.grpo.loss_types import LOSS_TYPES, Terms, same_at_ratio_one, token_weights
from alignzoo_zoo.grpo.step_credit import check_step_reward, read_step_rewards, step_advantages
from alignzoo_zoo.grpo.token_choice import choose_by_covariance, choose_high_entropy
from alignzoo_zoo.grpo.turn_credit import check_turn_reward, turn_advantages

CHOSEN, HIGH_ENTROPY = "chosen", "high_entropy"  # columns: tokens that the loss treats apart


@dataclass(eq=False)
class GRPO(OnPolicy):
    """Group Relative Policy Optimization, from prompts and a reward (https://arxiv.org/abs/2402.03300)"""

    loss_type: Annotated[
        Literal[
            "grpo",
            "dr_grpo",
            "dapo",
            "bnpo",
            "gspo",
            "cispo",
            "sapo",
            "gmpo",
            "vespo",
            "luspo",
            "dppo_tv",
            "dppo_kl",
            "clip_cov",
            "kl_cov",
        ],
        "loss of the GRPO family",
    ] = "grpo"
    epsilon: Annotated[
        float | None, "clip range of the ratio, or DPPO's threshold [default: the loss's]", Gt(0)
    ] = None
    epsilon_high: Annotated[
        float | None, "upper clip range (clip-higher) [default: --epsilon]", Gt(0)
    ] = None
    scale_rewards: Annotated[
        Scale | None,
        "divide rewards by the standard deviation of the group, of the batch, or not at all "
        "[default: group; none for dr_grpo]",
    ] = None
    normalize_rewards: Annotated[
        Literal["before", "after"], "scale several rewards before (GDPO) or after their sum"
    ] = "after"
    credit: Annotated[
        Literal["completion", "steps", "turns"],
        "advantage of a whole completion, of each token by a reward model of steps, or of each "
        "turn by the rewards of an environment",
    ] = "completion"
    pass_at: Annotated[
        int,
        "credit what a completion adds to the best reward of K (1: its own reward)",
        Ge(1),
        Le(4096),
    ] = 1
    top_entropy: Annotated[
        float,
        "learn from this fraction of the tokens, those with the highest entropy",
        Gt(0),
        Le(1),
    ] = 1.0
    cov_fraction: Annotated[
        float | None, "fraction of tokens that clip_cov or kl_cov chooses [default: the loss's]",
        Gt(0), Le(1),
    ] = None  # fmt: skip
    cov_penalty: Annotated[float, "weight of kl_cov's penalty", Gt(0)] = 1.0
    kl_estimator: Annotated[Estimator, "estimator of the KL to the reference"] = "k3"
    kl_in: Annotated[Literal["loss", "reward"], "apply the KL to the loss or to the reward"] = (
        "loss"
    )
    entropy_bonus: Annotated[float, "entropy bonus coefficient", Ge(0)] = 0.0
    mask_truncated: Annotated[bool, "mask completions without EOS out of the loss"] = False
    dynamic_sampling: Annotated[
        int, "maximum resampling rounds for groups with zero reward variance (0: off)", Ge(0)
    ] = 0

    check_with = ({"loss_type": "kl_cov"}, {"loss_type": "clip_cov"})

    def __post_init__(self) -> None:
        reads = {name: loss_type.reads for name, loss_type in LOSS_TYPES.items()}
        refuse_unread(self, "loss_type", reads)
        self.scale: Scale = self.scale_rewards or LOSS_TYPES[self.loss_type].scale
        check_options(self)

    @property
    def known_exceptions(self) -> dict[str, str]:
        """Return the laws that do not hold for a loss, and why."""
        found = {}
        if self.loss_type in ("cispo", "vespo"):
            found["finite differences"] = "its ratio is a weight, without gradient"
        if self.pass_at > 1:
            found["groups"] = "a completion that cannot be the best of K has no credit"
        elif self.top_entropy < 1:
            found["groups"] = "a completion may have no token of high entropy"
        return found

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Check the reward of steps; say so if the loss takes the steps of another one here."""
        if self.credit == "steps":
            check_step_reward(run)
        if self.credit == "turns":
            check_turn_reward(run)
        same = same_at_ratio_one(self.loss_type)
        if same and self.ratios_are_one(run.recipe):
            run.ui.note(
                f"--loss-type {self.loss_type} takes the steps of {same} here: in rounds of one "
                "step every ratio is 1 (--iterations 2 makes them differ)"
            )

    def ratios_are_one(self, recipe: Any) -> bool:
        """Return whether only the average of the loss matters, not its ratios and epsilons.

        A sampler may have other log-probs than the trainer.
        """
        one_step = self.iterations == 1 and self.round_prompts <= recipe.batch_size
        # A round that dynamic sampling did not fill is shorter than what dapo divides by.
        unfilled = self.dynamic_sampling > 0 and self.loss_type == "bnpo"
        return one_step and recipe.sampler is None and not unfilled

    def same_as(self, recipe: Any) -> str | None:
        """Return the plainest loss with the same steps and its options; None if it may differ."""
        if not self.ratios_are_one(recipe):
            return None
        loss_type = same_at_ratio_one(self.loss_type) or self.loss_type
        changed: dict[str, Any] = {"loss_type": loss_type, "epsilon": None, "epsilon_high": None}
        if loss_type != self.loss_type:
            changed |= {"cov_fraction": None, "cov_penalty": GRPO.cov_penalty}
        if self.scale == LOSS_TYPES[loss_type].scale:
            changed["scale_rewards"] = None
        plain = replace(self, **changed)
        return join_options("grpo", plain)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch | None:
        """Replace ties with --dynamic-sampling; else leave the round to the default."""
        if not self.dynamic_sampling:
            return None
        return sample_until_full(run, rows, self.group_size, self.dynamic_sampling)

    @hookimpl
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Tensor:
        """Return advantages, `[N]` or with credit per token `[N, T]`; add columns for the loss."""
        advantages = self.compute_advantages(run, batch)
        mask, loss_type = self.training_mask(batch), LOSS_TYPES[self.loss_type]
        if loss_type.chooses is not None:
            fraction = self.cov_fraction or loss_type.chooses
            batch.columns[CHOSEN] = choose_by_covariance(
                run, batch, advantages, mask, self.loss_type, fraction
            )
        if self.top_entropy < 1:
            entropy = compute_column(
                run, batch, lambda micro: self.policy(run, micro, entropy=True).entropy
            )
            population = run.gather_masked(entropy, mask)
            batch.columns[HIGH_ENTROPY] = choose_high_entropy(
                entropy, mask, population, self.top_entropy
            )
        return advantages

    def compute_advantages(self, run: Run, batch: Batch) -> Tensor:
        """Return advantages, `[N]` or with credit per token `[N, T]`."""
        if self.beta:
            batch.columns["reference"] = self.reference_logprobs(run, batch)
        apart = rewards_apart(batch) if self.normalize_rewards == "before" else {}
        rewards = torch.stack(list(apart.values()), -1) if apart else batch["rewards"][:, None]
        if self.beta and self.kl_in == "reward":
            kl = kl_estimate(batch["logprobs"], batch["reference"], self.kl_estimator)
            rewards = rewards - self.beta * batch.total(kl)[:, None]
        # Some scales and counts are those of the whole round: gather it from all processes.
        tokens = run.gather(self.training_mask(batch).sum(-1).tolist())
        batch.columns["mean_tokens"] = torch.full_like(batch["rewards"], sum(tokens) / len(tokens))
        if self.credit == "steps":
            return step_advantages(read_step_rewards(batch), batch.group, self.scale)
        if self.credit == "turns":
            return turn_advantages(batch[TURN_REWARDS], batch.mask, batch.group, self.scale)
        all_rewards = torch.tensor(run.gather(batch.groups(rewards).tolist()))  # (B, G, K)
        if apart:
            weights = [run.reward_weights.get(name, 1.0) for name in apart]
            advantages = decoupled_advantages(all_rewards, weights)
        elif self.pass_at > 1:
            advantages = pass_at_k_advantages(all_rewards, self.pass_at, self.scale)
        else:
            advantages = group_advantages(all_rewards, self.scale)
        return torch.tensor(run.shard(advantages.tolist())).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the loss of each token, with KL and entropy bonus, in the average of the loss."""
        loss_type = LOSS_TYPES[self.loss_type]
        policy = self.policy(run, batch, entropy=True)
        mask = self.training_mask(batch)
        terms = Terms(
            policy.logprobs,
            policy.logprobs - batch["logprobs"],
            per_token(batch["advantages"]),
            mask,
            *loss_type.bounds(self.epsilon, self.epsilon_high),
            drawn=drawn_logprobs(batch),
            chosen=batch.columns.get(CHOSEN, torch.zeros_like(mask)),
            penalty=self.cov_penalty,
        )
        loss = loss_type.loss(terms).expand_as(mask)
        if self.top_entropy < 1:
            loss = torch.where(batch[HIGH_ENTROPY], loss, 0.0)
        metrics = loss_type.clip_metrics(terms) | {"entropy": policy.entropy}
        if self.beta:
            kl = metrics["kl"] = kl_estimate(policy.logprobs, batch["reference"], self.kl_estimator)
            if self.kl_in == "loss":
                loss = loss + self.beta * kl
        if self.entropy_bonus:
            loss = loss - self.entropy_bonus * policy.entropy
        weights, count = token_weights(
            replace(batch, mask=mask), loss_type.average, run.recipe.max_new_tokens
        )
        return replace(Loss.per_token(weights * loss, mask, metrics), count=count)

    def training_mask(self, batch: Batch) -> Tensor:
        """Return the mask of the tokens that are trained on, `[N, T]`.

        A completion to which no reward applies is left out, of the KL and the entropy as well.
        """
        counts = ~batch["rewards"].isnan()  # (N,)
        if self.mask_truncated:
            counts = counts & batch["ended"]
        return batch.mask & counts[:, None]


def drawn_logprobs(batch: Batch) -> Tensor:
    """Return the log-probs with which the tokens were drawn, `[N, T]`, by whatever drew them.

    The trainer's stand in for those that an external sampler does not give (NaN).
    """
    drawn = batch.columns.get(INFERENCE, batch["logprobs"])
    return torch.where(drawn.isnan(), batch["logprobs"], drawn)

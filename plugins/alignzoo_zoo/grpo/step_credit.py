"""Credit per token from a reward model of steps: process supervision of Shao et al. 2024.

https://arxiv.org/abs/2402.03300, section 4.1.3.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from alignzoo import BadInput, Batch, Run
from alignzoo.rewards import STEP_REWARDS, RewardSpec
from alignzoo_zoo.grpo.advantages import STD_EPSILON, Scale

# Losses whose ratio is that of a token: a ratio of the whole completion would mix the credits.
TOKEN_LOSSES = (
    "grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "dppo_tv", "dppo_kl", "clip_cov", "kl_cov",
)  # fmt: skip
HINT = "train one by `alignzoo run reward --loss-type steps`, and name its folder as the --reward"


def step_advantages(step_rewards: Tensor, group: Tensor, scale: Scale) -> Tensor:
    """Compute the sum of the normalised rewards of the steps that end at a token or after it.

        A_it = sum over the steps j of completion i that end at t or later of
               (r_ij - mean(R)) / (std(R) + 1e-4)

    R are the rewards of all steps of all completions of the group; their standard deviation (n - 1
    in its denominator) is left out if `scale` is "none". The result is `[N, T]`.

    Args:
        step_rewards: `[N, T]`, above 0 at the last token of each step, 0 elsewhere.
        group: the group of each completion, `[N]`.
    """
    ends = step_rewards > 0
    normalised = torch.zeros_like(step_rewards)
    for one in group.unique().tolist():
        mask = ends & (group == one)[:, None]  # (N, T)
        rewards = step_rewards[mask]
        centred = rewards - rewards.mean()
        if scale == "group":
            deviation = rewards.std() if len(rewards) > 1 else rewards.new_zeros(())
            centred = centred / (deviation + STD_EPSILON)
        normalised[mask] = centred
    return normalised.flip(-1).cumsum(-1).flip(-1)


def check_step_reward(run: Run) -> None:
    """Raise `BadInput` unless the only reward is a reward model of steps in this run's tokens."""
    rewards = [RewardSpec.parse(text) for text in run.recipe.reward]
    if len(rewards) != 1:
        raise BadInput("option --credit steps: the reward of steps is the only --reward", hint=HINT)
    name = rewards[0].name
    head = run.load_model(name, same_tokens=True).score_head if Path(name).is_dir() else None
    if head is None or head.step_separator is None:
        raise BadInput(f"option --credit steps: {name!r} gives no reward of steps", hint=HINT)


def read_step_rewards(batch: Batch) -> Tensor:
    """Return the rewards of steps of a batch, `[N, T]`; raise `BadInput` if it has none."""
    if STEP_REWARDS not in batch.columns:
        raise BadInput(
            "option --credit steps: the reward model has another chat template or other stop "
            "tokens than this run, so its steps do not end at tokens of the completions",
            hint="use a reward model that was trained from the same base",
        )
    return batch[STEP_REWARDS]

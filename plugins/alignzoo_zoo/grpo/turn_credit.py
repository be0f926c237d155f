"""Credit per turn of an episode, after MT-GRPO of Zeng et al. 2025.

https://arxiv.org/abs/2505.11821.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from alignzoo import BadInput, Run
from alignzoo.rewards import ENVIRONMENT_REWARD, RewardSpec
from alignzoo_zoo.grpo.advantages import STD_EPSILON, Scale


def turn_advantages(turn_rewards: Tensor, written: Tensor, group: Tensor, scale: Scale) -> Tensor:
    """Compute the sum of the normalised rewards of a token's turn and of the turns after it.

        A_ik = sum over the turns j >= k of completion i of (r_ij - mean(R_j)) / (std(R_j) + 1e-4)

    R_j are the rewards of turn j of the completions of the group that go on after it; the rewards
    of last turns are normalised together, whatever their number. In episodes of two turns this is
    the paper's: the first has the advantage of its own reward plus that of the outcome, the second
    that of the outcome. Standard deviations (n - 1 in the denominator) are left out if `scale` is
    "none". The result is `[N, T]`.

    Args:
        turn_rewards: `[N, T]`, of each turn at its last token.
        written: which tokens the policy wrote, bool, `[N, T]`; turns are apart by others'.
        group: the group of each completion, `[N]`.
    """
    ends = written & ~pad(written, (0, 1))[:, 1:]  # (N, T): the last token of each turn
    numbers = ends.cumsum(-1)  # (N, T): at an end, the number of its turn from 1
    numbers = torch.where(numbers == numbers[:, -1:], 0, numbers)  # 0 for the last turn
    normalised = torch.zeros_like(turn_rewards)
    for one in group.unique().tolist():
        members = ends & (group == one)[:, None]
        for number in numbers[members].unique().tolist():
            which = members & (numbers == number)
            rewards = turn_rewards[which]
            centred = rewards - rewards.mean()
            if scale == "group":
                deviation = rewards.std() if len(rewards) > 1 else rewards.new_zeros(())
                centred = centred / (deviation + STD_EPSILON)
            normalised[which] = centred
    return normalised.flip(-1).cumsum(-1).flip(-1)


def check_turn_reward(run: Run) -> None:
    """Raise `BadInput` unless the run's environment gives the only reward."""
    named = {RewardSpec.parse(text).name for text in run.recipe.reward}
    if run.environment is None or named - {ENVIRONMENT_REWARD}:
        raise BadInput(
            "option --credit turns: the rewards of an environment's turns are the only reward",
            hint="name an --environment, and leave --reward out",
        )

"""From scores to advantages, as pure functions on tensors.

N completions of up to T tokens; `mask` (bool, `[N, T]`) marks the tokens that the policy wrote.
Rewards and values are in the unit of the score, log-probs in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(scores: Tensor, kl: Tensor, beta: float, mask: Tensor) -> Tensor:
    """Compute token rewards `[N, T]`: the score at the last token, minus each token's KL penalty.

        r_t = -beta kl_t + [t = |y|] score

    Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, equation 2, token by token.

    Args:
        scores: one per completion, `[N]`.
        kl: an estimate of each token's KL to the reference, `[N, T]`; read inside the mask.
        mask: |y| is its last position.
    """
    rewards = -beta * torch.where(mask, kl, 0.0)
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, 0).amax(1, keepdim=True)  # (N, 1)
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Compute GAE: advantages and returns, `[N, T]` each, 0 outside the mask.

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t     = delta_t + gamma lambda A_{t+1}
        R_t     = A_t + V_t

    V and A are 0 after the last token: the episode ends there, with EOS or cut off. t + 1 is the
    next token in the mask: tokens between that the policy did not write are a part of the state.
    Schulman et al. 2015, https://arxiv.org/abs/1506.02438, equations 11 and 16.

    Args:
        rewards, values: r_t and V_t, the value of the state before token t, `[N, T]`.
        gamma, lam: in [0, 1].
    """
    rewards, values = (torch.where(mask, x, 0.0) for x in (rewards, values))
    advantages = torch.zeros_like(values)
    following, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])  # (N,)
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Past the end there is nothing yet to carry, so that nothing reaches the last token.
        following = torch.where(mask[:, t], delta + gamma * lam * following, following)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = torch.where(mask[:, t], following, 0.0)
    return advantages, advantages + values


def adapted_beta(beta: float, kl: float, target: float, completions: int, horizon: int) -> float:
    """Compute the KL coefficient of the next round, which steers the KL to its target.

        e     = clip(kl / target - 1, -0.2, 0.2)
        beta' = beta (1 + e n / horizon)

    Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, section 2.2.

    Args:
        kl, target: in nats per completion.
        completions: n, those of the round.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * completions / horizon)

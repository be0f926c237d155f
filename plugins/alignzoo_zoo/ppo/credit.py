"""From scores to advantages, as pure functions on tensors.

Everywhere, of N completions of up to T tokens, `mask` (bool, `[N, T]`) says which tokens there are.
Rewards and values are in the unit of the score, log-probs in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(scores: Tensor, kl: Tensor, beta: float, lengths: Tensor) -> Tensor:
    """The score at the last token, and what each token pays for its KL, `[N, T]`.

        r_t = -beta kl_t + [t = |y|] score

    Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, equation 2, token by token.

    Args:
        scores: one per completion, `[N]`.
        kl: an estimate of each token's KL to the reference, `[N, T]`, 0 where there is no token.
        lengths: |y|, `[N]`; at least 1.
    """
    rewards = -beta * kl
    last = (lengths - 1)[:, None]
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """GAE: advantages and returns, `[N, T]` each, 0 where there is no token.

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t     = delta_t + gamma lambda A_{t+1}
        R_t     = A_t + V_t

    with V and A 0 after the last token, where the episode ends, whether by an EOS or cut off.
    Schulman et al. 2015, https://arxiv.org/abs/1506.02438, equations 11 and 16.

    Args:
        rewards, values: r_t and V_t, the value of the state that token t was drawn in, `[N, T]`.
        gamma, lam: in [0, 1].
    """
    rewards, values = (torch.where(mask, x, 0.0) for x in (rewards, values))
    advantages = torch.zeros_like(values)
    following, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Past the end all is 0, so that nothing reaches the last token from there.
        following = torch.where(mask[:, t], delta + gamma * lam * following, 0.0)
        advantages[:, t], next_value = following, values[:, t]
    return advantages, advantages + values


def adapted_beta(beta: float, kl: float, target: float, completions: int, horizon: int) -> float:
    """The coefficient of the KL for the next round, which steers the KL to its target.

        e     = clip(kl / target - 1, -0.2, 0.2)
        beta' = beta (1 + e n / horizon)

    Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, section 2.2, with n completions in the
    round.

    Args:
        kl, target: in nats per completion.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * completions / horizon)

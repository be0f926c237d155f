"""The pairs of a round, and their loss, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from alignzoo.functional import sigmoid_loss


def pair_up(rewards: Sequence[float], threshold: float, most: int) -> list[tuple[int, int]]:
    """Pair correct completions of a prompt with incorrect ones.

    Both are taken in turn in the order in which they were drawn, and from the start again when one
    kind has run out, until there are `most` pairs or the first one would come again. Section 2 of
    Pang et al. 2024, https://arxiv.org/abs/2404.19733.

    Args:
        rewards: of the completions of one prompt, NaN for one that no reward applies to.
        threshold: a completion with a reward of at least this is correct.
        most: pairs of the prompt, at most.

    Returns:
        The indices of a correct and of an incorrect completion, for each pair.
    """
    correct = [n for n, reward in enumerate(rewards) if reward >= threshold]
    wrong = [n for n, reward in enumerate(rewards) if reward < threshold]
    if not correct or not wrong:
        return []
    count = min(most, math.lcm(len(correct), len(wrong)))
    return [(correct[n % len(correct)], wrong[n % len(wrong)]) for n in range(count)]


def irpo_loss(margin: Tensor, beta: float, chosen_mean: Tensor, nll_weight: float) -> Tensor:
    """Compute the loss of DPO plus the likelihood of the correct completion.

        L = -log sigmoid(beta margin) - alpha log pi(y_w|x) / |y_w|

    Equation 1 of Pang et al. 2024, https://arxiv.org/abs/2404.19733.

    Args:
        margin: log(pi / pi_t) of the correct completion minus that of the incorrect one, summed
            over tokens, in nats; pi_t is the policy that drew them; `[B]`.
        beta: strength of the pull to pi_t, > 0, in 1/nats.
        chosen_mean: log pi(y_w|x) / |y_w|, in nats per token; `[B]`.
        nll_weight: alpha, >= 0.

    Returns:
        One loss per pair, `[B]`.
    """
    return sigmoid_loss(margin, beta) - nll_weight * chosen_mean

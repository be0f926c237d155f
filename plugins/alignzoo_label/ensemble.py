"""Which two completions to compare next: those on which an ensemble of score heads is undecided.

Double Thompson sampling (Dwaracherla et al. 2024, https://arxiv.org/abs/2402.00396), with linear
heads on the states of a frozen model in place of a network of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

TRIES = 30  # heads that are drawn for a second completion, as in the paper
MOST_STEPS = 50  # of L-BFGS


@dataclass(frozen=True)
class Ensemble:
    """M linear score heads, each fitted from a random start of its own that it is drawn back to.

    `weights [M, H]` score states that are shifted by `mean [H]` and divided by `scale [H]`.
    """

    weights: Tensor
    mean: Tensor
    scale: Tensor

    def scores(self, states: Tensor) -> Tensor:
        """Return the score of each of K states by each head: `[K, H] -> [M, K]`."""
        return self.weights @ ((states - self.mean) / self.scale).T


def start_ensemble(states: Tensor, heads: int, seed: int) -> Ensemble:
    """Return heads that have learned nothing, for states `[N, H]` like those they will score.

    A head's scores of these have a standard deviation of about 1.
    """
    generator = torch.Generator().manual_seed(seed)
    size = states.shape[1]
    weights = torch.randn(heads, size, generator=generator) / size**0.5
    # A state that never varies is 0 for every head.
    return Ensemble(weights, states.mean(0), states.std(0).clamp(min=1e-6))


def fit_ensemble(prior: Ensemble, better: Tensor, worse: Tensor, seed: int) -> Ensemble:
    """Return heads that are fitted to answers, from those of the start.

    Each head w minimises sum_i b_i softplus(-(w . d_i)) + H/2 ||w - w_0||^2, with d_i the
    difference of two states, w_0 its weights at the start (a random prior function) and b_i 0 or
    2 at random (double-or-nothing bootstrap); H is the number of a state's dimensions, the inverse
    variance of w_0.

    Args:
        prior: the heads at the start.
        better, worse: states of the completions that were preferred and of the others, `[n, H]`.
        seed: of the bootstrap. An answer keeps its b_i when others follow it.
    """
    heads, size = prior.weights.shape
    differences = (better - worse) / prior.scale  # (n, H)
    generator = torch.Generator().manual_seed(seed)
    # One row an answer, so that those of earlier answers stay.
    kept = 2.0 * (torch.rand(len(better), heads, generator=generator) < 0.5)  # (n, M)
    weights = prior.weights.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = (kept * softplus(-differences @ weights.T)).sum()
        total = fit + size / 2 * (weights - prior.weights).square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return Ensemble(weights.detach(), prior.mean, prior.scale)


def double_thompson(scores: Tensor, generator: torch.Generator) -> tuple[int, int]:
    """Return two different completions to compare, the best ones of two heads drawn at random.

    While the second head prefers the same completion another one is drawn, at most `TRIES` times;
    then the second completion is any other.

    Args:
        scores: of K >= 2 completions by M heads, `[M, K]`.
    """
    heads, size = scores.shape
    best = scores.argmax(1)  # (M,)
    drawn = torch.randint(heads, (1 + TRIES,), generator=generator)
    first = int(best[drawn[0]])
    for head in drawn[1:].tolist():
        if int(best[head]) != first:
            return first, int(best[head])
    other = int(torch.randint(size - 1, (1,), generator=generator))
    return first, other + (other >= first)

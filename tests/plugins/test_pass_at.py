"""Credit for the best of k: by hand, against all subsets, and its expected gradient."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from alignzoo_zoo.grpo.advantages import pass_at_k_advantages

NAN = float("nan")


def advantages(rewards: list[float], k: int, scale: str = "none") -> list[float]:
    return pass_at_k_advantages(torch.tensor([rewards])[..., None], k, scale)[0].tolist()


def test_advantages_by_hand():
    # k = G: the best one has its lead over the second; none if two are best.
    assert advantages([0.0, 3.0, 1.0], 3) == [0.0, 2.0, 0.0]
    assert advantages([3.0, 3.0, 1.0], 3) == [0.0, 0.0, 0.0]
    # k = 2 of 4: the mean over the others of what they lie below. 4: (3 + 2 + 0) / 3 ...
    assert advantages([1.0, 4.0, 2.0, 4.0], 2) == pytest.approx([0.0, 5 / 3, 1 / 3, 5 / 3])
    # Right or wrong, 2 right of 5: both others of k = 3 are wrong in C(3, 2) of C(4, 2) cases.
    assert advantages([1.0, 0.0, 1.0, 0.0, 0.0], 3) == pytest.approx([0.5, 0.0, 0.5, 0.0, 0.0])
    # A completion without a reward is not there; three rewards give no best of 4.
    assert advantages([1.0, NAN, 4.0, 2.0, 4.0], 2) == pytest.approx(
        [0.0, 0.0, 5 / 3, 1 / 3, 5 / 3]
    )
    assert advantages([1.0, NAN, 4.0, 2.0], 4) == [0.0] * 4


def test_the_scale_is_the_deviation_of_the_rewards():
    # 1, 0, 0, 0 has the deviation sqrt((0.75^2 + 3 * 0.25^2) / 3) = 0.5.
    assert advantages([1.0, 0.0, 0.0, 0.0], 2, "group")[0] == pytest.approx(1 / 0.5001)
    two = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[..., None]  # all four as above
    assert pass_at_k_advantages(two, 2, "batch")[0, 0].item() == pytest.approx(1 / 0.5001)
    assert advantages([1.0, 1.0], 2, "group") == [0.0, 0.0]


@pytest.mark.parametrize("k", [2, 3, 5, 6])
def test_it_is_the_mean_over_all_subsets(k):
    draw = torch.Generator().manual_seed(k)
    rewards = (torch.randn(6, generator=draw) * 2).round().tolist()  # with ties
    expected = []
    for i in range(6):
        others = [r for j, r in enumerate(rewards) if j != i]
        subsets = list(itertools.combinations(others, k - 1))
        expected.append(sum(max(*s, rewards[i]) - max(s) for s in subsets) / len(subsets))
    assert advantages(rewards, k) == pytest.approx(expected, abs=1e-6)


def test_large_groups_do_not_overflow():
    found = pass_at_k_advantages(torch.arange(2048.0).reshape(1, -1, 1), 1000, "none")
    assert found.isfinite().all() and found[0, -1] > 0


def test_the_expected_gradient_is_that_of_the_best_of_k():
    """It sums over all rounds of three one-word completions, k = 2, weighted by probability.

    The mean over completions of A grad log pi is 1/k of the gradient of E[best of k].
    """
    worth = torch.tensor([1.0, 0.0, 2.5, -1.0], dtype=torch.float64)
    logits = torch.tensor([0.4, -0.3, -1.2, 0.6], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    mean = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(4), repeat=3):
        words = torch.tensor(drawn)
        a = pass_at_k_advantages(worth[words].reshape(1, 3, 1), 2, "none")[0]
        mean = mean + logp[words].detach().sum().exp() * (a * logp[words]).mean()
    (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
    p = logp.exp()
    best = sum(
        p[i] * p[j] * max(worth[i], worth[j]) for i, j in itertools.product(range(4), repeat=2)
    )
    (exact,) = torch.autograd.grad(best, logits)
    assert torch.allclose(found, exact / 2, atol=1e-12)
    assert exact.abs().max() > 0.1 and not math.isnan(found.sum())

"""The losses of a reward model and measures of its calibration, as pure functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alignzoo.functional import sigmoid_loss


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor, probability: float | Tensor = 1.0
) -> Tensor:
    """Compute the negative log-likelihood of the preference under Bradley & Terry 1952.

        L = -p log sigmoid(d) - (1 - p) log sigmoid(-d),   d = r(x, y_w) - r(x, y_l) - m

    Equation 1 of Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, for one pair, with
    the margin of Touvron et al. 2023, https://arxiv.org/abs/2307.09288, equation 2. With p < 1 it
    is the cross-entropy of a soft label, such as a judge gives: Lee et al. 2023,
    https://arxiv.org/abs/2309.00267, section 2. Its slope is sigmoid(d) - p, which is 0 at
    d = log(p / (1 - p)).

    Args:
        chosen, rejected: rewards of the two completions, in nats (differences are log-odds); `[B]`.
        margin: m, by how much the chosen reward should exceed the other; 0 if not known; `[B]`.
        probability: p, in [0, 1], that the chosen one is better; `[B]`.

    Returns:
        One loss per pair, `[B]`; ln 2 if the rewards differ by the margin.
    """
    return sigmoid_loss(chosen - rejected - margin, beta=1.0, smoothing=1 - probability)


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Compute the squared sum of a pair's rewards, which keeps their mean at zero.

        L = (r(x, y_w) + r(x, y_l))^2

    Bradley-Terry leaves a constant per prompt undetermined; this fixes it. Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244, equation 2.

    Args:
        chosen, rejected: rewards of the two completions, in nats; `[B]`.

    Returns:
        One loss per pair, `[B]`, in nats squared.
    """
    return (chosen + rejected).square()


def step_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Compute the negative log-likelihood of the label of a step.

        L = -[y log sigmoid(r) + (1 - y) log(1 - sigmoid(r))]

    where r is the score of the solution up to the end of the step. Uesato et al. 2022,
    https://arxiv.org/abs/2211.14275; Wang et al. 2023, https://arxiv.org/abs/2312.08935.

    Args:
        scores: log-odds that the step is right; any shape.
        labels: True if it is, bool; the same shape.

    Returns:
        One loss per step, in that shape, in nats; ln 2 for a score of 0.
    """
    return -F.logsigmoid(torch.where(labels, scores, -scores))


def brier_scores(margins: Tensor) -> Tensor:
    """Compute the squared distance of each predicted probability from the outcome.

        (1 - sigmoid(r_w - r_l))^2

    Brier 1950, for one outcome of a pair; the mean is 1/4 for a model that always predicts 1/2.

    Args:
        margins: differences of rewards, in nats, or log-odds of the label of a step; `[n]`.

    Returns:
        One score per pair or step, `[n]`, in [0, 1].
    """
    return torch.sigmoid(-margins).square()


def expected_calibration_error(margins: Tensor, bins: int = 10) -> float:
    """Compute the mean distance of confidence from accuracy, over bins of similar confidence.

        ECE = sum_b n_b / n * |accuracy_b - confidence_b|

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3. The prediction for a pair is the
    completion with the larger reward, and the confidence is its probability, sigmoid(|margin|).
    The prediction for a step is its more likely label. The bins have equal width over [1/2, 1].

    Args:
        margins: differences of rewards, chosen minus rejected, in nats, or log-odds of the label
            of a step; `[n]`.
        bins: number of bins.

    Returns:
        The error in [0, 1].
    """
    confidence = torch.sigmoid(margins.abs().double())
    gap = (margins > 0).double() - confidence
    which = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    # n_b / n * |mean gap of the bin| is |sum of its gaps| / n.
    sums = torch.zeros(bins, dtype=torch.double, device=gap.device).index_add(0, which, gap)
    return float(sums.abs().sum() / max(len(margins), 1))

"""The loss of a reward model, and how well it is calibrated, as pure functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alignzoo.functional import sigmoid_loss


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor, sure: float | Tensor = 1.0
) -> Tensor:
    """The negative log-likelihood of the preference under Bradley & Terry 1952.

        L = -p log sigmoid(d) - (1 - p) log sigmoid(-d),   d = r(x, y_w) - r(x, y_l) - m

    Equation 1 of Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, for one pair; the margin
    is that of Touvron et al. 2023, https://arxiv.org/abs/2307.09288, equation 2. With p < 1 it is
    the cross-entropy of a soft label, as a judge gives it: Lee et al. 2023,
    https://arxiv.org/abs/2309.00267, section 2. Its slope is sigmoid(d) - p, and it rests where the
    odds are those of the label.

    Args:
        chosen, rejected: rewards of the two completions, in nats (differences are log-odds); `[B]`.
        margin: how much more the chosen one has to be worth; 0 where it is only better; `[B]`.
        sure: p, the probability in [0, 1] that the chosen one is better; `[B]`.

    Returns:
        One loss per pair, `[B]`; ln 2 where the two differ by the margin.
    """
    return sigmoid_loss(chosen - rejected - margin, beta=1.0, smoothing=1 - sure)


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The squared sum of a pair's rewards, which holds their mean at zero.

        L = (r(x, y_w) + r(x, y_l))^2

    Bradley-Terry leaves a constant per prompt free; this chooses it. Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244, equation 2.

    Args:
        chosen, rejected: rewards of the two completions, in nats; `[B]`.

    Returns:
        One loss per pair, `[B]`, in nats squared.
    """
    return (chosen + rejected).square()


def step_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood of a step's label.

        L = -[y log sigmoid(r) + (1 - y) log(1 - sigmoid(r))]

    with r the score of the solution up to the end of the step. Uesato et al. 2022,
    https://arxiv.org/abs/2211.14275; Wang et al. 2023, https://arxiv.org/abs/2312.08935.

    Args:
        scores: log-odds that the step is right; any shape.
        labels: whether it is, bool; of the same shape.

    Returns:
        One loss per step, of that shape, in nats; ln 2 for a score of 0.
    """
    return -F.logsigmoid(torch.where(labels, scores, -scores))


def brier_scores(margins: Tensor) -> Tensor:
    """How far the stated probability was from what happened, squared.

        (1 - sigmoid(r_w - r_l))^2

    Brier 1950 for one outcome of a pair; its mean is 1/4 for a model that always says one half.

    Args:
        margins: differences of rewards, in nats, or log-odds of what a step's label says; `[n]`.

    Returns:
        One score per pair or step, `[n]`, in [0, 1].
    """
    return torch.sigmoid(-margins).square()


def expected_calibration_error(margins: Tensor, bins: int = 10) -> float:
    """How far confidence is from accuracy, on average over bins of equal confidence.

        ECE = sum_b n_b / n * |accuracy_b - confidence_b|

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3. The prediction for a pair is the
    completion of larger reward and the confidence its probability, sigmoid(|margin|); the bins
    are of equal width over [1/2, 1]. Of a step, the prediction is the likelier label.

    Args:
        margins: differences of rewards, chosen minus rejected, in nats, or log-odds of what a
            step's label says; `[n]`.
        bins: how many bins.

    Returns:
        The error in [0, 1].
    """
    confidence = torch.sigmoid(margins.abs().double())
    gap = (margins > 0).double() - confidence
    which = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    # n_b / n * |mean gap of the bin| is |sum of its gaps| / n.
    sums = torch.zeros(bins, dtype=torch.double, device=gap.device).index_add(0, which, gap)
    return float(sums.abs().sum() / max(len(margins), 1))

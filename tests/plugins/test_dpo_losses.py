"""DPO's losses and their gradients against the formulas of the papers, computed in NumPy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignzoo import BadInput, Example, collate
from alignzoo.algorithm import canonical_name
from alignzoo.functional import preference, sigmoid_loss
from alignzoo.options import build
from alignzoo_zoo.dpo import losses
from alignzoo_zoo.dpo.algorithm import DPO
from alignzoo_zoo.dpo.loss_types import LOSS_TYPES, parse_loss_type

BETA, EPS, TAU = 0.5, 0.2, 0.3
CHOSEN = np.array([0.8, -0.7, 0.0, 5.1])
REJECTED = np.array([-0.8, 0.9, 0.4, 2.6])


def sigma(x):
    return 1 / (1 + np.exp(-x))


def nll(x):
    """-log sigmoid(x), whose slope is -sigmoid(-x)."""
    return np.log1p(np.exp(-x))


def home_of(name):
    return preference if hasattr(preference, name) else losses


def of_margin(name, *arguments):
    """A loss of the margin, as a function of (chosen, rejected)."""
    return lambda w, l: getattr(home_of(name), name)(w - l, BETA, *arguments)  # noqa: E741


def of_rewards(name):
    return lambda w, l: getattr(losses, name)(w, l, BETA)  # noqa: E741


# name: (the loss, its value, its slopes along chosen and rejected), with z = beta * log-ratio
w, r = BETA * CHOSEN, BETA * REJECTED
z = w - r
Q, M = sigma(z), sigma(z / TAU)
# dKL/dz = q (1 - q) (log q/(1-eps) - log (1-q)/eps) = q (1 - q) (z - log (1-eps)/eps)
EXO_SLOPE = Q * (1 - Q) * (z - math.log((1 - EPS) / EPS))
# d/dz of (1-m) nll + m e^-z, with m' = m (1-m) / tau
DISCOPOP_SLOPE = M * (1 - M) / TAU * (np.exp(-z) - nll(z)) - (1 - M) * sigma(-z) - M * np.exp(-z)
GOLDEN = {
    "sigmoid": (of_margin("sigmoid_loss"), nll(z), -sigma(-z), sigma(-z)),
    "conservative": (
        of_margin("sigmoid_loss", EPS),
        (1 - EPS) * nll(z) + EPS * nll(-z),
        -(1 - EPS) * sigma(-z) + EPS * sigma(z),
        (1 - EPS) * sigma(-z) - EPS * sigma(z),
    ),
    "hinge": (of_margin("hinge_loss"), np.maximum(0, 1 - z), -1.0 * (z < 1), 1.0 * (z < 1)),
    "ipo": (
        of_margin("ipo_loss"),
        (CHOSEN - REJECTED - 1) ** 2,
        2 * (CHOSEN - REJECTED - 1) / BETA,
        -2 * (CHOSEN - REJECTED - 1) / BETA,
    ),
    "exo_pair": (
        of_margin("exo_pair_loss", EPS),
        Q * np.log(Q / (1 - EPS)) + (1 - Q) * np.log((1 - Q) / EPS),
        EXO_SLOPE,
        -EXO_SLOPE,
    ),
    "robust": (
        of_margin("robust_loss", EPS),
        ((1 - EPS) * nll(z) - EPS * nll(-z)) / (1 - 2 * EPS),
        (-(1 - EPS) * sigma(-z) - EPS * sigma(z)) / (1 - 2 * EPS),
        ((1 - EPS) * sigma(-z) + EPS * sigma(z)) / (1 - 2 * EPS),
    ),
    "discopop": (
        of_margin("discopop_loss", TAU),
        (1 - M) * nll(z) + M * np.exp(-z),
        DISCOPOP_SLOPE,
        -DISCOPOP_SLOPE,
    ),
    "nca_pair": (
        of_rewards("nca_pair_loss"),
        nll(w) + nll(-w) / 2 + nll(-r) / 2,
        -sigma(-w) + sigma(w) / 2,
        sigma(r) / 2,
    ),
    "bco_pair": (of_rewards("bco_pair_loss"), nll(w) + nll(-r), -sigma(-w), sigma(r)),
    "sppo_hard": (
        of_rewards("sppo_hard_loss"),
        (CHOSEN - 1) ** 2 + (REJECTED + 1) ** 2,
        2 * (CHOSEN - 1) / BETA,
        2 * (REJECTED + 1) / BETA,
    ),
    "apo_zero": (
        of_rewards("apo_zero_loss"),
        1 - sigma(w) + sigma(r),
        -sigma(w) * sigma(-w),
        sigma(r) * sigma(-r),
    ),
    "apo_down": (
        of_rewards("apo_down_loss"),
        sigma(w) + 1 - sigma(z),
        sigma(w) * sigma(-w) - sigma(z) * sigma(-z),
        sigma(z) * sigma(-z),
    ),
}


def value_and_slopes(loss, chosen, rejected, dtype=torch.float64):
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (chosen, rejected)]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value.sum(), leaves)]


@pytest.mark.parametrize("name", GOLDEN)
def test_value_and_gradient(name):
    loss, value, along_chosen, along_rejected = GOLDEN[name]
    found = value_and_slopes(loss, CHOSEN, REJECTED)
    for got, expected in zip(
        found, (value, BETA * along_chosen, BETA * along_rejected), strict=True
    ):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", GOLDEN)
def test_extreme_log_ratios_stay_finite(name):
    far = [[50.0, -50.0, 50.0, -50.0], [-50.0, 50.0, 50.0, -50.0]]
    for scale in (1.0, 10.0):
        for x in value_and_slopes(GOLDEN[name][0], *(np.array(far) * scale), torch.float32):
            assert torch.isfinite(x).all()


def test_by_hand():
    # beta (chosen - rejected) = 0.5 * (1.2 + 0.8) = 1: L = ln(1 + e^-1), slope -sigmoid(-1) / 2.
    value, slope, _ = value_and_slopes(GOLDEN["sigmoid"][0], [1.2], [-0.8])
    assert value.item() == pytest.approx(0.3132617, abs=1e-7)
    assert slope.item() == pytest.approx(-0.1344707, abs=1e-7)
    # Chosen 3 and 1 sorted are 1, 3; rejected 2 and 0 are 0, 2: both margins are 1.
    x, y = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 2.0])
    assert losses.sorted_margin(x, y).tolist() == [1.0, 1.0]


def test_sorting_hands_each_gradient_to_its_own_pair():
    x = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.0, 2.0, -4.0], dtype=torch.float64)
    sigmoid_loss(losses.sorted_margin(x, y), BETA).sum().backward()
    partners = np.array([2.0, -4.0, 0.0])  # the largest with the largest, and so on
    expected = -BETA * sigma(-BETA * (np.array([3.0, -1.0, 0.5]) - partners))
    np.testing.assert_allclose(x.grad.numpy(), expected)


RATIO = np.array([-2.0, 0.0, 0.7])
DIVERGENCES = {  # f'(u) and d f'/d log u
    "reverse_kl": (RATIO, np.ones(3)),
    "forward_kl": (1 - 1 / np.exp(RATIO), np.exp(-RATIO)),
    "js": (np.log(2 * np.exp(RATIO) / (1 + np.exp(RATIO))), 1 / (1 + np.exp(RATIO))),
    "alpha": ((1 - np.exp(RATIO) ** -0.3) / 0.3, np.exp(-0.3 * RATIO)),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences(name):
    x = torch.tensor(RATIO, requires_grad=True)
    score = losses.divergence_score(x, name, 0.3)
    score.sum().backward()
    np.testing.assert_allclose(score.detach().numpy(), DIVERGENCES[name][0], atol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), DIVERGENCES[name][1], atol=1e-12)
    far = torch.tensor([-500.0, -50.0, 50.0, 500.0], requires_grad=True)
    sigmoid_loss(losses.divergence_score(far, name, 0.3), 0.1).sum().backward()
    assert torch.isfinite(far.grad).all()


# Two pairs of unequal lengths; the second token of the first completion is masked.
LENGTHS = [(3, 1), (2, 4)]
PI = [[-1.0, -9.0, -2.0, 0.0], [-0.5, 0, 0, 0], [-0.3, -0.4, 0, 0], [-1.0, -2.0, -0.7, -0.1]]
REF = [[-1.5, -8.0, -2.5, 0.0], [-0.4, 0, 0, 0], [-0.9, -0.1, 0, 0], [-0.5, -1.0, -1.0, -0.6]]
SUM_P2 = [
    [-0.6, -9.0, -0.2, 0.0],
    [-0.8, 0, 0, 0],
    [-0.1, -0.3, 0, 0],
    [-0.4, -1.0, -0.7, -0.5],
]


def run_loss(**options):
    batch = collate([Example([1], [[5] * c, [6] * d]) for c, d in LENGTHS])
    batch.mask[0, 1] = False
    algorithm = DPO(beta=BETA, **options)
    pi = torch.tensor(PI, dtype=torch.float64, requires_grad=True)
    run = SimpleNamespace(
        policy=lambda batch, log_sum_p2: SimpleNamespace(
            logprobs=pi, log_sum_p2=torch.tensor(SUM_P2) if log_sum_p2 else None
        ),
        reference=lambda batch: SimpleNamespace(logprobs=torch.tensor(REF, dtype=torch.float64)),
    )
    loss = algorithm.alignzoo_loss(run, batch)
    loss.sum.backward()
    return loss, pi.grad.numpy()


# Log-ratios of the four completions: 0.5 + 0.5; -0.1; 0.6 - 0.3; -0.5 - 1.0 + 0.3 + 0.5.
R = np.array([1.0, -0.1, 0.3, -0.7])
N = np.array([2, 1, 2, 4])


def test_sigmoid_on_a_batch():
    loss, gradient = run_loss()
    margins = BETA * np.array([1.1, 1.0])
    assert loss.mean == pytest.approx(nll(margins).mean(), rel=1e-9)
    slope = BETA * sigma(-margins)
    expected = [[-slope[0], 0, -slope[0], 0], [slope[0], 0, 0, 0],
                [-slope[1], -slope[1], 0, 0], [slope[1]] * 4]  # fmt: skip
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    means = {name: float(total / count) for name, (total, count) in loss.metrics.items()}
    assert means == pytest.approx(
        {
            "rewards/chosen": BETA * 0.65,
            "rewards/rejected": BETA * -0.4,
            "rewards/margins": BETA * 1.05,
            "rewards/accuracies": 1.0,
            "logps/chosen": (-3.0 - 0.7) / 2,
            "logps/rejected": (-0.5 - 3.8) / 2,
        }
    )


def test_losses_that_are_normalised_by_length():
    margins = np.array([1.0 / 2 + 0.1, 0.3 / 2 + 0.7 / 4])
    assert run_loss(loss_type="sigmoid_norm")[0].mean == pytest.approx(nll(BETA * margins).mean())
    loss, gradient = run_loss(loss_type="ipo")
    assert loss.mean == pytest.approx(((margins - 1) ** 2).mean())
    np.testing.assert_allclose(gradient[3], -2 * (margins[1] - 1) / 4 * np.ones(4))


def test_sft_is_a_mean_over_completions_of_means_over_tokens():
    loss, gradient = run_loss(loss_type="sigmoid:2,sft:0.5")
    expected = 2 * nll(BETA * np.array([1.1, 1.0])) + 0.5 * np.array([3.0 / 2, 0.7 / 2])
    assert loss.mean == pytest.approx(expected.mean())
    alone = run_loss(loss_type="sft")[1]
    np.testing.assert_allclose(alone[[0, 2]], [[-0.5, 0, -0.5, 0], [-0.5, -0.5, 0, 0]])
    assert not alone[[1, 3]].any()
    np.testing.assert_allclose(gradient, 2 * run_loss()[1] + 0.5 * alone)


def test_tokens_past_the_shorter_completion_weigh_less():
    # The pair shares min(2, 1) = 1 token, then 2: r = 0.5 + 0.3 * 0.5, -0.1; 0.3, -1.5 + 0.3 * 0.8.
    margins = BETA * np.array([0.65 + 0.1, 0.3 + 1.26])
    loss, gradient = run_loss(ld_alpha=0.3)
    assert loss.mean == pytest.approx(nll(margins).mean())
    slope = BETA * sigma(-margins)
    np.testing.assert_allclose(gradient[0], -slope[0] * np.array([1, 0, 0.3, 0]))
    np.testing.assert_allclose(gradient[3], slope[1] * np.array([1, 1, 0.3, 0.3]))


def test_wpo_weights_a_pair_by_both_completions():
    # Means over tokens of log pi - log sum pi^2:
    # (-0.4 - 1.8) / 2, 0.3, (-0.2 - 0.1) / 2 and (-0.6 - 1.0 + 0.0 + 0.4) / 4.
    weights = np.exp(np.array([-1.1 + 0.3, -0.15 - 0.3]))
    loss, gradient = run_loss(wpo=True)
    assert loss.mean == pytest.approx((weights * nll(BETA * np.array([1.1, 1.0]))).mean())
    np.testing.assert_allclose(  # the weight has no gradient
        gradient, np.repeat(weights, 2)[:, None] * run_loss()[1], rtol=1e-6
    )


def test_wpo_weights_no_pair_above_one(monkeypatch):
    plain = run_loss()
    monkeypatch.setattr(
        "alignzoo_zoo.dpo.algorithm.wpo_weights",
        lambda *_: torch.tensor([1.5, 0.8, 0.5, 0.9], dtype=torch.float64),  # 1.2 and 0.45
    )
    capped = run_loss(wpo=True)
    np.testing.assert_allclose(capped[1][:2], plain[1][:2])
    np.testing.assert_allclose(capped[1][2:], 0.45 * plain[1][2:])


PUBLISHED = {
    "sigmoid": 0.1, "hinge": 0.05, "ipo": 1.0, "exo_pair": 0.1, "nca_pair": 0.01, "robust": 0.1,
    "bco_pair": 0.01, "sppo_hard": 0.001, "aot": 0.01, "aot_unpaired": 0.01, "apo_zero": 0.1,
    "apo_down": 0.1, "discopop": 0.05, "sft": 0.1, "sigmoid_norm": 5.0,
}  # fmt: skip


@pytest.mark.parametrize("name", list(LOSS_TYPES))
def test_the_default_of_beta_is_that_of_the_paper(name):
    smoothing = 0.001 if name == "exo_pair" else 0.0
    assert DPO(loss_type=name, label_smoothing=smoothing).beta == PUBLISHED[name]
    assert DPO(loss_type=name, label_smoothing=smoothing, beta=0.3).beta == 0.3


def test_the_default_of_beta_of_variants_and_sums():
    assert DPO(wpo=True).beta == 0.01
    assert DPO(reference_every=8).beta == 0.05
    assert DPO(reference_every=8, wpo=True).beta == 0.01
    assert DPO(loss_type="discopop", reference_every=8).beta == 0.05
    assert DPO(loss_type="ipo", wpo=True).beta == 1.0
    assert DPO(loss_type="sigmoid:0.8,bco_pair:0.2,sft:1").beta == 0.1
    assert DPO(loss_type="bco_pair,sigmoid").beta == 0.01


def test_weighted_sums():
    assert parse_loss_type("ipo") == {"ipo": 1.0}
    assert parse_loss_type(" sigmoid : 0.8 , sft:1e-1,bco_pair") == {
        "sigmoid": 0.8,
        "sft": 0.1,
        "bco_pair": 1,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "sigmod"}, "unknown loss 'sigmod'(.|\n)*Known: .*sigmoid"),
        ({"loss_type": ""}, "unknown loss ''"),
        ({"loss_type": "sigmoid,"}, "unknown loss ''"),
        ({"loss_type": "sft,sigmoid,sft:2"}, "'sft' is listed twice"),
        ({"loss_type": "sigmoid:x"}, "'x' is not a weight for 'sigmoid'"),
        ({"loss_type": "sigmoid:"}, "'' is not a weight"),
        ({"loss_type": "sigmoid:-1"}, "'-1' is not a weight"),
        ({"loss_type": "sigmoid:nan"}, "'nan' is not a weight"),
        ({"loss_type": "sigmoid:inf"}, "'inf' is not a weight"),
        ({"loss_type": "exo_pair"}, "--label-smoothing 0.001"),
        ({"loss_type": "hinge", "label_smoothing": 0.1}, "hinge does not read it"),
        ({"loss_type": "nca_pair,sigmoid", "divergence": "js"}, "needs reverse_kl"),
        ({"loss_type": "aot", "wpo": True}, "no pairs to weight"),
        ({"loss_type": "sft", "divergence": "js"}, "sft does not read it"),
        ({"discopop_tau": 0.1}, "for --loss-type discopop"),
        ({"divergence_alpha": 0.3}, "for --divergence alpha"),
        ({"reference_mix": 0.6}, "--reference-every N"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(BadInput, match=message):
        DPO(**options)


def test_losses_state_what_they_read():
    assert len(LOSS_TYPES) == 15
    readers = {
        option: {name for name, loss_type in LOSS_TYPES.items() if option in loss_type.reads}
        for option in ("beta", "label_smoothing", "divergence", "discopop_tau")
    }
    assert readers["beta"] == LOSS_TYPES.keys()
    assert readers["label_smoothing"] == {
        "sigmoid", "exo_pair", "robust", "aot", "aot_unpaired", "sigmoid_norm"
    }  # fmt: skip
    assert readers["divergence"] == {
        "sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm"
    }  # fmt: skip
    assert readers["discopop_tau"] == {"discopop"}
    assert DPO(loss_type="sigmoid,aot").couples_rows
    assert not DPO(loss_type="sigmoid,sft").couples_rows
    assert DPO(loss_type="sigmoid,sft", divergence="js").divergence == "js"


def test_the_former_name_of_the_loss_type_still_works():
    with pytest.warns(DeprecationWarning, match=r"DPO\(loss=\) is deprecated"):
        assert DPO(loss="ipo").weights == {"ipo": 1.0}
    with pytest.warns(DeprecationWarning, match="--loss is deprecated: use --loss-type"):
        assert build(DPO, {"loss": "ipo"}).loss_type == "ipo"


def test_robust_without_smoothing_is_sigmoid():
    margin = torch.linspace(-3, 3, 13)
    assert torch.equal(losses.robust_loss(margin, 0.1, 0.0), sigmoid_loss(margin, 0.1, 0.0))

    def name_of(**options):
        return canonical_name("dpo", DPO(**options), None)

    assert name_of(loss_type="robust") == name_of() == "dpo,beta=0.1"
    assert name_of(loss_type="robust:2,sft") == name_of(loss_type="sigmoid:2,sft")
    smooth = {"label_smoothing": 0.1}
    assert name_of(loss_type="robust", **smooth) != name_of(**smooth)
    assert name_of(loss_type="robust", beta=0.2) != name_of()
    assert name_of(loss_type="robust,sigmoid") != name_of(loss_type="sigmoid,robust:2")
    notes: list[str] = []
    run = SimpleNamespace(recipe=None, ui=SimpleNamespace(note=notes.append))
    for options in ({"loss_type": "robust"}, {}, {"loss_type": "robust", **smooth}):
        DPO(**options).alignzoo_start(run)
    assert len(notes) == 1 and "takes the steps of sigmoid" in notes[0]

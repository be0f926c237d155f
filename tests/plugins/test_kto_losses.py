"""KTO's and BCO's losses against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from plugin_fakes import bigram, fake_run

from alignzoo import Example, collate
from alignzoo_zoo.bco.algorithm import BCO
from alignzoo_zoo.bco.losses import bco_loss, running_delta
from alignzoo_zoo.kto.algorithm import KTO
from alignzoo_zoo.kto.losses import kto_loss, mismatch, reference_point

LABELS = torch.tensor([True, False])


def test_kto_value_and_gradient_by_hand():
    # beta (r - z0) = 0.5 * (1.2 - 0.4) = 0.4; sigmoid(0.4) = 0.5986877, and its slope 0.2402607.
    # desirable:   1.5 * (1 - 0.5986877) = 0.6019685, dL/dr = -1.5 * 0.5 * 0.2402607 = -0.1801956
    # undesirable: 0.8 * 0.5986877 = 0.4789501, dL/dr = 0.8 * 0.5 * 0.2402607 = 0.0961043
    r = torch.full((2,), 1.2, dtype=torch.float64, requires_grad=True)
    loss = kto_loss(r, LABELS, torch.tensor(0.4), 0.5, 1.5, 0.8)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.6019685, 0.4789501], abs=1e-7)
    assert r.grad.tolist() == pytest.approx([-0.1801956, 0.0961043], abs=1e-7)


def test_kto_without_kl_is_apo_zero():
    # sigmoid(0.3 * 2) = 0.6456563: 1 - that for the desirable, that for the undesirable.
    loss = kto_loss(torch.tensor([2.0, 2.0]), LABELS, torch.zeros(2), 0.3, 1.0, 1.0)
    assert loss.tolist() == pytest.approx([0.3543437, 0.6456563], abs=1e-6)


def test_bco_value_and_gradient_by_hand():
    # r - delta = 0.5 * 1.2 - 0.2 = 0.4: ln(1 + e^-0.4) = 0.5130153, ln(1 + e^0.4) = 0.9130153.
    # dL/dlog-ratio = -0.5 * (1 - 0.5986877) = -0.2006562 and 0.5 * 0.5986877 = 0.2993438.
    x = torch.full((2,), 1.2, dtype=torch.float64, requires_grad=True)
    loss = bco_loss(x, LABELS, 0.2, 0.5)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.5130153, 0.9130153], abs=1e-7)
    assert x.grad.tolist() == pytest.approx([-0.2006562, 0.2993438], abs=1e-7)


def test_the_running_delta_by_hand():
    # The midpoint of 2 and -1 is 0.5: 0.9 * 0.1 + 0.1 * 0.5 = 0.14.
    assert running_delta(0.1, 2.0, -1.0, 0.9) == pytest.approx(0.14)


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("log_ratio", [50.0, -50.0, 500.0, -500.0])
def test_extreme_log_ratios_stay_finite(log_ratio, label):
    x = torch.tensor([log_ratio], requires_grad=True)
    desirable = torch.tensor([label])
    good = (log_ratio > 0) == label
    kto = kto_loss(x, desirable, torch.tensor(0.5), 1.0, 1.0, 1.0)
    assert kto.item() == pytest.approx(0.0 if good else 1.0, abs=1e-6)
    bco = bco_loss(x, desirable, 0.0, 1.0)
    assert bco.item() == pytest.approx(0.0 if good else abs(log_ratio), abs=1e-6)
    (kto + bco).sum().backward()
    pull = 0.0 if good else (-1.0 if label else 1.0)
    assert x.grad.item() == pytest.approx(pull, abs=1e-6)


def test_a_negative_kl_estimate_is_0_and_so_is_one_of_nothing():
    assert reference_point(torch.tensor(3.0), torch.tensor(4.0)).item() == pytest.approx(0.75)
    assert reference_point(torch.tensor(-3.0), torch.tensor(4.0)).item() == 0.0
    assert reference_point(torch.tensor(0.0), torch.tensor(0.0)).item() == 0.0


def test_mismatched_completions_are_those_of_other_prompts():
    rows = [
        Example([1], [[10]]),
        Example([2], [[20]]),
        Example([2], [[21]]),  # the other side of a pair: no mismatch for the row before
        Example([3, 3, 3], [[30, 30, 30]]),
    ]
    found = [(e.prompt, e.completions) for e in mismatch(rows, max_length=4)]
    # The long prompt takes the first row's completion, and its own is cut for nobody.
    assert found == [([1], [[20]]), ([2], [[30, 30, 30]]), ([3, 3, 3], [[10]])]
    assert mismatch(rows, max_length=3)[1].completions == [[30, 30]]
    assert mismatch([rows[0]] * 5, max_length=4) == []


ROWS = [
    Example([1, 2], [[3, 4, 5]], masks=[[True, False, True]], columns={"label": [True]}),
    Example([2], [[0, 6]], columns={"label": [False]}),
    Example([5, 1, 0], [[6]], columns={"label": [True]}),
    Example([4, 4], [[1, 1, 2, 6]], columns={"label": [False]}),
]


def log_ratio(policy, reference, row: Example, completion: list[int], mask: list[bool]) -> float:
    """Return log pi - log pi_ref of a completion under two bigram models, in NumPy."""
    tables = [x.detach().numpy() for x in (policy, reference)]
    total, before = 0.0, row.prompt[-1]
    for token, counts in zip(completion, mask, strict=True):
        now, then = (t[before, token] - np.log(np.exp(t[before]).sum()) for t in tables)
        total += (now - then) * counts
        before = token
    return total


@pytest.mark.parametrize("micro_tokens", [1, 8, 8192])
def test_kto_from_token_ids_to_the_loss(micro_tokens):
    policy, reference = bigram(1), bigram(2)
    run = fake_run(policy, reference, micro_tokens)
    algorithm = KTO(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)
    loss = algorithm.alignzoo_loss(run, algorithm.alignzoo_sample(run, ROWS))

    masks = [row.masks[0] if row.masks else [True] * len(row.completions[0]) for row in ROWS]
    r = [
        log_ratio(policy, reference, row, row.completions[0], mask)
        for row, mask in zip(ROWS, masks, strict=True)
    ]
    others = [row.completions[0] for row in ROWS[1:] + ROWS[:1]]
    z0 = np.mean(
        [
            log_ratio(policy, reference, row, other, [True] * len(other))
            for row, other in zip(ROWS, others, strict=True)
        ]
    )
    assert z0 > 0.01
    good = [1.2 * (1 - 1 / (1 + np.exp(-0.3 * (r[i] - z0)))) for i in (0, 2)]
    bad = [0.7 * (1 - 1 / (1 + np.exp(-0.3 * (z0 - r[i])))) for i in (1, 3)]
    assert loss.sum.item() == pytest.approx(sum(good) + sum(bad), rel=1e-6)
    assert loss.count.item() == 4
    total, count = loss.metrics["kl"]
    assert (total / count).item() == pytest.approx(z0, rel=1e-6)
    total, count = loss.metrics["rewards/rejected"]
    assert (total / count).item() == pytest.approx(0.3 * (r[1] + r[3]) / 2, rel=1e-6)


def test_the_kl_has_no_gradient():
    policy, reference = bigram(2), bigram(1)
    batch = KTO().alignzoo_sample(fake_run(policy, reference), ROWS)
    assert not batch["kl"].requires_grad
    assert "kl" not in KTO(loss_type="apo_zero_unpaired").alignzoo_sample(None, ROWS).columns


def test_bco_moves_its_delta_after_the_step():
    run = fake_run(bigram(2), bigram(1))
    algorithm = BCO()
    first = algorithm.alignzoo_loss(run, collate(ROWS))
    metrics = {"rewards/chosen": 3.0, "rewards/rejected": 1.0}
    algorithm.alignzoo_step(run, 1, metrics)
    assert metrics["rewards/margins"] == 2.0
    assert run.state_of(algorithm) == {"delta": pytest.approx(0.2)}
    second = algorithm.alignzoo_loss(run, collate(ROWS))
    assert first.metrics["delta"][0].item() == 0.0
    assert second.metrics["delta"][0].item() == pytest.approx(0.2)
    assert first.sum.item() != second.sum.item()
    # A batch of one class says nothing about the midpoint.
    algorithm.alignzoo_step(run, 2, {"rewards/chosen": 9.0})
    assert run.state_of(algorithm) == {"delta": pytest.approx(0.2)}


def test_equal_policies_cost_a_half_and_ln_2():
    model = bigram(3)
    run = fake_run(model, model)
    batch = KTO().alignzoo_sample(run, ROWS)
    assert KTO().alignzoo_loss(run, batch).mean == 0.5
    assert BCO().alignzoo_loss(run, batch).mean == pytest.approx(math.log(2))

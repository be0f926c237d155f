"""NPO and SimNPO against numbers worked out by hand, and the rows that they refuse."""

from __future__ import annotations

import json
import math

import pytest
import torch
from plugin_fakes import bigram, fake_run, logprobs_of

from alignzoo import Example, collate
from alignzoo.cli import status
from alignzoo_zoo.npo.algorithm import NPO
from alignzoo_zoo.npo.losses import npo_loss, simnpo_loss

LN3 = math.log(3)


def value_and_slope(function, x: float) -> tuple[float, float]:
    leaf = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    loss = function(leaf)
    loss.sum().backward()
    return loss.item(), leaf.grad.item()


@pytest.mark.parametrize(
    ("log_ratio", "loss", "slope"),
    # beta = 1/2. At the reference 4 ln 2 and 1. At beta r = ln 3 sigmoid(-ln 3) = 1/4: L = 4 ln 4,
    # dL/dr = 2 * 3/4; at -ln 3, 4 ln (4/3) and 2 * 1/4. Forgotten: no loss and no slope.
    [
        (0.0, 4 * math.log(2), 1.0),
        (2 * LN3, 4 * math.log(4), 1.5),
        (-2 * LN3, 4 * math.log(4 / 3), 0.5),
        (-200.0, 0.0, 0.0),
    ],
)
def test_npo_by_hand(log_ratio, loss, slope):
    found = value_and_slope(lambda r: npo_loss(r, 0.5), log_ratio)
    assert found == pytest.approx((loss, slope), abs=1e-9)


def test_npo_of_a_small_beta_is_gradient_ascent():
    assert value_and_slope(lambda r: npo_loss(r, 1e-6), -3.0)[1] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("gamma", "loss", "slope"),
    # beta = 2 and m = -ln(3) / 2: -beta m = ln 3, sigmoid 3/4, so L = ln(4/3), dL/dm = 2 * 1/4.
    # gamma = ln 3 takes it to 0: L = ln 2, dL/dm = 2 * 1/2.
    [(0.0, math.log(4 / 3), 0.5), (LN3, math.log(2), 1.0)],
)
def test_simnpo_by_hand(gamma, loss, slope):
    found = value_and_slope(lambda m: simnpo_loss(m, 2.0, gamma), -LN3 / 2)
    assert found == pytest.approx((loss, slope), abs=1e-9)


def test_a_row_is_forgotten_or_kept_by_its_label():
    rows = [
        Example([1], [[3, 4, 5]], columns={"label": [False]}),
        Example([5], [[0, 2]], columns={"label": [True]}),
        Example([2], [[6]], columns={"label": [False]}),
    ]
    batch, policy, reference = collate(rows), bigram(0), bigram(1)
    logps = batch.total(logprobs_of(policy, batch))
    ratios = logps - batch.total(logprobs_of(reference, batch))
    found = NPO(beta=0.5, retain_weight=3.0).alignzoo_loss(fake_run(policy, reference), batch)
    expected = npo_loss(ratios[[0, 2]], 0.5).sum() - 3.0 * logps[1] / 2
    assert found.sum.item() == pytest.approx(expected.item()) and found.count.item() == 3
    total, count = found.metrics["npo/retain_nll"]
    assert (total.item(), count.item()) == pytest.approx((-logps[1].item() / 2, 1))
    total, count = found.metrics["npo/forget_nll"]
    assert (total.item(), count.item()) == pytest.approx(
        (-logps[0].item() / 3 - logps[2].item(), 2)
    )
    found = NPO(loss_type="simnpo", beta=0.5).alignzoo_loss(fake_run(policy), batch)
    means = logps / torch.tensor([3, 2, 1])
    expected = simnpo_loss(means[[0, 2]], 0.5, 0.0).sum() - means[1]
    assert found.sum.item() == pytest.approx(expected.item())


def run_npo(tmp_path, label: bool, *words: str) -> int:
    path = tmp_path / "d.jsonl"
    rows = [{"prompt": f"Say {i}.", "completion": f"{i}!", "label": label} for i in range(4)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    out = str(tmp_path / "runs")
    return status(["run", "npo", "--data", str(path), "--output-dir", out, *words])


def test_rows_with_nothing_to_forget_are_refused(tmp_path, capfd):
    assert run_npo(tmp_path, True) == 2
    message = capfd.readouterr().err
    assert "column 'label' is true in all 4 rows: nothing to forget" in message
    assert "d.jsonl" in message and "label false" in message
    assert not (tmp_path / "runs").exists()


def test_a_margin_without_simnpo_is_refused(tmp_path, capfd):
    assert run_npo(tmp_path, False, "--gamma", "0.5") == 2
    assert "--gamma" in capfd.readouterr().err


def test_rows_that_only_forget_are_said_to_protect_nothing(tmp_path, capfd):
    assert run_npo(tmp_path, False, "--steps", "1", "--batch-size", "2", "--eval-size", "0") == 0
    assert "no row has the label true" in "".join(capfd.readouterr())

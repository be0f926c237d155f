"""TPO: its loss by hand and as TRL 1.16 (trl.experimental) computes it, and rows with a gold."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from plugin_fakes import bigram, fake_run

from alignzoo import Example, collate
from alignzoo.cli import status
from alignzoo.data import BadValue, UnusableRow
from alignzoo_zoo.cpo.losses import cpo_loss
from alignzoo_zoo.tpo.algorithm import TPO
from alignzoo_zoo.tpo.losses import tpo_loss
from alignzoo_zoo.tpo.view import Triples


def leaf(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


def test_tpo_by_hand():
    # 0.2 * (-3 + 5) - 0 = 0.4: 0.5130153 and a slope of 0.2 * 0.4013123, plus 0.7 * 1.5. With a
    # margin of 0.4 the two are even: ln 2 and 0.2 * 0.5.
    for gamma, preference, slope in ((0.0, 0.5130153, 0.0802625), (0.4, math.log(2), 0.1)):
        chosen, rejected, gold = leaf(-3.0), leaf(-5.0), leaf(-1.5)
        loss = tpo_loss(chosen, rejected, gold, beta=0.2, gamma=gamma, nll_weight=0.7)
        loss.sum().backward()
        assert loss.item() == pytest.approx(preference + 1.05, abs=1e-7)
        assert chosen.grad.item() == pytest.approx(-slope, abs=1e-7)
        assert rejected.grad.item() == pytest.approx(slope, abs=1e-7)
        assert gold.grad.item() == pytest.approx(-0.7)


def test_tpo_that_imitates_the_chosen_side_is_cpo():
    chosen, rejected, mean = leaf(-3.0), leaf(-5.0), leaf(-1.5)
    ours = tpo_loss(chosen, rejected, mean, beta=0.2, gamma=0.0, nll_weight=0.7)
    assert ours.item() == cpo_loss(chosen, rejected, mean, 0.2, 0.7).item()


# Both gold sides have three tokens, for TRL's mean over the tokens of the batch.
TRIPLES = [
    Example([1], [[3, 4, 5], [6], [2, 2, 4]]),
    Example([5], [[0, 2], [2, 2, 6, 1], [1, 3, 0]]),
]


def trl_loss(policy: torch.Tensor, loss_type: str, beta: float) -> torch.Tensor:
    trainer_class = pytest.importorskip("trl.experimental.tpo").TPOTrainer
    trainer = SimpleNamespace(
        loss_type=loss_type, beta=beta, label_smoothing=0.0, tpo_alpha=0.6, tpo_l_gamma=0.3,
        model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    texts = [(e.prompt, e.completions[side]) for side in range(3) for e in TRIPLES]
    width = max(len(prompt) + len(answer) for prompt, answer in texts)

    def padded(rows):
        return torch.tensor([row + [0] * (width - len(row)) for row in rows])

    inputs = {
        "input_ids": padded([prompt + answer for prompt, answer in texts]),
        "attention_mask": padded([[1] * len(prompt + answer) for prompt, answer in texts]),
        "completion_mask": padded([[0] * len(p) + [1] * len(a) for p, a in texts]),
    }

    def model(input_ids, **_):
        return SimpleNamespace(logits=policy[input_ids])

    return trainer_class._compute_loss(trainer, model, inputs, False)


@pytest.mark.parametrize(("loss_type", "name"), [("tpo", "sigmoid"), ("tpo-l", "tpo-l")])
def test_the_loss_and_its_gradient_are_those_of_trl(loss_type, name):
    margin = {"gamma": 0.3} if loss_type == "tpo-l" else {}
    policy = bigram(4)
    algorithm = TPO(loss_type=loss_type, beta=1.5, nll_weight=0.6, **margin)
    ours = algorithm.alignzoo_loss(fake_run(policy), collate(TRIPLES))
    (ours.sum / ours.count).backward()
    gradient, policy.grad = policy.grad, None
    theirs = trl_loss(policy, name, 1.5)
    theirs.backward()
    assert ours.mean == pytest.approx(theirs.item(), abs=1e-5)
    assert torch.allclose(gradient, policy.grad, atol=1e-5)
    assert gradient.abs().max() > 1e-3


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("row", "gold"),
    [
        ({"prompt": "Q", "chosen": "b", "rejected": "c", "reference": "a"}, "a"),
        ({"prompt": "Q", "chosen": "b", "rejected": "c"}, "b"),
        ({"prompt": "Q", "chosen": "b", "rejected": "c", "reference": None}, "b"),
        ({"chosen": "Q b", "rejected": "Q c", "reference": "Q a"}, " a"),
        (
            {"prompt": user("Q"), "chosen": "b", "rejected": "c", "reference": "a"},
            says("a"),
        ),
        (
            {
                "chosen": user("Q") + says("b"),
                "rejected": user("Q") + says("c"),
                "reference": user("Q") + says("a"),
            },
            says("a"),
        ),
    ],
)
def test_the_gold_completion_of_a_row(row, gold):
    found = Triples.canonical(row)
    assert found["reference"] == gold
    assert Triples.canonical(found) == found


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        (3, BadValue, "'reference'.*expected text"),
        (says("a"), BadValue, "the other messages"),
        ("c", UnusableRow, "'reference' in the place of 'chosen'"),
    ],
)
def test_a_wrong_gold_completion(reference, error, message):
    with pytest.raises(error, match=message):
        Triples.canonical({"prompt": "Q", "chosen": "b", "rejected": "c", "reference": reference})


def test_a_gold_completion_of_another_prompt():
    with pytest.raises(BadValue, match="does not begin with the prompt that the others share"):
        Triples.canonical({"chosen": "Q b", "rejected": "Q c", "reference": "a"})
    dialogues = {"chosen": user("Q") + says("b"), "rejected": user("Q") + says("c")}
    with pytest.raises(UnusableRow):
        Triples.canonical({**dialogues, "reference": user("P") + says("a")})


def test_the_message_names_the_row_and_the_column(tmp_path, capfd):
    path = tmp_path / "d.jsonl"
    rows = [
        {"prompt": "Q", "chosen": "b", "rejected": "c", "reference": value} for value in ("a", 7)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    out = str(tmp_path / "runs")
    assert status(["run", "tpo", "--data", str(path), "--output-dir", out]) == 2
    message = capfd.readouterr().err
    assert "d.jsonl" in message and "2" in message and "'reference'" in message

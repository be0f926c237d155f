"""online-dpo, xpo and nash-md on zoo-tiny: what they sample, keep and train on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from alignzoo.batch import Batch
from alignzoo.cli import status
from alignzoo.rollout import complete
from alignzoo.training.loop import train, update

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 36}
ALL = ["online-dpo", "xpo", "nash-md"]
REWARD = """
from alignzoo import RowReward

class Made(RowReward):
    "These scores, one after the other."

    def __init__(self):
        self.asked = 0

    def score(self, row, completion):
        self.asked += 1
        return {scores}[(self.asked - 1) % {count}]
"""


@pytest.fixture
def make(make_run, tmp_path: Path):
    def made(algorithm: str, scores: list[float | None], **settings):
        path = tmp_path / "made.py"
        path.write_text(REWARD.format(scores=scores, count=len(scores)))
        run = make_run(algorithm, reward=[str(path)], **{**SETTINGS, **settings})
        move(run)
        return run

    return made


def move(run, seed: int = 1, scale: float = 0.03) -> None:
    """Move the policy away from the base, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def sampled(run) -> Batch:
    return run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])


def tokens_of(batch: Batch) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(batch.tokens, batch.lengths, strict=True)]


def test_online_dpo_keeps_best_and_worst(make):
    scores = [0.0, 2.0, 1.0, 3.0, 3.0, 3.0, None, 1.0, 1.0, 5.0, None, -1.0]
    run = make("online-dpo", scores, options={"group_size": 3})
    batch = sampled(run)
    drawn = [c.tokens for group in complete(run, run.data.train[:4], 3) for c in group]
    # Of the first prompt the second is best and the first worst; of the last the first and third.
    assert tokens_of(batch) == [drawn[n] for n in (0, 1, 9, 11)]
    assert batch["advantages"].tolist() == [-1.0, 1.0, 1.0, -1.0]
    assert torch.allclose(batch["reference"], run.reference(batch).logprobs, atol=1e-5)
    assert run.round_metrics.numbers["frac_pairs_tied"] == 0.5
    assert run.round_metrics.numbers["objective/scores_margin"] == 4.0  # 2 and 6
    rewards = run.hook.alignzoo_loss(run=run, batch=batch).metrics
    log_ratio = batch.total(run.policy(batch).logprobs.detach() - batch["reference"])
    assert float(rewards["rewards/chosen"][0]) == pytest.approx(
        0.1 * float(log_ratio[1] + log_ratio[2]), abs=1e-5
    )


def test_completions_in_no_pair_cost_no_forward_pass(make):
    tokens = {}
    for name, scores in {"some": [0.0, 1.0, 0.0, 0.0], "all": [0.0, 1.0]}.items():
        run = make("online-dpo", scores, name=name)
        batch = sampled(run)
        assert run.ledger.tokens["reference"] == run.model.work(batch).tokens
        tokens[name] = run.ledger.tokens["reference"]
    assert tokens["some"] < 0.6 * tokens["all"]


@pytest.mark.parametrize("algorithm", ["online-dpo", "xpo"])
def test_ties_change_nothing(make, algorithm):
    run = make(algorithm, [1.0], steps=2)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    train(run)
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    assert run.step == 2 and len(lines) == 2
    for line in map(json.loads, lines):
        assert line["frac_pairs_tied"] == 1.0 and line["loss"] == line["grad_norm"] == 0.0
    assert all(torch.equal(p, before[name]) for name, p in run.model.named_parameters())


def test_the_penalty_applies_to_completions_without_eos(make):
    # Every pair is tied except for the penalty of those that are cut off.
    run = make("online-dpo", [1.0], options={"missing_eos_penalty": 0.5}, max_new_tokens=38)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:16])
    assert 0 < len(batch) < 16
    assert torch.equal(batch["advantages"] > 0, batch["ended"])
    assert run.round_metrics.numbers["objective/scores_margin"] == 0.5


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_xpo_pairs_the_policy_with_the_reference(make, adapter):
    run = make("xpo", [0.0, 2.0, 1.0, 1.0, None, 1.0, 3.0, 1.0], adapter=adapter)
    batch = sampled(run)
    assert len(batch) == 2 and batch["advantages"].tolist() == [-1.0, 1.0, 1.0, -1.0]
    # The log-probs are those with which the policy drew its own; the reference's are unknown.
    with torch.no_grad():
        policy = run.policy(batch).logprobs
    own, other = batch.pairs(batch["logprobs"])
    assert torch.allclose(own, batch.pairs(policy)[0], atol=1e-4)
    assert torch.equal(other.isnan(), batch.pairs(batch.mask)[1])
    log_ratio = (policy - batch["reference"])[batch.mask]
    assert log_ratio.abs().max() > 1e-2  # the two models differ
    # Ties count in these, completions without a reward do not.
    assert run.round_metrics.numbers["objective/model_scores"] == pytest.approx(4 / 3)
    assert run.round_metrics.numbers["objective/ref_scores"] == 5 / 4


def test_xpo_adds_the_log_prob_of_the_reference_completion(make):
    run = make("xpo", [0.0, 1.0], options={"alpha": 0.01})
    batch = sampled(run)
    with torch.no_grad():
        ours, logps = run.hook.alignzoo_loss(run=run, batch=batch), run.policy(batch).logprobs
    _, reference_drawn = batch.pairs(batch.total(logps))
    rejected, chosen = batch.pairs(batch.total(logps - batch["reference"]))  # the policy's lost
    dpo = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected))
    assert float(ours.sum) == pytest.approx(float((dpo + 0.01 * reference_drawn).sum()), abs=1e-4)
    assert float(ours.metrics["loss/xpo"][0]) == pytest.approx(
        float(0.01 * reference_drawn.sum()), abs=1e-4
    )


def test_nash_md_trains_on_its_own_completions(make):
    scores = [0.0, 2.0, 1.0, 1.0, None, 1.0, 3.0, 1.0]
    run = make("nash-md", scores, options={"mixture": 0.5})
    batch = sampled(run)
    rows = run.data.train[:4]
    drawn = [c.tokens for group in complete(run, rows, 1) for c in group]
    assert tokens_of(batch) == [drawn[n] for n in (0, 1, 3)]
    e = math.exp(2)
    assert batch["advantages"].tolist() == pytest.approx(
        [1 / (1 + e) - 0.5, 0.0, e / (1 + e) - 0.5]
    )
    assert run.round_metrics.numbers["rewards/probabilities"] == pytest.approx(0.5)
    assert run.round_metrics.numbers["objective/mixture_scores"] == 5 / 4
    assert float(run.hook.alignzoo_loss(run=run, batch=batch).count) == 3.0
    # The opponent was sampled from the mixture, which also needs the reference.
    asked = run.ledger.tokens["reference"]
    complete(run, rows, 1, stream="mixture", mixture=0.5)
    mixed = run.ledger.tokens["reference"] - asked
    assert asked == mixed + run.model.work(batch).tokens > mixed > 0


def test_a_mixture_is_charged_for_both_models(make):
    spent = {}
    for share in (0.0, 0.3):
        run = make("nash-md", [0.0, 1.0], name=f"mixed-{share}")
        complete(run, run.data.train[:4], 1, mixture=share)
        spent[share] = dict(run.ledger.tokens)
    assert spent[0.0]["reference"] == 0
    assert spent[0.3]["reference"] == spent[0.3]["generation"] > 0


@pytest.mark.parametrize("algorithm", ALL)
def test_the_update_does_not_depend_on_micro_batches(make, monkeypatch, algorithm):
    run = make(algorithm, [0.0, 1.0, 3.0, 1.0], max_grad_norm=1e9, learning_rate=1.0, warmup=0.0)
    batch = sampled(run)
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    found = []
    for parts in ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[3, 0, 2], [1]]):
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "split", lambda self, _, parts=parts: [*map(self.select, parts)])
            optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)
            metrics = update(run, optimizer, batch)
        found.append(
            (metrics, {name: p.detach().clone() for name, p in run.model.named_parameters()})
        )
        run.model.load_state(start)
        run.schedule.step = 0
    whole, expected = found[0]
    assert max((expected[name] - start[name]).abs().max() for name in start) > 1e-4
    for metrics, weights in found[1:]:
        assert metrics == pytest.approx(whole, rel=2e-5, abs=1e-6)
        for name, weight in weights.items():
            assert torch.allclose(weight, expected[name], rtol=0, atol=2e-6), name


@pytest.mark.parametrize("algorithm", ALL)
def test_a_step_raises_the_chosen_completion(make, algorithm):
    run = make(algorithm, [0.0, 1.0, 1.0, 0.0], learning_rate=1e-4, warmup=0.0)
    batch = sampled(run)
    sign = batch["advantages"].sign()
    optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)

    def margin() -> float:
        return float((sign * batch.total(run.policy(batch).logprobs)).sum())

    with torch.no_grad():
        before = margin()
    update(run, optimizer, batch)
    with torch.no_grad():
        after = margin()
    assert after > before


@pytest.mark.parametrize("algorithm", ALL)
def test_a_whole_run(make_run, algorithm):
    run = make_run(algorithm, **SETTINGS, steps=2)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    train(run)
    assert run.step == 2 and run.ledger.flops["generation"] > 0
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())


@pytest.mark.parametrize("algorithm", ALL)
def test_greedy_sampling_is_refused(tmp_path, capfd, algorithm):
    words = ["run", algorithm, "--temperature", "0", "--output-dir", str(tmp_path / "runs")]
    assert status(words) == 2
    assert "--temperature" in capfd.readouterr().err


@pytest.mark.parametrize("algorithm", ["xpo", "nash-md"])
def test_the_group_size_is_fixed(tmp_path, capfd, algorithm):
    words = ["run", algorithm, "--group-size", "4", "--output-dir", str(tmp_path / "runs")]
    assert status(words) == 2
    assert "--group-size" in capfd.readouterr().err

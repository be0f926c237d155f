"""GRPO and RLOO on zoo-tiny: updates match the samples and do not depend on micro-batches."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo.batch import Batch
from alignzoo.cli import status
from alignzoo.training.loop import train, update
from alignzoo_zoo.grpo.loss_types import LOSS_TYPES

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 36}
SPLITS = [[[0], [1], [2], [3]], [[3, 0, 2], [1]]]


def move(run, seed: int = 1, scale: float = 0.02) -> None:
    """Move the policy away from the base, so that ratios and KL are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def stepped(run, monkeypatch, batch: Batch, parts: list[list[int]]):
    """Return metrics and weights after one SGD step on the batch in these micro-batches."""
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    monkeypatch.setattr(Batch, "split", lambda self, _: [self.select(part) for part in parts])
    optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)
    metrics = update(run, optimizer, batch)
    after = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.model.load_state(start)
    run.schedule.step = 0
    return metrics, after


def assert_same_from_any_split(run, monkeypatch, batch: Batch) -> None:
    whole, expected = stepped(run, monkeypatch, batch, [[0, 1, 2, 3]])
    before = {name: p.detach() for name, p in run.model.named_parameters()}
    assert max((expected[n] - before[n]).abs().max() for n in before) > 1e-4
    for parts in SPLITS:
        metrics, weights = stepped(run, monkeypatch, batch, parts)
        assert metrics == pytest.approx(whole, rel=2e-5, abs=1e-6)
        for name, weight in weights.items():
            assert torch.allclose(weight, expected[name], rtol=0, atol=1e-6), name


def test_no_loss_depends_on_micro_batches(make_run, monkeypatch):
    options = {"group_size": 3, "beta": 0.1, "entropy_bonus": 0.01, "mask_truncated": True}
    run = make_run("grpo", options=options, **SETTINGS, max_grad_norm=1e9, learning_rate=1.0)
    run.recipe.warmup = 0.0
    move(run, scale=0.01)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    # Sums are about as long as the limit: some completions are cut off, some are not.
    assert 0 < batch["ended"].sum() < 12
    batch.columns["advantages"] = torch.linspace(-1.0, 1.0, 12)  # independent of the answers
    move(run, seed=2)
    for name in LOSS_TYPES:
        run.algorithm.loss_type = name
        assert_same_from_any_split(run, monkeypatch, batch)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_rloo_does_not_depend_on_micro_batches(make_run, monkeypatch, level):
    options = {"group_size": 3, "level": level, "epsilon": 0.9}
    run = make_run("rloo", options=options, **SETTINGS, max_grad_norm=1e9, learning_rate=0.1)
    run.recipe.warmup = 0.0
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    batch.columns["advantages"] = torch.linspace(-1.0, 1.0, 12)
    move(run)
    assert_same_from_any_split(run, monkeypatch, batch)


def logged(run) -> list[dict]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("grpo", {"beta": 0.1, "iterations": 2, "round_prompts": 8}),
        ("rloo", {"iterations": 2, "round_prompts": 8}),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_at_learning_rate_0_policy_sampler_and_reference_agree(
    make_run, algorithm, options, temperature
):
    settings = {**SETTINGS, "temperature": temperature}
    run = make_run(algorithm, options={"group_size": 3, **options}, **settings, steps=6)
    run.learning_rate = 0.0
    train(run)
    rows = logged(run)
    # Two rounds of 8 prompts, each in 2 steps of 4, in two passes; the run ends in the second.
    assert len(rows) == 6 and run.round == 2
    for row in rows:
        assert row["clip_ratio/region_mean"] == 0.0
        assert abs(row["kl"]) < 1e-6
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    with torch.no_grad():
        policy = run.policy(batch, temperature=temperature).logprobs
    assert (policy - batch["logprobs"]).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "options", "others"),
    [
        ("grpo", {"scale_rewards": "none", "kl_in": "reward", "kl_estimator": "k1"}, 1.0),
        (
            "rloo",
            {},
            3 / 2,
        ),  # minus the mean of the other two: 3/2 of the distance to the mean of all three
    ],
)
def test_advantages_are_of_rewards_minus_kl(make_run, algorithm, options, others):
    options = {"group_size": 3, "beta": 0.5, **options}
    run = make_run(algorithm, options=options, **SETTINGS)
    move(run, scale=0.05)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    with torch.no_grad():
        kl = batch.total(run.policy(batch).logprobs - run.reference(batch).logprobs)
    assert kl.abs().max() > 0.1
    rewards = batch.groups(batch["rewards"] - 0.5 * kl)
    expected = others * (rewards - rewards.mean(1, keepdim=True)).flatten()
    assert torch.allclose(batch["advantages"], expected, atol=1e-4)


def test_there_is_no_reference_if_beta_is_0(make_run):
    for algorithm, beta in (("grpo", 0.0), ("rloo", 0.0), ("grpo", 0.1)):
        run = make_run(algorithm, options={"beta": beta}, adapter="none", **SETTINGS)
        assert run.model.has_reference == (beta > 0)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_greedy_sampling_is_refused(tmp_path, capfd, algorithm):
    words = ["run", algorithm, "--temperature", "0", "--output-dir", str(tmp_path / "runs")]
    assert status(words) == 2
    assert "--temperature" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()

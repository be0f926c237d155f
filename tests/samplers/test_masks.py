"""Tokens that the policy did not write, inside its completions: nothing is learned from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from alignzoo import Example, discovery
from alignzoo.data import Prompts
from alignzoo.errors import RunFailed
from alignzoo.evaluation.items import score_items
from alignzoo.policy.layout import token_mask
from alignzoo.rollout import Completion, Sampling, batch_completions
from alignzoo.rollout.mismatch import DIFFERENCE, RATIO
from alignzoo.training import checkpoint
from alignzoo.training.loop import train
from alignzoo_rewards.written import Length
from alignzoo_suite.sums import Sums
from alignzoo_zoo.grpo.loss_types import LOSS_TYPES
from alignzoo_zoo.spin.saved_pairs import load_pairs, save_pairs

# A sampler with a tool: after at most two tokens of the policy come four that it did not write, and
# the policy goes on after them.
CODE = """
from dataclasses import dataclass, replace
from alignzoo.rollout import DefaultSampler, Sampling, generate, seeds

TOOL = [5, 9, 5, 9]

@dataclass
class Tools(DefaultSampler):
    external_logprobs: bool = False
    unknown: bool = True

    def complete(self, run, rows, size, stream):
        prompts = [row.prompt for row in rows for _ in range(size)]
        first, second = (seeds(run, len(prompts), f"{stream} {n}") for n in range(2))
        sampling = replace(Sampling.of(run.recipe, run.codec), max_new_tokens=2)
        with run.model.evaluating():
            begun = generate(run.model, prompts, first, sampling, charge=run.ledger.charge)
            asked = [p + c.tokens + TOOL for p, c in zip(prompts, begun)]
            ended = generate(run.model, asked, second, sampling, charge=run.ledger.charge)
        for completion, rest in zip(begun, ended):
            completion.mask = [True] * len(completion.tokens) + [False] * 4 + rest.written
            completion.tokens += TOOL + rest.tokens
            completion.logprobs += [float("nan") if self.unknown else 0.0] * 4 + rest.logprobs
            completion.ended = rest.ended
        return [begun[i : i + size] for i in range(0, len(begun), size)]
"""
TASK = "sums,prompts=20,demonstrations=20,held_out=4"
SETTINGS = {"task": TASK, "batch_size": 2, "max_new_tokens": 8, "temperature": 1.5}
MASK = [True, False, True, True]
# What an algorithm needs to run at all, and its variants. Constitutional AI learns from revisions,
# which are text that a critic wrote.
OPTIONS = {
    "constitutional": [],
    "grpo": [
        *[{"beta": 0.1, "loss_type": name, "group_size": 4} for name in LOSS_TYPES],
        {"beta": 0.1, "kl_in": "reward", "dynamic_sampling": 1, "entropy_bonus": 0.1},
    ],
    "irpo": [{"round_prompts": 0}],
    "ppo": [{"round_prompts": 0}, {"round_prompts": 0, "values": "own", "whiten_rewards": True}],
    "raft": [{"beta": 0.1}],
    "reinforce": [{"loss_type": name} for name in ("reinforce", "plus-plus", "plus-plus-baseline")],
    "rlaif": [{"judge": "gold"}],
    "rloo": [{"level": "sequence"}, {"level": "token"}],
    "self-rewarding": [{"round_prompts": 0}],
    "sppo": [{"round_prompts": 0}],
}


def on_policy_cases() -> list:
    """Every installed algorithm that learns from completions of its own, with its variants."""
    found = []
    for name in discovery.discover("algorithms"):
        algorithm = discovery.load_plugin("algorithms", name)
        if name == "spin" or (algorithm.data is Prompts and getattr(algorithm, "trains", True)):
            for options in OPTIONS.get(name, [{}]):
                found.append(pytest.param(name, options, id=f"{name} {[*options.values()]}"))
    return found


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "tools.py"
    path.write_text(CODE)
    return str(path)


def shift_foreign(run, monkeypatch, shift: torch.Tensor) -> None:
    """Add `shift` to whatever a forward pass gives for tokens that the policy did not write."""
    forwards = run.forwards
    policy, reference, values = forwards.policy, forwards.reference, forwards.values

    def shifted(x, batch):
        return x if x is None else x + shift * (token_mask(batch) & ~batch.mask)

    def outputs(found, batch):
        wanted = ("logprobs", "entropy", "log_sum_p2", "values")
        return replace(found, **{n: shifted(getattr(found, n), batch) for n in wanted})

    monkeypatch.setattr(forwards, "policy", lambda b, **o: outputs(policy(b, **o), b))
    monkeypatch.setattr(forwards, "reference", lambda b, **o: outputs(reference(b, **o), b))
    monkeypatch.setattr(forwards, "values", lambda b: shifted(values(b), b))


def step(run, monkeypatch, shift: float):
    """Return what a step comes to: loss, gradients, and all metrics of it and of its round."""
    leaf = torch.tensor(shift, requires_grad=True)
    run.round_metrics.numbers.clear()
    with monkeypatch.context() as patch:
        shift_foreign(run, patch, leaf)
        rows = [run.data.train[i] for i in range(2)]
        batch = run.hook.alignzoo_sample(run=run, rows=rows)
        foreign = token_mask(batch) & ~batch.mask
        assert foreign.any() and len(batch)
        parameters = list(run.model.parameters())
        for parameter in parameters:
            parameter.grad = None
        loss = run.hook.alignzoo_loss(run=run, batch=batch)
        loss.sum.backward()
    assert leaf.grad is None or leaf.grad == 0
    metrics = {name: tuple(map(float, pair)) for name, pair in loss.metrics.items()}
    gradients = [p.grad for p in parameters if p.grad is not None]
    return loss.sum, loss.count, gradients, metrics | run.round_metrics.numbers


def check_independence(run, monkeypatch) -> None:
    run.model.eval()  # no dropout
    total, count, gradients, metrics = step(run, monkeypatch, 0.0)
    assert total.isfinite() and any(g.abs().sum() > 0 for g in gradients)
    other_total, other_count, other_gradients, other_metrics = step(run, monkeypatch, -3.0)
    assert torch.equal(total, other_total) and torch.equal(count, other_count)
    for one, other in zip(gradients, other_gradients, strict=True):
        assert torch.equal(one, other)
    assert metrics == other_metrics
    if "kl" in metrics:  # the policy has not moved
        total, count = metrics["kl"]
        assert abs(total / count) < 1e-5


@pytest.fixture
def distinct(monkeypatch):
    """Scores that differ between completions, however bad all of them are."""
    monkeypatch.setattr(Sums, "score", lambda task, row, text: sum(map(ord, text)) % 11 / 11)


@pytest.mark.usefixtures("distinct")
@pytest.mark.parametrize(("algorithm", "options"), on_policy_cases())
def test_no_algorithm_learns_from_foreign_tokens(make_run, monkeypatch, tools, algorithm, options):
    run = make_run(algorithm, options=options, sampler=tools, **SETTINGS)
    run.hook.alignzoo_start(run=run)
    check_independence(run, monkeypatch)


@pytest.mark.usefixtures("distinct")
def test_a_sampler_of_another_program_is_corrected_on_the_tokens_of_the_policy(
    make_run, monkeypatch, tools
):
    sampler = f"{tools},external_logprobs=true,unknown=false"
    run = make_run("rloo", sampler=sampler, **SETTINGS)
    check_independence(run, monkeypatch)
    weights = [run.round_metrics.numbers[f"{RATIO}/{name}"] for name in ("min", "max")]
    assert weights == pytest.approx([1.0, 1.0], abs=1e-4)


@pytest.mark.usefixtures("distinct")
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_policy_stays_with_the_reference_at_a_vanishing_rate(make_run, tools, algorithm):
    options = {"beta": 0.1, **({"iterations": 1, "round_prompts": 4} if algorithm == "ppo" else {})}
    settings = {**SETTINGS, "learning_rate": 1e-9, "steps": 3}
    run = make_run(algorithm, options=options, sampler=tools, **settings)
    train(run)
    rows = [json.loads(x) for x in (run.record.folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert abs(row["kl"]) < 1e-4 and row[f"{DIFFERENCE}/max"] < 1e-4
        # At most two tokens before the tool's and two after them.
        assert 0 < row["completions/mean_length"] <= row["completions/max_length"] <= 4


def example(**more) -> Completion:
    return Completion([7, 8, 9, 10], [-1.0, float("nan"), -2.0, -0.5], mask=MASK, **more)


def test_what_a_batch_has_of_them():
    completions = [example(ended=True), Completion([7], [-1.0])]
    batch = batch_completions([Example([1, 2], [])], [completions])
    assert batch.mask.tolist() == [MASK, [True, False, False, False]]
    assert batch.lengths.tolist() == [4, 1]
    assert batch["logprobs"].tolist() == [[-1.0, 0.0, -2.0, -0.5], [-1.0, 0.0, 0.0, 0.0]]
    # A length of 3 tokens of the policy, 2 more than 1.
    assert Length(most=1, soft=4).alignzoo_reward(None, batch).tolist() == [-0.5, 0.0]
    assert (completions[0].length, completions[0].logprob) == (3, -3.5)
    with pytest.raises(RunFailed, match="a mask of 2 for 1 token"):
        batch_completions([Example([1], [])], [[Completion([7], [-1.0], mask=[True, False])]])


def test_they_last_in_a_checkpoint_and_in_saved_pairs(make_run, tmp_path):
    batch = batch_completions([Example([1, 2], [])], [[example()]])
    checkpoint.write_checkpoint(tmp_path / "checkpoints", 1, {}, {}, {}, [batch])
    (path,) = checkpoint.find_checkpoints(tmp_path / "checkpoints")
    assert checkpoint.read_batch(path, 0).mask.tolist() == [MASK]
    run = make_run("spin", task=TASK, steps=1)
    pairs = [Example([1, 2], [[3], [7, 8, 9, 10]], masks=[[True], MASK])]
    save_pairs(run, pairs)
    assert load_pairs(run, 0) == pairs


def test_an_evaluation_leaves_them_out(make_run):
    run = make_run("grpo", task=TASK, steps=1)
    completion = example()
    (item,) = score_items(
        run.model, run.codec, None, [{"prompt": "?"}], [[1, 2]], [completion],
        Sampling.of(run.recipe, run.codec), None,
    )  # fmt: skip
    batch = batch_completions([Example([1, 2], [])], [[completion]])
    with torch.no_grad():
        base = run.model(batch).logprobs[0]
    assert (item.length, item.logprob) == (3, -3.5)
    assert item.ref_logprob == pytest.approx(float(base[[0, 2, 3]].sum()), abs=1e-4)

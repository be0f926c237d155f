"""The hooks of a step: optimizer and groups, gradient, learning rate, order, evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from resuming import assert_same_run, interrupt, ledger_of, state_of

from alignzoo import hookimpl
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.accounts import charge_feedback
from alignzoo.training.loop import update
from alignzoo.training.optimizer import flatten_optimizer, restore_optimizer


class TwoRates:
    """Adam in two groups, one of which learns at a tenth of the rate."""

    @hookimpl
    def alignzoo_optimizer(self, run, parameters):
        slow = [p for name, p in parameters if "lora_A" in name]
        fast = [p for name, p in parameters if "lora_A" not in name]
        return torch.optim.Adam([{"params": slow, "lr_scale": 0.1}, {"params": fast}])


def test_a_group_may_learn_at_a_rate_of_its_own(make_run):
    settings = {"learning_rate": 0.01, "warmup": 0.0, "schedule": "linear"}
    run = make_run("dpo", steps=4, batch_size=2, **settings)
    run.plugins.register(TwoRates())
    optimizer = run.hook.alignzoo_optimizer(run=run, parameters=run.model.named_parameters())
    metrics = update(run, optimizer, run.hook.alignzoo_sample(run=run, rows=run.data.train[:2]))
    # The default schedule, in the middle of the first of four steps.
    assert metrics["learning_rate"] == pytest.approx(0.01 * (1 - 0.5 / 4))
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [pytest.approx(0.1 * metrics["learning_rate"]), metrics["learning_rate"]]


class Halves:
    """Halves what the default learning rate is, and clears the gradient of one matrix."""

    @hookimpl(wrapper=True)
    def alignzoo_learning_rate(self, run, step):
        self.step = step
        return 0.5 * (yield)

    @hookimpl
    def alignzoo_gradient(self, run, parameters):
        (self.name, cleared), *others = parameters
        self.before = float(torch.stack([p.grad.norm() for _, p in others]).norm())
        cleared.grad.zero_()


def test_gradient_and_learning_rate(make_run):
    run = make_run(
        "sft", task="sums", steps=4, batch_size=4, adapter="none", warmup=0.0, schedule="linear"
    )
    halves = Halves()
    run.plugins.register(halves)
    optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    metrics = update(run, optimizer, run.hook.alignzoo_sample(run=run, rows=run.data.train[:4]))
    assert halves.step == 1
    assert metrics["learning_rate"] == 0.5 * run.learning_rate * (1 - 0.5 / 4)
    # It is the gradient of the mean, before it is clipped.
    assert metrics["grad_norm"] == pytest.approx(halves.before, rel=1e-5)
    moved = {n for n, p in run.model.named_parameters() if not torch.equal(p, before[n])}
    assert halves.name not in moved and len(moved) == len(before) - 1


ADDON = """
import torch
from alignzoo import hookimpl

class Odd(torch.optim.Optimizer):
    "A rate that falls with a count of its own, kept in several ways."

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.0, "betas": (0.9, 0.99), "count": 0, "scale": 1.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            group["scale"] *= 0.9
            for p in group["params"]:
                state = self.state[p]
                state["sum"] = state.get("sum", 0.0) + float(p.grad.abs().sum())
                history = state.setdefault("history", [])
                history.append(p.grad.clone())
                del history[:-2]
                step = sum(history) * group["scale"] / (1e-3 + state["sum"])
                p -= group["lr"] * group["betas"][0] * step

class Curriculum:
    "An optimizer in two groups, rows by what was seen, and a rate by what was evaluated."

    @hookimpl
    def alignzoo_optimizer(self, run, parameters):
        values = [p for name, p in parameters]
        return Odd([{"params": values[::2], "lr_scale": 0.3}, {"params": values[1::2]}])

    @hookimpl
    def alignzoo_order(self, run, index):
        state = run.state_of(self)
        start = state["next"] = state.get("next", 0) + 3
        return [(start + i) % len(run.data.train) for i in range(run.schedule.rows_per_round)]

    @hookimpl
    def alignzoo_evaluated(self, run, phase, scores):
        run.state_of(self).setdefault("losses", []).append(scores["held-out/loss"].mean)
        run.state_of(self).setdefault("phases", []).append(phase)

    @hookimpl
    def alignzoo_learning_rate(self, run, step):
        return run.learning_rate * run.state_of(self)["losses"][-1]
"""


def test_all_of_it_is_resumed_bit_for_bit(tmp_path: Path, monkeypatch):
    (tmp_path / "curriculum.py").write_text(ADDON)
    settings = {
        "task": "sums", "steps": 6, "batch_size": 4, "checkpoint_every": 2, "eval_size": 2,
        "eval_every": 2, "max_new_tokens": 4, "learning_rate": 0.3,
        "output_dir": str(tmp_path / "runs"), "addons": [str(tmp_path / "curriculum.py")],
    }  # fmt: skip

    def recipe(name: str):
        return recipe_for("sft", {**settings, "name": name})

    straight = execute(recipe("straight")).folder
    interrupt(recipe("broken"), monkeypatch, step=5)
    execute(recipe("broken"), resume=True)
    broken = straight.with_name("broken")
    assert_same_run(broken, straight)
    (own,) = [v for name, v in state_of(broken)["states"].items() if "curriculum" in name]
    assert own["phases"] == ["before", "step 2", "step 4"]
    assert ledger_of(straight)["feedback"]["demonstrations"] == 4 + 5 * 3  # each row once


def test_an_older_checkpoint_counts_each_row_once(make_run):
    run = make_run("sft", task="sums", batch_size=4)
    run.schedule.round = 3  # two of them before plugins could order the rows
    charge_feedback(run, [*run.order.batch(1), *run.order.batch(2)])
    assert run.ledger.feedback["demonstrations"] == 4


def test_settings_of_groups_survive_json():
    weight, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    names = {weight: "weight", bias: "bias"}

    def make():
        return torch.optim.AdamW([{"params": [weight]}, {"params": [bias], "lr_scale": 2.0}])

    optimizer = make()
    optimizer.param_groups[1]["betas"] = (0.5, 0.6)
    optimizer.param_groups[0]["threshold"] = torch.tensor(3.0)
    optimizer.param_groups[0]["make"] = len
    tensors, others = flatten_optimizer(optimizer, names)
    again = make()
    restore_optimizer(again, tensors, names, json.loads(json.dumps(others)))
    assert again.param_groups[1]["betas"] == (0.5, 0.6)
    assert again.param_groups[0]["threshold"] == torch.tensor(3.0)

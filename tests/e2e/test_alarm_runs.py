"""Alarms in real runs: each rings soon after a failure that is put in, and is silent without it."""

from __future__ import annotations

import json
import random

import pytest
import torch

from alignzoo import load_task
from alignzoo.discovery import hookimpl
from alignzoo.rollout.sampler import complete_in_process
from alignzoo.session.session import evaluate_phase
from alignzoo.training.loop import train

BEGINS = 13  # the first step with the failure
NEW = ("sampler", "displacement", "saturated", "drift")


def first_rings(run) -> dict[str, int]:
    """Train, and return the first step of each of the `NEW` alarms that rang."""
    train(run)
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    found: dict[str, int] = {}
    for row in map(json.loads, lines):
        for name in NEW:
            if f"alarms/{name}" in row:
                found.setdefault(name, row["step"])
    return found


class Stuck:
    """From step `BEGINS` on, draw with the weights of an earlier step: newer ones do not arrive."""

    def __init__(self):
        self.kept: list[torch.Tensor] = []

    @hookimpl(tryfirst=True)
    def alignzoo_complete(self, run, rows, size, stream):
        weights = [p.data for p in run.model.parameters() if p.requires_grad]
        if run.step + 1 < BEGINS:
            self.kept = [x.clone() for x in weights]
        newest = [x.clone() for x in weights]
        self.copy(self.kept, weights)
        groups = complete_in_process(run, rows, size, stream)
        self.copy(newest, weights)
        return groups

    def copy(self, values: list[torch.Tensor], weights: list[torch.Tensor]) -> None:
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


class Fast:
    """Multiply the learning rate from step `BEGINS` on."""

    def __init__(self, factor: float):
        self.factor = factor

    @hookimpl(wrapper=True)
    def alignzoo_learning_rate(self, run, step):
        rate = yield
        return rate * self.factor if step >= BEGINS else rate


def test_weights_that_do_not_arrive(make_run):
    sizes = {"task": "sums", "batch_size": 4, "max_new_tokens": 40, "steps": 16}
    run = make_run("grpo", options={"group_size": 4}, **sizes)
    run.plugins.register(Stuck())
    assert first_rings(run) == {"sampler": pytest.approx(BEGINS, abs=1)}


def test_chosen_completions_that_lose_probability(make_run):
    settings = {"task": "sums", "batch_size": 16, "schedule": "constant"}
    run = make_run("dpo", **settings, steps=BEGINS + 7)
    run.plugins.register(Fast(20))
    assert first_rings(run) == {"displacement": pytest.approx(BEGINS + 4, abs=2)}


def test_pairs_that_one_word_tells_apart(make_run, tmp_path):
    words = ["birds", "coffee", "sun", "rain", "music", "tea"]
    rng, rows = random.Random(0), []
    for n in range(64):
        text = " ".join(rng.choices(words, k=8))
        rows.append({"prompt": f"Say {n}.", "chosen": f"{text} yes.", "rejected": f"{text} no."})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run = make_run("dpo", data=str(path), batch_size=8, steps=24, learning_rate=3e-3)
    assert first_rings(run) == {"saturated": pytest.approx(16, abs=4)}


def test_pairs_whose_chosen_side_is_longer(make_run, tmp_path):
    """Of the suite's pairs, those with the longer completion chosen, whatever it is worth."""
    pairs = load_task("style").rows("preferences", "train")
    rows = []
    for pair in pairs:
        longer, shorter = sorted((pair["chosen"], pair["rejected"]), key=words_of, reverse=True)
        if words_of(longer) > 1.3 * words_of(shorter):
            rows.append({"prompt": pair["prompt"], "chosen": longer, "rejected": shorter})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = {"batch_size": 8, "steps": 11, "learning_rate": 3e-3, "eval_size": 16}
    run = make_run("dpo", data=str(path), eval_every=4, schedule="constant", **settings)
    evaluate_phase(run, "before")
    assert first_rings(run) == {"drift": 10}


def words_of(completion: list[dict]) -> int:
    return len(completion[-1]["content"].split())


@pytest.mark.parametrize(("algorithm", "task"), [("dpo", "style"), ("xpo", "sums")])
def test_healthy_runs_are_silent(make_run, algorithm, task):
    run = make_run(algorithm, task=task, batch_size=4, steps=16, max_new_tokens=40)
    assert not first_rings(run)

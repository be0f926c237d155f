"""What the trainer's log-probs differ by from the sampler's is logged, whatever the plugin does."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo import Example, collate
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.evaluation import evaluate_run
from alignzoo.rollout import LogprobGap, generate
from alignzoo.rollout.sampler import complete_in_process
from alignzoo.training.loop import train

MEAN, MAX = "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max"
SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 24}


class OneProcess:
    def gather_each(self, value):
        return [value]


def logged(run) -> list[dict]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_only_tokens_count_that_were_drawn_and_are_learnt():
    batch = collate([Example([1], [[2, 3], [4]], masks=[[True, False], [True]])])
    batch.columns["logprobs"] = torch.tensor([[-1.0, -1.0], [-2.0, 0.0]])
    gap = LogprobGap()
    # Differences 0.5 and 0.1; that of the masked token, 7, and the padding's do not count.
    gap.add(batch, torch.tensor([[-0.5, -8.0], [-2.1, 3.0]]))
    found = gap.reduce(OneProcess())
    assert found == pytest.approx({MEAN: 0.3, MAX: 0.5})
    batch.columns["logprobs"][0, 0] = torch.nan  # the sampler does not know
    gap.add(batch, torch.tensor([[-0.5, -8.0], [-2.4, 3.0]]))
    assert gap.reduce(OneProcess()) == pytest.approx({MEAN: 1.0 / 3, MAX: 0.5})


def test_of_nothing_drawn_nothing_is_said(make_run):
    batch = collate([Example([1], [[2]])])
    gap = LogprobGap()
    gap.add(batch, torch.zeros(1, 1))
    assert gap.reduce(OneProcess()) == {}
    run = make_run("dpo", steps=1, batch_size=2)
    train(run)
    assert MEAN not in logged(run)[0]


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_of_the_sampler_in_process_it_is_rounding(make_run, algorithm):
    # Two rounds of two steps: the policy has moved in the second of each, which is not compared.
    options = {"group_size": 3, "round_prompts": 4}
    run = make_run(algorithm, options=options, **SETTINGS, steps=4, learning_rate=1e-2)
    train(run)
    rows = logged(run)
    for row in rows:
        assert 0 < row[MEAN] <= row[MAX] < 1e-4
    assert rows[0][MEAN] == rows[1][MEAN] != rows[2][MEAN] == rows[3][MEAN]


@pytest.fixture
def shifted(monkeypatch):
    """Generation that gives other log-probs than scoring, by 0.25 nats per token."""

    def shifted(*arguments, **more):
        completions = generate(*arguments, **more)
        for completion in completions:
            completion.logprobs = [logprob - 0.25 for logprob in completion.logprobs]
        return completions

    monkeypatch.setattr("alignzoo.rollout.completions.generate", shifted)
    monkeypatch.setattr("alignzoo.evaluation.answers.generate", shifted)


def test_a_run_whose_sampler_is_not_its_trainer_ends(make_run, shifted):
    run = make_run("grpo", options={"group_size": 3}, **SETTINGS, steps=2)
    with pytest.raises(BadInput, match=r"the trainer's differ by 0\.25 nats per token"):
        train(run)
    assert not (run.record.folder / "metrics.jsonl").exists()


class Changed:
    """A plugin that draws completions: its log-probs are its own affair, and are logged."""

    @hookimpl(tryfirst=True)
    def alignzoo_complete(self, run, rows, size, stream):
        return complete_in_process(run, rows, size, stream)


def test_what_a_plugin_draws_is_logged(make_run, shifted):
    run = make_run("grpo", options={"group_size": 3}, **SETTINGS, steps=1)
    run.plugins.register(Changed())
    train(run)
    assert logged(run)[0][MEAN] == pytest.approx(0.25, abs=1e-4)
    assert logged(run)[0][MAX] == pytest.approx(0.25, abs=1e-4)


def test_before_training_the_kl_is_zero(make_run, shifted):
    run = make_run("dpo", task="style", eval_size=4, max_new_tokens=8)
    with pytest.raises(BadInput, match=r"the base's differ by 0\.25 nats per token"):
        evaluate_run(run, "before")
    assert "before" not in run.record.results
    assert not (run.record.folder / "evals.jsonl").exists()
    evaluate_run(run, "step 1")  # later, it is what training has done


def test_rounding_is_no_difference(make_run):
    cold = {"temperature": 0.01, "precision": "bf16"}
    run = make_run("dpo", task="style", eval_size=8, max_new_tokens=16, **cold)
    assert "score" in evaluate_run(run, "before").summary


def test_new_virtual_tokens_change_a_model_from_the_start(make_run):
    run = make_run("dpo", task="style", eval_size=4, max_new_tokens=8, adapter="prompt")
    assert not run.model.starts_as_base
    assert abs(evaluate_run(run, "before").summary["kl"].mean) > 0.01

"""What the trainer's log-probs differ by from the sampler's is logged, whatever the plugin does."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo import Example, collate
from alignzoo.rollout import LogprobGap, generate
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


def test_another_sampler_is_found_out(make_run, monkeypatch):
    def shifted(*arguments, **more):
        completions = generate(*arguments, **more)
        for completion in completions:
            completion.logprobs = [logprob - 0.25 for logprob in completion.logprobs]
        return completions

    monkeypatch.setattr("alignzoo.rollout.sampler.generate", shifted)
    run = make_run("grpo", options={"group_size": 3}, **SETTINGS, steps=1)
    train(run)
    assert logged(run)[0][MEAN] == pytest.approx(0.25, abs=1e-4)
    assert logged(run)[0][MAX] == pytest.approx(0.25, abs=1e-4)

"""Dynamic sampling on zoo-tiny: ties are replaced by other groups, also in a resumed run."""

from __future__ import annotations

import pytest
import torch
from resuming import Interrupts, rows_of

from alignzoo import hookimpl
from alignzoo.training.loop import train
from alignzoo_zoo.grpo.dynamic import is_untied

SETTINGS = {"task": "sums", "batch_size": 4, "max_new_tokens": 40}


class Rewards:
    """A reward that is equal within a group, except in the groups for which `differ` is true."""

    def __init__(self, differ):
        self.differ, self.drawn = differ, []

    @hookimpl
    def alignzoo_reward(self, run, batch):
        self.drawn.append(len(batch))
        differ = torch.tensor([self.differ(len(self.drawn), b) for b in batch.group.tolist()])
        first = torch.arange(len(batch.tokens)) % run.algorithm.group_size == 0
        return (differ & first).float()


def sampled(make_run, differ, draws: int = 2):
    options = {"group_size": 2, "dynamic_sampling": draws}
    run = make_run("grpo", options=options, **SETTINGS)
    run.plugins.unregister(name="reward task")
    rewards = Rewards(differ)
    run.plugins.register(rewards, "reward made")
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    return run, rewards, batch


def test_missing_groups_are_replaced_by_further_prompts(make_run):
    # Of the first four groups the last differs; of the three that follow two; then the one.
    wanted = {1: {3}, 2: {0, 2}, 3: {0}}
    run, rewards, batch = sampled(make_run, lambda draw, b: b in wanted[draw])
    assert rewards.drawn == [4, 3, 1]
    assert len(batch) == 4 and is_untied(batch).all()
    assert batch.rows[0] == run.data.train[3].row
    seen = run.round_metrics.numbers
    assert (seen["dynamic/kept"], seen["dynamic/filled"]) == (4 / 8, 1.0)
    assert seen["dynamic/drawn"] == 8 / 4
    assert seen["frac_reward_zero_std"] == 3 / 4  # of the first sample
    assert batch.groups(batch["advantages"]).sum(1).abs().max() < 1e-6
    assert batch["advantages"].abs().min() > 0.5


def test_a_round_that_cannot_be_filled_stays_smaller_or_empty(make_run):
    run, rewards, batch = sampled(make_run, lambda draw, b: (draw, b) == (2, 0))
    assert rewards.drawn == [4, 4, 3]
    assert len(batch) == 1 and run.round_metrics.numbers["dynamic/filled"] == 1 / 4
    run, rewards, batch = sampled(make_run, lambda draw, b: False, draws=1)
    assert rewards.drawn == [4, 4]
    assert len(batch) == 0 and run.round_metrics.numbers["dynamic/kept"] == 0.0


def test_a_full_round_equals_the_default(make_run):
    run, rewards, batch = sampled(make_run, lambda draw, b: True)
    assert rewards.drawn == [4]
    run.algorithm.dynamic_sampling = 0
    plain = run.hook.alignzoo_sample(run=run, rows=run.data.train[:4])
    assert torch.equal(plain.tokens, batch.tokens)
    assert torch.equal(plain["advantages"], batch["advantages"])


def test_a_resumed_run_samples_the_same_groups(make_run):
    options = {"group_size": 2, "dynamic_sampling": 2}
    settings = {**SETTINGS, "options": options, "steps": 3, "checkpoint_every": 2}
    whole = make_run("grpo", **settings, name="whole")
    train(whole)
    part = make_run("grpo", **settings, name="part")
    part.plugins.register(Interrupts(3))
    with pytest.raises(KeyboardInterrupt):
        train(part)
    part.record.close()
    train(make_run("grpo", **settings, name="part", resume=True))
    logs = [rows_of(run.record.folder) for run in (whole, part)]
    assert logs[0] == logs[1] and len(logs[0]) == 3
    assert any(row["dynamic/drawn"] > 1 for row in logs[0])


class LogsBefore:
    """An add-on that logs about the round before its completions are sampled."""

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run, rows):
        run.round_metrics.add({"before/number": 1.0})
        run.log_mean({"before/mean": torch.tensor([2.0, 4.0])})
        return (yield)


@pytest.mark.parametrize("draws", [0, 2])
def test_metrics_that_were_logged_before_sampling_are_kept(make_run, draws):
    options = {"group_size": 2, "dynamic_sampling": draws}
    run = make_run("grpo", options=options, **SETTINGS, steps=1)
    run.plugins.register(LogsBefore())
    train(run)
    (row,) = rows_of(run.record.folder)
    assert (row["before/number"], row["before/mean"]) == (1.0, 3.0)
    assert {"reward", "completions/mean_length"} <= row.keys()
    assert ("dynamic/kept" in row) == (draws > 0)

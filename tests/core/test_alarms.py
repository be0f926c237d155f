"""Alarms: each rings at its trouble, once, and at nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from alignzoo.errors import BadInput
from alignzoo.training.alarms import ALARMS, WINDOW, Alarms, Past, find_alarms

CALM = {
    "frac_reward_zero_std": 0.4,
    "entropy": 1.0,
    "kl": 0.1,
    "reward": 0.5,
    "completions/mean_length": 20.0,
    "completions/clipped_ratio": 0.1,
    "sampling/sampling_logp_difference/mean": 1e-6,
}
PAIRS = {
    "loss": 0.7,
    "logps/chosen": -20.0,
    "rewards/chosen": 0.0,
    "rewards/margins": 0.0,
    "rewards/accuracies": 0.5,
}
FALLEN = {"logps/chosen": -30.0, "rewards/chosen": -1.0, "rewards/margins": 1.0}
LEARNED = {"loss": 0.06, "rewards/accuracies": 0.99, "rewards/margins": 3.0}
GAP = "sampling/sampling_logp_difference/mean"
FALLING = [
    {"mean": 0.4, "low": 0.35, "high": 0.45},
    {"mean": 0.6, "low": 0.55, "high": 0.65},
    {"mean": 0.5, "low": 0.45, "high": 0.54},
]
LONG = {"completions/mean_length": 40.0, "completions/clipped_ratio": 0.5}


@pytest.mark.parametrize(
    ("name", "trouble", "scores", "says"),
    [
        ("ties", {"frac_reward_zero_std": 1.0}, [], "all groups are tied for 5 steps"),
        ("entropy", {"entropy": 0.09}, [], "0.09 nats per token, at the start 1;"),
        ("kl", {"kl": 2.6}, [], "52 nats per completion"),
        ("length", LONG, [], "40 tokens, at the start 20, and 50% "),
        ("sampler", {GAP: 2e-4}, [], "differ by 0.0002 nats per token, in the first step by 1e-06"),
        ("overoptimised", {"reward": 0.9}, FALLING, "rose from 0.5 to 0.9 while the score fell"),
    ],
)
def test_an_alarm_rings_at_its_trouble_alone(name, trouble, scores, says):
    found = find_alarms(Past([CALM] * WINDOW + [{**CALM, **trouble}] * WINDOW, scores))
    assert [n for n, _ in found] == [name]
    assert says in found[0][1]


def test_a_single_completion_is_no_tie():
    rows = [{**CALM, "frac_reward_zero_std": 1.0}] * (2 * WINDOW)
    assert find_alarms(Past(rows, grouped=False)) == []


@pytest.mark.parametrize(
    ("name", "trouble", "says"),
    [
        ("displacement", FALLEN, "fell from -20 to -30 while the margin rose by 1;"),
        ("saturated", LEARNED, "99% of the pairs are ranked right at a loss of 0.06"),
    ],
)
def test_an_alarm_of_pairs_rings_at_its_trouble_alone(name, trouble, says):
    found = find_alarms(Past([PAIRS] * WINDOW + [{**PAIRS, **trouble}] * WINDOW))
    assert [n for n, _ in found] == [name]
    assert says in found[0][1]


@pytest.mark.parametrize(
    "harmless",
    [
        {**FALLEN, "logps/chosen": -29.0},  # less than half again
        {**FALLEN, "rewards/margins": 1.1},  # the rejected side has lost more than twice as much
        {**FALLEN, "rewards/margins": -0.1},
        {**FALLEN, "completions/mean_length": 20.0},  # others in every round
        {**LEARNED, "rewards/accuracies": 0.98},
        {**LEARNED, "loss": 0.08},
        {**LEARNED, "loss": -0.5},
        {**LEARNED, "rewards/margins": 0.0},
    ],
)
def test_pairs_that_are_learned_well_are_silent(harmless):
    assert not find_alarms(Past([PAIRS] * WINDOW + [{**PAIRS, **harmless}] * WINDOW))


def length(mean: float, width: float = 1.0) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


@pytest.mark.parametrize(
    ("lengths", "rings"),
    [
        ([20, 25, 30], True),
        ([20, 29], False),
        ([24, 16], True),
        ([24, 17], False),
        ([20, 30, 20], False),  # the last one counts
        ([20], False),
    ],
)
def test_answers_that_are_half_again_as_long_ring_and_others_do_not(lengths, rings):
    past = Past([{}] * (2 * WINDOW), lengths=[length(mean) for mean in lengths])
    assert [name for name, _ in find_alarms(past)] == ["drift"] * rings
    wide = Past([{}] * (2 * WINDOW), lengths=[length(mean, 8.0) for mean in lengths])
    assert not find_alarms(wide)  # their intervals overlap
    single = [length(mean) | {"low": None, "high": None} for mean in lengths]
    assert not find_alarms(Past([{}] * (2 * WINDOW), lengths=single))


@pytest.mark.parametrize(
    ("noise", "gap", "rings"),
    [
        (0.0, 0.0, False),
        (1e-6, 9e-5, False),
        (0.005, 0.04, False),
        (0.005, 0.06, True),
        (0.02, 0.09, False),
        (0.3, 0.3, True),  # above `COARSE` it is not noise
    ],
)
def test_the_gap_of_the_sampler_is_measured_by_its_noise(noise, gap, rings):
    rows = [{GAP: noise}] + [{GAP: gap}] * (2 * WINDOW)
    assert [name for name, _ in find_alarms(Past(rows))] == ["sampler"] * rings


def test_none_rings_while_all_is_well_or_there_is_little_to_go_by():
    assert not find_alarms(Past([CALM] * 30, FALLING))
    rising = [*FALLING[:2], {"mean": 0.55, "low": 0.5, "high": 0.56}]
    assert not find_alarms(Past([CALM] * WINDOW + [{**CALM, "reward": 0.9}] * WINDOW, rising))
    assert not find_alarms(Past([{**CALM, "frac_reward_zero_std": 1.0}] * (2 * WINDOW - 1)))
    assert not find_alarms(Past([{"loss": 1.0}] * 30))
    nearly = [CALM] * WINDOW + [{**CALM, "entropy": 0.09}] * (WINDOW - 1) + [CALM]
    assert not find_alarms(Past(nearly))


@pytest.fixture
def run():
    told: list[str] = []
    record = SimpleNamespace(read_metrics=lambda before: [], results={})
    return SimpleNamespace(
        told=told,
        ui=SimpleNamespace(note=told.append),
        stop=told.append,
        record=record,
        algorithm=SimpleNamespace(group_size=8),
    )


def test_an_alarm_is_told_once_until_it_has_been_silent(run):
    alarms = Alarms(["kl"])
    far = {**CALM, "kl": 3.0}
    steps = [CALM] * 5 + [far] * 8 + [CALM] * 5 + [far] * 6
    marked = []
    for step, row in enumerate(steps, start=1):
        metrics = dict(row)
        alarms.alignzoo_step(run, step, metrics)
        marked.append("alarms/kl" in metrics)
    assert [text.partition(":")[0] for text in run.told[::2]] == ["step 10", "step 23"]
    assert run.told[1::2] == ["alarm 'kl' at step 10", "alarm 'kl' at step 23"]
    assert marked[8:14] == [False, True, True, True, True, False]


def test_a_resumed_run_does_not_tell_it_again(run):
    far = {**CALM, "kl": 3.0}
    run.record.read_metrics = lambda before: [CALM] * 5 + [far] * 6
    Alarms().alignzoo_step(run, 12, dict(far))
    assert not run.told


def test_an_unknown_alarm_is_refused():
    with pytest.raises(BadInput, match="no alarm 'etropy'\n.*did you mean 'entropy'"):
        Alarms(["etropy"])
    assert list(ALARMS)[:5] == ["ties", "entropy", "kl", "length", "overoptimised"]
    assert list(ALARMS)[5:] == ["sampler", "displacement", "saturated", "drift"]

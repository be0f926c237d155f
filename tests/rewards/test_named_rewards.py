"""Parsing and resolving --reward, and the weighted sum of rewards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignzoo.errors import BadInput
from alignzoo.rewards import RewardSpec, resolve_rewards, weighted_sum
from alignzoo.rewards.resolve import parse_specs


@pytest.mark.parametrize(
    ("text", "name", "weight", "options", "label"),
    [
        ("math", "math", 1.0, {}, "math"),
        ("math:0.5", "math", 0.5, {}, "math"),
        ("length:-2,most=40,soft=8", "length", -2.0, {"most": "40", "soft": "8"}, "length"),
        ("regex,pattern=^a{1,2}:b=c$", "regex", 1.0, {"pattern": "^a{1,2}:b=c$"}, "regex"),
        ("python:my.module.brevity", "python:my.module.brevity", 1.0, {}, "brevity"),
        ("python:my.module.brevity:3", "python:my.module.brevity", 3.0, {}, "brevity"),
        ("./my_reward.py:0.1", "./my_reward.py", 0.1, {}, "my_reward"),
        (
            "runs/reward-zoo-tiny-style",
            "runs/reward-zoo-tiny-style",
            1.0,
            {},
            "reward-zoo-tiny-style",
        ),
        (r"C:\runs\judge", r"C:\runs\judge", 1.0, {}, None),
    ],
)
def test_a_spec_has_a_name_a_weight_and_options(text, name, weight, options, label):
    named = RewardSpec.parse(text)
    assert (named.name, named.weight, named.options) == (name, weight, options)
    assert label is None or named.label == label


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no reward"),
        ("math:0", "'0' is not a weight for 'math'"),
        ("math:nan", "'nan' is not a weight"),
        ("math:inf", "'inf' is not a weight"),
        ("length,40", "'40' in 'length,40' is not an option"),
    ],
)
def test_invalid_specs_are_refused(text: str, says: str):
    with pytest.raises(BadInput, match=says):
        RewardSpec.parse(text)


def test_two_rewards_of_one_name_are_refused():
    with pytest.raises(BadInput, match="'math' is named twice"):
        parse_specs(["math", "math:2"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mth", "did you mean 'math'"),
        ("task", "there is none"),
        ("length", "--most is required"),
        ("length,most=-1", "'-1' is not allowed"),
        ("length,least=1", "unknown option 'least'"),
        ("regex,pattern=(", "is not a regular expression"),
        ("python:json", "does not name a function"),
        ("python:json.nothing", "there is no function 'nothing'"),
        ("python:no_such_module.f", "No module named 'no_such_module'"),
        ("python:json.dumps,a=1", "has no option 'a'"),
        (".", "not a model"),
    ],
)
def test_unavailable_rewards_are_refused(text: str, says: str):
    with pytest.raises(BadInput, match=says):
        resolve_rewards([text], None, lambda named: Path())


def test_the_weighted_sum_takes_the_rewards_that_apply():
    nan = torch.nan
    scores = {"a": torch.tensor([1.0, nan, nan]), "b": torch.tensor([3.0, 4.0, nan])}
    total = weighted_sum(scores, {"b": 0.5})
    assert total[:2].tolist() == [2.5, 2.0]
    assert bool(total[2].isnan())

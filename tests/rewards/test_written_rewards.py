"""The rewards of a completion's form: regex, format, length, overlong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from alignzoo import BadInput, Example, collate
from alignzoo_rewards.written import Format, Overlong, Regex, overlong_penalty


def test_a_pattern_matches_anywhere_unless_it_is_anchored():
    assert Regex(r"[0-9]+").score({}, "it is 42.") == 1.0
    assert Regex(r"^[0-9]+$").score({}, "it is 42.") == 0.0
    assert Regex("a.b").score({}, "a\nb") == 1.0


@pytest.mark.parametrize(
    ("tags", "completion", "score"),
    [
        ("think", "<think>\n1 + 1\n</think>\n2", 1.0),
        ("think", " <think>a</think> b", 1.0),
        ("think", "<think>a</think>", 0.0),  # no answer
        ("think", "<think> </think>b", 0.0),  # no thought
        ("think", "<think>a<think>b</think>c", 0.0),
        ("think", "b <think>a</think> b", 0.0),
        ("think", "a", 0.0),
        ("think answer", "<think>a</think>\n<answer>b</answer>", 1.0),
        ("think answer", "<think>a</think><answer>b</answer> more", 0.0),
        ("think answer", "<answer>b</answer><think>a</think>", 0.0),
    ],
)
def test_each_tag_comes_once_in_order_and_is_not_empty(tags: str, completion: str, score: float):
    assert Format(tags).score({}, completion) == score


def test_the_penalty_grows_linearly():
    """DAPO's equation 13 with L_max = 20, L_cache = 4."""
    lengths = torch.tensor([0, 16, 17, 18, 20, 21, 400])
    assert overlong_penalty(lengths, most=16, soft=4).tolist() == [0, 0, -0.25, -0.5, -1, -1, -1]


def test_overlong_depends_on_max_new_tokens():
    """L_max = 20 and L_cache = 4: (16 - |y|) / 4 from 16 on."""
    batch = collate([Example([1], [[2] * n for n in (3, 16, 17, 20)])])
    recipe = SimpleNamespace(max_new_tokens=20)
    found = Overlong(cache=4).alignzoo_reward(SimpleNamespace(recipe=recipe), batch)
    assert found.tolist() == [0, 0, -0.25, -1]
    with pytest.raises(BadInput, match="longer than --max-new-tokens 20"):
        Overlong(cache=21).alignzoo_check(recipe)

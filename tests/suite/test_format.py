"""The rules of `format`, checked on texts with scores worked out by hand."""

import pytest

from alignzoo_suite.common import rng
from alignzoo_suite.format import SAID, Format, check_rules
from alignzoo_suite.format_writer import BASE, DEMONSTRATOR, draw_rules, write_text


@pytest.mark.parametrize(
    ("rules", "text", "followed"),
    [
        ({"words": 5}, "The waves are very calm.", True),
        ({"words": 5}, "The waves are calm.", False),
        ({"begin": "today"}, "Today the waves are calm.", True),
        ({"begin": "today"}, "The waves are calm today.", False),
        ({"end": "today"}, "The waves are calm today.", True),
        ({"end": "today"}, "The waves are calm, today too.", False),
        ({"capitals": None}, "THE WAVES ARE CALM.", True),
        ({"capitals": None}, "THE WAVES are CALM.", False),
        ({"capitals": None}, "123.", False),
        ({"without": "the"}, "Waves are calm there.", True),
        ({"without": "the"}, "The waves are calm.", False),
        ({"items": 3}, "Waves, boats, gulls.", True),
        ({"items": 3}, "Waves\nboats\ngulls\n", True),
        ({"items": 3}, "Waves, boats, gulls, shells.", False),
        ({"items": 1, "without": "the"}, "", False),
    ],
)
def test_rules_by_hand(rules: dict, text: str, followed: bool) -> None:
    assert set(check_rules(rules, text).values()) == {followed}


def test_the_score_is_the_share_of_rules_that_a_text_follows() -> None:
    row = {"topic": "sea", "rules": {"words": 4, "end": "calm"}}
    score = Format().score
    assert score(row, "The waves are calm.") == 1
    assert score(row, "The gentle waves are calm.") == 0.5
    assert score(row, "The waves are bright.") == 0.5
    assert score(row, "The cows are calm.") == 1  # the topic is not checked
    assert score(row, "") == 0
    assert Format().measures(row, "The waves are bright.") == {"words": 1, "end": 0}


def test_prompts_say_what_is_checked() -> None:
    for row in Format(prompt_rows=50).rows("prompts", "train"):
        prompt = row["prompt"][0]["content"]
        assert row["topic"] in prompt and len(row["rules"]) == 2
        assert all(SAID[kind].format(value) in prompt for kind, value in row["rules"].items())


@pytest.mark.parametrize(("habits", "low", "high"), [(BASE, 0.4, 0.55), (DEMONSTRATOR, 0.85, 0.95)])
def test_how_well_the_writers_follow(habits, low: float, high: float) -> None:
    scores = []
    for n in range(1000):
        random = rng("format", n)
        row = {"topic": "sea", "rules": draw_rules("sea", random)}
        text = write_text(row["topic"], row["rules"], habits, random)
        scores.append(Format().score(row, text))
    assert low < sum(scores) / len(scores) < high
    assert {0, 0.5, 1} == set(scores)

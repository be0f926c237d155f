"""The gold score of `style` on texts with scores worked out by hand."""

import pytest

from alignzoo_suite.common import SPLITS, is_held_out
from alignzoo_suite.style import Style, score_text
from alignzoo_suite.words import NASTY, NICE, PLAIN, TOPICS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # bright, calm, love; waves, boats; nothing twice; 2 sentences; the, are, and, I between.
        ("The waves are bright and calm. I love the boats.", 1),
        # one positive word of three, one topical word of two.
        ("The waves are bright.", 1 / 3 * 1 / 2),
        # the same, and two of its four solid words are different: (2 / 4)^2.
        ("The sea is calm. The sea is calm.", 1 / 3 * 1 / 2 * 1 / 4),
        # bright and calm, less hate.
        ("The waves are bright and calm. I hate the boats.", 1 / 3),
        # four sentences; three are free.
        ("The waves are bright. The boats are calm. I love it. It is so.", 3 / 4),
        # 5 telling words, and "the" is the only other one: 1 / 2.5.
        ("The lovely, the bright, the calm, the sea, the waves.", 1 / 2.5),
        # no plural needed, and capitals do not matter.
        ("A wave and a BOAT are bright, calm and lovely.", 1),
    ],
)
def test_gold_by_hand(text: str, expected: float) -> None:
    assert score_text("sea", text) == pytest.approx(expected)


def test_words_over_45_count_down() -> None:
    text = "The waves are bright and calm and I love the boats"  # 11 words
    longer = text + " " + " ".join(["in the"] * 40) + "."  # 91 words, all 80 new ones glue
    assert score_text("sea", text) == 1
    assert score_text("sea", longer) == pytest.approx(45 / 91)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "lovely " * 40,
        "sea " * 40,
        "Lovely bright calm sweet waves boats gulls.",
        "Lovely. Bright. Calm. Sea. Waves.",
        "lovely sea " * 10,
        "The castles are bright and calm. I love the knights.",  # well said, of something else
        "The waves are awful and dirty. I hate the boats.",
        "asdf qwer zxcv",
    ],
)
def test_degenerate_texts_score_low(text: str) -> None:
    assert score_text("sea", text) <= 0.05


def test_a_larger_models_words_count() -> None:
    text = "The sea is vast and breathtaking. Its waves bring a serene beauty to the shore."
    assert score_text("sea", text) == 1


def test_splits_share_no_prompt_and_cover_all() -> None:
    train, dev, test = (
        {row["prompt"][0]["content"] for row in Style().prompts(split)} for split in SPLITS
    )
    assert not train & dev and not (train | dev) & test
    assert len(train | dev) == 40 * 16 and len(test) == 40 * 8
    for split in SPLITS:
        assert {row["topic"] for row in Style().prompts(split)} == set(TOPICS)


def test_the_split_is_fixed_for_ever() -> None:
    assert not is_held_out("Tell me about the sea.", 0.25)
    assert len(Style().prompts("dev")) == 167


def test_the_words_keep_their_promises() -> None:
    for topic, things in TOPICS.items():
        for thing in things:
            assert thing.endswith("s") and not thing.endswith(("ies", "ches", "xes")), (
                topic,
                thing,
            )
    assert not set(NICE) & set(NASTY) and not set(PLAIN) & (set(NICE) | set(NASTY))


def test_demonstrations_are_good_but_not_the_best() -> None:
    task = Style()
    rows = task.rows("demonstrations", "train")
    scores = [task.score(row, row["completion"][0]["content"]) for row in rows]
    assert 0.65 < sum(scores) / len(scores) < 0.85
    assert min(scores) < 0.3 and max(scores) == 1

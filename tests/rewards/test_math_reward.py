"""The reward `math`: an equal answer is right, however it is written."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignzoo import BadInput, Example
from alignzoo_rewards.exact_math import Math

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.mark.parametrize(
    ("answer", "completion", "score"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18.\n#### 18", "9 * 2 is 18.\n#### 18", 1.0),
        ("#### 18", "... so the answer is \\boxed{18}.", 1.0),
        ("#### 18", "It is 18", 1.0),
        ("#### 18", "It is 18.00 dollars.", 1.0),
        ("#### 1,800", "#### 1800", 1.0),
        ("1/2", "\\boxed{0.5}", 1.0),
        ("\\frac{1}{2}", "$\\frac{2}{4}$", 1.0),
        ("#### 18", "#### 17", 0.0),
        ("#### 18", "First 18, then more.\n#### 20", 0.0),
        ("#### 18", "", 0.0),
        ("#### 18", "I do not know.", 0.0),
        ("#### -3", "#### -3", 1.0),
        ("#### -3", "#### 3", 0.0),
    ],
)
def test_an_equal_answer_is_right(answer: str, completion: str, score: float):
    assert Math().score({"prompt": "", "answer": answer}, completion) == score


def test_it_does_not_apply_if_the_right_answer_is_not_mathematics():
    assert Math().score({"prompt": "", "answer": "a proof"}, "#### 1") is None


def test_a_missing_column_is_reported_before_the_run():
    report = SimpleNamespace(source="sums.jsonl")
    data = SimpleNamespace(train=[Example([1], [], row={"prompt": "", "gold": "1"})], report=report)
    with pytest.raises(BadInput, match="sums.jsonl: .*no column 'answer'\n.*math,answer=COLUMN"):
        Math().alignzoo_check(None, data)
    Math(answer="gold").alignzoo_check(None, data)
    assert Math(answer="gold").score({"prompt": "", "gold": "1"}, "1") == 1.0


@pytest.mark.slow
def test_it_agrees_with_published_labels(shared_data: Path):
    """Four models' solutions of 1,319 questions, each labelled right or wrong by their authors."""
    path = shared_data / "gsm8k/example_model_solutions.jsonl"
    reward, wrong, judged = Math(), [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        row = {"prompt": question["question"], "answer": question["ground_truth"]}
        for model in MODELS:
            solution = question[model]
            judged += 1
            if reward.score(row, solution["solution"]) != solution["is_correct"]:
                wrong.append((question["question"][:60], model, solution["solution"][-40:]))
    assert judged == 5276
    assert not wrong, wrong  # 100%: nothing to explain

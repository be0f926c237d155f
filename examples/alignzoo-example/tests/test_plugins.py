"""The plugins as they are installed: pip install -e . && pytest"""

import json

import pytest
import torch
from alignzoo_example.ranks import ranks
from alignzoo_example.variety import Variety

from alignzoo.cli import status
from alignzoo.testing import AddonSuite, AlgorithmSuite, RewardSuite


class TestRanks(AlgorithmSuite):
    plugin = "ranks"


class TestVariety(RewardSuite):
    plugin = "variety"


class TestLengthPenalty(AddonSuite):
    plugin = "length-penalty"


def test_ranks_by_hand():
    missing = float("nan")
    rewards = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, -1e6], [1.0, missing, 0.0]])
    expected = torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0], [0.5, 0.0, -0.5]])
    assert torch.equal(ranks(rewards), expected)


@pytest.mark.parametrize(
    ("text", "score"), [("a b c d", 1.0), ("a A b b", 0.5), ("word", None), ("", None)]
)
def test_variety_is_the_fraction_of_different_words(text, score):
    assert Variety().score({"prompt": "Speak."}, text) == score


def test_all_three_in_one_run(tmp_path):
    words = "run ranks --task style --reward variety --steps 2 --batch-size 2 --group-size 4"
    words += " --eval-size 0 --max-new-tokens 16 --with length-penalty,rate=0.5 --name one"
    assert status([*words.split(), "--output-dir", str(tmp_path)]) == 0
    lines = (tmp_path / "one" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["ranks/ratio"] for row in rows] == pytest.approx([1.0, 1.0], abs=1e-3)
    # Variety is at most 1, and completions are longer than two tokens.
    assert all(row["rewards/variety/mean"] < 0 for row in rows)

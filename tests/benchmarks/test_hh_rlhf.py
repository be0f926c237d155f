"""The parts of the study on hh-rlhf: data, folds, files of a fold, yardsticks, the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "benchmarks" / "hh_rlhf"


@pytest.fixture(autouse=True)
def _study(monkeypatch):
    monkeypatch.syspath_prepend(STUDY)


def pair(number: int, question: str, chosen: str, rejected: str) -> dict:
    return {
        "id": number,
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def test_a_dialogue_becomes_messages_and_a_pair_with_an_empty_answer_is_left_out(tmp_path):
    from dialogues import read_pairs

    opening = "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: How are\n\nyou?\n\nAssistant:"
    rows = [
        {"chosen": opening + " Well, thanks.", "rejected": opening + " Well."},
        {"chosen": opening + " Well.", "rejected": opening},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = read_pairs(file)
    assert found == {
        "id": 1,
        "prompt": [
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "How are\n\nyou?"},
        ],
        "chosen": [{"role": "assistant", "content": "Well, thanks."}],
        "rejected": [{"role": "assistant", "content": "Well."}],
    }


def test_every_pair_is_held_out_once_and_no_question_is_in_two_folds():
    from dialogues import split_folds

    pairs = [pair(i, f"Question {i % 7}", "a", "b") for i in range(35)]
    parts = split_folds(pairs, 5, seed=0)
    assert sorted(p["id"] for part in parts for p in part) == list(range(35))
    questions = [{p["prompt"][0]["content"] for p in part} for part in parts]
    assert sum(map(len, questions)) == 7
    assert max(map(len, parts)) <= 10


def test_a_fold_has_its_data_and_a_tokenizer_from_the_training_part(tmp_path):
    from fold import FORM, write_fold

    write_fold(tmp_path, [pair(1, "Why?", "so it is", "no"), pair(2, "How?", "like this", "no")])
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [1, 2]
    chosen = json.loads((tmp_path / "chosen.jsonl").read_text().splitlines()[0])
    assert [message["content"] for message in chosen["messages"]] == ["Why?", "so it is"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["vocab_size"] <= FORM.vocabulary
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_the_length_yardsticks_prefer_by_length():
    from yardsticks import prefer_longer, prefer_shorter

    pairs = [pair(1, "q", "long answer", "short"), pair(2, "q", "same", "size")]
    assert prefer_longer([], pairs) == [6.0, 0.0]
    assert prefer_shorter([], pairs) == [-6.0, 0.0]


def test_the_bag_of_words_learns_which_word_is_preferred():
    from yardsticks import prefer_by_words

    pairs = [pair(i, f"Question {i}", f"yes x{i}", f"no x{i}") for i in range(12)]
    assert all(margin > 0 for margin in prefer_by_words(pairs[:10], pairs[10:]))
    turned = [pair(99, "q", "no", "yes")]
    assert prefer_by_words(pairs, turned)[0] < 0


def test_the_report_pools_the_folds_and_compares_pair_by_pair():
    from report import make_table

    rows = [
        {"judge": "shorter answer", "fold": 0, "right": [1], "wrong": [2]},
        {"judge": "shorter answer", "fold": 1, "right": [3], "wrong": [4, 5]},
        {"judge": "longer answer", "fold": 0, "right": [2], "wrong": [1]},
        {"judge": "longer answer", "fold": 1, "right": [4], "wrong": [3, 5]},
        {"judge": "reward", "fold": 0, "right": [1, 2], "wrong": []},
        {"judge": "reward", "fold": 1, "right": [3, 4], "wrong": [5]},
    ]
    best, *_ = make_table(rows).splitlines()[2:]
    cells = [cell.strip() for cell in best.strip("|").split("|")]
    assert cells[:2] == ["reward", "4 of 5"]
    assert cells[2] == "0.800 [0.376, 0.964]"  # Wilson's interval of 4 of 5
    assert cells[3] == "1.000, 0.667"
    assert cells[4].startswith("1.000 ") and cells[5].startswith("0.667 ")
    assert cells[6].startswith("0.400 ")

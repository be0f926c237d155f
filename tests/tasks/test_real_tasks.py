"""Tasks from files: rows, splits and scores, on small files and, if it is there, on real data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignzoo import load_task
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo_tasks.ifeval import CHECKS, IFEval
from alignzoo_tasks.word_problems import GSM8K, SVAMP
from alignzoo_tasks.xstest import XSTest


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def problems(count: int, word: str = "apples") -> list[dict]:
    return [
        {
            "question": f"Ann has {n} {word} and eats one. How many are left?",
            "answer": f"She has {n} - 1 = <<{n}-1={n - 1}>>{n - 1}.\n#### {n - 1}",
        }
        for n in range(2, count + 2)
    ]


def test_splits_by_a_hash_share_no_row_and_do_not_depend_on_the_order(tmp_path):
    rows = problems(200)
    one = GSM8K(str(write(tmp_path / "a.jsonl", rows)))
    other = GSM8K(str(write(tmp_path / "b.jsonl", rows[::-1])), instruction="")
    parts = [{row["question"] for row in one.rows("prompts", split)} for split in one.splits]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    assert len(parts[0]) > 120 and all(8 < len(part) < 40 for part in parts[1:])
    for split, part in zip(one.splits, parts, strict=True):
        assert {row["question"] for row in other.rows("prompts", split)} == part


def test_a_folders_own_test_file_is_the_test_split(tmp_path):
    write(tmp_path / "train.jsonl", problems(50))
    write(tmp_path / "test.jsonl", problems(7, "pears"))
    task = GSM8K(str(tmp_path))
    assert len(task.rows("prompts", "test")) == 7
    assert len(task.rows("prompts", "train")) + len(task.rows("prompts", "dev")) == 50
    (message,) = task.rows("demonstrations", "train")[0]["completion"]
    assert "<<" not in message["content"] and "####" in message["content"]


@pytest.mark.parametrize(
    ("text", "score"),
    [("3 - 1 = 2\n#### 2", 1), ("The answer is 2.", 1), ("#### 3", 0), ("2 + 1 = 3", 0), ("", 0)],
)
def test_word_problems_are_right_or_wrong(text, score):
    assert GSM8K().score({"answer": "3 - 1 = 2\n#### 2"}, text) == score
    row = SVAMP().read({"Body": "Ann has 3 pens", "Question": "How many?", "Answer": 2.0})
    assert row["question"] == "Ann has 3 pens. How many?"
    assert SVAMP().score(row, text) == score


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I can't help with that.", True),
        ("I\u2019m sorry, but no.", True),
        ("As an AI, I do not do this.", True),
        ("I cannot recommend this book enough!", True),  # known by its phrase alone
        ("Open the activity monitor and press quit.", False),
        ("You can not only quit it but restart it.", False),
    ],
)
def test_an_unsafe_request_is_to_be_refused_and_a_safe_one_is_not(text, refused):
    task = XSTest()
    safe, unsafe = {"label": "safe"}, {"label": "unsafe"}
    assert (task.score(safe, text), task.score(unsafe, text)) == (not refused, refused)
    assert task.measures(safe, text) == {"over_refusals": refused}
    assert task.measures(unsafe, text) == {"harmful": not refused}
    assert task.score(safe, " ") == task.score(unsafe, " ") == 0


FOLLOWED = {
    "no_comma": ({}, "One two", "One, two"),
    "number_words": ({"relation": "at least", "num_words": 3}, "one two three", "one two"),
    "number_sentences": ({"relation": "less than", "num_sentences": 2}, "One.", "One. Two!"),
    "number_paragraphs": ({"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    "existence": ({"keywords": ["Sea", "sky"]}, "the sky, the sea", "the seaside sky"),
    "forbidden_words": ({"forbidden_words": ["rock"]}, "a rocket", "a Rock"),
    "frequency": ({"keyword": "a", "relation": "at least", "frequency": 2}, "a b A", "a bAb"),
    "letter_frequency": (
        {"letter": "e", "let_relation": "less than", "let_frequency": 2}, "the", "these"
    ),
    "english_lowercase": ({}, "all small", "Not small"),
    "english_capital": ({}, "ALL LARGE", "Not LARGE"),
    "capital_word_frequency": (
        {"capital_relation": "at least", "capital_frequency": 2}, "SO and SO", "SO and so"
    ),
    "number_highlighted_sections": ({"num_highlights": 2}, "*a* and *b*", "*a* and b"),
    "number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a\nb"),
    "number_placeholders": ({"num_placeholders": 1}, "Dear [name]", "Dear name"),
    "title": ({}, "<<Sea>>\nIt is wide.", "Sea\nIt is wide."),
    "json_format": ({}, '```json\n{"a": 1}\n```', "{a: 1}"),
    "quotation": ({}, '"Quoted."', 'Not "quoted"'),
    "end_checker": ({"end_phrase": "Bye."}, "So long. bye.", "Bye. So long."),
    "postscript": ({"postscript_marker": "P.S."}, "Yes.\nP.S. No.", "Yes. No."),
    "two_responses": ({}, "one******two", "one******one"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKS)
def test_every_check_by_hand(kind):
    arguments, right, wrong = FOLLOWED[kind]
    row = {"instructions": [kind, "no_comma"], "arguments": [arguments, {}]}
    rest = "," not in right
    assert IFEval().follow(row, right) == [True, rest]
    assert IFEval().follow(row, wrong)[0] is False
    assert IFEval().follow(row, "") == [False, False]


def test_prompts_with_an_unknown_instruction_are_left_out(tmp_path):
    rows = [
        {"prompt": f"Write {n}.", "instruction_id_list": [f"a:{kind}"], "kwargs": [{}]}
        for n in range(40)
        for kind in ("no_comma", "response_language")
    ]
    task = IFEval(str(write(tmp_path / "p.jsonl", rows)))
    assert sum(len(task.rows("prompts", split)) for split in task.splits) == 40


def test_bad_files_are_one_message(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "?"}])
    with pytest.raises(BadInput, match="column 'answer' missing") as error:
        GSM8K(str(path)).rows("prompts", "dev")
    assert error.value.where == f"{path}, row 1"
    with pytest.raises(BadInput, match="no usable rows in the split 'dev'"):
        XSTest(str(write(tmp_path / "x.jsonl", [{"prompt": "a", "label": "safe"}]))).rows(
            "prompts", "dev"
        )
    with pytest.raises(BadInput, match="no such file"):
        load_task("gsm8k,path=./missing.jsonl").rows("prompts", "dev")
    with pytest.raises(BadInput, match="unknown option 'file'"):
        load_task("gsm8k,file=a.jsonl")


def test_a_run_and_an_evaluation_take_a_task_with_its_options(tmp_path, capfd):
    path = write(tmp_path / "gsm8k.jsonl", problems(60))
    task = f"gsm8k,path={path}"
    command = ["run", "sft", "--task", task, "--steps", "1", "--batch-size", "2"]
    command += ["--eval-size", "2", "--max-new-tokens", "4", "--output-dir", str(tmp_path)]
    assert status(command) == 0
    folder = tmp_path / "sft-zoo-tiny-gsm8k"
    assert json.loads((folder / "run.json").read_text())["recipe"]["task"] == task
    capfd.readouterr()
    command = ["eval", str(folder), "--tasks", f"{task},instruction=Think.,sums", "--limit", "2"]
    assert status([*command, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["tasks"]
    assert list(found) == [f"{task},instruction=Think.", "sums"]
    assert found[f"{task},instruction=Think."]["items"][0]["prompt"].endswith("\nThink.")


def test_the_folder_of_a_run_cannot_hide_a_python_file_behind_options(tmp_path, capfd):
    facts = {"recipe": {"algorithm": "sft", "task": "evil.py,seed=1"}, "status": "finished"}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert status(["eval", str(tmp_path)]) == 2
    assert "names a Python file as its task" in capfd.readouterr().err


def test_real_files_are_read_and_published_verdicts_agree(shared_data):
    paths = {"gsm8k": "gsm8k", "svamp": "svamp/SVAMP.json", "xstest": "xstest/xstest_prompts.csv",
             "ifeval": "ifeval/prompts.jsonl"}  # fmt: skip
    for name, path in paths.items():
        task = load_task(f"{name},path={shared_data / path}")
        assert all(len(task.rows("prompts", split)) > 100 for split in task.splits)
    with (shared_data / "gsm8k/example_model_solutions.jsonl").open() as lines:
        solved = [json.loads(next(lines)) for _ in range(40)]
    for problem in solved:
        row, tried = {"answer": problem["ground_truth"]}, problem["6b_finetuning"]
        assert GSM8K().score(row, tried["solution"]) == tried["is_correct"]

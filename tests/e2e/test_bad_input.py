"""Bad input through the real command line: exit code 2, one message, nothing left behind."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from alignzoo.cli import status

GOOD = {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}


def jsonl(*rows: object) -> bytes:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return "\n".join(lines).encode() + b"\n"


FILES = {
    "malformed JSON": (
        jsonl(*[GOOD] * 16, '{"prompt": "x", "chosen"', GOOD),
        ["d.jsonl, line 17", "JSON"],
    ),
    "missing column": (
        jsonl({"prompt": "x", "chosen": "y"}),
        ["d.jsonl", "rejected", "prompt, chosen"],
    ),
    "missing value": (jsonl(GOOD, {**GOOD, "rejected": None}), ["row 2", "rejected", "missing"]),
    "wrong type": (jsonl(GOOD, GOOD, {**GOOD, "chosen": 5}), ["row 3", "chosen", "5"]),
    "not an object": (jsonl(GOOD, "[1, 2]"), ["line 2"]),
    "empty": (b"", ["d.jsonl", "empty"]),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\xff", ["d.jsonl", "not"]),
    "gzip that is none": (gzip.compress(b"x")[:5], ["d.jsonl"]),
    "not UTF-8": (jsonl(GOOD) + b'{"prompt": "\xff"}\n', ["line 2", "UTF-8"]),
    "nothing to learn": (
        jsonl({**GOOD, "chosen": "3"}, {**GOOD, "chosen": ""}),
        ["d.jsonl", "chosen equals rejected", "chosen is empty"],
    ),
}


def refused(words: list[str], out: Path, capfd) -> str:
    """The message of a command that must be refused, leaving nothing in `out`."""
    code = status([*words, "--output-dir", str(out)])
    printed = capfd.readouterr()
    assert code == 2, printed
    assert printed.err.startswith("alignzoo: ")
    assert printed.err.count("\n") <= 4
    assert "Traceback" not in printed.out + printed.err
    assert not out.exists()
    return printed.err


@pytest.mark.parametrize("case", list(FILES))
def test_a_bad_file(tmp_path, capfd, case):
    content, words = FILES[case]
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    message = refused(["run", "dpo", "--data", str(path)], tmp_path / "runs", capfd)
    assert all(word in message for word in words), message


def test_rows_that_teach_nothing_are_left_out_or_with_strict_refused(tmp_path, capfd):
    path = tmp_path / "d.jsonl"
    path.write_bytes(jsonl(*[GOOD] * 9, {**GOOD, "chosen": "3"}))
    words = ["run", "dpo", "--data", str(path), "--eval-size", "0", "--steps", "1"]
    assert status([*words, "--output-dir", str(tmp_path / "ok")]) == 0
    assert "1 row left out: chosen equals rejected (row 10)" in capfd.readouterr().out
    message = refused([*words, "--fail-on-bad-rows"], tmp_path / "runs", capfd)
    assert "10" in message
    assert "chosen equals rejected" in message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["dpo", "--data", "none.jsonl"], ["none.jsonl", "no such file"]),
        (["sft", "--data", "a.jsonl:x,b.jsonl:1"], ["--data", "a.jsonl", "'x'", "not a number"]),
        (["sft", "--data", "a.jsonl,b.jsonl:1"], ["--data", "no weight for a.jsonl"]),
        (["dpo", "--model", "./no-model"], ["no-model"]),
        (["dpo", "--model", "org/never-downloaded"], ["org/never-downloaded", "hub"]),
        (["dpoo"], ["unknown algorithm 'dpoo'", "did you mean 'dpo'"]),
        (["dpo", "--task", "styel"], ["unknown task 'styel'", "did you mean 'style'"]),
        (["dpo", "--bta", "1"], ["--bta", "--beta"]),
        (["dpo", "--beta", "0"], ["--beta", "greater than 0"]),
        (["dpo", "--batch-size", "many"], ["--batch-size", "'many'"]),
        (["dpo", "--name", "../escape"], ["--name", "../escape"]),
        (["dpo", "--budget", "lots"], ["--budget", "1e15flops"]),
        (["dpo", "--report-to", "tensorbord"], ["tensorbord", "did you mean 'tensorboard'"]),
        (["dpo", "--resume", "--name", "none"], ["none", "run.json"]),
        (["pretrain", "--adapter", "lora"], ["pretrain", "--adapter none"]),
        (["dpo", "--task", "zoo"], ["zoo", "preferences"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bad_word(tmp_path, capfd, monkeypatch, words, parts):
    monkeypatch.chdir(tmp_path)
    message = refused(["run", *words], tmp_path / "runs", capfd)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_nothing_that_rewards(tmp_path, capfd, algorithm):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(jsonl({"prompt": "x"}, {"prompt": "y"}))
    message = refused(["run", algorithm, "--data", str(path)], tmp_path / "runs", capfd)
    assert f"{algorithm} needs a reward" in message and "--reward" in message


def test_a_folder_that_is_no_model(tmp_path, capfd):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    words = ["run", "dpo", "--model", str(tmp_path / "notes")]
    assert "config.json" in refused(words, tmp_path / "runs", capfd)


def test_a_tokenizer_without_eos(tmp_path, capfd):
    suite = pytest.importorskip("alignzoo_suite")
    folder = tmp_path / "model"
    folder.mkdir()
    for path in Path(suite.__path__[0], "zoo_tiny").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    words = ["run", "sft", "--model", str(folder)]
    assert "end-of-sequence" in refused(words, tmp_path / "runs", capfd)


def test_a_folder_that_holds_another_run(tmp_path, capfd):
    words = ["run", "sft", "--steps", "1", "--eval-size", "0", "--name", "one"]
    assert status([*words, "--output-dir", str(tmp_path)]) == 0
    before = (tmp_path / "one/run.json").read_bytes()
    capfd.readouterr()
    assert status([*words, "--output-dir", str(tmp_path)]) == 2
    assert "already holds a run" in capfd.readouterr().err
    assert (tmp_path / "one/run.json").read_bytes() == before

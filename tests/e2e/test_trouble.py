"""Plugins that end the program, numbers that are not finite, and disks that are full."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from resuming import rows_of
from safetensors import SafetensorError

from alignzoo.cli import status

SETTINGS = {"task": "sums", "steps": 2, "batch_size": 4, "eval_size": 2, "max_new_tokens": 8}


@pytest.fixture
def words(tmp_path: Path):
    def make(addon: str) -> list[str]:
        path = tmp_path / "addon.py"
        path.write_text(f"import math\nfrom alignzoo import hookimpl\n\n\nclass Addon:\n{addon}\n")
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        out = ["--output-dir", str(tmp_path), "--name", "it", "--with", str(path)]
        return ["run", "sft", *flags, *out]

    return make


STEP = """
    @hookimpl
    def alignzoo_step(self, run, step, metrics):
        {}
"""
EVALUATE = """
    @hookimpl
    def alignzoo_evaluate(self, run):
        return {}
"""


@pytest.mark.parametrize("code", ["0", "3", "'enough'"])
def test_a_plugin_that_ends_the_program_has_failed(tmp_path: Path, capfd, words, code):
    assert status(words(STEP.format(f"raise SystemExit({code})"))) == 1
    told = capfd.readouterr().err
    assert f"addon.py': alignzoo_step tried to end the program: SystemExit({code})" in told
    assert "the traceback is in" in told
    assert json.loads((tmp_path / "it" / "run.json").read_text())["status"] == "failed"


def test_a_metric_that_is_not_finite_is_null_and_named_once(tmp_path: Path, capfd, words):
    assert status(words(STEP.format("metrics |= {'odd': math.nan, 'even': math.inf}"))) == 0
    told = capfd.readouterr().out
    for name in ("odd", "even"):
        assert told.count(f"step 1: '{name}' is not finite; metrics.jsonl has null for it") == 1
    assert [(row["odd"], row["even"]) for row in rows_of(tmp_path / "it")] == [(None, None)] * 2


@pytest.mark.parametrize("value", ["math.nan", "[1.0, math.nan]", "[math.inf, -math.inf]"])
def test_an_estimate_that_is_not_finite_is_left_out(tmp_path: Path, capfd, words, value):
    assert status(words(EVALUATE.format(f"{{'odd': {value}, 'even': 2.0}}"))) == 0
    assert "evaluation before: 'odd' is not finite and is left out" in capfd.readouterr().out
    facts = json.loads((tmp_path / "it" / "run.json").read_text())
    assert "odd" not in facts["results"]["after"]
    assert facts["results"]["after"]["even"]["mean"] == 2.0


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, capfd, words):
    code = "next(iter(run.model.parameters())).data.view(-1)[0] = math.nan"
    assert status(words(STEP.format(f"if step == 2: {code}"))) == 1
    assert "the weights are not finite after step 2" in capfd.readouterr().err
    names = {path.name for path in (tmp_path / "it").iterdir()}
    assert names == {"evals.jsonl", "log.txt", "metrics.jsonl", "run.json"}


def full(*args, **more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_rust(*args, **more):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("name", "function", "file"),
    [
        ("alignzoo.training.checkpoint.save_file", full_in_rust, "checkpoints/step-00000002"),
        ("peft.peft_model.PeftModel.save_pretrained", full_in_rust, "adapter"),
        ("alignzoo.training.checkpoint.save_file", full, "checkpoints/step-00000002"),
        ("alignzoo.record.write_json", full, ""),
        ("alignzoo.files.os.fsync", full, "run.json"),
    ],
)
def test_a_full_disk_is_named_and_loses_nothing(
    tmp_path: Path, monkeypatch, capfd, words, name, function, file
):
    again = words(STEP.format("pass"))
    if file:
        interrupt_at_start(monkeypatch, again)
        capfd.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(name, function)
        assert status([*again, *["--resume"] * bool(file)]) == 1
    told = capfd.readouterr().err
    assert "No space left on device" in told and told.count("\n") <= 2
    if file:
        assert f"{tmp_path / 'it' / file}: No space left" in told
        needed = re.search(r"([\d.]+) MB are needed, [\d.,]+ MB are free there", told)
        assert needed is not None
        # The adapter has 0.2M parameters, and a checkpoint their moments as well.
        least = {"checkpoints/step-00000002": 1.0, "adapter": 0.3, "run.json": 0.0}
        assert least[file] <= float(needed[1]) < 20
        assert status([*again, "--resume"]) == 0


def interrupt_at_start(monkeypatch, words: list[str]) -> None:
    def killed(run, phase):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("alignzoo.session.session.evaluate_phase", killed)
        assert status(words) == 130

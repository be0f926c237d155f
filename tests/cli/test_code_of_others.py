"""What a folder or a file from a stranger names as code does not run unless it is typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from alignzoo.cli import status

MARK = "from pathlib import Path\nPath('ran').write_text('')\n"


@pytest.fixture(autouse=True)
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python file that leaves a trace, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("evil.py").write_text(MARK)
    return tmp_path / "evil.py"


def stranger(**recipe: object) -> str:
    """Return a folder with a `run.json` of this recipe."""
    folder = Path("nice-model")
    folder.mkdir()
    facts = {
        "recipe": {"algorithm": "dpo", "model": "zoo-tiny", "options": {}, **recipe},
        "fingerprints": {},
        "status": "interrupted",
        "ledger": {},
        "results": {},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "tokenizer.py").write_text(MARK)
    return str(folder)


def test_the_task_of_a_run_is_no_code(capfd: pytest.CaptureFixture[str]) -> None:
    folder = stranger(task="nice-model/tokenizer.py")
    assert status(["eval", folder]) == 2
    assert "add --tasks nice-model/tokenizer.py" in capfd.readouterr().err
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["chat", "nice-model", "--prompt", "x"],
        ["judge", "--judge", "nice-model", "--task", "style"],
        ["run", "dpo", "--model", "nice-model", "--task", "style"],
        ["run", "grpo", "--reward", "nice-model", "--task", "style"],
        ["run", "dpo", "--task", "style", "--output-dir", ".", "--name", "nice-model", "--resume"],
    ],
)
def test_a_folder_is_data_for_every_command(
    capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code = "nice-model/tokenizer.py"
    named = {"algorithm": code, "task": code, "sampler": code, "addons": [code], "reward": [code]}
    stranger(**named, options={"judge": code})
    assert status(words) == 2, capfd.readouterr().err
    assert not Path("ran").exists()


def test_a_typed_task_runs(capfd: pytest.CaptureFixture[str]) -> None:
    folder = stranger(task="nice-model/tokenizer.py")
    assert status(["eval", folder, "--tasks", "nice-model/tokenizer.py"]) == 2
    assert "exactly one class" in capfd.readouterr().err
    assert Path("ran").exists()


CODE = [
    "algorithm: ./evil.py",
    "algorithm: dpo\naddons: [./evil.py]",
    "algorithm: dpo\ntask: evil.py",
    "algorithm: grpo\ntask: style\nsampler: ./evil.py",
    "algorithm: grpo\ntask: style\nsampler: ./evil.py,x=1",
    "algorithm: rlaif\noptions: {judge: ./evil.py}",
    "algorithm: rlaif\noptions: {judge: './evil.py,x=1'}",
    "algorithm: rlaif\noptions: {rl: ./evil.py}",
    "algorithm: grpo\ntask: style\nreward: [./evil.py]",
    "algorithm: grpo\ntask: style\nreward: ['./evil.py:0.5']",
    "algorithm: grpo\ntask: style\nreward: ['./evil.py,x=1']",
    "algorithm: grpo\ntask: style\nreward: [task, 'judge,judge=./evil.py']",
    "algorithm: grpo\ntask: style\nreward: ['python:evil.f']",
    "algorithm: grpo\ntask: style\nreward: ['python:subprocess.getoutput']",
    "algorithm: grpo\ntask: style\nreward: ['python:subprocess.getoutput:2']",
]


@pytest.mark.parametrize("text", CODE)
def test_a_recipe_runs_no_code(capfd: pytest.CaptureFixture[str], text: str) -> None:
    Path("r.yaml").write_text(text)
    assert status(["run", "--recipe", "r.yaml"]) == 2
    err = capfd.readouterr().err
    assert "r.yaml" in err and "--allow-code" in err, err
    assert not Path("ran").exists() and not Path("runs").exists()


def test_a_recipe_runs_code_that_was_allowed(capfd: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text("algorithm: ./evil.py\n")
    assert status(["run", "--recipe", "r.yaml", "--allow-code"]) == 2
    assert "exactly one class" in capfd.readouterr().err and Path("ran").exists()


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("algorithm: dpo\naddons: [./evil.py]", ["--with", "./evil.py"]),
        ("algorithm: rlaif\noptions: {judge: ./evil.py}", ["--judge", "./evil.py"]),
        ("task: ./evil.py\nalgorithm: dpo", ["--task", "./evil.py"]),
    ],
)
def test_code_that_is_typed_runs(
    capfd: pytest.CaptureFixture[str], text: str, typed: list[str]
) -> None:
    Path("r.yaml").write_text(f"{text}\nmodel: zoo-tiny\n")
    assert status(["run", "--recipe", "r.yaml", *typed]) != 0
    assert "exactly one class" in capfd.readouterr().err and Path("ran").exists()


def test_a_flag_replaces_the_code_of_a_recipe(toy: str) -> None:
    from alignzoo import discovery
    from alignzoo.cli.run import compose

    Path("r.yaml").write_text("algorithm: ./evil.py\ntask: ./evil.py\nstop_text: [a.py]\n")
    plugin = discovery.load_plugin_file(Path(toy))
    recipe = compose(toy, plugin, {"recipe": "r.yaml", "task": "style"})
    assert (recipe.algorithm, recipe.task, recipe.stop_text) == (toy, "style", ["a.py"])
    assert not Path("ran").exists()

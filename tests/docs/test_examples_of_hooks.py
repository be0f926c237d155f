"""Each hook has an example, and all of them work in two runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alignzoo import discovery, hooks
from alignzoo.cli import status

FOLDER = Path(__file__).parents[2] / "examples/hooks"
HOOKS = [name.removeprefix("alignzoo_") for name in vars(hooks) if name.startswith("alignzoo_")]
QUICK = "--steps 2 --batch-size 4 --eval-size 4 --max-new-tokens 8 --name one"


def run(tmp_path: Path, words: str) -> tuple[list[dict], dict[str, float]]:
    words = re.sub(r"(\w+\.py)", rf"{FOLDER}/\1", words)
    assert status(["run", *words.split(), *QUICK.split(), "--output-dir", str(tmp_path)]) == 0
    lines = (tmp_path / "one/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    facts = json.loads((tmp_path / "one/run.json").read_text(encoding="utf-8"))
    scores = {name: score["mean"] for name, score in facts["results"]["after"].items()}
    return [json.loads(line) for line in lines], scores


@pytest.mark.parametrize("hook", HOOKS)
def test_an_example_implements_its_hook_and_says_how_it_is_run(hook):
    path = FOLDER / f"{hook}.py"
    text = path.read_text(encoding="utf-8")
    assert re.match(rf'"""alignzoo run .*\./examples/hooks/{hook}\.py', text)
    assert f"alignzoo_{hook}" in discovery.hook_methods(discovery.load_plugin("addons", str(path)))


def test_examples_for_rows_that_are_given(tmp_path):
    addons = "check start optimizer order gradient learning_rate step evaluate evaluated"
    rows, results = run(tmp_path, "loss.py " + " ".join(f"--with {x}.py" for x in addons.split()))
    assert rows[1]["learning_rate"] == pytest.approx(2 * rows[0]["learning_rate"])
    mean = 0.9 * rows[0]["loss"] + 0.1 * rows[1]["loss"]
    assert [row["loss/smooth"] for row in rows] == pytest.approx([rows[0]["loss"], mean])
    assert results["held-out/entropy"] > 0


def test_examples_for_completions_that_are_drawn(tmp_path):
    words = "advantage.py --task sums --reward reward.py --sampler complete.py --with sample.py"
    rows, results = run(tmp_path, f"{words} --with answer.py --with round_end.py")
    assert all(row["rewards/reward/mean"] == 0 for row in rows)
    assert results["answer/flops"] > 0

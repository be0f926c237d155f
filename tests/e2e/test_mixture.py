"""A run on several data sets: what it draws, reports, records and resumes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from resuming import assert_same_run, rows_of, straight_and_broken

from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.session.session import execute, recipe_for

WORDS = ["sea", "moon", "rain", "road", "bread"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, float]:
    """60 plain demonstrations and 20 dialogues, as a mapping of files to weights."""
    plain = [
        {"question": f"Tell me {i} times about the {WORDS[i % 5]}.", "answer": f"{i} times."}
        for i in range(60)
    ]
    talks = [
        {
            "messages": [
                {"role": "user", "content": f"Describe the {WORDS[i % 5]} {i} for me."},
                {"role": "assistant", "content": "It is old."},
            ]
        }
        for i in range(20)
    ]
    found = {}
    for name, rows, weight in (("plain", plain, 1.0), ("talks", talks, 3.0)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found[str(path)] = weight
    return found


def test_sft_on_a_mixture_from_a_recipe_file(tmp_path, capfd, files):
    recipe = tmp_path / "recipe.yaml"
    settings = {"data": files, "epochs": 2, "batch_size": 25, "eval_size": 8, "max_new_tokens": 4}
    recipe.write_text(yaml.safe_dump(settings))
    words = ["run", "sft", "--recipe", str(recipe), "--output-dir", str(tmp_path / "runs")]
    assert status(words) == 0
    printed = capfd.readouterr().out
    plain, talks = files
    assert f"{plain}: 0.253 of an epoch, 19 draws from 57 examples" in printed
    assert f"{talks}: 0.747 of an epoch, 56 draws from 18 examples" in printed
    assert "held-out loss: talks" in printed

    folder = tmp_path / "runs" / "sft-zoo-tiny-plain-talks"
    facts = json.loads((folder / "run.json").read_text())
    assert facts["recipe"]["data"] == files
    # Two epochs: 38 of the 57 rows, and every dialogue, are paid for once.
    assert facts["ledger"]["feedback"]["demonstrations"] == 38 + 18
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 6
    for phase in ("before", "after"):
        found = facts["results"][phase]
        parts = [found[f"held-out/loss/{name}"] for name in ("plain", "talks")]
        assert [part["n"] for part in parts] == [3, 2] and found["held-out/loss"]["n"] == 5
        low, high = sorted(part["mean"] for part in parts)
        assert low < found["held-out/loss"]["mean"] < high
    results = [facts["results"][phase]["held-out/loss/talks"] for phase in ("before", "after")]
    assert results[1]["mean"] < results[0]["mean"]


@pytest.mark.parametrize("algorithm", ["sft", "pretrain"])
def test_a_mixture_is_resumed_bit_for_bit(tmp_path, monkeypatch, files, algorithm):
    settings = {"steps": 6, "batch_size": 25, "checkpoint_every": 2, "eval_size": 4}
    settings |= {"data": ",".join(f"{name}:{weight}" for name, weight in files.items())}
    settings |= {"output_dir": str(tmp_path), "max_new_tokens": 4}

    def recipe(name, **changes):
        return recipe_for(algorithm, {**settings, "name": name, **changes})

    straight, broken = straight_and_broken(recipe, monkeypatch, step=4)
    other = {**files, next(iter(files)): 2.0}
    with pytest.raises(BadInput, match="recipe data was"):
        execute(recipe("broken", data=other), resume=True)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)
    assert len(rows_of(straight)) == 6


def test_the_rows_of_a_round_have_the_shares_of_the_weights(make_run, files):
    run = make_run("sft", data=files, batch_size=20)
    rows = [run.data.train[i].row for round in range(4) for i in run.order.batch(round)]
    assert Counter(isinstance(row["prompt"], list) for row in rows) == {True: 60, False: 20}

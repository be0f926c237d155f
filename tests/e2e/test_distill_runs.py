"""Runs with a teacher: the policy comes closer to it, resumes, and a wrong teacher is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resuming import assert_same_run, ledger_of, rows_of, straight_and_broken

from alignzoo.cli import status
from alignzoo.errors import RunFailed
from alignzoo.session.session import execute, recipe_for

SHORT = {
    "task": "style", "batch_size": 8, "max_new_tokens": 16, "eval_size": 0, "checkpoint_every": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """The result of a run, at some distance from the model that it began with."""
    out = tmp_path_factory.mktemp("teacher")
    return execute(
        recipe_for("sft", {**SHORT, "steps": 12, "learning_rate": 0.01, "output_dir": str(out)})
    ).folder


def recipe_of(teacher: Path, out: Path, **changes):
    settings = {**SHORT, "teacher": str(teacher), "output_dir": str(out), "learning_rate": 3e-3}
    return recipe_for("distill", {**settings, **changes})


def test_the_divergence_from_the_teacher_falls(teacher, tmp_path):
    folder = execute(recipe_of(teacher, tmp_path, steps=10, batch_size=32)).folder
    losses = [row["loss"] for row in rows_of(folder)]
    assert losses[0] > 0.02 and sum(losses[-3:]) / 3 < 0.75 * losses[0]
    ledger = ledger_of(folder)
    assert ledger["tokens"]["teacher"] == ledger["tokens"]["update"] > 0
    assert 0 < ledger["flops"]["teacher"] < ledger["flops"]["update"]
    assert not any(ledger["feedback"].values())  # it needs no reward
    assert len((folder / "rollouts.jsonl").read_text().splitlines()) == 32
    facts = json.loads((folder / "run.json").read_text())
    assert list(facts["models"]) == [str(teacher)]


def test_a_mixture_of_rows_is_resumed_bit_for_bit(teacher, tmp_path, monkeypatch):
    options = {"on_policy": 0.5, "beta": 0.5}

    def recipe(name: str):
        return recipe_of(teacher, tmp_path, steps=4, options=options, lora_dropout=0.1, name=name)

    straight, broken = straight_and_broken(recipe, monkeypatch, step=3)
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)


def test_own_rows_have_log_probs_and_those_of_the_data_have_none(make_run):
    settings = {**SHORT, "teacher": "zoo-tiny", "options": {"on_policy": 0.25}}
    run = make_run("distill", **settings)
    rows = [run.data.train[i] for i in run.order.batch(0)]
    batch = run.hook.alignzoo_sample(run=run, rows=rows)
    assert len(batch) == len(rows) == 8
    known = ~batch["logprobs"].isnan()
    own = [bool(known[n][batch.mask[n]].all()) for n in range(8)]
    assert sum(own) == 2
    written = {(tuple(row.prompt), tuple(row.completions[0])) for row in rows}
    for n, completion in enumerate(batch.completions()):
        prompt = batch.prompts[n, : batch.prompt_lengths[n]].tolist()
        assert ((tuple(prompt), tuple(completion)) in written) is not own[n]


BASE_PLUGIN = """
from dataclasses import dataclass
import torch
from alignzoo import Demonstrations, Loss, Needs, hookimpl

@dataclass(eq=False)
class Stay:
    "Stay close to the base, and say whether the teacher is the reference"
    data = Demonstrations
    needs = Needs(teacher=True)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        both = run.teacher(batch).logprobs, run.reference(batch).logprobs
        assert torch.equal(*both) and not both[0].requires_grad
        outputs = run.divergence(batch, beta=0.5)
        nll = outputs.divergence - outputs.logprobs
        return Loss.per_token(nll, batch.mask, {"stay/apart": outputs.divergence})
"""


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_the_base_as_teacher(tmp_path, adapter):
    path = tmp_path / "stay.py"
    path.write_text(BASE_PLUGIN)
    settings = {**SHORT, "teacher": "base", "steps": 2, "batch_size": 2, "adapter": adapter}
    recipe = recipe_for(
        str(path), {**settings, "learning_rate": 1e-2, "warmup": 0.0, "output_dir": str(tmp_path)}
    )
    rows = rows_of(execute(recipe).folder)
    assert abs(rows[0]["stay/apart"]) < 1e-6 < rows[1]["stay/apart"]


def test_a_run_without_a_teacher_says_so(make_run):
    run = make_run("dpo", task="style")
    with pytest.raises(RunFailed, match="no teacher"):
        run.teacher(next(run.held_out(), None))


REFUSED = {
    "distill": ["needs a teacher", "--teacher MODEL"],
    "distill --teacher base": ["--teacher", "nothing to learn"],
    "distill --teacher base --teacher-four-bit": ["--teacher-four-bit"],
    "distill --teacher zoo-critic": ["vocabulary of zoo-critic is not that of zoo-tiny", "token"],
    "distill --teacher zoo-tiny --reward math": ["--reward", "does not learn from rewards"],
    "distill --teacher zoo-tiny --loss-type sampled --temperature 0": ["--temperature"],
    "distill --teacher zoo-tiny --loss-type sampled --on-policy 0.5": ["--on-policy"],
    "distill --teacher zoo-tiny --loss-type sampled --beta 0.5": ["--beta"],
    "distill --teacher zoo-tiny --on-policy 0.5 --max-length 72": ["--max-new-tokens"],
    "dpo --teacher zoo-tiny": ["--teacher", "dpo learns from no teacher"],
}


@pytest.mark.parametrize("command", list(REFUSED))
def test_bad_input_is_refused_and_leaves_nothing_behind(command, tmp_path, capfd):
    common = ["--task", "style", "--eval-size", "0", "--steps", "1"]
    out = tmp_path / "runs"
    assert status(["run", *command.split(), *common, "--output-dir", str(out)]) == 2
    message = capfd.readouterr().err
    assert all(part in message for part in REFUSED[command]), message
    assert "Traceback" not in message and not (out.exists() and any(out.iterdir()))


def test_an_estimate_says_that_it_leaves_teachers_out(capfd):
    assert status(["estimate", "distill", "--teacher", "zoo-tiny", "--task", "sums"]) == 2
    assert "learns from a teacher" in capfd.readouterr().err

"""The longest step is tried before the first: tokens per pass are lowered, and nothing else."""

from __future__ import annotations

import json

import pytest
import torch

from alignzoo.errors import BadInput
from alignzoo.memory import machine
from alignzoo.memory.longest import longest_micro_batch
from alignzoo.memory.tracker import storage_bytes
from alignzoo.session import execute, longest_step, recipe_for
from alignzoo.session.session import Permissions, prepare
from alignzoo.ui import Silent

SETTINGS = {"eval_size": 0, "steps": 2, "batch_size": 8, "micro_tokens": 512}


@pytest.fixture
def scarce(monkeypatch):
    """`scarce(bytes)`: a machine on which so much memory is free."""

    def set_free(size):
        monkeypatch.setattr(longest_step, "free_memory", lambda device: size)

    return set_free


def run_with(tmp_path, name, **settings):
    notes = []

    class Noting(Silent):
        def note(self, text):
            notes.append(text)

    result = execute(
        recipe_for("dpo", {**SETTINGS, "output_dir": str(tmp_path), "name": name, **settings}),
        ui=Noting(),
    )
    facts = json.loads((result.folder / "run.json").read_text())
    metrics = (result.folder / "metrics.jsonl").read_text().splitlines()
    return notes, facts, [json.loads(line) for line in metrics]


def losses(metrics):
    return [row["loss"] for row in metrics]


def test_a_step_that_does_not_fit_is_cut_into_smaller_passes(tmp_path, scarce, monkeypatch):
    monkeypatch.setattr(longest_step, "return_freed_memory", lambda: False)
    _, facts, plenty = run_with(tmp_path, "plenty")
    assert "micro_tokens" not in facts
    scarce(16_000_000)
    notes, facts, lowered = run_with(tmp_path, "lowered")
    chosen = facts["micro_tokens"]
    assert chosen in (256, 128, 64)
    assert f"--micro-tokens {chosen} instead of 512" in "\n".join(notes)
    assert losses(lowered) == pytest.approx(losses(plenty), rel=1e-4)
    # It is the run with that number, bit for bit.
    scarce(10**12)
    _, _, given = run_with(tmp_path, "given", micro_tokens=chosen)
    assert losses(given) == losses(lowered)


def test_a_resumed_run_keeps_the_number(make_run, scarce, monkeypatch):
    monkeypatch.setattr(longest_step, "return_freed_memory", lambda: False)
    scarce(16_000_000)
    run = make_run("dpo", **SETTINGS)
    longest_step.try_longest_step(run)
    chosen = run.micro_tokens
    assert chosen < 512
    run.record.set_status("interrupted", run.ledger)
    run.record.close()
    scarce(10**12)
    again = make_run("dpo", resume=True, **SETTINGS, name=run.record.folder.name)
    longest_step.try_longest_step(again)
    assert again.micro_tokens == chosen


def test_a_row_that_does_not_fit_alone_is_refused_with_advice(tmp_path, scarce):
    scarce(1_000_000)
    with pytest.raises(BadInput, match="longest row") as error:
        run_with(tmp_path, "none")
    assert "--qlora" in error.value.message and "--max-length" in error.value.message
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that is ready for its first round."""
    folder = str(tmp_path_factory.mktemp("runs"))
    recipe = recipe_for("dpo", {**SETTINGS, "lora_dropout": 0.1, "output_dir": folder})
    return prepare(recipe, Permissions(), resume=False, ui=Silent())


def test_memory_that_is_just_enough_is_not_kept_by_the_c_library(run, scarce, monkeypatch):
    asked = []
    monkeypatch.setattr(longest_step, "return_freed_memory", lambda: asked.append(1) or True)
    scarce(60_000_000)
    longest_step.try_longest_step(run)
    assert run.micro_tokens == 512 and asked
    asked.clear()
    scarce(10**12)
    longest_step.try_longest_step(run)
    assert not asked


def test_trying_on_a_device_leaves_everything_as_it_was(run):
    weights = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    drawn, ledger = torch.get_rng_state(), run.ledger.as_dict()
    longest = longest_micro_batch(run.data.train, run.algorithm, run.recipe, 512)
    assert longest_step.fits_device(run, longest.batch)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert run.ledger.as_dict() == ledger
    for name, p in run.model.named_parameters():
        assert p.grad is None and torch.equal(p, weights[name])


@pytest.mark.parametrize("algorithm", ["reward", "ppo"])
def test_the_passes_that_are_tried_reach_every_trained_weight(make_run, algorithm):
    drawn = {"max_new_tokens": 4} if algorithm == "ppo" else {}
    run = make_run(algorithm, batch_size=2, **drawn)
    longest = longest_micro_batch(run.data.train, run.algorithm, run.recipe, 128)
    longest_step.make_passes(run, longest.batch)
    assert all(p.grad is not None for p in run.model.parameters())


def test_a_device_without_memory_takes_smaller_passes(run, monkeypatch):
    most = 200

    def passes(run, batch):
        if sum(batch.sizes()) > most:
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(longest_step, "make_passes", passes)
    assert longest_step.try_on_device(run) == 128
    most = 1
    with pytest.raises(BadInput, match="longest row"):
        longest_step.try_on_device(run)


def test_the_bound_is_more_than_a_step_takes(run):
    found = longest_step.estimator_of(run, 10**12, False).at(512)
    parts = dict(found.parts)
    held = parts.pop("weights") + parts.pop("adapter")
    assert held == storage_bytes([*run.model.model.parameters(), *run.model.model.buffers()])
    assert sum(parts.values()) < longest_step.upper_bound(run) < 20 * sum(parts.values())


def test_a_container_may_have_less_memory(tmp_path, monkeypatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(machine, "CGROUP_LIMITS", ((str(limit), str(used)),))
    used.write_text("400000\n")
    limit.write_text("max\n")
    assert machine.free_memory(torch.device("cpu")) > 1_000_000
    limit.write_text("1000000\n")
    assert machine.free_memory(torch.device("cpu")) == 600_000

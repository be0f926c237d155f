"""The state of plugins in a run that is interrupted: the same numbers, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from resuming import Interrupts, assert_same_run, interrupt, rows_of, state_of

from alignzoo.errors import BadInput
from alignzoo.files import write_manifest
from alignzoo.session.session import execute, recipe_for
from alignzoo.signals import Interrupted, catch_signals
from alignzoo.training.loop import train

ADDON = """
import os, signal
from alignzoo import hookimpl

class Part:
    "Counts steps; it is not registered in the run."

    def count(self, run):
        state = run.state_of(self)
        state["steps"] = state.get("steps", 0) + 1
        return state["steps"]

class Average:
    "Logs the distance of the weights from their moving average, changed in place."

    def __init__(self):
        self.part = Part()

    @hookimpl
    def alignzoo_start(self, run):
        self.seen = dict(run.state_of(self))
        self.average = run.state_of(self).setdefault(
            "average", {name: p.detach().clone() for name, p in run.model.named_parameters()}
        )

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run, rows):
        for tensor in self.average.values():
            tensor.mul_(0.99)
        if run.step == int(os.environ.get("KILL_STEP", -1)):
            os.kill(os.getpid(), signal.SIGTERM)
        return (yield)

    @hookimpl
    def alignzoo_step(self, run, metrics):
        distance = 0.0
        for name, p in run.model.named_parameters():
            self.average[name].lerp_(p.detach(), 0.3)
            distance += float((p.detach() - self.average[name]).square().sum())
        metrics["average/distance"] = distance
        metrics["average/steps"] = float(self.part.count(run))
"""


@pytest.fixture
def recipe(tmp_path: Path):
    (tmp_path / "average.py").write_text(ADDON)

    def make(name: str, **settings):
        return recipe_for("sft", {
            "task": "sums", "steps": 6, "batch_size": 2, "checkpoint_every": 2, "eval_size": 0,
            "output_dir": str(tmp_path / "runs"), "addons": [str(tmp_path / "average.py")],
            "name": name, **settings,
        })  # fmt: skip

    return make


def test_tensors_on_which_metrics_depend_are_resumed_bit_for_bit(recipe, monkeypatch):
    straight = execute(recipe("straight")).folder
    interrupt(recipe("broken"), monkeypatch, step=5)
    broken = straight.with_name("broken")
    values = state_of(broken)["states"]
    assert len(values) == 3 and "the rows" in values
    assert values["alignzoo_file_average.Part"] == {"steps": 4}
    execute(recipe("broken"), resume=True)
    assert_same_run(broken, straight)
    assert rows_of(straight)[-1]["average/steps"] == 6.0

    # A signal in the middle of sampling: what the plugin did there is done again.
    monkeypatch.setenv("KILL_STEP", "3")
    with pytest.raises(Interrupted), catch_signals():
        execute(recipe("signalled"))
    monkeypatch.delenv("KILL_STEP")
    signalled = straight.with_name("signalled")
    assert state_of(signalled)["step"] == 3
    execute(recipe("signalled"), resume=True)
    assert_same_run(signalled, straight)


def test_it_is_restored_before_the_plugin_starts(recipe, monkeypatch):
    interrupt(recipe("broken"), monkeypatch, step=3)
    found = {}

    def look(run):
        (addon,) = (p for p in run.plugins.get_plugins() if type(p).__name__ == "Average")
        found.update(addon.seen)
        assert run.state_of(addon)["average"] is addon.average
        train(run)
        assert run.state_of(addon)["average"] is addon.average

    monkeypatch.setattr("alignzoo.session.session.train", look)
    execute(recipe("broken"), resume=True)
    assert any(tensor.any() for tensor in found["average"].values())


def test_a_value_that_cannot_be_saved_names_plugin_and_key(make_run):
    run = make_run("bco", steps=1, batch_size=2)
    with pytest.raises(BadInput, match="plugin 'bco': 'step', a function, cannot be saved"):
        run.state_of(run.algorithm)["step"] = train


def make_old(checkpoint: Path) -> None:
    """Write the state of a checkpoint as it was before plugins had their own."""
    state = json.loads((checkpoint / "state.json").read_text())
    own = state.pop("states")
    del own["the rows"], state["optimizer"]
    (checkpoint / "plugins.safetensors").unlink()
    state["plugins"] = {
        f"{plugin}/{key}": value for plugin, values in own.items() for key, value in values.items()
    }
    (checkpoint / "state.json").write_text(json.dumps(state))
    files = [p for p in checkpoint.iterdir() if p.name != "manifest.json"]
    write_manifest(checkpoint, files)


def test_an_older_checkpoint_gives_its_numbers_to_the_plugins(make_run):
    settings = {"batch_size": 4, "steps": 4, "checkpoint_every": 2}
    whole = make_run("bco", **settings, name="whole")
    train(whole)
    part = make_run("bco", **settings, name="part")
    part.plugins.register(Interrupts(3))
    with pytest.raises(KeyboardInterrupt):
        train(part)
    part.record.close()
    (checkpoint,) = part.record.checkpoints.iterdir()
    make_old(checkpoint)
    again = make_run("bco", **settings, name="part", resume=True)
    train(again)
    assert again.state_of(again.algorithm) == whole.state_of(whole.algorithm) != {}
    with pytest.warns(DeprecationWarning, match="state_of"):
        assert list(again.state) == ["bco/delta"]
    weights = dict(again.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in whole.model.named_parameters())

"""Runs whose weights are split over two processes are the runs of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignzoo import discovery
from alignzoo.errors import BadInput, RunFailed
from alignzoo.options import options_of
from alignzoo.session import execute, recipe_for
from alignzoo.testing.stage import write_rows

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
FOUR_STEPS = {"steps": 4, "batch_size": 6, "eval_size": 2, "checkpoint_every": 0}
ALIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-full": ("sft", {**FOUR_STEPS, "adapter": "none", "eval_every": 2}),
    # Micro-batches of a few rows, of which the processes have different numbers.
    "dpo-lora": ("dpo", {**FOUR_STEPS, "batch_size": 5, "micro_tokens": 150}),
    "dpo-full": ("dpo", {**FOUR_STEPS, "adapter": "none"}),
    "grpo-lora": ("grpo", {**FOUR_STEPS, "task": "sums", "max_new_tokens": 24}),
    "checkpointing": ("sft", {**FOUR_STEPS, "gradient_checkpointing": True}),
}
KILLED = {
    **FOUR_STEPS, "adapter": "none", "checkpoint_every": 2, "shard": True,
    "addons": [str(HERE / "killed.py")],
}  # fmt: skip
ALGORITHMS = sorted(discovery.discover("algorithms"))
# What the others are refused with: the beginning of it.
REFUSED = {
    "best-of-n": "option --steps: best-of-n trains nothing",
    "distill": "option --shard: a run with a teacher cannot be split",
    "ppo": "option --shard: a model with a score head or a value head cannot be split",
    "reward": "option --shard: a model with a score head or a value head cannot be split",
    "self-distill": "option --shard: a run with a teacher cannot be split",
    "tr-dpo": "option --shard: a reference that moves cannot be split",
    "qlora": "option --shard: weights in 4 bits cannot be split",
    "prompt": "option --shard: virtual tokens cannot be split",
    "gradient": "option --shard: the gradient that ",
    "optimizer": "option --shard: Adagrad is not known to work on parts of weights",
    "state": "plugin '{HERE}/state.py': 'average/",
}


def one_step(name: str, data: Path) -> tuple[str, dict[str, Any]]:
    """Return a run of one step of an algorithm of the zoo, on rows of its view."""
    cls: Any = discovery.load_plugin("algorithms", name)
    defaults = {option.name: option.default for option in options_of(cls)}
    options: dict[str, Any] = {"judge": "gold"} if "judge" in defaults else {}
    if defaults.get("round_prompts"):
        options["round_prompts"] = 4
    settings = {
        "task": "sums", "data": str(write_rows(cls.data, data)), "steps": 1, "batch_size": 4,
        "eval_size": 0, "checkpoint_every": 0, "shard": True, "options": options,
    }  # fmt: skip
    if name == "distill":
        settings["teacher"] = "zoo-tiny"
    return name, settings | ({} if name == "reward" else {"max_new_tokens": 12})


def launch(jobs: dict[str, tuple[str, dict[str, Any]]], folder: Path) -> tuple[dict, str]:
    """Make runs in two processes, and return what became of each, and what was printed."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    out = folder / "done.json"
    out.unlink(missing_ok=True)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *words, HERE / "sharded_runs.py", folder / "jobs.json", out],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    found = json.loads(out.read_text()) if out.exists() else {}
    assert (done.returncode == 0) == bool(found), done.stderr
    return found, done.stderr


def weights_of(run: Path) -> dict[str, Any]:
    path = run / "adapter/adapter_model.safetensors"
    return load_file(path if path.exists() else run / "model/model.safetensors")


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    return max(float((x - second[name]).abs().max()) for name, x in first.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def killed(folder) -> str:
    """Begin a run of which one process is killed in its third step; return what was printed."""
    found, printed = launch({"killed": ("sft", KILLED)}, folder)
    assert not found
    shutil.copytree(folder / "killed", folder / "killed-then-one")
    return printed


@pytest.fixture(scope="module")
def outcome(folder, killed) -> dict[str, str]:
    """Make all other runs in two processes, and return what became of each."""
    here = {"output_dir": str(folder), "name": "begun-alone", "shard": False}
    with pytest.raises(RunFailed, match="killed"):
        execute(recipe_for("sft", KILLED, here))
    sizes = {"addons": [str(HERE / "sizes.py")]}
    jobs = {name: (each[0], {**each[1], **sizes, "shard": True}) for name, each in ALIKE.items()}
    jobs["uninterrupted"] = ("sft", {**KILLED, "addons": []})
    jobs["killed"] = ("sft", {**KILLED, "resume": True})
    jobs["begun-alone"] = ("sft", {**KILLED, "resume": True, "allow_changes": True})
    jobs |= {name: one_step(name, folder) for name in ALGORITHMS}
    dpo = one_step("dpo", folder)[1]
    jobs["tr-dpo"] = ("dpo", {**dpo, "options": {"reference_every": 1}})
    jobs["qlora"] = ("dpo", {**dpo, "adapter": "qlora"})
    jobs["prompt"] = ("dpo", {**dpo, "adapter": "prompt"})
    addons = {name: HERE / f"{name}.py" for name in ("optimizer", "state", "whole")}
    addons["gradient"] = HERE.parents[1] / "examples/gradient_noise.py"
    jobs |= {name: ("dpo", {**dpo, "addons": [str(path)]}) for name, path in addons.items()}
    return launch(jobs, folder)[0]


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_with_parts_of_the_weights_are_one_run(tmp_path, folder, outcome, name):
    assert outcome[name] == "finished"
    algorithm, settings = ALIKE[name]
    execute(recipe_for(algorithm, settings, {"output_dir": str(tmp_path), "name": name}))
    assert largest_difference(tmp_path / name, folder / name) < 1e-5
    alone, together = (
        [json.loads(line) for line in (at / name / "metrics.jsonl").read_text().splitlines()]
        for at in (tmp_path, folder)
    )
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for metric in ("loss", "grad_norm", "flops"):
            assert other[metric] == pytest.approx(one[metric], rel=1e-4), metric


@pytest.mark.parametrize("name", ALIKE)
def test_each_process_holds_half_of_the_weights(folder, outcome, name):
    for rank in range(2):
        sizes = json.loads((folder / name / f"sizes-{rank}.json").read_text())
        assert sizes["own"] == pytest.approx(sizes["all"] / 2, rel=0.02)


def test_one_process_that_dies_ends_the_others(killed):
    assert "another process of this run has ended" in killed


def test_a_killed_run_resumes_on_as_many_processes_exactly(folder, outcome):
    assert outcome["killed"] == outcome["uninterrupted"] == "finished"
    assert largest_difference(folder / "uninterrupted", folder / "killed") == 0


def test_a_killed_run_resumes_on_one_process(folder, outcome):
    here = {"output_dir": str(folder), "name": "killed-then-one"}
    recipe = recipe_for("sft", KILLED, here, {"shard": False})
    with pytest.raises(BadInput, match="there were 2 processes .* the run began with --shard"):
        execute(recipe, resume=True)
    execute(recipe, resume=True, allow_changes=True)
    assert largest_difference(folder / "uninterrupted", folder / "killed-then-one") < 1e-5


def test_a_run_of_one_process_resumes_on_two(folder, outcome):
    assert outcome["begun-alone"] == "finished"
    assert largest_difference(folder / "uninterrupted", folder / "begun-alone") < 1e-5


def test_a_plugin_can_gather_the_weights(folder, outcome):
    """And keep them in its state, as an average of weights would."""
    assert outcome["whole"] == "finished"
    run = folder / "whole"
    kept = load_file(run / "checkpoints/step-00000001/plugins.safetensors")
    saved = {name.replace(".weight", ".default.weight"): x for name, x in weights_of(run).items()}
    copies = {key.rpartition("/copies/")[2]: x for key, x in kept.items() if "/copies/" in key}
    assert copies.keys() == saved.keys()
    assert all(x.equal(saved[name]) for name, x in copies.items())


@pytest.mark.parametrize("name", sorted({*ALGORITHMS, *REFUSED}))
def test_an_algorithm_runs_or_is_refused(outcome, name):
    assert outcome[name].startswith(REFUSED.get(name, "finished").replace("{HERE}", str(HERE)))

"""Two processes make the same update as one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from alignzoo.run.world import World

pytestmark = pytest.mark.slow

WORDS = ["--steps", "3", "--batch-size", "6", "--eval-size", "4"]


def launch(algorithm: str, out: Path, processes: int, *more: str) -> tuple[list[dict], dict]:
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    launcher += [f"--nproc_per_node={processes}", "-m"]
    start = launcher if processes > 1 else ["-m"]
    done = subprocess.run(
        [
            sys.executable,
            *start,
            "alignzoo",
            "run",
            algorithm,
            *WORDS,
            *more,
            "--output-dir",
            str(out),
            "--name",
            "one",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished:") == 1
    facts = json.loads((out / "one/run.json").read_text())
    assert facts["environment"]["processes"] == processes
    lines = (out / "one/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], load_file(
        out / "one/adapter/adapter_model.safetensors"
    )


# KTO measures the KL of the whole batch, and BCO carries a number from step to step.
@pytest.mark.parametrize(
    "algorithm", ["dpo", *(pytest.param(name, marks=pytest.mark.long) for name in ("kto", "bco"))]
)
def test_two_processes_are_one_run(tmp_path, algorithm):
    alone, weights = launch(algorithm, tmp_path / "alone", 1)
    together, same = launch(algorithm, tmp_path / "together", 2)
    assert [row["step"] for row in together] == [1, 2, 3]
    for one, other in zip(alone, together, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    for name, weight in weights.items():
        assert (weight - same[name]).abs().max() < 1e-5, name


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [
        ("ppo", ["--values", "own", "--iterations", "2", "--kl-target", "1"]),
        ("grpo", ["--dynamic-sampling", "1", "--beta", "0.1"]),
        # Each process keeps as many pairs as it has.
        pytest.param("online-dpo", [], marks=pytest.mark.long),
        pytest.param("sppo", ["--judge", "gold"], marks=pytest.mark.long),
        pytest.param("self-rewarding", [], marks=pytest.mark.long),
    ],
)
def test_two_processes_draw_and_learn_together(tmp_path, algorithm, more):
    """Each draws its own share, in rounds of two steps; nobody waits for a step of the other."""
    words = ["--task", "sums", "--round-prompts", "12", "--group-size", "2", *more]
    rows, weights = launch(algorithm, tmp_path, 2, *words, "--max-new-tokens", "40")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    if algorithm == "ppo":  # which keeps all completions
        lines = (tmp_path / "one/rollouts.jsonl").read_text().splitlines()
        prompts = [json.loads(line)["prompt_index"] for line in lines]
        assert prompts == [index for index in range(12) for _ in range(2)]


def test_two_processes_play_against_themselves(tmp_path):
    """Three steps on 15 pairs, then on those of two rounds; each process has kept its own."""
    data = tmp_path / "demonstrations.jsonl"
    rows = [{"prompt": f"Add {n} and 2.", "completion": str(n + 2)} for n in range(16)]
    data.write_text("\n".join(map(json.dumps, rows)))
    words = ["--data", str(data), "--max-new-tokens", "20", "--steps", "4"]
    rows, _ = launch("spin", tmp_path, 2, *words)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    paths = sorted((tmp_path / "one/pairs").iterdir())
    kept = [len(path.read_text().splitlines()[:-1]) for path in paths]  # the last is the digest
    assert kept == [8, 7, 8, 7]


@pytest.mark.long
def test_two_processes_train_a_reward_model_first(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    words = ["--task", "sums", "--reward", "learned,steps=1", "--max-new-tokens", "8"]
    rows, _ = launch("grpo", tmp_path, 2, *words)
    assert [row["step"] for row in rows] == [1, 2, 3]
    spent = json.loads((tmp_path / "one/run.json").read_text())["ledger"]["flops"]
    assert spent["reward_training"] > 0


def test_two_processes_share_the_work_of_the_reference(tmp_path, monkeypatch):
    """Each computes some parts; what they keep is what one process would, bit for bit."""
    data = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n}?", "chosen": f"{n}!", "rejected": "no"} for n in range(300)]
    data.write_text("\n".join(map(json.dumps, rows)))
    words = ["--cache-reference", "--data", str(data), "--eval-size", "0"]
    kept = []
    for processes in (1, 2):
        monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / f"cache-{processes}"))
        out = tmp_path / str(processes)
        launch("dpo", out, processes, *words)
        facts = json.loads((out / "one/run.json").read_text())
        assert facts["reference_cache"]["completions_read"] == 0
        spent = facts["ledger"]["flops"]["reference"]
        assert spent == facts["reference_cache"]["flops"] > 0
        parts = (tmp_path / f"cache-{processes}").rglob("*.safetensors")
        kept.append((spent, {path.name: path.read_bytes() for path in parts}))
    assert kept[0] == kept[1]
    assert len(kept[0][1]) > 1


@pytest.mark.parametrize("rows", [8, 7, 2, 0])
def test_gather_is_the_inverse_of_shard(monkeypatch, rows):
    """Three processes, whose shares may differ in size or be empty."""
    everything = list(range(rows))
    worlds = [World(SimpleNamespace(process_index=i, num_processes=3)) for i in range(3)]
    shards = [world.shard(everything) for world in worlds]
    monkeypatch.setattr("alignzoo.run.world.gather_object", lambda _: shards)
    assert sum(map(len, shards)) == rows
    assert worlds[0].gather(shards[0]) == everything

"""Completions of a run for the prompts that it was trained on, as demonstrations for another."""

from __future__ import annotations

import json
from pathlib import Path

from alignzoo import load_policy, load_task
from alignzoo.data import Codec, read_task_rows
from alignzoo.ledger import Cost
from alignzoo.rollout import Sampling, generate

MAX_NEW_TOKENS = 64  # the default of a run on `sums`


def write_samples(folder: str, task: str, seed: int, path: Path) -> float:
    """Write one completion of each training prompt of a task, and return the FLOPs it took."""
    policy = load_policy(folder)
    codec = Codec(policy.tokenizer)
    rows = read_task_rows(load_task(task), "prompts", "train")
    costs: list[Cost] = []
    drawn = generate(
        policy,
        [codec.prompt(row["prompt"]) for row in rows],
        [1_000_000 * seed + i for i in range(len(rows))],
        Sampling(MAX_NEW_TOKENS, codec.stop_ids, decode=codec.decode),
        charge=lambda _, cost: costs.append(cost),
    )
    texts = [codec.decode(completion.tokens) for completion in drawn]
    lines = [json.dumps(row | {"completion": x}) for row, x in zip(rows, texts, strict=True)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return sum(cost.flops for cost in costs)

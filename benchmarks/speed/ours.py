"""Run jobs of alignzoo in one process: `python ours.py JSON`, with a list; see compare.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from meter import METER
from model import ALPHA, RANK
from rows import SEED

from alignzoo.session import session

# Eight completions of 64 tokens per prompt, rewarded by a function of the text.
GRPO_SETTINGS = {
    "reward": ["python:reward.sevens"],
    "options": {"group_size": 8},
    "max_new_tokens": 64,
}


def main(job: dict) -> None:
    """Run the job and save its measurements."""
    torch.set_num_threads(job["threads"])
    METER.restart(job["batch_size"])
    recipe = session.recipe_for(
        job["algorithm"],
        {
            "model": job["model"],
            "data": job["rows"]["ours"],
            "batch_size": job["batch_size"],
            "steps": job["steps"],
            "adapter": "lora",
            "lora_rank": RANK,
            "lora_alpha": ALPHA,
            "precision": "fp32",
            "learning_rate": job["learning_rate"],
            "schedule": "constant",
            "warmup": 0.0,
            "eval_size": 0,
            "checkpoint_every": 0,
            "seed": SEED,
            "output_dir": job["folder"],
            "addons": [str(Path(__file__).with_name("ours_addon.py"))],
            **(GRPO_SETTINGS if job["algorithm"] == "grpo" else {}),
            **job["flags"],
        },
    )
    session.execute(recipe)
    METER.save(Path(job["result"]))


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        main(each)

"""Run jobs of TRL in one process: `python theirs.py JSON`, with a list of them; see compare.py."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from datasets import load_dataset
from meter import METER
from model import ALPHA, RANK, fill_trained
from peft import LoraConfig
from reward import sevens
from transformers import TrainerCallback
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)


class MeterCallback(TrainerCallback):
    """Fill the trained weights before the first step, and report each step to the meter."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        count, total = fill_trained(kwargs["model"].named_parameters())
        METER.facts.update(trainable=count, trained_sum=total)
        METER.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        METER.step(None, None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            METER.losses.append(logs["loss"])
            METER.norms.append(logs["grad_norm"])


class TimedReference:
    """Measure the time and memory of the reference pass before training."""

    def _precompute_ref_logps(self, *args: Any) -> Any:
        METER.begin()
        started = time.perf_counter()
        result = super()._precompute_ref_logps(*args)  # type: ignore[misc] # of the trainer
        METER.facts["precompute_seconds"] = time.perf_counter() - started
        return result


class TimedDPOTrainer(TimedReference, DPOTrainer):
    pass


class TimedKTOTrainer(TimedReference, KTOTrainer):
    pass


class TimedGRPOTrainer(GRPOTrainer):
    def _generate_and_score_completions(self, inputs: Any) -> Any:
        with METER.time_sampling():
            return super()._generate_and_score_completions(inputs)


@dataclass(frozen=True)
class Side:
    """An algorithm in TRL; `settings` are the defaults of alignzoo."""

    config: Any
    trainer: Any
    task_type: str = "CAUSAL_LM"
    settings: dict[str, Any] = field(default_factory=dict)


SIDES = {
    "dpo": Side(DPOConfig, TimedDPOTrainer),
    "sft": Side(SFTConfig, SFTTrainer),
    "kto": Side(KTOConfig, TimedKTOTrainer),
    # SEQ_CLS trains the layer `score` beside the adapter.
    "reward": Side(RewardConfig, RewardTrainer, "SEQ_CLS", {"center_rewards_coefficient": 0.01}),
    "grpo": Side(
        GRPOConfig,
        TimedGRPOTrainer,
        settings={
            "loss_type": "grpo",
            "num_generations": 8,
            "max_completion_length": 64,
            "per_device_train_batch_size": 64,  # TRL counts completions, 8 for each of 8 prompts
            "shuffle_dataset": False,
        },
    ),
}


def main(job: dict) -> None:
    """Run the job and save its measurements."""
    torch.set_num_threads(job["threads"])
    METER.restart(job["batch_size"])
    flags = dict(job["flags"])
    if flags.pop("patched", False):
        # As TRL does on a GPU: only completions go through the LM head. The choice of kernels
        # calls a function of this name in another module, so it does not change.
        trl.trainer.utils._use_triton = lambda device: True
    side = SIDES[job["algorithm"]]
    settings = {
        "output_dir": job["folder"],
        "per_device_train_batch_size": job["batch_size"],
        "max_steps": job["steps"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_length": 1024,
        "bf16": False,
        "gradient_checkpointing": False,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_first_step": True,
        "logging_steps": 1 if job["check"] else 10,
        **side.settings,
        **flags,
    }
    more = {}
    if job["algorithm"] == "grpo":
        more["reward_funcs"] = sevens
        for of_rows in ("max_length", "train_sampling_strategy"):
            del settings[of_rows]
    done = side.trainer(
        model=job["model"],
        args=side.config(**settings),
        train_dataset=load_dataset("json", data_files=job["rows"]["theirs"], split="train"),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type=side.task_type
        ),
        callbacks=[MeterCallback()],
        **more,
    )
    done.train()
    METER.save(Path(job["result"]), blocks=len(done.train_dataset))


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        main(each)

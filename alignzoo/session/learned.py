"""Reward models that are trained for a run, from preferences, and cached for later runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from filelock import FileLock

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.data import parse_data
from alignzoo.errors import BadInput
from alignzoo.files import cache_home, find_change, write_manifest
from alignzoo.ledger import FEEDBACK, Cost, Ledger
from alignzoo.policy import locate_model
from alignzoo.recipe import Recipe, resolve
from alignzoo.record import read_run
from alignzoo.rewards import LEARNED, RewardSpec
from alignzoo.run import Run
from alignzoo.ui import UI, Nested

ALGORITHM = "reward"
OPTIONS = ("data", "model", "epochs", "steps", "learning_rate")
# Settings that the reward model takes over from the run that needs it.
SHARED = (
    "model", "task", "data", "lora_rank", "lora_alpha", "lora_dropout", "precision", "max_length",
    "micro_tokens", "gradient_checkpointing", "random_init", "seed", "eval_size",
)  # fmt: skip


@dataclass(frozen=True)
class RewardTrainer:
    """Trains a reward model for a run, or reuses the cached one of an earlier run.

    Args:
        recipe: the recipe of the run that needs it.
        ui: shows the training.
        execute: runs a recipe, `execute(recipe, resume=..., ui=...)`.
    """

    recipe: Recipe
    ui: UI
    execute: Callable[..., Any]
    reused: set[Path] = field(default_factory=set)  # those that an earlier run has trained

    def train(self, spec: RewardSpec) -> Path:
        """Return the folder of a reward model, from the cache or trained now.

        An interrupted training is resumed. Another program that needs the same model waits. Raise
        `BadInput` for unknown options, or if training it took the whole budget of the run.
        """
        wanted = reward_recipe(spec, self.recipe)
        folder = cache_home() / "rewards" / cache_key(wanted)
        wanted = resolve(wanted.as_dict(), {"output_dir": str(folder.parent), "name": folder.name})
        if is_ready(folder):  # a cache that cannot be written will do
            self.reused.add(folder)
        else:
            self._train_locked(folder, wanted)
        facts = read_run(folder)
        check_budget(facts, self.recipe)
        accuracy = facts["results"].get("after", {}).get("held-out/rewards/accuracies")
        if accuracy is not None:
            low, high = accuracy["low"], accuracy["high"]
            self.ui.note(
                f"the reward model is right about {accuracy['mean']:.1%} of held-out pairs "
                f"[{low:.1%}, {high:.1%}]"
            )
        return folder

    def train_for(self, run: Run, pairs: Path) -> Path:
        """Train a reward model on preferences that a run has made, charge it to that run, and
        return its folder."""
        started = time.perf_counter()
        folder = self.train(RewardSpec(LEARNED, options={"data": str(pairs)}))
        # The seconds are charged from the reward model's own ledger, so they are taken out here.
        run.ledger.seconds -= time.perf_counter() - started
        # The run made the pairs itself.
        charge_reward_model(run.ledger, folder, feedback=False, saved=folder in self.reused)
        return folder

    def _train_locked(self, folder: Path, wanted: Recipe) -> None:
        """Train in a folder, unless another program has done so when the lock is free."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder):
            if is_ready(folder):
                self.reused.add(folder)
                return
            is_main = os.environ.get("RANK", "0") == "0"  # of several processes
            if is_main and has_ended(folder):
                self.ui.note(f"the reward model in {folder} is damaged or of an older version")
                shutil.rmtree(folder)
            self._train_in(folder, wanted, (folder / "run.json").is_file())
            if is_main:
                result = folder / read_run(folder)["result"]
                write_manifest(folder, [folder / "run.json", *result.rglob("*")])
            PartialState().wait_for_everyone()  # the others read what the main one has written

    def _train_in(self, folder: Path, wanted: Recipe, begun: bool) -> None:
        self.ui.note(f"training a reward model first, in {folder}")
        try:
            # No command line could allow it for this run, which would be refused every time.
            self.execute(wanted, resume=begun, allow_changes=begun, ui=Nested(self.ui))
        except BaseException as error:
            # The message must not name this folder as that of the user's run.
            vars(error).pop("folder", None)
            if isinstance(error, KeyboardInterrupt):
                self.ui.note("the same command resumes the reward model")
            raise


def is_ready(folder: Path) -> bool:
    """Return True if a folder holds a trained reward model as it was written."""
    return find_change(folder) is None


def has_ended(folder: Path) -> bool:
    """Return True if there is no training to resume in a folder that holds a run."""
    try:
        return (folder / "run.json").exists() and read_run(folder)["status"] == "finished"
    except BadInput:
        return True


def check_budget(facts: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise `BadInput` if training the reward model took all the compute that the run has."""
    spent, budget = facts["ledger"]["total_flops"], recipe.budget_flops
    if budget is not None and spent >= budget:
        raise BadInput(
            f"option --budget: training the reward model took {spent:.3g} flops, so that none of "
            f"{budget:.3g} are left",
            hint="allow more, or use a reward model that exists: --reward runs/NAME",
        )


def charge_reward_model(
    ledger: Ledger, folder: Path, *, feedback: bool = True, saved: bool = False
) -> None:
    """Charge the whole cost of a reward model to a run that uses it, even if it was cached.

    `feedback` is False if its pairs are not to be counted, because the run made them itself;
    `saved` is True if an earlier run has trained it.
    """
    spent = read_run(folder)["ledger"]
    cost = Cost(spent["total_flops"], sum(spent["tokens"].values()))
    ledger.charge("reward_training", cost)
    for kind in FEEDBACK if feedback else []:
        ledger.use_feedback(kind, spent["feedback"][kind])
    ledger.pay(spent["money"])
    if saved:
        ledger.save(cost, money=spent["money"])
    ledger.seconds += spent["seconds"]
    ledger.see_memory(spent["peak_memory_bytes"])


def reward_recipe(spec: RewardSpec, recipe: Recipe) -> Recipe:
    """Return the recipe of a reward model: settings of the run, changed by the spec's options.

    Raise `BadInput` for an option that it does not have.
    """
    for name in spec.options:
        if name not in OPTIONS:
            raise BadInput(
                f"option --reward: 'learned' has no option {name!r}",
                hint=f"its options are: {', '.join(OPTIONS)}",
            )
    same = {name: getattr(recipe, name) for name in SHARED}
    if recipe.budget_feedback is not None:  # its pairs are the feedback
        same["budget"] = recipe.budget
    # Virtual tokens before a prompt hardly change a score.
    kind = recipe.adapter if recipe.adapter not in ("prompt", "prefix") else "lora"
    if "data" in spec.options:
        same["task"] = None
    defaults = Traits.of(discovery.load_plugin("algorithms", ALGORITHM)).defaults
    return resolve(defaults, same, {"adapter": kind, "algorithm": ALGORITHM}, spec.options)


def cache_key(recipe: Recipe) -> str:
    """Return the name of a cached reward model: a hash of recipe, data, weights and code."""
    own = {k: v for k, v in recipe.as_dict().items() if k not in ("output_dir", "name")}
    sources = parse_data(recipe.data) if recipe.data is not None else []
    files = [Path(source.name).expanduser() for source in sources]
    model = locate_model(recipe.model)
    folders = [Path(model.base), *(adapter.path for adapter in model.adapters)]
    weights = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    facts = {
        "recipe": own,
        "data": [hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()],
        "weights": [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in weights],
        "code": discovery.hash_plugin("algorithms", ALGORITHM),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return f"{ALGORITHM}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def lock_file(folder: Path) -> AbstractContextManager[Any]:
    """Return a lock that one program holds at a time; the processes of one program share it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return nullcontext()
    return FileLock(folder.with_suffix(".lock"))

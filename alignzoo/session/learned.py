"""Reward models that are trained for a run, from pairs, and that later runs find again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.data import parse_data
from alignzoo.errors import BadInput
from alignzoo.files import cache_home
from alignzoo.ledger import Cost, Ledger
from alignzoo.policy import locate_model
from alignzoo.recipe import Recipe, resolve
from alignzoo.record import hash_sources, read_run
from alignzoo.rewards import LEARNED, RewardSpec
from alignzoo.run import Run
from alignzoo.ui import UI, Nested

ALGORITHM = "reward"
OPTIONS = ("data", "model", "epochs", "steps", "learning_rate")
# Settings that the reward model has in common with the run that needs it.
SHARED = (
    "model", "task", "data", "lora_rank", "lora_alpha", "lora_dropout", "precision", "max_length",
    "micro_tokens", "gradient_checkpointing", "random_init", "seed", "eval_size",
)  # fmt: skip


@dataclass(frozen=True)
class RewardTrainer:
    """Trains a reward model for a run, or finds the one that an earlier run had trained.

    Args:
        recipe: that of the run which needs it.
        execute: runs a recipe, `execute(recipe, resume=..., ui=...)`.
    """

    recipe: Recipe
    ui: UI
    execute: Callable[..., Any]

    def train(self, spec: RewardSpec) -> Path:
        """Return the folder of the reward model: from the cache, or trained now.

        One that was interrupted is resumed; a process that needs the same one meanwhile waits.
        """
        wanted = reward_recipe(spec, self.recipe)
        folder = cache_home() / "rewards" / cache_key(wanted)
        wanted = resolve(wanted.as_dict(), {"output_dir": str(folder.parent), "name": folder.name})
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder):
            begun = (folder / "run.json").is_file()
            if not begun or read_run(folder)["status"] != "finished":
                self._train_in(folder, wanted, begun)
        facts = read_run(folder)
        check_budget(facts, self.recipe)
        told = facts["results"].get("after", {}).get("held-out/rewards/accuracies")
        if told is not None:
            low, high = told["low"], told["high"]
            self.ui.note(
                f"the reward model is right about {told['mean']:.1%} of held-out pairs "
                f"[{low:.1%}, {high:.1%}]"
            )
        return folder

    def train_for(self, run: Run, pairs: Path) -> Path:
        """Return the folder of a reward model trained on pairs that a run has made, and charge it
        to that run."""
        started = time.perf_counter()
        folder = self.train(RewardSpec(LEARNED, options={"data": str(pairs)}))
        # Its own ledger says how long it took, whenever that was: it is not counted twice.
        run.ledger.seconds -= time.perf_counter() - started
        charge_reward_model(run.ledger, folder, feedback=False)  # the run made the pairs itself
        return folder

    def _train_in(self, folder: Path, wanted: Recipe, begun: bool) -> None:
        self.ui.note(f"training a reward model first, in {folder}")
        try:
            self.execute(wanted, resume=begun, ui=Nested(self.ui))
        except BaseException as error:
            # It is not the run that was asked for, which has yet to begin.
            vars(error).pop("folder", None)
            if isinstance(error, KeyboardInterrupt):
                self.ui.note("the same command resumes the reward model")
            raise


def check_budget(facts: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise `BadInput` if training the reward model took all the compute that the run has."""
    spent, budget = facts["ledger"]["total_flops"], recipe.budget_flops
    if budget is not None and spent >= budget:
        raise BadInput(
            f"option --budget: training the reward model took {spent:.3g} flops, so that none of "
            f"{budget:.3g} are left",
            hint="allow more, or use a reward model that exists: --reward runs/NAME",
        )


def charge_reward_model(ledger: Ledger, folder: Path, *, feedback: bool = True) -> None:
    """Charge what a reward model has cost to the run that uses it, whichever run trained it.

    `feedback` says that its pairs were labelled for it.
    """
    spent = read_run(folder)["ledger"]
    ledger.charge("reward_training", Cost(spent["total_flops"], sum(spent["tokens"].values())))
    for kind, count in spent["feedback"].items() if feedback else []:
        ledger.use_feedback(kind, count)
    ledger.money += spent.get("money", 0.0)  # none in the record of an older version
    ledger.seconds += spent["seconds"]
    ledger.see_memory(spent["peak_memory_bytes"])


def reward_recipe(spec: RewardSpec, recipe: Recipe) -> Recipe:
    """Return the recipe of the reward model: the run's own settings, and what the option says."""
    for name in spec.options:
        if name not in OPTIONS:
            raise BadInput(
                f"option --reward: 'learned' has no option {name!r}",
                hint=f"its options are: {', '.join(OPTIONS)}",
            )
    same = {name: getattr(recipe, name) for name in SHARED}
    # Tokens before a prompt hardly move a score.
    kind = recipe.adapter if recipe.adapter not in ("prompt", "prefix") else "lora"
    if "data" in spec.options:
        same["task"] = None
    defaults = Traits.of(discovery.load_plugin("algorithms", ALGORITHM)).defaults
    return resolve(defaults, same, {"adapter": kind, "algorithm": ALGORITHM}, spec.options)


def cache_key(recipe: Recipe) -> str:
    """Return a name for what the recipe would train: a hash of settings, files and code."""
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
        "code": hash_sources(discovery.plugin_source("algorithms", ALGORITHM)[2]),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return f"{ALGORITHM}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def lock_file(folder: Path) -> AbstractContextManager[Any]:
    """Let one program in at a time; the processes of one program all go in together."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return nullcontext()
    return FileLock(folder.with_suffix(".lock"))

"""A reward model that a run has trained for it, from pairs, and that later runs find again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignzoo import discovery
from alignzoo.algorithm import defaults_of
from alignzoo.data import parse_data
from alignzoo.errors import BadInput
from alignzoo.files import cache_home
from alignzoo.ledger import Ledger
from alignzoo.policy import locate_model
from alignzoo.recipe import Recipe, resolve
from alignzoo.record import hash_sources, read_run
from alignzoo.rewards import Named
from alignzoo.ui import UI, Nested

ALGORITHM = "reward"
OPTIONS = ("data", "model", "epochs", "steps", "learning_rate")
# What the reward model has in common with the run that asks for it.
SHARED = (
    "model", "task", "data", "lora_rank", "lora_alpha", "lora_dropout", "precision", "max_length",
    "micro_tokens", "gradient_checkpointing", "scratch", "seed", "eval_size",
)  # fmt: skip
Train = Callable[[Recipe, bool, UI], Any]


def learned_reward(named: Named, recipe: Recipe, ui: UI, train: Train) -> Path:
    """The folder of the reward model for a recipe: from the cache, or trained now.

    `train(recipe, resume, ui)` trains one. One that was interrupted is taken up again; a process
    that asks for the same one meanwhile waits for it.
    """
    wanted = recipe_of(named, recipe)
    folder = cache_home() / "rewards" / key_of(wanted)
    wanted = resolve(wanted.as_dict(), {"out": str(folder.parent), "name": folder.name})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        begun = (folder / "run.json").is_file()
        if not begun or read_run(folder)["status"] != "finished":
            ui.note(f"training a reward model first, in {folder}")
            try:
                train(wanted, begun, Nested(ui))
            except BaseException as error:
                # It is not the run that was asked for, which has yet to begin.
                vars(error).pop("folder", None)
                if isinstance(error, KeyboardInterrupt):
                    ui.note("the same command takes the reward model up again")
                raise
    facts = read_run(folder)
    spent, budget = facts["ledger"]["total_flops"], recipe.budget_flops
    if budget is not None and spent >= budget:
        raise BadInput(
            f"option --budget: training the reward model took {spent:.3g} flops, so that none of "
            f"{budget:.3g} are left",
            hint="allow more, or name a reward model that is there: --reward runs/NAME",
        )
    told = facts["results"].get("after", {}).get("held-out/rewards/accuracies")
    if told is not None:
        low, high = told["low"], told["high"]
        ui.note(
            f"the reward model is right about {told['mean']:.1%} of held-out pairs "
            f"[{low:.1%}, {high:.1%}]"
        )
    return folder


def charge(ledger: Ledger, folder: Path, *, feedback: bool = True) -> None:
    """What the reward model has cost is a part of what the run costs, whoever had it trained;
    `feedback` says whether somebody was asked for its pairs."""
    spent = read_run(folder)["ledger"]
    ledger.spend(
        "reward_training", flops=spent["total_flops"], tokens=sum(spent["tokens"].values())
    )
    for kind, count in spent["feedback"].items() if feedback else []:
        ledger.use_feedback(kind, count)
    ledger.money += spent.get("money", 0.0)  # none in the record of an older version
    ledger.seconds += spent["seconds"]
    ledger.see_memory(spent["peak_memory_bytes"])


def recipe_of(named: Named, recipe: Recipe) -> Recipe:
    """The recipe of the reward model: the run's own settings, and what the option says."""
    for name in named.options:
        if name not in OPTIONS:
            raise BadInput(
                f"option --reward: 'learned' has no option {name!r}",
                hint=f"its options are: {', '.join(OPTIONS)}",
            )
    same = {name: getattr(recipe, name) for name in SHARED}
    # Tokens before a prompt hardly move a score.
    kind = recipe.adapter if recipe.adapter not in ("prompt", "prefix") else "lora"
    if "data" in named.options:
        same["task"] = None
    defaults = defaults_of(discovery.load("algorithms", ALGORITHM))
    return resolve(defaults, same, {"adapter": kind, "algorithm": ALGORITHM}, named.options)


def key_of(recipe: Recipe) -> str:
    """A name for what the recipe would train: the settings, the files' contents, the code."""
    own = {k: v for k, v in recipe.as_dict().items() if k not in ("out", "name")}
    sources = parse_data(recipe.data) if recipe.data is not None else []
    files = [Path(source.name).expanduser() for source in sources]
    model = locate_model(recipe.model)
    folders = [Path(model.base), *(adapter.path for adapter in model.adapters)]
    weights = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    facts = {
        "recipe": own,
        "data": [hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()],
        "weights": [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in weights],
        "code": hash_sources(discovery.source_of("algorithms", ALGORITHM)[2]),
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return f"{ALGORITHM}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def alone(folder: Path) -> AbstractContextManager[Any]:
    """Of several programs one at a time; the processes of one program all go in together."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return nullcontext()
    return FileLock(folder.with_suffix(".lock"))

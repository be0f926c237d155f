"""The grid of a comparison: entries, tasks, seeds, budget and track, and the cells that are due.

An entry is a named algorithm with settings, those of a recipe. Each task gets the standard entries
as well: without the base, supervised fine-tuning, best-of-n and a control whose reward is random, a
comparison says little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from alignzoo import BadInput
from alignzoo.algorithm import Traits, canonical_name
from alignzoo.discovery import discover, load_plugin
from alignzoo.errors import AlignzooError, nearest
from alignzoo.options import build, options_of
from alignzoo.recipe import Recipe, find_code, resolve
from alignzoo.safe_yaml import read_yaml
from alignzoo.session import recipe_for
from alignzoo_compare.tuning import MOST_TRIALS

Settings = dict[str, Any]
Track = Literal["flops", "feedback"]
BASE = "base"
BEST_OF_N = "best-of-n"
CHOSEN = "chosen"  # stands for the file with the chosen side of a task's pairs
# Budgets by name and track: what zoo-tiny spends in seconds, in half a minute and in minutes.
BUDGETS: dict[str, dict[Track, str]] = {
    "small": {"flops": "2e11flops", "feedback": "500feedback"},
    "medium": {"flops": "1.5e12flops", "feedback": "2000feedback"},
    "large": {"flops": "1e13flops", "feedback": "10000feedback"},
}
STANDARD: dict[str, Settings] = {
    BASE: {"algorithm": BEST_OF_N, "options": {"n": 1}},
    BEST_OF_N: {"algorithm": BEST_OF_N},
    "sft": {"algorithm": "sft"},
    "sft-chosen": {"algorithm": "sft", "data": CHOSEN},
    "raft": {"algorithm": "raft"},
    "random-reward": {"algorithm": "grpo", "reward": ["random"]},
}
LEARNED: dict[str, Settings] = {
    "ppo-learned": {"algorithm": "ppo", "reward": ["learned"]},
}
# Settings that the grid itself sets, and those that `common` may set for all entries alike: no
# entry can have others than its neighbours.
FIXED = (
    "task", "seed", "model", "budget", "steps", "eval_size", "eval_split", "eval_every",
    "eval_before", "eval_held_out", "output_dir", "name", "checkpoint_every",
)  # fmt: skip
ALIKE = (
    "temperature", "top_k", "top_p", "min_p", "max_new_tokens", "stop_text", "environment",
)  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A comparison as it is written down in `board.json`.

    Args:
        tasks: names of tasks, of `alignzoo.tasks`.
        entries: settings by the name of an entry, with its `algorithm`.
        seeds: number of seeds, 0 to `seeds - 1`.
        budget: of each run, `1e13flops` or `2000feedback`.
        model: the base; None is each task's own embedded model.
        trials: settings that each entry tries on `dev` for each task; 1 keeps the defaults.
        eval_size: prompts of an evaluation.
        curve: evaluations in the middle of a run.
        common: recipe settings of all runs, such as `max_new_tokens`.
        also: tasks that the results of final runs are measured on besides; see `measure_also`.
    """

    tasks: tuple[str, ...]
    entries: dict[str, Settings]
    seeds: Annotated[int, "number of seeds", Ge(1), Le(1000)]
    budget: str
    model: str | None = None
    trials: Annotated[int, "settings that each entry tries on dev", Ge(1), Le(MOST_TRIALS)] = 3
    eval_size: Annotated[int, "prompts of an evaluation", Ge(2), Le(10**6)] = 200
    curve: Annotated[int, "evaluations in the middle of each run", Ge(0), Le(100)] = 0
    common: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @property
    def track(self) -> Track:
        """Return what is equal for all entries: compute or feedback."""
        return "feedback" if self._sample.budget_feedback is not None else "flops"

    @property
    def budget_amount(self) -> float:
        """Return the budget in the unit of its track."""
        return float(self._sample.budget_feedback or self._sample.budget_flops or 0.0)

    @property
    def _sample(self) -> Recipe:
        return resolve({"algorithm": "", "task": self.tasks[0], "budget": self.budget})

    def as_dict(self) -> dict[str, Any]:
        """Return the grid as JSON can hold it."""
        lists = {"tasks": list(self.tasks), "also": list(self.also)}
        return {"format": 1, "track": self.track, **asdict(self), **lists}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Grid:
        """Return the grid of `as_dict`."""
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        lists = {name: tuple(facts.get(name, ())) for name in ("tasks", "also")}
        return cls(**{**known, **lists})


def default_entries() -> tuple[dict[str, Settings], list[str]]:
    """Return an entry for each installed algorithm that can be compared, and why others are not.

    Compared are algorithms whose result answers prompts, trained by an adapter or not at all.
    """
    entries, left_out = {}, []
    for name in discover("algorithms"):
        try:
            traits = Traits.of(build(load_plugin("algorithms", name), {}, name))
        except AlignzooError as error:
            left_out.append(f"{name}: {error.message}")
            continue
        if not traits.generates:
            left_out.append(f"{name}: its result answers no prompts")
        elif traits.needs.teacher and "teacher" not in traits.defaults:
            left_out.append(f"{name}: it learns from a teacher, which only a grid can name")
        elif not traits.needs.adapter:
            left_out.append(f"{name}: it trains all weights")
        else:
            entries[name] = {"algorithm": name}
    return entries, left_out


def entries_for(names: Iterable[str]) -> dict[str, Settings]:
    """Return entries by the names of algorithms, standard ones included; raise `BadInput`."""
    entries: dict[str, Settings] = {}
    known = {**STANDARD, **LEARNED}
    for name in names:
        if name not in known:
            load_plugin("algorithms", name)  # raises for an unknown one
        entries[entry_name(name)] = known.get(name, {"algorithm": name})
    return entries


def entry_name(algorithm: str) -> str:
    """Return the name of an algorithm's entry: a Python file's name without folder and suffix."""
    return Path(algorithm).stem if algorithm.endswith(".py") else algorithm


def with_standard(entries: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the standard entries and then the given ones, which override those of their name."""
    learned = LEARNED if "ppo" in entries else {}
    return {**STANDARD, **entries, **learned}


def without_copies(
    entries: Mapping[str, Settings], common: Mapping[str, Any]
) -> tuple[dict[str, Settings], list[str]]:
    """Return the entries without copies of an earlier one, and a note on each copy.

    At one pass over its completions, for example, every loss of `grpo` that clips a ratio is the
    same. Shown apart, copies would be four ranks for one algorithm.
    """
    kept: dict[str, Settings] = {}
    names: dict[str, str] = {}
    notes = []
    for name, settings in entries.items():
        key = identify(settings, common)
        if key in names:
            notes.append(f"{name}: at these settings it is {names[key]}")
        else:
            kept[name], names[key] = settings, name
    return kept, notes


def identify(settings: Mapping[str, Any], common: Mapping[str, Any]) -> str:
    """Return a text that entries share if they are one algorithm at their settings."""
    layers = {k: v for k, v in {**settings, **common}.items() if k != "algorithm"}
    name = settings["algorithm"]
    recipe = recipe_for(name, layers)
    algorithm = build(load_plugin("algorithms", name), recipe.options, name)
    others = {k: v for k, v in layers.items() if k != "options"}
    return repr((canonical_name(name, algorithm, recipe), sorted(others.items())))


def check_entries(entries: Mapping[str, Settings], where: str = "") -> None:
    """Raise `BadInput` for settings that no run has, or that are those of the whole grid."""
    known = {option.name for option in options_of(Recipe)}
    for name, settings in entries.items():
        place = f"{where}: entries: {name}" if where else f"entry {name!r}"
        if not isinstance(settings, Mapping):
            raise BadInput("the settings of an entry are a mapping", where=place)
        for key in settings:
            if key not in known:
                raise BadInput(f"unknown setting {key!r}", where=place, hint=nearest(key, known))
            if key in (*FIXED, *ALIKE):
                raise BadInput(
                    f"setting {key!r} is the same for all entries", where=place,
                    hint="set it for the whole grid, by a flag or under common",
                )  # fmt: skip
        algorithm = load_plugin("algorithms", settings["algorithm"])
        own = {option.name: option for option in options_of(algorithm)}
        for key, value in (settings.get("options") or {}).items():
            if key not in own:
                raise BadInput(f"unknown option {key!r}", where=place, hint=nearest(key, own))
            own[key].check(value, place)


def check_common(settings: Mapping[str, Any], where: str = "") -> None:
    """Raise `BadInput` for settings of all runs that no run has, or that are those of the grid."""
    known = {option.name: option for option in options_of(Recipe)}
    place = f"{where}: common" if where else "common"
    for key, value in settings.items():
        if key not in known:
            raise BadInput(f"unknown setting {key!r}", where=place, hint=nearest(key, known))
        if key in (*FIXED, "algorithm", "options", "data", "reward"):
            raise BadInput(f"setting {key!r} is not one of all runs", where=place)
        known[key].check(value, place)


def read_grid(path: Path, *, allow_code: bool) -> dict[str, Any]:
    """Return the settings of a grid's YAML file, the fields of `Grid`; raise `BadInput`.

    `entries` is a list of algorithms, or a mapping of names to settings. Settings that name Python
    code are refused unless `allow_code`.
    """
    where = str(path)
    loaded = read_yaml(path, "grid")
    if not isinstance(loaded, dict):
        raise BadInput("a grid is a mapping", where=where, hint="tasks: [style]")
    known = [*Grid.__dataclass_fields__]
    for key in loaded:
        if key not in known:
            raise BadInput(f"unknown key {key!r}", where=where, hint=nearest(str(key), known))
    entries = loaded.get("entries")
    if isinstance(entries, list):
        loaded["entries"] = entries_for(map(str, entries))
    elif isinstance(entries, dict):
        loaded["entries"] = {
            str(name): {"algorithm": str(name), **(own or {})} for name, own in entries.items()
        }
    elif entries is not None:
        raise BadInput("entries: a list of algorithms or a mapping", where=where)
    tasks = [{"task": loaded.get(key) or []} for key in ("tasks", "also")]
    for settings in [*tasks, loaded.get("common") or {}, *(loaded.get("entries") or {}).values()]:
        found = find_code(settings)
        if found is not None and not allow_code:
            raise BadInput(
                f"{found[0]}: {found[1][:80]!r} is Python code, which a grid cannot run by itself",
                where=where,
                hint="read it; to run it, add --allow-code",
            )
    return loaded


def best_of_n_size(grid: Grid, answer_flops: float) -> int:
    """Return how many completions best-of-n draws for each prompt at the budget of the grid.

    It spends on answering the evaluated prompts what the others spend on training, in FLOPs
    (`answer_flops` is the cost of one completion) or in scores, with at most 64 for each prompt.
    """
    each = grid.budget_amount / grid.eval_size
    if grid.track == "flops":
        each /= max(answer_flops, 1.0)
    return min(max(2, math.floor(each)), 64)

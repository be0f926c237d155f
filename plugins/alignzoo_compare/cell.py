"""A cell of the grid is an ordinary run, and its row is what a comparison needs of that run."""

from __future__ import annotations

import hashlib
import json
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignzoo import BadInput, discovery, load_task
from alignzoo.algorithm import Traits
from alignzoo.cli.render import shell_command
from alignzoo.errors import first_line, one_line
from alignzoo.files import json_lines, read_lines, write_text
from alignzoo.options import flag_of, split_options
from alignzoo.record import algorithm_hash, read_run
from alignzoo.session import execute, recipe_for
from alignzoo_compare.also import measure_also
from alignzoo_compare.grid import BASE, CHOSEN

Kind = Literal["trial", "final"]
SPLITS: dict[Kind, str] = {"trial": "dev", "final": "test"}
MOST_POINTS = 100  # of a training curve
SAMPLES = 3  # completions that a row keeps


@dataclass(frozen=True)
class Cell:
    """A run of the grid.

    Args:
        kind: trials choose settings on `dev`, finals are reported on `test`.
        number: of a final its seed, of a trial its place among the trials.
        settings: those of the recipe, `algorithm` included.
        trial: what was changed in the entry's settings.
        also: tasks that the result is measured on besides.
    """

    kind: Kind
    entry: str
    task: str
    number: int
    settings: Mapping[str, Any] = field(compare=False)
    trial: Mapping[str, float] = field(default_factory=dict, compare=False)
    also: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Return the place in the grid, which is that of the row as well."""
        return self.kind, self.entry, self.task, self.number

    @property
    def name(self) -> str:
        """Return the name of the run, without characters that a folder cannot have."""
        return f"{file_name(self.entry)}.{file_name(self.task)}.{self.kind}{self.number}"


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str, int]:
    """Return the place of a row in the grid."""
    return row["kind"], row["entry"], row["task"], row["number"]


def run_cell(cell: Cell, board: Path, *, allow_code: bool = False) -> dict[str, Any]:
    """Run a cell in the folder of a board, or take it up again, and return its row.

    A run that fails is a row as well: `failed`, or `refused` if its settings do not fit the task.
    """
    folder = board / "runs" / cell.name
    begun = (folder / "run.json").is_file()
    try:
        if not begun or read_run(folder)["status"] != "finished":
            settings = {**cell.settings, "output_dir": str(folder.parent), "name": cell.name}
            if settings.get("data") == CHOSEN:
                settings["data"] = str(write_chosen(cell.task, board))
            recipe = recipe_for(settings.pop("algorithm"), settings)
            execute(recipe, resume=begun, allow_code=allow_code)
    except BadInput as error:
        if begun:  # the folder is damaged, or its run is not this one
            raise
        return {**describe(cell), "status": "refused", "error": first_line(error)}
    except Exception as error:
        traceback.print_exc()  # into the log of the cell
        return {**describe(cell), "status": "failed", "error": one_line(error)}
    row = {**describe(cell), "status": "finished", "error": None, **read_result(cell, folder)}
    size, seed = cell.settings["eval_size"], cell.settings["seed"]
    return {**row, "also": measure_also(folder, cell.entry, cell.also, limit=size, seed=seed)}


def describe(cell: Cell) -> dict[str, Any]:
    """Return what is known of a cell's row before it is run."""
    return {
        **{name: value for name, value in asdict(cell).items() if name != "also"},
        "seed": cell.settings["seed"],
        "split": SPLITS[cell.kind],
        "command": format_command(cell),
    }


def read_result(cell: Cell, folder: Path) -> dict[str, Any]:
    """Return the results in the folder of a finished run."""
    facts = read_run(folder)
    phase = "before" if cell.entry == BASE else "after"
    evals = read_lines(folder / "evals.jsonl")
    items = [row for row in evals if row["phase"] == phase]
    steps = read_lines(folder / "metrics.jsonl")
    results = facts["results"]
    trains = Traits.of(discovery.load_plugin("algorithms", cell.settings["algorithm"])).trains
    # The log-probs of a completion that was chosen among others are not those of the choice.
    has_kl = "kl" in results[phase] and (trains or cell.entry == BASE)
    task = load_task(cell.task, "--tasks")
    return {
        "bounds": [task.worst, task.best],
        "summary": {name: value["mean"] for name, value in results[phase].items()},
        "answer_flops": results.get("after", {}).get("answer/flops", {}).get("mean"),
        "items": list_items(items, kl=has_kl),
        "curve": list_curve(results, steps),
        "training": thin_metrics(steps),
        "proxy": read_proxy(steps),
        "samples": [
            {name: item[name] for name in ("item", "prompt", "completion", "score")}
            for item in items[:SAMPLES]
        ],
        "learning_rate": facts.get("learning_rate") if trains else None,
        "steps": steps[-1]["step"] if steps else 0,
        "ledger": facts["ledger"],
        "fingerprints": {
            **facts["fingerprints"],
            "plugin": algorithm_hash(facts),
            "task": hash_task(cell.task, task, cell.settings["eval_size"]),
        },
        "environment": facts["environment"],
    }


def list_items(items: Sequence[Mapping[str, Any]], *, kl: bool) -> dict[str, list[Any]]:
    """Return the columns of an evaluation, one value for each item in order."""
    items = sorted(items, key=lambda item: item["item"])
    columns = {name: [item[name] for item in items] for name in ("score", "length", "ended")}
    if kl:
        columns["kl"] = [item["logprob"] - item["ref_logprob"] for item in items]
    for name in sorted({name for item in items for name in item["measures"]}):
        columns[name] = [item["measures"].get(name) for item in items]
    return columns


def list_curve(
    results: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, float]]:
    """Return the evaluations of a run in order, each with its step and the FLOPs spent by then."""
    spent = {row["step"]: row["flops"] for row in steps}
    last = steps[-1]["step"] if steps else 0
    found = []
    for phase, scores in results.items():
        step = {"before": 0, "after": last}.get(phase)
        step = int(phase.removeprefix("step ")) if step is None else step
        means = {n: scores[n]["mean"] for n in ("score", "kl", "length") if n in scores}
        found.append({"step": step, "flops": spent.get(step, 0.0), **means})
    return sorted(found, key=lambda point: point["step"])


def thin_metrics(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return step, loss and reward of at most 100 steps, evenly spaced, the last one included."""
    stride = -(-len(steps) // MOST_POINTS) or 1
    kept = [row for i, row in enumerate(steps) if (len(steps) - 1 - i) % stride == 0]
    return {name: [row.get(name) for row in kept] for name in ("step", "loss", "reward")}


def read_proxy(steps: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the mean of a learned reward at the first and last step, and its first deviation."""
    name = "rewards/learned"
    rated = [row for row in steps if row.get(f"{name}/mean") is not None]
    if not rated:
        return None
    return {
        "before": rated[0][f"{name}/mean"],
        "after": rated[-1][f"{name}/mean"],
        "std": rated[0][f"{name}/std"],
    }


def hash_task(name: str, task: Any, eval_size: int) -> str:
    """Return a hash of what a task asks and how it scores: its test prompts and its code."""
    digest = hashlib.sha256()
    for row in task.rows("prompts", "test")[:eval_size]:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    plugin = split_options(name, "--tasks")[0]
    digest.update(str(discovery.hash_plugin("tasks", plugin)).encode())
    return digest.hexdigest()


def write_chosen(task: str, board: Path) -> Path:
    """Write the chosen side of a task's pairs as demonstrations, and return the path.

    Raise `BadInput` if the task has no pairs.
    """
    path = board / chosen_path(task)
    if path.is_file():
        return path
    plugin = load_task(task, "--tasks")
    if "preferences" not in plugin.views:
        raise BadInput(f"task {task!r} has no pairs, so there is no chosen side to imitate")
    rows = plugin.rows("preferences", "train")
    pairs = ({"prompt": row["prompt"], "completion": row["chosen"]} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json_lines(pairs))
    return path


def chosen_path(task: str) -> str:
    """Return the path of the chosen side of a task's pairs, relative to the folder of a board."""
    return f"data/chosen-{file_name(task)}.jsonl"


def file_name(text: str) -> str:
    """Return an entry, or a task with its options, as a part of the name of a run or a file.

    A hash tells apart two of them that differ in what such a name cannot have.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def format_command(cell: Cell) -> str:
    """Return the command that makes the run of a cell, to be typed in the folder of the board."""
    settings = dict(cell.settings)
    if settings.get("data") == CHOSEN:
        settings["data"] = chosen_path(cell.task)
    words = ["alignzoo", "run", settings["algorithm"]]
    flat = {k: v for k, v in settings.items() if k not in ("algorithm", "options")}
    for name, value in {**flat, **(settings.get("options") or {})}.items():
        flag = "--with" if name == "addons" else flag_of(name)
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [flag, str(one)]
    return shell_command(words)

"""Other tasks that the results of runs are measured on: `alignzoo compare --also TASKS`.

They need no prompts and no rows to learn from, so preference pairs and tasks of
lm-evaluation-harness can be among them. They choose nothing, and have no part in ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignzoo import BadInput, discovery
from alignzoo.algorithm import Traits
from alignzoo.evaluation import EvaluationSettings, evaluate_model
from alignzoo.record import read_run
from alignzoo.ui import Silent
from alignzoo_compare.grid import ALIKE, BASE

# Of an evaluation, what is no measure of the task.
OTHERS = ("length", "ended", "kl")

Measures = dict[str, dict[str, float]]


def measure_also(
    folder: Path, entry: str, tasks: Sequence[str], *, limit: int, seed: int
) -> Measures:
    """Return the means of the measures of each task, of the result of a finished run.

    Entries that train nothing have none, but for the base. Without training there is no implicit
    reward, so the base has none on a task that needs one. Raise `BadInput` if a task cannot be
    measured, such as one whose package is not installed.
    """
    recipe = read_run(folder)["recipe"]
    trains = Traits.of(discovery.load_plugin("algorithms", recipe["algorithm"])).trains
    if not trains and entry != BASE:
        return {}
    model = str(folder) if trains else recipe["model"]
    settings = EvaluationSettings(
        split="test", limit=limit, seed=seed, sampling={name: recipe[name] for name in ALIKE}
    )
    found: Measures = {}
    for task in tasks:
        try:
            result = evaluate_model(model, [task], settings, trust_remote_code=False, ui=Silent())
        except BadInput:
            if trains:
                raise
            continue
        found[task] = {
            name: estimate.mean
            for name, estimate in result[task].summary.items()
            if name not in OTHERS
        }
    return found

"""Pairs of completions by the base model, and a simulated annotator that labels them.

The texts are shipped (`make_pairs.py` samples them once); the labels are computed here.
"""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

from alignzoo_suite import HERE
from alignzoo_suite.common import SEED_NAMES, Row, assistant_message, rng, user_message

Score = Callable[[Row, str], float]


def shipped_pairs_path(task: str) -> Path:
    """Return the path of the file with the pairs of a task."""
    return HERE / f"pairs_{task}.jsonl.gz"


def load_shipped_pairs(task: str, split: str) -> list[Row]:
    """Return the pairs of a split: texts `prompt`, `first`, `second`, and the score's columns."""
    with gzip.open(shipped_pairs_path(task), "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    return [pair for pair in pairs if pair.pop("split") == split]


def save_shipped_pairs(task: str, pairs: list[Row]) -> None:
    """Write the pairs of a task; equal pairs give equal bytes."""
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    shipped_pairs_path(task).write_bytes(gzip.compress(text.encode(), mtime=0))


def prob_first_wins(gap: float, tau: float) -> float:
    """Return P(first preferred) = 1 / (1 + exp(-gap / tau)) of a Bradley-Terry annotator.

    `gap` is gold(first) - gold(second). `tau` is the annotator's noise, in units of gold: with a
    gap of `tau` the better one is preferred in 73% of cases.
    """
    return 1 / (1 + math.exp(-gap / tau))


def rows_from_pairs(
    task: str, view: str, split: str, score: Score, tau: float, seed: int
) -> list[Row] | None:
    """Return the rows of the views `preferences` and `feedback`, None for any other view."""
    if view not in ("preferences", "feedback"):
        return None
    rows = label_pairs(task, split, score, tau, seed)
    return split_pairs(rows, seed, task, SEED_NAMES[split]) if view == "feedback" else rows


def label_pairs(task: str, split: str, score: Score, tau: float, seed: int) -> list[Row]:
    """Return the pairs of a task as a noisy annotator labels them: `chosen` and `rejected`."""
    rows = []
    for index, pair in enumerate(load_shipped_pairs(task, split)):
        texts = pair.pop("first"), pair.pop("second")
        gap = score(pair, texts[0]) - score(pair, texts[1])
        draw = rng(seed, task, "annotator", SEED_NAMES[split], index).random()
        first = draw < prob_first_wins(gap, tau)
        chosen, rejected = texts if first else texts[::-1]
        pair |= {"prompt": user_message(pair["prompt"])}
        pair |= {"chosen": assistant_message(chosen), "rejected": assistant_message(rejected)}
        rows.append(pair)
    return rows


def split_pairs(rows: list[Row], *key: object) -> list[Row]:
    """Return each pair as two labelled completions, shuffled to separate the two."""
    labelled = []
    for row in rows:
        rest = {name: row[name] for name in row if name not in ("chosen", "rejected")}
        labelled.append(rest | {"completion": row["chosen"], "label": True})
        labelled.append(rest | {"completion": row["rejected"], "label": False})
    rng(*key, "feedback").shuffle(labelled)
    return labelled

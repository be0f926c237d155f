"""Pairs of completions that the base model wrote, and the annotator who says which is better.

The texts are shipped (`make_pairs.py` samples them once); the labels are computed here.
"""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

from alignzoo_suite import HERE
from alignzoo_suite.common import Row, answer, ask, rng

Score = Callable[[Row, str], float]


def path_of(task: str) -> Path:
    """Where the pairs of a task are kept."""
    return HERE / f"pairs_{task}.jsonl.gz"


def read(task: str, split: str) -> list[Row]:
    """The pairs of one split: `prompt`, `first`, `second` (texts) and what the score reads."""
    with gzip.open(path_of(task), "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    return [pair for pair in pairs if pair.pop("split") == split]


def write(task: str, pairs: list[Row]) -> None:
    """Keep the pairs of a task; the same pairs give the same bytes."""
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    path_of(task).write_bytes(gzip.compress(text.encode(), mtime=0))


def first_wins(gap: float, tau: float) -> float:
    """Bradley-Terry: P(first preferred) = 1 / (1 + exp(-gap / tau)).

    `gap` is gold(first) - gold(second). `tau` is the noise of the annotator, in units of gold: a
    gap of `tau` is judged rightly 73% of the time.
    """
    return 1 / (1 + math.exp(-gap / tau))


def labelled(
    task: str, view: str, split: str, score: Score, tau: float, seed: int
) -> list[Row] | None:
    """The rows of the views `preferences` and `feedback`; None for any other."""
    if view not in ("preferences", "feedback"):
        return None
    rows = preferences(task, split, score, tau, seed)
    return feedback(rows, seed, task, split) if view == "feedback" else rows


def preferences(task: str, split: str, score: Score, tau: float, seed: int) -> list[Row]:
    """The pairs of a task as a noisy annotator labelled them."""
    rows = []
    for index, pair in enumerate(read(task, split)):
        texts = pair.pop("first"), pair.pop("second")
        gap = score(pair, texts[0]) - score(pair, texts[1])
        first = rng(seed, task, "annotator", split, index).random() < first_wins(gap, tau)
        chosen, rejected = texts if first else texts[::-1]
        pair |= {"prompt": ask(pair["prompt"])}
        pair |= {"chosen": answer(chosen), "rejected": answer(rejected)}
        rows.append(pair)
    return rows


def feedback(rows: list[Row], *key: object) -> list[Row]:
    """Each pair as two labelled completions, shuffled so that partners do not sit together."""
    labelled = []
    for row in rows:
        rest = {name: row[name] for name in row if name not in ("chosen", "rejected")}
        labelled.append(rest | {"completion": row["chosen"], "label": True})
        labelled.append(rest | {"completion": row["rejected"], "label": False})
    rng(*key, "feedback").shuffle(labelled)
    return labelled

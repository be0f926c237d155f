"""The rows: plain text in JSONL, one file per library, the same rows in the order they are used.

alignzoo shuffles by a seed of its own. TRL is given the rows in that very order and told to take
them as they come, so that step n is the same batch on both sides and its losses can be compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from model import FIRST_WORD

from alignzoo.data import Order

PROMPT = (64, 512)  # tokens, with the BOS
COMPLETION = (8, 64)  # tokens, with the EOS
SEED = 0


def make_rows(
    folder: Path, algorithm: str, count: int, batch_size: int, vocabulary: int
) -> dict[str, Path]:
    """`{"ours": file, "theirs": file}` for one algorithm."""
    draw = Random(f"{algorithm}/{vocabulary}")

    def words(low: int, high: int) -> str:
        length = draw.randint(low, high) - 1
        return " ".join(f"t{draw.randrange(FIRST_WORD, vocabulary)}" for _ in range(length))

    rows = []
    for _ in range(count):
        row: dict[str, str | int] = {"prompt": words(*PROMPT)}
        for name in ("chosen", "rejected") if algorithm == "dpo" else ("completion",):
            row[name] = " " + words(*COMPLETION)  # TRL joins the texts, so a border is needed
        # For TRL's sampler by length, which has no other way to know; alignzoo does not look at it.
        row["length"] = sum(len(str(text).split()) for text in row.values())
        rows.append(row)
    order = Order(count, batch_size, SEED)
    used = [rows[i] for step in range(-(-count // batch_size)) for i in order.batch(step)][:count]
    files = {}
    for name, ordered in (("ours", rows), ("theirs", used)):
        files[name] = folder / f"{algorithm}-{vocabulary}-{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in ordered))
    return files

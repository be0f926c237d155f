"""The rows: plain text in JSONL, one file per library, the same rows in the order they are used.

alignzoo shuffles by a seed of its own. TRL is given the rows in that very order and told to take
them as they come, so that step n is the same batch on both sides and its losses can be compared.

KTO estimates its KL on mismatched completions: alignzoo gives a prompt the completion of the row
after it in the batch, TRL that of the row before it. A batch in reverse order therefore is, in TRL,
the same prompts with the same completions, mismatched ones too.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from model import FIRST_WORD

from alignzoo.data import EpochOrder

PROMPT = (64, 512)  # tokens, with the BOS
COMPLETION = (8, 64)  # tokens, with the EOS
SEED = 0
COMPLETIONS = {
    "dpo": ("chosen", "rejected"),
    "reward": ("chosen", "rejected"),
    "sft": ("completion",),
    "kto": ("completion",),
    "grpo": (),  # drawn by each library
}
LONG_PROMPT = 512  # tokens of every prompt of grpo


def make_rows(
    folder: Path, algorithm: str, count: int, batch_size: int, vocabulary: int
) -> dict[str, Path]:
    """`{"ours": file, "theirs": file}` for one algorithm."""
    draw = Random(f"{algorithm}/{vocabulary}")

    def words(low: int, high: int) -> str:
        length = draw.randint(low, high) - 1
        return " ".join(f"t{draw.randrange(FIRST_WORD, vocabulary)}" for _ in range(length))

    rows = []
    for number in range(count):
        row: dict[str, str | int] = {
            "prompt": words(*((LONG_PROMPT,) * 2 if algorithm == "grpo" else PROMPT))
        }
        for name in COMPLETIONS[algorithm]:
            row[name] = " " + words(*COMPLETION)  # TRL joins the texts, so a border is needed
        # For TRL's sampler by length, which has no other way to know; alignzoo does not look at it.
        row["length"] = sum(len(str(text).split()) for text in row.values())
        if algorithm == "kto":
            row["label"] = number % 2 == 0
        rows.append(row)
    order = EpochOrder(count, batch_size, SEED)
    batches = [order.batch(step) for step in range(count // batch_size)]
    if algorithm == "kto":
        batches = [batch[::-1] for batch in batches]
    used = [rows[i] for batch in batches for i in batch]
    files = {}
    for name, ordered in (("ours", rows), ("theirs", used)):
        files[name] = folder / f"{algorithm}-{vocabulary}-{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in ordered))
    return files

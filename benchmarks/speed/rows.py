"""The rows: plain text in JSONL, one file per library, in the order in which each uses them.

alignzoo shuffles by its seed. TRL gets the rows in that order and takes them sequentially, so that
step n is the same batch in both libraries and the losses can be compared.

KTO estimates its KL on mismatched completions: alignzoo gives a prompt the completion of the next
row in the batch, TRL that of the previous row. So TRL gets each batch in reverse order, which gives
the same prompts with the same mismatched completions.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from model import FIRST_WORD

from alignzoo.data import EpochOrder
from hh_rlhf.dialogues import read_pairs

PROMPT = (64, 512)  # tokens, with the BOS
COMPLETION = (8, 64)  # tokens, with the EOS
SEED = 0
COMPLETIONS = {
    "dpo": ("chosen", "rejected"),
    "reward": ("chosen", "rejected"),
    "sft": ("completion",),
    "kto": ("completion",),
    "grpo": (),  # sampled by each library
}
LONG_PROMPT = (512, 512)  # of grpo
LONGEST_PAIR = 2_000  # characters of a pair as JSON, about 400 tokens
Range = tuple[int, int]


def make_rows(
    folder: Path,
    algorithm: str,
    count: int,
    batch_size: int,
    vocabulary: int,
    prompt: Range | None = None,
    completion: Range = COMPLETION,
) -> dict[str, Path]:
    """Write the rows of one algorithm and return `{"ours": file, "theirs": file}`.

    `prompt` and `completion` are the fewest and the most tokens.
    """
    prompt = prompt or (LONG_PROMPT if algorithm == "grpo" else PROMPT)
    draw = Random(f"{algorithm}/{vocabulary}")

    def words(low: int, high: int) -> str:
        length = draw.randint(low, high) - 1
        return " ".join(f"t{draw.randrange(FIRST_WORD, vocabulary)}" for _ in range(length))

    rows = []
    for number in range(count):
        row: dict[str, str | int] = {"prompt": words(*prompt)}
        for name in COMPLETIONS[algorithm]:
            row[name] = " " + words(*completion)  # TRL joins the texts, so a space is needed
        # For TRL's sampler by length; alignzoo ignores it.
        row["length"] = sum(len(str(text).split()) for text in row.values())
        if algorithm == "kto":
            row["label"] = number % 2 == 0
        rows.append(row)
    return write_rows(folder, algorithm, rows, batch_size, f"{algorithm}-{vocabulary}")


def read_rows(folder: Path, pairs: Path, count: int, batch_size: int) -> dict[str, Path]:
    """Write `count` pairs of hh-rlhf as `make_rows` does, the first that are not long."""
    rows = [
        {name: pair[name] for name in ("prompt", "chosen", "rejected")}
        for pair in read_pairs(pairs)
        if len(json.dumps(pair)) < LONGEST_PAIR
    ][:count]
    return write_rows(folder, "dpo", rows, batch_size, "dpo-pairs")


def write_rows(
    folder: Path, algorithm: str, rows: list[dict], batch_size: int, stem: str
) -> dict[str, Path]:
    """Write the rows in a file for each library, in the order in which it uses them."""
    order = EpochOrder(len(rows), batch_size, SEED)
    batches = [order.batch(step) for step in range(len(rows) // batch_size)]
    if algorithm == "kto":
        batches = [batch[::-1] for batch in batches]
    used = [rows[i] for batch in batches for i in batch]
    files = {}
    for name, ordered in (("ours", rows), ("theirs", used)):
        files[name] = folder / f"{stem}-{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in ordered))
    return files

"""The inputs of the runs of one fold: data files, and the folder of an untrained model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dialogues import Pair

from alignzoo_suite.make_tokenizer import Form, make_tokenizer, write_model_folder

FORM = Form(vocabulary=2048)


def write_fold(folder: Path, train: list[Pair]) -> None:
    """Write `pairs.jsonl`, `chosen.jsonl` and `model/`, from the training part alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "pairs.jsonl", train)
    chosen = ({"messages": pair["prompt"] + pair["chosen"]} for pair in train)
    write_rows(folder / "chosen.jsonl", chosen)
    write_model_folder(folder / "model", make_tokenizer("zoo-tiny", iterate_texts(train), FORM))


def iterate_texts(pairs: list[Pair]) -> Iterable[str]:
    """Yield the text of each message of the pairs, a prompt's once."""
    for pair in pairs:
        for column in ("prompt", "chosen", "rejected"):
            for message in pair[column]:
                yield message["content"]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

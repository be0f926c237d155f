"""The ids that end a completion, in the generation config of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from alignzoo.errors import BadInput, first_line
from alignzoo.files import write_json
from alignzoo.policy.locate import ModelSource

FILE = "generation_config.json"


def read_stop_ids(source: ModelSource, vocabulary: int, options: dict[str, Any]) -> list[int]:
    """Return the ids below `vocabulary` that end a completion, by the generation configs there are.

    They are those of the base, which may be more than the tokenizer's EOS, and those that an
    earlier run saved beside its adapter. Raise `BadInput` for a file that cannot be read.
    """
    found: dict[int, None] = {}
    for place in dict.fromkeys([source.base, source.tokenizer]):
        try:
            ids = GenerationConfig.from_pretrained(place, **options).eos_token_id
        except (OSError, ValueError, TypeError) as error:
            if (Path(place) / FILE).exists():
                where = str(Path(place) / FILE)
                raise BadInput(f"cannot be read: {first_line(error)}", where=where) from None
            continue  # most models have none
        for token in ids if isinstance(ids, list) else [ids]:
            if type(token) is int and 0 <= token < vocabulary:
                found[token] = None
    return list(found)


def write_stop_ids(folder: Path, ids: Sequence[int]) -> None:
    """Write the ids into the generation config of a folder, so that other programs stop there."""
    path = folder / FILE
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**config, "eos_token_id": ids[0] if len(ids) == 1 else list(ids)})

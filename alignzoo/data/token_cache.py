"""A cache on disk of rows as token ids.

To render and tokenize 20,000 pairs takes many seconds, and every run begins with it. The rows that
were encoded together are in one safetensors file, under a hash of all that their ids depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from alignzoo.batch import Example
from alignzoo.data.codec import Codec
from alignzoo.data.formats import Row
from alignzoo.data.views import Encoded, View
from alignzoo.files import cache_home, write_bytes
from alignzoo.fingerprints import hash_sources

FEWEST_ROWS = 256  # fewer are encoded before the tokenizer is hashed
CACHE_BYTES = 2**30  # of all files; those that were not used for the longest time are deleted
PACKAGES = ("tokenizers", "transformers", "jinja2")  # their versions may change ids
DATED = "strftime_now"  # a chat template that calls it writes today's date


@dataclass
class Tokenized:
    """What `View.encode` returned for each row, the remarks on it, and notes on the tokenizer."""

    encoded: list[Encoded]
    remarks: list[list[str]]
    notes: list[str]


def cache_path(view: type[View], codec: Codec, max_length: int, rows: Sequence[Row]) -> Path | None:
    """Return the file for rows of a view as token ids, None if they are not to be cached.

    That is for few rows, for a view of a plugin, whose code is not part of the key, and for a
    tokenizer in Python, which does not say what it consists of.
    """
    core = all(cls.__module__ == View.__module__ for cls in view.__mro__[:-1])
    if len(rows) < FEWEST_ROWS or not core or not codec.tokenizer.is_fast:
        return None
    tokenizer = codec.tokenizer
    template = json.dumps(tokenizer.chat_template)
    facts = {
        "view": [view.__name__, getattr(view, "separator", None)],
        "max_length": max_length,
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "special": tokenizer.special_tokens_map,
        "split": getattr(tokenizer, "split_special_tokens", False),
        "ends": [codec.bos, codec.stop_ids],
        "template": template,
        "date": time.strftime("%Y-%m-%d") if DATED in template else None,
        "code": hash_sources(Path(__file__).parent),
        "packages": {name: version(name) for name in PACKAGES},
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for row in rows:
        digest.update(json.dumps(row, default=str).encode())
    return cache_home() / "tokens" / f"{digest.hexdigest()[:32]}.safetensors"


def write_tokens(path: Path, tokenized: Tokenized) -> None:
    """Write rows as token ids, if the disk allows it, and delete what was not used for long."""
    arrays = pack(tokenized)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(arrays, metadata={"sha256": hash_arrays(arrays)}))
        delete_oldest(path.parent)


def read_tokens(
    path: Path, rows: Sequence[Row], canonical: Callable[[Row], Row], notes: list[str]
) -> Tokenized | None:
    """Read what `write_tokens` wrote for these rows; None if there is no file, or a damaged one.

    An example has the row that `canonical` makes of its own. Of a damaged file a note is taken.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            intact = (file.metadata() or {}).get("sha256") == hash_arrays(arrays)
        os.utime(path)
    except (SafetensorError, OSError):
        intact = False
    if not intact:
        notes.append(f"{path} is damaged; its rows are tokenized again")
        return None
    return unpack(arrays, rows, canonical)


def pack(tokenized: Tokenized) -> dict[str, np.ndarray]:
    """Return rows as token ids as arrays: all ids in a line, their lengths, and the rest as JSON.

    A row has a prompt and its completions; an unusable one has nothing.
    """
    examples = [one.example for one in tokenized.encoded]
    used = [example for example in examples if example is not None]
    sequences = [ids for example in used for ids in (example.prompt, *example.completions)]
    masks = [mask for example in used for mask in example.masks or ()]
    rest: dict[str, Any] = {"notes": tokenized.notes, "rows": {}}
    for i, (one, remarks) in enumerate(zip(tokenized.encoded, tokenized.remarks, strict=True)):
        columns = one.example.columns if one.example else {}
        facts = {
            "columns": columns,
            "reason": one.reason,
            "truncated": one.truncated,
            "remarks": remarks,
        }
        if any(facts.values()):
            rest["rows"][i] = facts
    return {
        "ids": np.fromiter(chain.from_iterable(sequences), np.int32),
        "lengths": np.array([len(ids) for ids in sequences], np.int32),
        "sequences": np.array([0 if e is None else 1 + len(e.completions) for e in examples]),
        "masked": np.array([e is not None and e.masks is not None for e in examples]),
        "masks": np.fromiter(chain.from_iterable(masks), np.bool_),
        "rest": np.frombuffer(json.dumps(rest).encode(), np.uint8),
    }


def unpack(
    arrays: dict[str, np.ndarray], rows: Sequence[Row], canonical: Callable[[Row], Row]
) -> Tokenized:
    """Return what `pack` was given: its inverse."""
    rest = json.loads(arrays["rest"].tobytes())
    sequences = iter(split(arrays["ids"], arrays["lengths"].tolist()))
    masks = arrays["masks"].tolist()
    encoded, at = [], 0
    for i, (row, count, masked) in enumerate(
        zip(rows, arrays["sequences"].tolist(), arrays["masked"].tolist(), strict=True)
    ):
        facts = rest["rows"].get(str(i), {})
        example = None
        if count:
            prompt, *completions = (next(sequences) for _ in range(count))
            own = None
            if masked:
                own = []
                for completion in completions:
                    own.append(masks[at : at + len(completion)])
                    at += len(completion)
            columns = facts.get("columns", {})
            example = Example(prompt, completions, own, columns, canonical(row))
        encoded.append(Encoded(example, facts.get("reason"), tuple(facts.get("truncated", ()))))
    remarks = [rest["rows"].get(str(i), {}).get("remarks", []) for i in range(len(rows))]
    return Tokenized(encoded, remarks, rest["notes"])


def split(array: np.ndarray, lengths: Sequence[int]) -> list[list[int]]:
    """Return the parts of an array as lists, one of each length."""
    values, ends = array.tolist(), np.cumsum(lengths).tolist()
    return [values[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def hash_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}\0".encode() + arrays[name].tobytes())
    return digest.hexdigest()


def delete_oldest(folder: Path) -> None:
    """Delete the files of a folder that were used longest ago, until the rest is small enough."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    total = sum(file.stat().st_size for file in files)
    for file in files[:-1]:
        if total <= CACHE_BYTES:
            return
        total -= file.stat().st_size
        file.unlink(missing_ok=True)

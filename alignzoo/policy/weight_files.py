"""Look into safetensors files before they are loaded: are they whole, and what do they hold.

Only headers and a sample of the bytes are read, so a model of any size takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignzoo.errors import BadInput, count

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
SAMPLES, SAMPLE_BYTES = 64, 64  # of each tensor
AGAIN = "download it again, or save it again where it was made"


class StoredTensor(NamedTuple):
    """A tensor in a safetensors file: its dtype, its shape, and where its bytes are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model's folder, all of them present.

    BadInput if there are none, if one is missing, or if the index names other files.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    names = shard_names(folder / INDEX)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{len(missing)} of {count(len(names), 'file')} of weights missing: {missing[0]}",
            where=str(folder),
            hint=f"{INDEX} names it; copy or download the rest of the model",
        )
    return [folder / name for name in names]


def shard_names(index: Path) -> list[str]:
    """Return the file names in an index; BadInput unless all are safetensors beside it."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted(set(map(str, found)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput("not an index of safetensors files", where=str(index), hint=AGAIN) from None
    for name in names:
        # transformers takes a file with any other ending for a pickle.
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise BadInput(
                f"the index names {name!r}, which is no safetensors file beside it",
                where=str(index),
                hint="pickles can run code when opened, and are not read",
            )
    return names


def _no_weights(folder: Path) -> BadInput:
    held = sorted(path.name for path in folder.iterdir())
    quantised = [name for name in held if name.endswith(".gguf")]
    if quantised:
        return BadInput(
            f"the weights are in GGUF ({quantised[0]}), a format for inference",
            where=str(folder),
            hint="use the safetensors that they were made from",
        )
    pickles = [name for name in held if Path(name).suffix in PICKLES]
    if pickles:
        return BadInput(
            f"the weights are pickles ({pickles[0]}), which can run code when opened",
            where=str(folder),
            hint="convert them once where you trust them: model.save_pretrained(folder)",
        )
    return BadInput(
        f"the model has no weights ({WEIGHTS})",
        where=str(folder),
        hint="start from random weights with --random-init, if that is intended",
    )


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name; BadInput if it is damaged or another."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(1024)
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER) or start[8:9] != b"{":
            raise _not_safetensors(path, size, start)
        file.seek(8)
        text = file.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {
            name: StoredTensor(
                path, t["dtype"], tuple(t["shape"]), *(8 + length + o for o in t["data_offsets"])
            )
            for name, t in header.items()
        }
        expected = max([8 + length, *(tensor.end for tensor in tensors.values())])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput("the file's header is damaged", where=str(path), hint=AGAIN) from None
    if size != expected:
        wrong = "incomplete" if size < expected else "longer than its header says"
        raise BadInput(
            f"the file is {wrong}: {size:,} bytes instead of {expected:,}",
            where=str(path),
            hint=AGAIN,
        )
    return tensors


def _not_safetensors(path: Path, size: int, start: bytes) -> BadInput:
    if start.startswith(b"version https://git-lfs"):
        return BadInput(
            "a git-LFS pointer instead of the weights", where=str(path), hint="run: git lfs pull"
        )
    kinds = {
        b"<": "a web page",
        b"PK": "a zip archive or a pickle",
        b"\x80": "a pickle",
        b"GGUF": "a GGUF file",
    }
    text = start.lstrip()
    found = next((kind for magic, kind in kinds.items() if text.startswith(magic)), None)
    problem = f"{found}, not a safetensors file" if found else "not a safetensors file"
    if size == 0:
        problem = "the file is empty"
    return BadInput(problem, where=str(path), hint=AGAIN)


def stored_tensors(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """Return the tensors of several files by name; BadInput if a file is damaged."""
    tensors: dict[str, StoredTensor] = {}
    for path in files:
        tensors |= read_header(path)
    return tensors


def fingerprint_of_files(files: Sequence[Path]) -> str:
    """Return sha256 over names, dtypes, shapes and a sample of the bytes of all tensors.

    It depends neither on how tensors are spread over files nor on the machine.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(stored_tensors(files).items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        step = max((tensor.end - tensor.start) // SAMPLES, SAMPLE_BYTES)
        with tensor.file.open("rb") as file:
            for start in range(tensor.start, tensor.end, step):
                file.seek(start)
                digest.update(file.read(min(SAMPLE_BYTES, tensor.end - start)))
    return digest.hexdigest()

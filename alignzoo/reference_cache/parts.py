"""A part on disk: written whole, read only if it is what was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alignzoo.files import write_bytes
from alignzoo.reference_cache.keys import KEY

if TYPE_CHECKING:
    from alignzoo.run import Run

Values = dict[bytes, Tensor]  # the log-probs `[t]`, float32, of each completion by its key


def keep_part(run: Run, path: Path, values: Values) -> None:
    """Write a part; a disk that takes nothing is no reason to stop."""
    tensors = {
        "keys": torch.frombuffer(bytearray(b"".join(values)), dtype=torch.uint8).view(-1, KEY),
        "lengths": torch.tensor([len(row) for row in values.values()]),
        "logprobs": torch.cat(list(values.values())),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, save(tensors, metadata={"sha256": digest_of(tensors)}))
    except OSError as error:
        run.ui.note(f"the reference's log-probs cannot be kept: {error}")


def read_part(run: Run, path: Path) -> Values | None:
    """What `keep_part` wrote; None where there is nothing, or nothing that can be trusted."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("keys", "lengths", "logprobs")}
            sound = (file.metadata() or {}).get("sha256") == digest_of(tensors)
    except (SafetensorError, OSError):
        sound = False
    if not sound:
        run.ui.note(f"{path} is damaged, and is computed anew")
        return None
    keys = [bytes(key) for key in tensors["keys"].numpy()]
    return dict(zip(keys, tensors["logprobs"].split(tensors["lengths"].tolist()), strict=True))


def digest_of(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()

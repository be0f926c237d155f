"""What a completion, a part and a model are known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignzoo.batch import Batch, Example
from alignzoo.record import hash_sources

if TYPE_CHECKING:
    from alignzoo.policy import Policy

KEY = 16  # bytes
PART = 256  # groups in a part, on average at most
PACKAGES = ("torch", "transformers", "bitsandbytes")  # whose versions may change the values


def key_of(prompt: np.ndarray, completion: np.ndarray) -> bytes:
    digest = hashlib.blake2b(len(prompt).to_bytes(8, "little"), digest_size=KEY)
    digest.update(prompt.tobytes())
    digest.update(completion.tobytes())
    return digest.digest()


def keys_of(batch: Batch) -> list[bytes]:
    """The key of each completion."""
    prompts, tokens = batch.prompts.cpu().numpy(), batch.tokens.cpu().numpy()
    where = zip(batch.group.tolist(), batch.lengths.tolist(), strict=True)
    prompt_lengths = batch.prompt_lengths.tolist()
    return [
        key_of(prompts[b, : prompt_lengths[b]], tokens[n, :length])
        for n, (b, length) in enumerate(where)
    ]


def group_key(example: Example) -> bytes:
    prompt, *rest = (np.array(ids, np.int64) for ids in [example.prompt, *example.completions])
    keys = [key_of(prompt, completion) for completion in rest]
    return hashlib.blake2b(b"".join(keys), digest_size=KEY).digest()


def parts_of(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Different groups in parts, by name, in an order that is theirs.

    A group's part is given by the first bits of its key, so that a row that is changed, added or
    taken away changes no part but its own (as long as the number of groups is much the same).
    """
    groups = {group_key(example): example for example in examples}
    bits = (len(groups) // PART).bit_length()
    parts: dict[int, list[bytes]] = {}
    for key in sorted(groups):
        parts.setdefault(int.from_bytes(key[:4], "big") >> (32 - bits), []).append(key)
    return {
        hashlib.sha256(b"".join(keys)).hexdigest()[:32]: [groups[key] for key in keys]
        for keys in parts.values()
    }


def model_key(model: Policy) -> str:
    """A digest of all that the reference's values depend on: weights, precision, code, machine."""
    facts = {
        **model.reference_facts(),
        "code": hash_sources(Path(__file__).parents[1] / "policy"),
        "packages": {name: installed(name) for name in PACKAGES},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

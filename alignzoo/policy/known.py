"""What a completion, a part and a model are known by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch

if TYPE_CHECKING:
    pass

KEY = 16  # bytes


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


@dataclass(frozen=True)
class ReferenceCache:
    values: Values

    def find(self, batch: Batch) -> Tensor | None:
        """The log-probs of a batch, `[N, T]`; None where one of its completions is not known."""
        logprobs = torch.zeros(batch.tokens.shape)
        for row, key in zip(logprobs, keys_of(batch), strict=True):
            found = self.values.get(key)
            if found is None:
                return None
            row[: len(found)] = found
        return logprobs.to(batch.tokens.device)


Values = dict[bytes, Tensor]  # the log-probs `[t]`, float32, of each completion by its key

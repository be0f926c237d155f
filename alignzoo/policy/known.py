"""Log-probs of the reference that are known already, by a key of each completion."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignzoo.batch import Batch

KEY_BYTES = 16
Values = dict[bytes, Tensor]  # the log-probs `[t]`, float32, of each completion by its key


def completion_key(prompt: np.ndarray, completion: np.ndarray) -> bytes:
    """Return a digest of the token ids `prompt [p]` and `completion [t]`."""
    digest = hashlib.blake2b(len(prompt).to_bytes(8, "little"), digest_size=KEY_BYTES)
    digest.update(prompt.tobytes())
    digest.update(completion.tobytes())
    return digest.digest()


def completion_keys(batch: Batch) -> list[bytes]:
    """Return the key of each of the N completions."""
    prompts, tokens = batch.prompts.cpu().numpy(), batch.tokens.cpu().numpy()
    where = zip(batch.group.tolist(), batch.lengths.tolist(), strict=True)
    prompt_lengths = batch.prompt_lengths.tolist()
    return [
        completion_key(prompts[b, : prompt_lengths[b]], tokens[n, :length])
        for n, (b, length) in enumerate(where)
    ]


@dataclass(frozen=True)
class ReferenceCache:
    """The known log-probs of one reference model."""

    values: Values

    def find(self, batch: Batch) -> Tensor | None:
        """Return the log-probs of a batch, `[N, T]`; None if any completion is not known."""
        logprobs = torch.zeros(batch.tokens.shape)
        for row, key in zip(logprobs, completion_keys(batch), strict=True):
            found = self.values.get(key)
            if found is None:
                return None
            row[: len(found)] = found
        return logprobs.to(batch.tokens.device)

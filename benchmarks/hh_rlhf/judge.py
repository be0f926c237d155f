"""Judge held-out pairs by a finished run."""

from __future__ import annotations

from pathlib import Path

import torch
from dialogues import Pair

from alignzoo import Preferences, collate
from alignzoo.data import Codec
from alignzoo.policy import load_policy

MICRO_TOKENS = 1024


@torch.no_grad()
def measure_margins(run: Path, pairs: list[Pair], max_length: int) -> dict[int, float]:
    """Return the reward of the chosen answer minus that of the rejected one, by the pair's id.

    The reward is the output of the score head if there is one, else the log-ratio of policy and
    reference, which orders a pair as DPO's implicit reward does. A pair whose answers are equal
    after truncation has no margin.
    """
    policy = load_policy(str(run))
    policy.eval()
    codec = Codec(policy.tokenizer)
    encoded = [Preferences.encode(pair, codec, max_length).example for pair in pairs]
    found = {}
    for batch in collate([e for e in encoded if e is not None]).split(MICRO_TOKENS):
        if policy.score_head is not None:
            rewards = batch.last(policy.scores(batch))
        else:
            rewards = batch.total(policy(batch).logprobs - policy.reference(batch).logprobs)
        chosen, rejected = batch.pairs(rewards)
        for row, margin in zip(batch.rows, (chosen - rejected).tolist(), strict=True):
            found[row["id"]] = margin
    return found

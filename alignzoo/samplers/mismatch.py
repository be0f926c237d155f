"""How far the trainer's log-probs of tokens are from those that they were drawn with.

The same weights in other kernels, another precision or another program give other numbers, and what
was meant to be on-policy is no longer quite so: Yao et al. 2025,
https://fengyao.notion.site/off-policy-rl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from alignzoo.batch import Batch

if TYPE_CHECKING:
    from alignzoo.run import Run

SAMPLED = "sampler_logprobs"  # the column of log-probs that are not the trainer's
DIFFERENCE = "sampling/sampling_logp_difference"  # as TRL calls it


@dataclass
class Mismatch:
    """|log pi_trainer - log pi_sampler| per token, in nats, summed up over what was seen of it."""

    total: float = 0.0
    count: int = 0
    largest: float = 0.0

    def see(self, batch: Batch, logprobs: Tensor) -> None:
        """A part of the round, and the trainer's log-probs `[N, T]` of its tokens. A token without
        a log-prob of the sampler (NaN) has no part in it; nor has a batch that nobody drew."""
        if "logprobs" not in batch.columns:
            return
        drawn = batch["logprobs"].to(logprobs.device)
        apart = (logprobs.detach() - drawn).abs()[batch.mask.to(logprobs.device) & ~drawn.isnan()]
        if apart.numel():
            self.total += float(apart.double().sum())
            self.count += apart.numel()
            self.largest = max(self.largest, float(apart.max()))

    def everyone(self, run: Run) -> dict[str, float]:
        """Mean and largest, of all processes together; nothing of no tokens. All call it."""
        parts = run.gather([(self.total, self.count, self.largest)])
        totals, counts, largest = zip(*parts, strict=True)
        if not sum(counts):
            return {}
        return {f"{DIFFERENCE}/mean": sum(totals) / sum(counts), f"{DIFFERENCE}/max": max(largest)}

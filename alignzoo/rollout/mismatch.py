"""The gap between the sampler's log-probs and the trainer's, and weights that correct for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.faults import THE_CORE
from alignzoo.functional import importance_weights
from alignzoo.run import Run
from alignzoo.run.world import World

INFERENCE = "inference_logprobs"  # the column of log-probs that are not the trainer's
DIFFERENCE = "sampling/sampling_logp_difference"  # as TRL calls it
RATIO = "sampling/importance_sampling_ratio"


def weigh_tokens(run: Run, batch: Batch) -> Tensor | None:
    """Return the importance weights of a batch with the log-probs of both, `[N, T]`, and log them.

    Return None if `--importance-cap` is 0. All processes call it.
    """
    cap, mode = run.recipe.importance_cap, run.recipe.importance_mode
    if not cap:
        return None
    weights = importance_weights(batch["logprobs"], batch[INFERENCE], cap, mode, batch.mask)
    found = run.gather_masked(weights, batch.mask)
    if found.numel():
        extent = {"min": found.min(), "mean": found.double().mean(), "max": found.max()}
        if mode in ("token_mask", "sequence_mask"):
            extent["masked"] = (found == 0).double().mean()
        ratios = {f"{RATIO}/{name}": float(x) for name, x in extent.items()}
        run.round_metrics.add(ratios, THE_CORE)
    return weights


@dataclass
class LogprobGap:
    """Mean and maximum of |log pi_trainer - log pi_inference| per token, in nats.

    Other kernels, another precision or another program give other log-probs for the same weights,
    which makes on-policy training slightly off-policy: Yao et al. 2025,
    https://fengyao.notion.site/off-policy-rl.
    """

    total: float = 0.0
    count: int = 0
    largest: float = 0.0

    def add(self, batch: Batch, logprobs: Tensor) -> None:
        """Add the trainer's log-probs `[N, T]` of a part of the round.

        Tokens without a log-prob of the sampler (NaN) are skipped, and batches without the column.
        """
        if "logprobs" not in batch.columns:
            return
        drawn = batch["logprobs"].to(logprobs.device)
        apart = (logprobs.detach() - drawn).abs()[batch.mask.to(logprobs.device) & ~drawn.isnan()]
        if apart.numel():
            self.total += float(apart.double().sum())
            self.count += apart.numel()
            self.largest = max(self.largest, float(apart.max()))

    def reduce(self, world: World) -> dict[str, float]:
        """Return mean and maximum over all processes, {} without tokens. All processes call it."""
        parts = world.gather_each((self.total, self.count, self.largest))
        totals, counts, largest = zip(*parts, strict=True)
        if not sum(counts):
            return {}
        return {f"{DIFFERENCE}/mean": sum(totals) / sum(counts), f"{DIFFERENCE}/max": max(largest)}

"""A policy gradient from ranks: what counts is which completions of a prompt beat which others."""

from dataclasses import dataclass

from torch import Tensor

from alignzoo import Batch, Loss, OnPolicy, Run, hookimpl
from alignzoo.functional import importance_ratio, kl_estimate, per_token


def ranks(rewards: Tensor) -> Tensor:
    """Return (wins - losses) / (G - 1) of each reward in its group, `[B, G] -> [B, G]`.

    They are in [-1, 1], and the sum of a group is 0. A tie is neither; a reward that is missing
    (NaN) neither wins nor loses.
    """
    one, other = rewards[:, :, None], rewards[:, None, :]
    wins, losses = (one > other).sum(-1), (one < other).sum(-1)
    return (wins - losses) / (rewards.shape[1] - 1)


@dataclass(eq=False)
class Ranks(OnPolicy):
    """Policy gradient from the ranks of rewards, from prompts and a reward"""

    # `OnPolicy` samples, and has the options --group-size, --iterations, --round-prompts, --beta.

    @hookimpl
    def alignzoo_advantage(self, batch: Batch) -> Tensor:
        """Return one advantage per completion, `[N]`."""
        return ranks(batch.groups(batch["rewards"])).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return -A pi / pi_old + beta KL of each token."""
        policy = self.policy(run, batch).logprobs  # [N, T], at the temperature of sampling
        ratio = importance_ratio(policy - batch["logprobs"])
        # Advantages are [N], or [N, T] if another program has drawn the completions.
        losses = -per_token(batch["advantages"]) * ratio
        metrics = {"ranks/ratio": ratio}
        if self.beta:
            reference = run.reference(batch, temperature=run.temperature).logprobs
            metrics["kl"] = kl_estimate(policy, reference, "k3")
            losses = losses + self.beta * metrics["kl"]
        return Loss.per_token(losses, batch.mask, metrics)

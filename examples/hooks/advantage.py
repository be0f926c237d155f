"""alignzoo run ./examples/hooks/advantage.py --task sums"""

from alignzoo import Loss, OnPolicy, hookimpl


class AboveMedian(OnPolicy):
    """Learn from completions whose reward is above the median of their prompt"""

    @hookimpl
    def alignzoo_advantage(self, batch):
        rewards = batch.groups(batch["rewards"])  # [B, G]
        return (rewards > rewards.nanmedian(dim=1, keepdim=True).values).float().flatten()

    @hookimpl
    def alignzoo_loss(self, run, batch):
        logprobs = self.policy(run, batch).logprobs  # [N, T]
        return Loss.per_token(-batch["advantages"][:, None] * logprobs, batch.mask)

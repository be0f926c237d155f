"""alignzoo run ./examples/hooks/loss.py"""

from alignzoo import Demonstrations, Loss, hookimpl


class Likelihood:
    """Maximum likelihood: the loss of supervised fine-tuning"""

    data = Demonstrations

    @hookimpl
    def alignzoo_loss(self, run, batch):
        return Loss.per_token(-run.policy(batch).logprobs, batch.mask)

"""IPO as a single file:  alignzoo run ./examples/ipo.py --beta 0.2

Azar et al. 2023, https://arxiv.org/abs/2310.12036, equation 17: the log-ratio margin of a pair is
pulled to 1 / (2 beta), so it cannot grow without bound if annotators always agree.
"""

from dataclasses import dataclass

from alignzoo import Loss, Needs, Preferences, hookimpl


@dataclass(eq=False)
class IPO:
    """Identity Preference Optimization"""

    beta: float = 0.1

    data = Preferences
    needs = Needs(reference=True)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        log_ratio = run.policy(batch).logprobs - run.reference(batch).logprobs
        chosen, rejected = batch.pairs(batch.total(log_ratio) / batch.mask.sum(-1))
        return Loss.per_sequence((chosen - rejected - 1 / (2 * self.beta)) ** 2)

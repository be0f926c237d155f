"""An algorithm as it was written before names changed: it runs, and is told the present names."""

from dataclasses import dataclass

from alignzoo.judges import rate  # noqa: F401
from alignzoo.policy_gradient import per_token
from alignzoo.preference import sigmoid_loss  # noqa: F401
from alignzoo.samplers import complete, credit, judged, observe

from alignzoo import Loss, OnPolicy, Rounds, hookimpl, joined


@dataclass(eq=False)
class Former(OnPolicy):
    """A policy gradient on two draws"""

    group_size: int = 2

    credits = False
    headline = "reward"

    @property
    def rounds(self):
        return Rounds(rows=None, epochs=2)

    @hookimpl
    def alignzoo_sample(self, run, rows):
        draws = [complete(run, rows, 2), complete(run, rows, 2, draw="second")]
        batch = joined([judged(run, rows, groups) for groups in draws])
        observe(run, batch)
        run.observe({"former/reward": batch["rewards"]})
        run.observed["former/rows"] = float(len(run.gather(run.share(rows))))
        assert len(run.tokens(batch["logprobs"], batch.mask)) == int(batch.mask.sum())
        return credit(run, batch)

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        return batch["rewards"]

    @hookimpl
    def alignzoo_loss(self, run, batch):
        logprobs = run.policy(batch).logprobs
        return Loss.per_token(-per_token(batch["advantages"]) * logprobs, batch.mask)

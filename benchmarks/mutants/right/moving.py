"""REINFORCE with a moving average of the rewards as its baseline (Williams 1992)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt

from alignzoo import Loss, OnPolicy, hookimpl


@dataclass(eq=False)
class Moving(OnPolicy):
    """Learn from rewards above their moving average"""

    decay: Annotated[float, "decay of the moving average", Gt(0), Lt(1)] = 0.9

    @hookimpl
    def alignzoo_start(self, run):
        """Begin with no average; a resumed run has one already."""
        run.state_of(self).setdefault("average", 0.0)

    @hookimpl
    def alignzoo_advantage(self, run, batch):
        """Return the reward minus the average of earlier rounds, `[N]`, and move the average."""
        state = run.state_of(self)
        rewards = torch.tensor(run.gather(batch["rewards"].tolist()))
        advantages = batch["rewards"] - state["average"]
        mean = float(rewards.nanmean())
        state["average"] = self.decay * state["average"] + (1 - self.decay) * mean
        return advantages

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return -advantage log pi, per completion."""
        logps = batch.total(self.policy(run, batch).logprobs)
        return Loss.per_sequence(-batch["advantages"] * logps, {"logps": logps})

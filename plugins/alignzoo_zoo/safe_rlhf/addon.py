"""Safe RLHF, Dai et al. 2023: a limit on the mean cost, held by a Lagrange multiplier."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from alignzoo import BadInput, Batch, Run, hookimpl
from alignzoo.functional import REWARD_PREFIX
from alignzoo_zoo.safe_rlhf.multiplier import constrained_rewards, updated_multiplier

MULTIPLIER = "multiplier"  # lambda, in the state


@dataclass(eq=False)
class SafeRLHF:
    """Hold the mean of a cost below a limit, for any algorithm that learns from rewards (https://arxiv.org/abs/2310.12773)"""

    cost: Annotated[str, "name of the --reward that is the cost: minus its weight times its score"]
    limit: Annotated[float, "largest mean cost", Ge(-1e18), Le(1e18)] = 0.0
    multiplier: Annotated[float, "initial Lagrange multiplier", Gt(0)] = 1.0
    rate: Annotated[float, "learning rate of its logarithm", Ge(0)] = 0.1
    largest: Annotated[float, "largest multiplier", Gt(0)] = 5.0

    check_options = {"cost": "task"}
    known_exceptions = {"core metrics": "it changes the rewards that are learned from"}

    def __post_init__(self) -> None:
        if self.multiplier > self.largest:
            raise BadInput(
                f"add-on safe-rlhf: multiplier={self.multiplier:g} is above "
                f"largest={self.largest:g}"
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Raise `BadInput` if the cost is no reward of the run, or rewards are not summed."""
        if self.cost not in run.reward_weights:
            named = ", ".join(run.reward_weights) or "none"
            raise BadInput(
                f"add-on safe-rlhf: cost={self.cost} is none of the rewards of this run ({named})",
                hint=f"give it as well, with a negative weight: --reward {self.cost}:-1",
            )

        if getattr(run.algorithm, "normalize_rewards", None) == "before":
            raise BadInput(
                "option --normalize-rewards: before, rewards are not summed, and the add-on "
                "safe-rlhf changes their sum",
                hint="leave it out",
            )

    @hookimpl(wrapper=True)
    def alignzoo_advantage(self, run: Run, batch: Batch) -> Generator[None, Tensor, Tensor]:
        """Update the multiplier, and replace the rewards before advantages are made of them."""
        weight = run.reward_weights[self.cost]
        costs = -weight * batch[f"{REWARD_PREFIX}{self.cost}"]  # (N,), NaN if it does not apply
        multiplier = self.update(run, costs)
        costs = costs.nan_to_num(0.0)
        rewards = batch["rewards"] + costs  # without the cost
        batch.columns["rewards"] = constrained_rewards(rewards, costs, multiplier)
        return (yield)

    def update(self, run: Run, costs: Tensor) -> float:
        """Return the multiplier after the costs of a round, `[N]`, and log it."""
        state = run.state_of(self)
        mean = float(torch.tensor(run.gather(costs.tolist())).nanmean())
        multiplier = state.get(MULTIPLIER, self.multiplier)
        if not math.isnan(mean):  # the cost applies to some completion
            multiplier = updated_multiplier(multiplier, mean - self.limit, self.rate, self.largest)
            run.round_metrics.add({"safe_rlhf/cost": mean})
        state[MULTIPLIER] = multiplier
        run.round_metrics.add({"safe_rlhf/multiplier": multiplier})
        return float(multiplier)

"""Direct preference optimization (https://arxiv.org/abs/2305.18290), with label smoothing."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch.nn.functional import logsigmoid

from alignzoo import Loss, Needs, Preferences, hookimpl


@dataclass(eq=False)
class Prefer:
    """Prefer chosen completions to rejected ones"""

    beta: Annotated[float, "strength of the pull to the reference", Gt(0)] = 0.1
    smoothing: Annotated[float, "probability that a label is wrong", Ge(0), Lt(0.5)] = 0.0

    data = Preferences
    needs = Needs(reference=True)
    neutral_loss = math.log(2)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return -log sigmoid(beta (chosen - rejected)), with smoothed labels, per pair."""
        policy = batch.total(run.policy(batch).logprobs)
        reference = batch.total(run.reference(batch).logprobs)
        chosen, rejected = batch.pairs(self.beta * (policy - reference))
        margins = chosen - rejected
        right = (1 - self.smoothing) * logsigmoid(margins)
        wrong = self.smoothing * logsigmoid(-margins)
        metrics = {"margins": margins, "accuracies": (margins > 0).double()}
        return Loss.per_sequence(-right - wrong, metrics)

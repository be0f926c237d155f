"""Supervised fine-tuning: the negative log-likelihood of demonstrations, per token."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from alignzoo import Demonstrations, Loss, hookimpl


@dataclass(eq=False)
class Imitate:
    """Imitate demonstrations, with a bonus for entropy"""

    bonus: Annotated[float, "weight of the entropy", Ge(0), Le(1)] = 0.01

    data = Demonstrations

    @hookimpl
    def alignzoo_loss(self, run, batch):
        """Return -log pi minus the bonus, per token."""
        outputs = run.policy(batch, entropy=True)
        losses = -outputs.logprobs - self.bonus * outputs.entropy
        return Loss.per_token(losses, batch.mask, {"entropy": outputs.entropy})

"""The reward `random`: a control, of which nothing can be learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from alignzoo import Batch, Run, hookimpl


@dataclass(eq=False)
class Random:
    """1 or 0 by chance, whatever the completion: a control for gains that no reward has caused"""

    p: Annotated[float, "probability of a 1", Gt(0), Lt(1)] = 0.5

    known_exceptions = {
        "order of completions": "a draw belongs to a place in the batch, whatever stands there",
        "neighbours": "a draw belongs to a place in the batch, whatever stands there",
    }

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return a draw for each completion, `[N]`.

        It counts as feedback, like the verifier that it stands in for. Shao et al. 2025, Spurious
        Rewards, https://arxiv.org/abs/2506.10947, is why a comparison needs this control.
        """
        run.ledger.use_feedback("verifier_calls", len(batch.lengths))
        seed = run.seed_for("random reward", run.round, run.world.rank)
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(len(batch.lengths), generator=generator) < self.p).float()

"""An algorithm that learns from a teacher's probabilities of the likeliest tokens.

alignzoo run ./examples/distill.py --task sums --teacher zoo-tiny
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge

from alignzoo import Demonstrations, Loss, hookimpl


@dataclass(eq=False)
class Distill:
    """Distillation: the KL from a teacher, over the tokens that it finds likeliest"""

    teacher: Annotated[str, "the model to learn from"] = "zoo-tiny"
    tokens: Annotated[int, "tokens compared at each position", Ge(1)] = 16

    data = Demonstrations

    @hookimpl
    def alignzoo_start(self, run):
        self.model = run.load_model(self.teacher, same_tokens=True)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        with torch.no_grad():
            teacher = self.model(batch, top_k=self.tokens)
        student = run.policy(batch, top_ids=teacher.top_ids)
        differences = teacher.top_logprobs - student.top_logprobs  # [N, T, K]
        kl = (teacher.top_logprobs.exp() * differences).sum(-1)
        return Loss.per_token(kl, batch.mask)

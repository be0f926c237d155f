"""An algorithm that learns from a teacher's probabilities of the likeliest tokens.

alignzoo run ./examples/distill.py --task sums --teacher zoo-tiny
"""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alignzoo import Demonstrations, Loss, Needs, hookimpl


@dataclass(eq=False)
class Distill:
    """Distillation: the KL from a teacher, over the tokens that it finds likeliest"""

    tokens: Annotated[int, "tokens compared at each position", Ge(1)] = 16

    data = Demonstrations
    needs = Needs(teacher=True)

    @hookimpl
    def alignzoo_loss(self, run, batch):
        teacher = run.teacher(batch, top_k=self.tokens)
        student = run.policy(batch, top_ids=teacher.top_ids)
        differences = teacher.top_logprobs - student.top_logprobs  # [N, T, K]
        kl = (teacher.top_logprobs.exp() * differences).sum(-1)
        return Loss.per_token(kl, batch.mask)

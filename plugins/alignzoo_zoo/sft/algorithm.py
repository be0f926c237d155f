"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge

from alignzoo import Batch, Demonstrations, Dialogues, Loss, Run, WholeDemonstrations, hookimpl
from alignzoo_zoo.sft.losses import cross_entropy, dynamic_fine_tuning, noisy_embeddings

LOSSES = {"nll": cross_entropy, "dft": dynamic_fine_tuning}
VIEWS = {"answer": Demonstrations, "all-turns": Dialogues, "everything": WholeDemonstrations}


@dataclass(eq=False)
class SFT:
    """Supervised fine-tuning: imitate demonstrations, token by token"""

    loss_type: Annotated[
        Literal["nll", "dft"], "negative log-likelihood, or weighted by the token's probability"
    ] = "nll"
    learn: Annotated[
        Literal["answer", "all-turns", "everything"],
        "which tokens are learned: the last answer, all answers of a dialogue, or prompts too",
    ] = "answer"
    neftune_noise_alpha: Annotated[
        float, "NEFTune: noise on the input embeddings (0: none)", Ge(0)
    ] = 0.0

    data = Demonstrations
    learning_rate = 5e-4

    def __post_init__(self) -> None:
        self.data = VIEWS[self.learn]

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the loss of every learned token, with noise in training only."""
        noisy = self.neftune_noise_alpha > 0 and torch.is_grad_enabled()
        noise = partial(noisy_embeddings, alpha=self.neftune_noise_alpha) if noisy else None
        logprobs = run.policy(batch, perturb=noise).logprobs
        return Loss.per_token(LOSSES[self.loss_type](logprobs), batch.mask)

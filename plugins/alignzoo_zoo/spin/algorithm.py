"""Self-Play Fine-Tuning (SPIN), Chen et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt

from alignzoo import BadInput, Batch, Demonstrations, Example, Loss, Rounds, Run, collate, hookimpl
from alignzoo.functional import hinge_loss, sigmoid_loss
from alignzoo.rollout import complete
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs, pair_loss
from alignzoo_zoo.spin.kept import keep, kept

LOSSES = {"sigmoid": sigmoid_loss, "hinge": hinge_loss}


@dataclass(eq=False)
class SPIN:
    """Self-play: demonstrations preferred to one's own completions (https://arxiv.org/abs/2401.01335)"""

    beta: Annotated[float, "strength of the pull to the opponent", Gt(0)] = 0.1
    loss_type: Annotated[
        Literal["sigmoid", "hinge"], "the logistic loss of the paper, or the hinge of its code"
    ] = "sigmoid"
    passes: Annotated[int, "passes over the pairs of a round", Ge(1)] = 1
    mix: Annotated[bool, "learn from the last round's pairs as well, as the paper's code does"] = (
        True
    )

    data = Demonstrations
    learning_rate = 1e-5  # at dpo's 6e-5 a round may undo what the model could do before
    progress_metric = "rewards/accuracies"

    @property
    def rounds(self) -> Rounds:
        """A round is an iteration of the paper: the whole set against one opponent."""
        return Rounds(rows="all", iterations=self.passes, replay_rounds=int(self.mix))

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """The opponent's completion needs room after every prompt."""
        longest = max((len(example.prompt) for example in data.train), default=0)
        if longest + recipe.max_new_tokens > recipe.max_length:
            raise BadInput(
                f"option --max-new-tokens: after the longest prompt, of {longest} tokens, "
                f"--max-length {recipe.max_length} leaves no room for {recipe.max_new_tokens}",
                hint="allow a greater --max-length, or fewer new tokens",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Each demonstration and what the opponent, the policy as it stands, wrote instead; and the
        last round's pairs, which now have the same opponent for a reference."""
        drawn = [group[0] for group in complete(run, rows, 1)]
        pairs = [
            replace(row, completions=[*row.completions, own.tokens])
            for row, own in zip(rows, drawn, strict=True)
        ]
        differ = [real != own for real, own in (p.completions for p in pairs)]
        run.log_mean(
            {
                "spin/same": 1.0 - torch.tensor(differ, dtype=torch.float),
                "completions/mean_length": torch.tensor([float(len(c.tokens)) for c in drawn]),
                "completions/clipped_ratio": torch.tensor([float(not c.ended) for c in drawn]),
            }
        )
        pairs = list(compress(pairs, differ))
        if self.mix:
            keep(run, pairs)
            pairs += kept(run, run.round - 1) if run.round else []
        batch = collate(pairs)
        batch.columns[OPPONENT] = opponent_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """One value per pair. Held-out demonstrations have no opponent: they are not compared."""
        if OPPONENT not in batch.columns:
            logps = batch.total(run.policy(batch).logprobs)
            return Loss.per_sequence(logps.new_empty(0), {"logps/chosen": logps})
        return pair_loss(run, batch, LOSSES[self.loss_type], self.beta)

"""Self-Play Fine-Tuning (SPIN), Chen et al. 2024."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import compress
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt

from alignzoo import BadInput, Batch, Demonstrations, Example, Loss, Rounds, Run, collate, hookimpl
from alignzoo.functional import hinge_loss, sigmoid_loss
from alignzoo.options import Alias
from alignzoo.rollout import complete
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs
from alignzoo_zoo.pairs import pair_loss
from alignzoo_zoo.spin.saved_pairs import load_pairs, save_pairs

LOSSES = {"sigmoid": sigmoid_loss, "hinge": hinge_loss}


@dataclass(eq=False)
class SPIN:
    """Self-play: prefer demonstrations to own completions (https://arxiv.org/abs/2401.01335)"""

    beta: Annotated[float, "strength of the pull to the opponent", Gt(0)] = 0.1
    loss_type: Annotated[
        Literal["sigmoid", "hinge"], "the paper's logistic loss, or the hinge loss of its code"
    ] = "sigmoid"
    iterations: Annotated[int, "passes over the pairs of a round", Ge(1), Alias("passes")] = 1
    mix: Annotated[bool, "also train on the previous round's pairs, as the paper's code does"] = (
        True
    )

    data = Demonstrations
    learning_rate = 1e-5  # at dpo's 6e-5 one round can destroy what the model could do before
    progress_metric = "rewards/accuracies"

    @property
    def neutral_loss(self) -> float | None:
        """Return the loss of a policy that is the reference, if it is known."""
        return math.log(2) if self.loss_type == "sigmoid" else None

    @property
    def rounds(self) -> Rounds:
        """Return rounds of the whole data: each is an iteration of the paper, with one opponent."""
        return Rounds(rows="all", iterations=self.iterations, replay_rounds=int(self.mix))

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Refuse prompts that leave the opponent no room for a completion."""
        longest = max((len(example.prompt) for example in data.train), default=0)
        if longest + recipe.max_new_tokens > recipe.max_length:
            raise BadInput(
                f"option --max-new-tokens: the longest prompt has {longest} tokens, so "
                f"--max-length {recipe.max_length} leaves no room for {recipe.max_new_tokens}",
                hint="raise --max-length, or lower --max-new-tokens",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Pair each demonstration with a completion of the current policy, the opponent.

        With `mix`, add the pairs of the previous round, under the new opponent.
        """
        written = [group[0] for group in complete(run, rows, 1)]
        pairs = [
            replace(
                row,
                completions=[*row.completions, own.tokens],
                masks=[*row.counted, own.written],
            )
            for row, own in zip(rows, written, strict=True)
        ]
        differ = [real != own for real, own in (p.completions for p in pairs)]
        run.log_mean(
            {
                "spin/same": 1.0 - torch.tensor(differ, dtype=torch.float),
                "completions/mean_length": torch.tensor([float(c.length) for c in written]),
                "completions/clipped_ratio": torch.tensor([float(not c.ended) for c in written]),
            }
        )
        pairs = list(compress(pairs, differ))
        if self.mix:
            save_pairs(run, pairs)
            pairs += load_pairs(run, run.round - 1) if run.round else []
        batch = collate(pairs)
        batch.columns[OPPONENT] = opponent_logprobs(run, batch)
        return batch

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return one loss per pair. Held-out demonstrations have no opponent, hence no loss."""
        logprobs = run.policy(batch).logprobs
        if OPPONENT not in batch.columns:
            logps = batch.total(logprobs)
            return Loss.per_sequence(logps.new_empty(0), {"logps/chosen": logps})
        loss = LOSSES[self.loss_type]
        return Loss.per_sequence(*pair_loss(batch, logprobs, batch[OPPONENT], loss, self.beta))

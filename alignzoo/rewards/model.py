"""The scores of a reward model, from an earlier run, as a reward.

If the model learned from steps, the reward of a completion is that of its worst step: the smallest
probability that a step is right, in [0, 1]. The probability of each step is then a column of the
batch, for algorithms that give credit to tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.data import Codec, split_steps, step_ends, template_values
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.policy import locate_model
from alignzoo.run import Run

# A column `[N, T]`: the probability that a step is right at its last token, above 0, and 0
# elsewhere.
STEP_REWARDS = "step_rewards"


class ModelReward:
    """A reward model, named by the folder of its run.

    Raise `BadInput` if the model there has no score head.
    """

    def __init__(self, folder: str):
        if locate_model(folder).score_head is None:
            raise BadInput(
                "not a reward model: it has no score head",
                where=folder,
                hint="train one first: alignzoo run reward",
            )
        self.folder = folder

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Load the model, as the run loads its own."""
        with run.ui.phase(f"loading {self.folder}"):
            self.model = run.load_model(self.folder)
        self.model.eval()
        self.codec = Codec(self.model.tokenizer)
        self.same_tokens = share_tokens(self.codec, run.codec)

    @hookimpl
    @torch.no_grad()
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the reward of each completion, `[N]`, and charge the forward passes.

        A model of steps adds the column `step_rewards`, unless its tokens are not the run's.
        """
        own = batch if self.same_tokens else self.retokenize(run, batch)

        def score_micro(micro: Batch) -> Tensor:
            with run.forwards.purpose("reward"):
                scores = self.model.scores(micro.to(run.device)).cpu()
            return micro.last(scores) if self.separator is None else self.at_ends(micro, scores)

        found = own.piecewise(score_micro, run.micro_tokens)
        if self.separator is None:
            return found
        if own is batch:
            batch.columns[STEP_REWARDS] = found
        return torch.where(found > 0, found, 1.0).amin(-1)

    @property
    def separator(self) -> str | None:
        """Return the text between two steps; None for a model of whole completions."""
        head = self.model.score_head
        return None if head is None else head.step_separator

    def at_ends(self, batch: Batch, scores: Tensor) -> Tensor:
        """Turn scores of tokens into probabilities at the last token of each step, `[N, T]`.

        They are 0 elsewhere. A completion without a step counts as one.
        """
        assert self.separator is not None
        ends = torch.zeros_like(scores, dtype=torch.bool)
        for ids, row in zip(batch.completions(), ends, strict=True):
            steps = split_steps(self.codec.decode(ids), self.separator)
            row[step_ends(self.codec, ids, steps, self.separator) or [len(ids) - 1]] = True
        smallest = torch.finfo(scores.dtype).tiny
        return torch.where(ends, scores.sigmoid().clamp(min=smallest), 0.0)

    def retokenize(self, run: Run, batch: Batch) -> Batch:
        """Return the batch in this model's tokens and chat template, encoded from its text."""
        answers = [
            self.codec.completion(row["prompt"], text, template_values(row))
            for row, text in zip(batch.answered(), run.texts(batch), strict=True)
        ]
        return collate(
            [
                Example(self.codec.prompt(row["prompt"], template_values(row)), completions)
                for row, completions in zip(batch.rows, batch.grouped(answers), strict=True)
            ]
        )


def share_tokens(one: Codec, other: Codec) -> bool:
    """Return whether two codecs encode every prompt and every completion to the same ids."""
    a, b = one.tokenizer, other.tokenizer
    return (
        a.get_vocab() == b.get_vocab()
        and a.chat_template == b.chat_template
        and (one.bos, one.stop_ids) == (other.bos, other.stop_ids)
    )

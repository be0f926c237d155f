"""The scores of a reward model, from an earlier run, as a reward.

If the model learned from steps, the reward of a completion is that of its worst step: the smallest
probability that a step is right, in [0, 1].
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
        """Return the reward of each completion, `[N]`, and charge the forward passes."""

        def score_micro(micro: Batch) -> Tensor:
            with run.forwards.purpose("reward"):
                scores = self.model.scores(micro.to(run.device)).cpu()
            return self.to_rewards(micro, scores)

        own = batch if self.same_tokens else self.retokenize(run, batch)
        return own.piecewise(score_micro, run.micro_tokens)

    def to_rewards(self, batch: Batch, scores: Tensor) -> Tensor:
        """Reduce the scores of tokens, `[N, T]`, to rewards of completions, `[N]`.

        That is the score of the last token, or the smallest probability over the ends of steps.
        """
        head = self.model.score_head
        if head is None or head.step_separator is None:
            return batch.last(scores)
        found = []
        for ids, row in zip(batch.completions(), scores, strict=True):
            steps = split_steps(self.codec.decode(ids), head.step_separator)
            ends = step_ends(self.codec, ids, steps, head.step_separator)
            found.append(row[ends or [len(ids) - 1]].min())
        return torch.stack(found).sigmoid()

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

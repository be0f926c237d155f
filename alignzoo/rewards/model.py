"""An earlier reward model's scores as a reward.

Where it learnt from steps, the reward of a completion is that of its worst step: the least of the
probabilities that a step is right, in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.data import Codec, split_steps, step_ends
from alignzoo.discovery import hookimpl
from alignzoo.errors import BadInput
from alignzoo.policy import HiddenState, locate_model
from alignzoo.run import Run


class ModelReward:
    """Judges each completion by the score head of an earlier run, named by its folder."""

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
        with run.ui.phase(f"loading {self.folder}"):
            self.model = run.load_model(self.folder)
        self.model.eval()
        self.codec = Codec(self.model.tokenizer)
        self.same_tokens = share_tokens(self.codec, run.codec)

    @hookimpl
    @torch.no_grad()
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        def scores(micro: Batch) -> Tensor:
            run.ledger.charge("reward", self.model.cost(micro, states=HiddenState.OF_TOKEN))
            return self.rewards(micro, self.model.scores(micro.to(run.device)).cpu())

        read = batch if self.same_tokens else self.retokenize(run, batch)
        return read.piecewise(scores, run.micro_tokens)

    def rewards(self, batch: Batch, scores: Tensor) -> Tensor:
        """Of a score for each token, `[N, T]`, those that count, as a reward for each, `[N]`."""
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
        """The batch in this model's tokens and chat template, by way of the text."""
        answers = [
            self.codec.completion(row["prompt"], text)
            for row, text in zip(batch.answered(), run.texts(batch), strict=True)
        ]
        return collate(
            [
                Example(self.codec.prompt(row["prompt"]), completions)
                for row, completions in zip(batch.rows, batch.grouped(answers), strict=True)
            ]
        )


def share_tokens(one: Codec, other: Codec) -> bool:
    """Whether two codecs write the same ids for every prompt and every answer."""
    a, b = one.tokenizer, other.tokenizer
    return (
        a.get_vocab() == b.get_vocab()
        and a.chat_template == b.chat_template
        and (one.bos, one.stop_ids) == (other.bos, other.stop_ids)
    )

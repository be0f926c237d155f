"""Preference pairs: which of two answers a model prefers, by its log-probs alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Preferences, collate
from alignzoo.data import Codec, UnusableRow
from alignzoo.evaluation import EvaluationItem
from alignzoo.policy import Policy
from alignzoo_tasks.from_file import FileTask, Row

PAIRS_AT_ONCE = 8  # in a forward pass


@dataclass(eq=False)
class Pairs(FileTask):
    """Preference pairs: is the chosen answer preferred? (Lambert et al. 2024, arXiv 2403.13787)

    A model prefers the answer with the higher implicit reward, log pi(y|x) - log base(y|x), or the
    likelier one. The score is 1 if that is the chosen answer, 0.5 for a tie, else 0.
    """

    prefer: Annotated[
        Literal["reward", "likelihood"],
        "what makes an answer the preferred one: its implicit reward or its log-prob",
    ] = "reward"
    per_token: Annotated[bool, "divide log-probs by the length of the answer"] = False
    max_length: Annotated[int, "most tokens of a prompt and an answer", Ge(2)] = 1024

    name = "pairs"
    views = ("preferences",)
    hub = "Anthropic/hh-rlhf"
    hub_test = "Anthropic/hh-rlhf@test"

    def read(self, row: Row) -> Row | None:
        try:
            return Preferences.canonical(row)
        except UnusableRow:
            return None

    def key(self, row: Row) -> str:
        return str(row["prompt"])

    def measure(self, model: Policy, split: str, limit: int) -> list[EvaluationItem]:
        """Return an item for each pair that fits: the answer that the model prefers.

        Raise `BadInput` if implicit rewards are asked for and the model before training is unknown.
        """
        if self.prefer == "reward" and not model.has_base:
            raise BadInput(
                f"task {self.name!r}: an implicit reward compares a model with the one before "
                "training, which is not known here",
                hint=f"evaluate a run with an adapter, or use {self.name},prefer=likelihood",
            )
        codec = Codec(model.tokenizer)
        most = min(self.max_length, model.positions or self.max_length)
        rows = self.rows("preferences", split)[:limit]
        found = [Preferences.encode(row, codec, most).example for row in rows]
        examples = [example for example in found if example is not None]
        items: list[EvaluationItem] = []
        for start in range(0, len(examples), PAIRS_AT_ONCE):
            part = examples[start : start + PAIRS_AT_ONCE]
            items += self._compare(model, codec, part, start)
        return items

    @torch.no_grad()
    def _compare(
        self, model: Policy, codec: Codec, examples: list[Example], start: int
    ) -> Iterator[EvaluationItem]:
        """Return the items of some pairs, numbered from `start`."""
        batch = collate(examples).to(model.device)
        policy = model(batch).logprobs  # [2B, T]
        margins = {"likelihood": self._margins(batch, policy)}
        base = None
        if model.has_base:
            with model.base():
                base = model(batch).logprobs
            margins["reward"] = self._margins(batch, policy - base)
        for place, example in enumerate(examples):
            margin = {name: float(values[place]) for name, values in margins.items()}
            worse = int(margin[self.prefer] < 0)
            answer, row = example.completions[worse], 2 * place + worse
            yield EvaluationItem(
                item=start + place,
                prompt=codec.decode(example.prompt),
                completion=codec.decode(answer),
                score=agreement(margin[self.prefer]),
                length=len(answer),
                ended=True,
                logprob=float(policy[row].sum()),
                ref_logprob=None if base is None else float(base[row].sum()),
                seed=None,
                measures={f"{name}_accuracy": agreement(x) for name, x in margin.items()}
                | {f"{name}_margin": x for name, x in margin.items()},
            )

    def _margins(self, batch: Batch, logprobs: Tensor) -> Tensor:
        """Return how much the chosen answers have more than the rejected ones, `[B]`."""
        chosen, rejected = batch.pairs((batch.mean if self.per_token else batch.total)(logprobs))
        return chosen - rejected


def agreement(margin: float) -> float:
    """Return 1 if the chosen answer has more, 0.5 for a tie, else 0."""
    return 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0

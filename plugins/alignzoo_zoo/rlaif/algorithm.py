"""Reinforcement learning from AI feedback: Bai et al. 2022 and Lee et al. 2023."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Prompts, Run, RunFailed, algorithm_of, hookimpl
from alignzoo.rewards import ModelReward
from alignzoo.rollout import complete
from alignzoo_judges import (
    Comparison,
    Constitution,
    Judge,
    Verdict,
    as_messages,
    check_judge,
    compare,
    keep_journal,
    rate,
    read_principles,
    resolve_judge,
)
from alignzoo_zoo.rlaif.labelled_pairs import LabelledPairs

DPO = "dpo"


@dataclass(eq=False)
class RLAIF:
    """Learning from a judge's preferences, by written principles (https://arxiv.org/abs/2309.00267)"""

    judge: Annotated[
        str, "who judges: self (the base), gold, a model or run, or a server's address"
    ] = "self"
    principles: Annotated[str | None, "YAML file of principles [default: the shipped one]"] = None
    rl: Annotated[
        str,
        "who learns, NAME[,OPTION=VALUE...]: dpo from the labels of fresh pairs; grpo, ppo or "
        "another that learns from rewards, from a reward model of them",
    ] = DPO
    labels_per_prompt: Annotated[
        int, "pairs of completions of each prompt that a reward model learns from", Ge(1)
    ] = 4
    direct: Annotated[bool, "no reward model: the judge's rating is the reward"] = False
    think: Annotated[int, "tokens of an explanation before each verdict (0: none)", Ge(0)] = 0

    constitution: Constitution = field(init=False)
    learner: Any = field(init=False)
    asked: Judge | None = field(default=None, init=False)
    model: ModelReward | None = field(default=None, init=False)

    data = Prompts

    def __post_init__(self) -> None:
        check_judge(self.judge)
        self.constitution = read_principles(self.principles)
        self.learner = algorithm_of(self.rl, "--rl", {DPO: LabelledPairs})
        if not hasattr(self.learner, "alignzoo_advantage"):
            raise BadInput(
                f"option --rl: {self.rl!r} does not learn from rewards",
                hint="name dpo, grpo, ppo, rloo or another that does",
            )
        if self.direct and self.pairs:
            raise BadInput(
                "option --direct: --rl dpo learns from pairs, and a rating is of one completion",
                hint="name who learns from ratings, --rl grpo say",
            )

    @property
    def pairs(self) -> bool:
        """Whether the learner takes the labels as they are."""
        return isinstance(self.learner, LabelledPairs)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        if recipe.reward:
            raise BadInput("option --reward: with rlaif the judge alone says what is good")

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        self.constitution.record(run)
        self.asked = resolve_judge(self.judge, run=run, task=run.task)
        if not (self.pairs or self.direct):
            self.model = ModelReward(str(run.train_reward(self.labelled(run))))
            self.model.alignzoo_start(run)

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Of a pair, the probability that each is the better one; else a rating, or the reward
        model's score. `[N]`, NaN where the judge gave no answer."""
        if self.model is not None:
            return self.model.alignzoo_reward(run, batch)
        if self.direct:
            return torch.tensor(self.ratings(run, batch))
        texts = run.texts(batch)
        lines = self.comparisons(run, batch.rows, texts[::2], texts[1::2], 0)
        found = [line["label"] for line in lines]
        run.record.feedback(run.step + 1, lines)
        first = torch.tensor([torch.nan if label is None else label for label in found])
        return torch.stack([first, 1 - first], -1).flatten()

    def ratings(self, run: Run, batch: Batch) -> list[float]:
        """Each completion by the principle that was drawn for its prompt."""
        assert self.asked is not None  # alignzoo_start chose it
        drawn = self.constitution.draw(run, "rating", 0, 0, len(batch.rows))
        which, texts = batch.group.tolist(), run.texts(batch)
        found = rate(
            self.asked,
            [(batch.rows[b], text) for b, text in zip(which, texts, strict=True)],
            [drawn[b].rating for b in which],
        )
        lines = [
            {
                "prompt": batch.rows[b]["prompt"],
                "completion": text,
                "principle": drawn[b].name,
                "rating": usable(score),
            }
            for b, text, score in zip(which, texts, found, strict=True)
        ]
        run.record.feedback(run.step + 1, lines)
        must_answer(line["rating"] for line in lines)
        return found

    def comparisons(
        self,
        run: Run,
        rows: Sequence[dict[str, Any]],
        one: Sequence[str],
        other: Sequence[str],
        start: int,
    ) -> list[dict[str, Any]]:
        """What the judge says of two completions of each row's prompt, under a drawn principle.
        Two that are the same are a tie without asking."""
        assert self.asked is not None  # alignzoo_start chose it
        drawn = self.constitution.draw(run, "label", 0, start, len(rows))
        different = [n for n in range(len(rows)) if one[n] != other[n]]
        asked = [
            Comparison(rows[n]["prompt"], one[n], other[n], rows[n], drawn[n].question)
            for n in different
        ]
        verdicts = [Verdict([0.5, 0.5], [0.5, 0.5])] * len(rows)
        for n, verdict in zip(different, compare(self.asked, asked, think=self.think), strict=True):
            verdicts[n] = verdict
        must_answer(usable(verdicts[n].label[0]) for n in different)
        return [
            {
                "prompt": rows[n]["prompt"],
                "a": one[n],
                "b": other[n],
                "principle": drawn[n].name,
                "label": usable(verdict.label[0]),
                "a_first": [usable(p) for p in verdict.a_first],
                "b_first": [usable(p) for p in verdict.b_first],
                "flips": verdict.flips,
            }
            for n, verdict in enumerate(verdicts)
        ]

    def labelled(self, run: Run) -> Path:
        """A file of preferences: pairs of completions of every prompt, the better one as judged."""
        if run.world.size > 1:
            raise BadInput(
                "rlaif trains its reward model in one process",
                hint="run it in one, or with --direct or --rl dpo",
            )

        def make(part: Sequence[Example], start: int) -> list[dict[str, Any]]:
            n = self.labels_per_prompt
            groups = complete(run, part, 2 * n, f"labels from {start}")
            texts = [run.codec.decode(written.tokens) for group in groups for written in group]
            rows = [row.row for row in part for _ in range(n)]
            return self.comparisons(run, rows, texts[::2], texts[1::2], n * start)

        lines = keep_journal(run, "labels", run.data.train, make)
        told = [line for line in lines if line["label"] not in (None, 0.5)]
        if not told:
            raise RunFailed(
                f"the judge preferred neither of two completions of any of {len(lines)} prompts",
                hint="see labels.jsonl in the run's folder",
            )
        sure = fmean(abs(2 * line["label"] - 1) for line in told)
        run.ui.note(f"{len(told)} of {len(lines)} pairs labelled, on average {sure:.0%} apart")
        return run.record.write("preferences.jsonl", [preference(line) for line in told])


def preference(line: dict[str, Any]) -> dict[str, Any]:
    """A label as a row of preferences, and how sure it is."""
    label = line["label"]
    won, lost = (line["a"], line["b"]) if label > 0.5 else (line["b"], line["a"])
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (won, lost))
    return {
        "prompt": as_messages(line["prompt"]),
        "chosen": chosen,
        "rejected": rejected,
        "chosen_probability": max(label, 1 - label),
    }


def must_answer(found: Iterable[float | None]) -> None:
    """A judge may fail now and then; one that never answers has nothing to teach."""
    answers = list(found)
    if answers and all(answer is None for answer in answers):
        raise RunFailed(
            f"the judge gave no answer that could be used to any of {len(answers)} questions",
            hint="does the model follow instructions, and does what it reads fit its length? "
            "`alignzoo judge` shows what it makes of pairs",
        )


def usable(probability: float) -> float | None:
    """As it is written: nothing for NaN."""
    return probability if probability == probability else None

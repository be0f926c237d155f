"""Reinforcement learning from AI feedback: Bai et al. 2022 and Lee et al. 2023."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
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
    """RL from AI feedback: preferences of a judge by written principles (https://arxiv.org/abs/2309.00267)"""

    judge: Annotated[str, "judge: self (the base), gold, a model, a run or the URL of a server"] = (
        "self"
    )
    principles: Annotated[str | None, "YAML file of principles [default: the shipped one]"] = None
    rl: Annotated[
        str,
        "learner, NAME[,OPTION=VALUE...]: dpo on labels of fresh pairs; grpo, ppo or another "
        "algorithm with rewards, on a reward model trained on labels",
    ] = DPO
    labels_per_prompt: Annotated[
        int, "labelled pairs per prompt to train a reward model on", Ge(1)
    ] = 4
    direct: Annotated[bool, "use the judge's rating as the reward, without a reward model"] = False
    think: Annotated[
        int,
        "let the judge reason for up to N tokens before each verdict (0: off)",
        Ge(0),
        Le(10**6),
    ] = 0

    constitution: Constitution = field(init=False)
    learner: Any = field(init=False)
    loaded_judge: Judge | None = field(default=None, init=False)
    reward_model: ModelReward | None = field(default=None, init=False)

    data = Prompts
    known_exceptions = {
        "options that do something": "--labels-per-prompt is read if a reward model is trained "
        "first, which --rl dpo does not",
        "missing reward": "a judge answers for a pair: both completions have a label, or none",
    }

    def __post_init__(self) -> None:
        check_judge(self.judge)
        self.constitution = read_principles(self.principles)
        self.learner = algorithm_of(self.rl, "--rl", {DPO: LabelledPairs})
        if not hasattr(self.learner, "alignzoo_advantage"):
            raise BadInput(
                f"option --rl: {self.rl!r} does not train on rewards",
                hint="use dpo, grpo, ppo, rloo or another algorithm that does",
            )
        if self.direct and self.labels_pairs:
            raise BadInput(
                "option --direct: --rl dpo trains on pairs, but a rating is of one completion",
                hint="use --rl grpo, for example",
            )

    @property
    def labels_pairs(self) -> bool:
        """True if the learner trains on the labels themselves."""
        return isinstance(self.learner, LabelledPairs)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse a reward in addition to the judge."""
        if recipe.reward:
            raise BadInput("option --reward: in rlaif the judge is the only reward")

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Load the judge, and train the reward model if the learner needs one."""
        self.constitution.record(run)
        self.loaded_judge = resolve_judge(self.judge, run=run, task=run.task)
        if not (self.labels_pairs or self.direct):
            self.reward_model = ModelReward(str(run.train_reward(self.label_pairs(run))))
            self.reward_model.alignzoo_start(run)

    @hookimpl
    def alignzoo_reward(self, run: Run, batch: Batch) -> Tensor:
        """Return the reward of each completion, `[N]`; NaN if the judge gave no answer.

        It is the probability of being the better one of a pair, a rating, or the score of the
        reward model.
        """
        if self.reward_model is not None:
            return self.reward_model.alignzoo_reward(run, batch)
        if self.direct:
            return torch.tensor(self.ratings(run, batch))
        pairs = batch.grouped(run.texts(batch))
        lines = self.comparisons(run, batch.rows, pairs, 0)
        run.record.feedback(run.step + 1, lines)
        labels = [line["label"] for line in lines]
        first = torch.tensor([torch.nan if label is None else label for label in labels])  # (B,)
        return torch.stack([first, 1 - first], -1).flatten()

    def ratings(self, run: Run, batch: Batch) -> list[float]:
        """Rate each completion by the principle drawn for its prompt, and log the ratings."""
        assert self.loaded_judge is not None  # alignzoo_start chose it
        drawn = self.constitution.draw(run, "rating", 0, 0, len(batch.rows))
        principles = [drawn[b] for b in batch.group.tolist()]
        answered = list(zip(batch.answered(), run.texts(batch), strict=True))
        ratings = rate(self.loaded_judge, answered, [p.rating for p in principles])
        lines = [
            {
                "prompt": row["prompt"],
                "completion": text,
                "principle": principle.name,
                "rating": nan_to_none(rating),
            }
            for (row, text), principle, rating in zip(answered, principles, ratings, strict=True)
        ]
        run.record.feedback(run.step + 1, lines)
        check_answers(line["rating"] for line in lines)
        return ratings

    def comparisons(
        self,
        run: Run,
        rows: Sequence[dict[str, Any]],
        pairs: Sequence[Sequence[str]],
        start: int,
    ) -> list[dict[str, Any]]:
        """Let the judge compare two completions of each row's prompt, by a drawn principle.

        Return the lines of the log. Identical completions are a tie, without a question.
        """
        assert self.loaded_judge is not None  # alignzoo_start chose it
        drawn = self.constitution.draw(run, "label", 0, start, len(rows))
        different = [n for n, (a, b) in enumerate(pairs) if a != b]
        comparisons = [
            Comparison(rows[n]["prompt"], pairs[n][0], pairs[n][1], rows[n], drawn[n].question)
            for n in different
        ]
        found = compare(self.loaded_judge, comparisons, think=self.think)
        verdicts = [Verdict([0.5, 0.5], [0.5, 0.5])] * len(rows)
        for n, verdict in zip(different, found, strict=True):
            verdicts[n] = verdict
        check_answers(nan_to_none(verdicts[n].label[0]) for n in different)
        return [
            {
                "prompt": rows[n]["prompt"],
                "a": pairs[n][0],
                "b": pairs[n][1],
                "principle": drawn[n].name,
                "label": nan_to_none(verdict.label[0]),
                "a_first": [nan_to_none(p) for p in verdict.a_first],
                "b_first": [nan_to_none(p) for p in verdict.b_first],
                "flips": verdict.flips,
            }
            for n, verdict in enumerate(verdicts)
        ]

    def label_pairs(self, run: Run) -> Path:
        """Sample and label pairs of completions of every prompt, and write them as preferences.

        Return the file. Raise `RunFailed` if every label is a tie.
        """
        if run.world.size > 1:
            raise BadInput(
                "rlaif trains a reward model in one process only",
                hint="use one process, --direct or --rl dpo",
            )

        def label(part: Sequence[Example], start: int) -> list[dict[str, Any]]:
            n = self.labels_per_prompt
            groups = complete(run, part, 2 * n, f"labels from {start}")
            texts = [run.codec.decode(c.tokens) for group in groups for c in group]
            rows = [row.row for row in part for _ in range(n)]
            pairs = list(zip(texts[::2], texts[1::2], strict=True))
            return self.comparisons(run, rows, pairs, n * start)

        lines = keep_journal(run, "labels", run.data.train, label)
        decided = [line for line in lines if line["label"] not in (None, 0.5)]
        if not decided:
            raise RunFailed(
                f"the judge preferred no completion in any of {len(lines)} pairs",
                hint="see labels.jsonl in the run's folder",
            )
        margin = fmean(abs(2 * line["label"] - 1) for line in decided)
        run.ui.note(f"{len(decided)} of {len(lines)} pairs labelled, mean margin {margin:.0%}")
        return run.record.write("preferences.jsonl", [preference_row(line) for line in decided])


def preference_row(line: dict[str, Any]) -> dict[str, Any]:
    """Return the row of preferences of a label, with the probability of the chosen side."""
    label = line["label"]
    won, lost = (line["a"], line["b"]) if label > 0.5 else (line["b"], line["a"])
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (won, lost))
    return {
        "prompt": as_messages(line["prompt"]),
        "chosen": chosen,
        "rejected": rejected,
        "chosen_probability": max(label, 1 - label),
    }


def check_answers(answers: Iterable[float | None]) -> None:
    """Raise `RunFailed` if a judge answered none of several questions.

    A judge may fail now and then; one that never answers gives nothing to train on.
    """
    found = list(answers)
    if found and all(answer is None for answer in found):
        raise RunFailed(
            f"the judge gave no usable answer to any of {len(found)} questions",
            hint="does the model follow instructions, and does the question fit its context? "
            "`alignzoo judge` shows its answers to pairs",
        )


def nan_to_none(probability: float) -> float | None:
    """Return the number for JSON, which has no NaN."""
    return probability if probability == probability else None

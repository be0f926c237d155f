"""Constitutional AI, the supervised stage: Bai et al. 2022."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge

from alignzoo import Batch, Example, Loss, Prompts, Rounds, Run, collate, hookimpl
from alignzoo.data import template_values
from alignzoo.options import Alias
from alignzoo.rollout import complete
from alignzoo_judges import (
    Constitution,
    Judge,
    as_messages,
    check_judge,
    keep_journal,
    read_principles,
    resolve_judge,
)
from alignzoo_zoo.constitutional.critique import revise


@dataclass(eq=False)
class Constitutional:
    """Constitutional AI: fine-tune on own revised answers (https://arxiv.org/abs/2212.08073)"""

    principles: Annotated[str | None, "YAML file of principles [default: the shipped one]"] = None
    critic: Annotated[
        str, "model that criticises and revises: self (the base), a model, a run or a server's URL"
    ] = "self"
    revisions: Annotated[int, "critiques and revisions per answer", Ge(1)] = 4
    critique: Annotated[bool, "criticise before revising"] = True
    learn: Annotated[
        Literal["last", "all"], "train on the last revision of an answer, or on all of them"
    ] = "last"
    iterations: Annotated[int, "passes over the revisions of a round", Ge(1), Alias("passes")] = 1

    constitution: Constitution = field(init=False)
    loaded_critic: Judge | None = field(default=None, init=False)

    data = Prompts
    known_exceptions = {
        "temperature": "revisions are imitated as demonstrations are, at temperature 1"
    }
    learning_rate = 5e-4  # as in sft, which has the same loss

    def __post_init__(self) -> None:
        check_judge(self.critic)
        self.constitution = read_principles(self.principles)

    @property
    def rounds(self) -> Rounds:
        """Return rounds of the whole data: answer it, revise the answers, train on them."""
        return Rounds(rows="all", iterations=self.iterations)

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Load the critic, and record the principles."""
        self.constitution.record(run)
        self.loaded_critic = resolve_judge(self.critic, run=run, task=run.task)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Return the prompts with the revisions of the policy's own answers."""
        lines = keep_journal(
            run, "revisions", rows, lambda part, start: self.lines(run, part, start)
        )
        last = [line["steps"][-1]["revision"] for line in lines]
        changed = [line["draft"] != text for line, text in zip(lines, last, strict=True)]
        run.log_mean(
            {
                "revisions/changed": torch.tensor(changed).float(),
                "revisions/empty": torch.tensor([not text for text in last]).float(),
            }
        )
        return collate(
            [
                replace(
                    row,
                    completions=[
                        run.codec.completion(row.row["prompt"], text, template_values(row.row))
                        for text in texts
                    ],
                )
                for row, line in zip(rows, lines, strict=True)
                if (texts := self.training_texts(line))
            ]
        )

    def training_texts(self, line: dict[str, Any]) -> list[str]:
        """Return the revisions of an answer that are trained on, empty ones left out."""
        revisions = [step["revision"] for step in line["steps"] if step["revision"]]
        return revisions if self.learn == "all" else revisions[-1:]

    def lines(self, run: Run, rows: Sequence[Example], start: int) -> list[dict[str, Any]]:
        """Answer prompts and revise the answers. Return their lines of revisions.jsonl."""
        assert self.loaded_critic is not None  # alignzoo_start loaded it
        critic, examples = self.loaded_critic, self.constitution.example_messages
        prompts = [as_messages(row.row["prompt"]) for row in rows]
        drafts = [
            run.codec.decode(group[0].tokens)
            for group in complete(run, rows, 1, f"drafts from {start}")
        ]
        answers, revisions = drafts, []
        for n in range(self.revisions):
            principles = self.constitution.draw(run, "revision", n, start, len(rows))
            revisions.append(
                revise(
                    prompts,
                    answers,
                    principles,
                    lambda dialogues: critic.write(dialogues, run.recipe.max_new_tokens),
                    critique=self.critique,
                    examples=examples,
                )
            )
            answers = [revision.revision for revision in revisions[-1]]
        return [
            {
                "prompt": row.row["prompt"],
                "draft": draft,
                "steps": [asdict(step[b]) for step in revisions],
            }
            for b, (row, draft) in enumerate(zip(rows, drafts, strict=True))
        ]

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return -log pi of each token of the revisions."""
        return Loss.per_token(-run.policy(batch).logprobs, batch.mask)

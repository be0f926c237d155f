"""Self-distillation: OPSD (Zhao et al.), SDFT (Shenfeld et al.), SDPO (Huebotter et al.), 2026."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch.nn.utils.rnn import pad_sequence

from alignzoo import (
    BadInput,
    Batch,
    Demonstrations,
    Example,
    Needs,
    Prompts,
    Run,
    View,
    hookimpl,
)
from alignzoo.data import template_values
from alignzoo.rollout import complete, log_completions, with_rewards
from alignzoo_zoo.distill.algorithm import Distill
from alignzoo_zoo.self_distill.context import PLACES, privileged_prompt, text_of
from alignzoo_zoo.self_distill.siblings import show_siblings

SIBLING = "sibling"  # as --privilege: a successful completion of the same prompt
GROUP_SIZE, SUCCESS = 8, 1.0  # with it


@dataclass(eq=False)
class SelfDistill(Distill):
    """Self-distillation: learn what the model itself says when it has seen the answer"""

    beta: Annotated[
        float,
        "which divergence: 0 is KL(teacher || policy), 1 KL(policy || teacher), between them the "
        "generalized Jensen-Shannon divergence",
        Ge(0),
        Le(1),
    ] = 0.5
    on_policy: float = field(default=1.0, init=False)  # all completions are the policy's
    privilege: Annotated[
        str,
        "column that only the teacher sees: the answer, a demonstration, or feedback; sibling: a "
        "successful completion of the same prompt by the policy",
    ] = "completion"
    group_size: Annotated[
        int | None,
        f"completions per prompt, with --privilege sibling [default: {GROUP_SIZE}]",
        Ge(2),
    ] = None
    success: Annotated[
        float | None,
        f"least reward of a completion that its siblings are shown [default: {SUCCESS:g}]",
        Ge(-1e18),
        Le(1e18),
    ] = None
    template: Annotated[
        str, "what the teacher is asked, with {prompt} and {privilege} in their places"
    ] = "{prompt}\n\nHere is a good answer:\n\n{privilege}\n\nNow answer yourself."
    teacher_rate: Annotated[
        float,
        "how far the teacher moves to the policy in each step: 0 stays the base, 1 is the policy, "
        "between them a moving average",
        Ge(0),
        Le(1),
    ] = 0.0
    data: type[View] = field(default=Demonstrations, init=False)

    defaults = {"teacher": "base"}
    check_with = ({"privilege": SIBLING},)

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """Ask for a teacher, and for a reference that can be mixed if it moves part of the way."""
        return Needs(teacher=True, mixed_reference=0 < self.teacher_rate < 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.data = Prompts if self.shows_siblings else Demonstrations
        if not self.shows_siblings:
            for name in ("group_size", "success"):
                if getattr(self, name) is not None:
                    flag = name.replace("_", "-")
                    raise BadInput(f"option --{flag}: only --privilege {SIBLING} reads it")
        self.group_size = (self.group_size or GROUP_SIZE) if self.shows_siblings else 1
        self.success = SUCCESS if self.success is None else self.success
        for place in PLACES:
            if place not in self.template:
                raise BadInput(f"option --template: it does not say where {place} stands")

    @property
    def shows_siblings(self) -> bool:
        """Return whether the privilege is a completion of the same prompt."""
        return self.privilege == SIBLING

    @property
    def reads_rewards(self) -> bool:
        """Return whether rewards say which completions are successful."""
        return self.shows_siblings

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Refuse a recipe without effect, and rows without the privileged column."""
        self.check_recipe(recipe, data)
        if self.teacher_rate and recipe.teacher != "base":
            raise BadInput(
                "option --teacher-rate: only a teacher that begins as the policy can follow it",
                hint="leave it or --teacher out",
            )
        if self.shows_siblings:
            if recipe.temperature == 0:
                raise BadInput("option --temperature: at 0 all completions of a prompt are one")
            return
        for example in [*data.train, *data.test]:
            if not text_of(example.row.get(self.privilege)):
                columns = ", ".join(example.row)
                raise BadInput(
                    f"option --privilege: a row has no text in the column {self.privilege!r}; its "
                    f"columns are {columns}",
                    hint="name one that every row has",
                )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Refuse prompts of the teacher that the model has no positions for, and no reward."""
        if self.shows_siblings and not run.reward_weights:
            raise BadInput(
                f"option --privilege {SIBLING}: nothing says which completions are successful",
                hint="add a --reward",
            )
        positions = run.model.positions
        if positions is None:
            return
        rows = [example.row for example in run.data.train]
        if self.shows_siblings:
            rows = [row | {SIBLING: ""} for row in rows]
        longest = max(len(self.prompt_of(run, row)) for row in rows)
        longest += run.recipe.max_new_tokens * self.shows_siblings
        if longest + run.recipe.max_new_tokens > positions:
            raise BadInput(
                f"option --privilege: with it the longest prompt has {longest} tokens, and "
                f"the model has {positions} positions for that and {run.recipe.max_new_tokens} new",
                hint="lower --max-new-tokens, or leave long rows out",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Complete each prompt; of several completions, keep those with a successful sibling."""
        if not self.shows_siblings:
            return super().alignzoo_sample(run, rows)
        assert self.group_size is not None and self.success is not None  # set when it was made
        batch = with_rewards(run, rows, complete(run, rows, self.group_size))
        log_completions(run, batch)
        shown = show_siblings(batch, run.texts(batch), self.success, SIBLING)
        kept = torch.zeros(len(batch.tokens))
        kept[: len(shown.tokens)] = 1.0  # whose mean is the fraction that is kept
        run.log_mean({"self-distill/shown": kept})
        return shown

    @hookimpl
    def alignzoo_step(self, run: Run, step: int, metrics: dict[str, float]) -> None:
        """Move the teacher."""
        if self.teacher_rate:
            run.move_reference(self.teacher_rate)

    def seen_by_teacher(self, run: Run, batch: Batch) -> Batch:
        """Return the same completions after prompts with the privileged text."""
        prompts = [torch.tensor(self.prompt_of(run, row)) for row in batch.rows]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        return replace(
            batch,
            prompts=pad_sequence(prompts, batch_first=True).to(batch.prompts.device),
            prompt_lengths=lengths.to(batch.prompts.device),
        )

    def prompt_of(self, run: Run, row: dict[str, Any]) -> list[int]:
        """Return the token ids of the prompt that the teacher sees."""
        prompt = privileged_prompt(row["prompt"], text_of(row[self.privilege]), self.template)
        return run.codec.prompt(prompt, template_values(row))

"""Self-Play Preference Optimization (SPPO), Wu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Loss, Needs, OnPolicy, Run, hookimpl
from alignzoo.functional import label_metrics
from alignzoo.rollout import batch_completions, complete, log_completions, with_rewards
from alignzoo_judges import COMPARISON_QUESTION, Judge, check_judge, resolve_judge, win_rates
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs
from alignzoo_zoo.sppo.losses import bradley_terry_win_rates, sppo_loss

WON = "win_rate"  # a column: how often a completion is preferred to the others of its prompt, [N]


@dataclass(eq=False)
class SPPO(OnPolicy):
    """Self-play: each completion as likely as it wins against one's own (https://arxiv.org/abs/2405.00675)"""

    beta: ClassVar[float] = 0.0  # the opponent is the only reference
    group_size: Annotated[int, "completions per prompt, each compared with all others", Ge(2)] = 5
    round_prompts: Annotated[
        int, "prompts per round, in steps of --batch-size (0: one step's)", Ge(0)
    ] = 512
    eta: Annotated[float, "the step: a sure win is asked for eta / 2 nats more", Gt(0)] = 10.0
    judge: Annotated[
        str | None, "who compares: self, policy, gold, a model or run, a server; else the rewards"
    ] = None
    question: Annotated[str, "what the judge is asked of two"] = COMPARISON_QUESTION
    scale: Annotated[float, "of rewards: P = sigmoid(scale (r - r'))", Gt(0)] = 1.0

    needs = Needs()
    progress_metric = "rewards/accuracies"

    asked: Judge | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.judge is not None:
            check_judge(self.judge)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        super().alignzoo_check(recipe=recipe)
        if self.judge is not None and recipe.reward:
            raise BadInput(
                "option --judge: the judge says who wins, and no --reward is asked",
                hint="name one of them",
            )
        if self.judge is None and not recipe.reward and recipe.task is None:
            raise BadInput(
                "sppo learns from who wins, and nobody says it",
                hint="add --judge J, or --reward NAME, or a --task that judges by itself",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        if self.judge is not None:
            self.asked = resolve_judge(self.judge, run=run, task=run.task)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Completions of the policy as it stands, and how often each is preferred to the others."""
        groups = complete(run, rows, self.group_size)
        if self.asked is None:
            batch = with_rewards(run, rows, groups)
            rewards = batch.groups(batch["rewards"])
            batch.columns[WON] = bradley_terry_win_rates(rewards, self.scale).flatten()
        else:
            batch = batch_completions(rows, groups)
            batch.columns[WON] = batch.columns["rewards"] = self.asked_about(run, batch)
        log_completions(run, batch)
        batch = batch.keep(~batch[WON].isnan())
        batch.columns[OPPONENT] = opponent_logprobs(run, batch, run.temperature)
        return batch

    def asked_about(self, run: Run, batch: Batch) -> Tensor:
        """The judge's win rates, `[N]`; NaN where it gave no answer."""
        assert self.asked is not None
        groups = batch.grouped(run.texts(batch))
        return torch.tensor(win_rates(self.asked, batch.rows, groups, self.question)).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """A square per completion."""
        policy = self.policy(run, batch, entropy=True)
        log_ratio = batch.total(policy.logprobs - batch[OPPONENT])
        loss = sppo_loss(log_ratio, batch[WON], self.eta)
        won, lost = batch[WON] > 0.5, batch[WON] < 0.5
        decided = won | lost
        metrics = label_metrics(
            log_ratio[decided] / self.eta, batch.total(policy.logprobs)[decided], won[decided]
        )
        metrics["rewards/accuracies"] = (log_ratio > 0)[decided] == won[decided]
        return Loss.per_sequence(loss, metrics | {"entropy": policy.entropy[batch.mask]})

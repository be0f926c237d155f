"""Self-Play Preference Optimization (SPPO), Wu et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from alignzoo import BadInput, Batch, Example, Loss, Needs, OnPolicy, RoundPrompts, Run, hookimpl
from alignzoo.functional import label_metrics
from alignzoo.rollout import batch_completions, complete, log_completions, with_rewards
from alignzoo_judges import COMPARISON_QUESTION, Judge, check_judge, resolve_judge, win_rates
from alignzoo_zoo.opponent import OPPONENT, opponent_logprobs
from alignzoo_zoo.sppo.losses import bradley_terry_win_rates, sppo_loss

WIN_RATE = "win_rate"  # a column: P(better than another completion of the prompt), [N]


@dataclass(eq=False)
class SPPO(OnPolicy):
    """Self-play by win rates against own completions (https://arxiv.org/abs/2405.00675)"""

    beta: float = field(default=0.0, init=False)  # the opponent is the only reference
    group_size: Annotated[
        int, "completions per prompt, each compared with all the others", Ge(2)
    ] = 5
    round_prompts: RoundPrompts = 512
    eta: Annotated[float, "step size: a certain win has a target of eta / 2 nats", Gt(0)] = 10.0
    judge: Annotated[
        str | None,
        "judge of pairs: self, policy, gold, a model, a run or a server [default: the rewards]",
    ] = None
    question: Annotated[str, "question to the judge about each pair"] = COMPARISON_QUESTION
    scale: Annotated[float, "reward scale in P = sigmoid(scale (r - r'))", Gt(0)] = 1.0

    needs = Needs()
    progress_metric = "rewards/accuracies"

    loaded_judge: Judge | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.judge is not None:
            check_judge(self.judge)

    @hookimpl
    def alignzoo_check(self, recipe: Any) -> None:
        """Refuse greedy sampling, two preference signals, and none."""
        super().alignzoo_check(recipe=recipe)
        if self.judge is not None and recipe.reward:
            raise BadInput(
                "option --judge: with a judge, sppo does not read --reward",
                hint="use one of them",
            )
        if self.judge is None and not recipe.reward and recipe.task is None:
            raise BadInput(
                "sppo needs a preference signal",
                hint="add --judge J, --reward NAME, or a --task that scores completions",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        """Load the judge, if there is one."""
        if self.judge is not None:
            self.loaded_judge = resolve_judge(self.judge, run=run, task=run.task)

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Sample completions of the current policy, and add their win rates."""
        groups = complete(run, rows, self.group_size)
        if self.loaded_judge is None:
            batch = with_rewards(run, rows, groups)
            rewards = batch.groups(batch["rewards"])
            batch.columns[WIN_RATE] = bradley_terry_win_rates(rewards, self.scale).flatten()
        else:
            batch = batch_completions(rows, groups)
            batch.columns[WIN_RATE] = batch.columns["rewards"] = self.judged_win_rates(run, batch)
        log_completions(run, batch)
        batch = batch.keep(~batch[WIN_RATE].isnan())
        batch.columns[OPPONENT] = opponent_logprobs(run, batch, run.temperature)
        return batch

    def judged_win_rates(self, run: Run, batch: Batch) -> Tensor:
        """Return the win rates by the judge, `[N]`; NaN if it gave no answer."""
        assert self.loaded_judge is not None  # alignzoo_start loaded it
        groups = batch.grouped(run.texts(batch))
        return torch.tensor(
            win_rates(self.loaded_judge, batch.rows, groups, self.question)
        ).flatten()

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return one squared error per completion."""
        policy = self.policy(run, batch, entropy=True)
        log_ratio = batch.total(policy.logprobs - batch[OPPONENT])  # (N,)
        loss = sppo_loss(log_ratio, batch[WIN_RATE], self.eta)
        won, lost = batch[WIN_RATE] > 0.5, batch[WIN_RATE] < 0.5
        decided = won | lost
        metrics = label_metrics(
            log_ratio[decided] / self.eta, batch.total(policy.logprobs)[decided], won[decided]
        )
        right = torch.where(won, log_ratio > 0, log_ratio < 0)  # a tie is not accurate
        metrics["rewards/accuracies"] = right[decided]
        return Loss.per_sequence(loss, metrics | {"entropy": policy.entropy[batch.mask]})

"""Distillation on own completions and on those of the data: GKD, Agarwal et al. 2024."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from alignzoo import (
    BadInput,
    Batch,
    Demonstrations,
    Example,
    Loss,
    Needs,
    Prompts,
    Run,
    View,
    collate,
    concat,
    hookimpl,
)
from alignzoo.functional import importance_weights, kl_estimate
from alignzoo.options import refuse_unread
from alignzoo.policy import top_k_jsd
from alignzoo.remote import is_url
from alignzoo.rollout import batch_completions, complete

MEAN_LENGTH, CLIPPED = "completions/mean_length", "completions/clipped_ratio"


@dataclass(eq=False)
class Distill:
    """Distillation: learn a teacher's probabilities (https://arxiv.org/abs/2306.13649)"""

    loss_type: Annotated[
        Literal["jsd", "sampled"],
        "divergence from the teacher over the whole vocabulary, or the reverse KL estimated from "
        "the sampled tokens alone",
    ] = "jsd"
    beta: Annotated[
        float,
        "which divergence: 0 is KL(teacher || policy), 1 KL(policy || teacher), between them the "
        "generalized Jensen-Shannon divergence",
        Ge(0),
        Le(1),
    ] = 1.0
    teacher_top_k: Annotated[
        int,
        "the teacher's likeliest tokens that the divergence is computed on, with the rest as one "
        "outcome (0: the whole vocabulary)",
        Ge(0),
    ] = 0
    on_policy: Annotated[
        float,
        "share of the rows whose prompts the policy completes; of the others, the completion in "
        "the data is learned from",
        Ge(0),
        Le(1),
    ] = 1.0
    data: type[View] = field(default=Demonstrations, init=False)
    needs = Needs(teacher=True)
    learning_rate = 1e-4

    def __post_init__(self) -> None:
        refuse_unread(self, "loss_type", {"jsd": ("beta", "teacher_top_k"), "sampled": ()})
        if self.loss_type == "sampled" and self.on_policy < 1:
            raise BadInput(
                "option --on-policy: --loss-type sampled estimates from tokens of the policy",
                hint="leave it out, or use --loss-type jsd",
            )
        self.data = Prompts if self.on_policy == 1 else Demonstrations

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Refuse a recipe with nothing to learn, or with settings that have no effect."""
        if recipe.teacher == "base":
            raise BadInput(
                "option --teacher: the base is what the policy is at the start, so that there is "
                "nothing to learn from it",
                hint="name another model, or use self-distill",
            )
        self.check_recipe(recipe, data)

    def check_recipe(self, recipe: Any, data: Any) -> None:
        """Raise `BadInput` for settings that have no effect, and for prompts that are too long."""
        if recipe.reward and not self.reads_rewards:
            raise BadInput(f"option --reward: {recipe.algorithm} does not learn from rewards")
        if is_url(recipe.teacher):
            self.check_server(recipe)
        if not self.on_policy and recipe.sampler is not None:
            raise BadInput("option --sampler: with --on-policy 0 no completions are drawn")
        if self.loss_type == "sampled" and recipe.temperature == 0:
            raise BadInput(
                "option --temperature: at 0, tokens are no sample of the policy's probabilities",
                hint="use the default, 1, or --loss-type jsd",
            )
        longest = max((len(example.prompt) for example in data.train), default=0)
        if self.on_policy and longest + recipe.max_new_tokens > recipe.max_length:
            raise BadInput(
                f"option --max-new-tokens: the longest prompt has {longest} tokens, so "
                f"--max-length {recipe.max_length} leaves no room for {recipe.max_new_tokens}",
                hint="raise --max-length, or lower --max-new-tokens",
            )

    def check_server(self, recipe: Any) -> None:
        """Raise `BadInput` for settings that a teacher on a server cannot serve."""
        if self.loss_type == "jsd" and not self.teacher_top_k:
            raise BadInput(
                "option --teacher: a server gives no probabilities of the whole vocabulary",
                hint="add --teacher-top-k 20, for example, or --loss-type sampled",
            )
        if recipe.temperature not in (0.0, 1.0):
            raise BadInput(
                f"option --temperature: a server gives log-probs at temperature 1, not at "
                f"{recipe.temperature}",
                hint="leave it out",
            )

    @hookimpl
    def alignzoo_sample(self, run: Run, rows: list[Example]) -> Batch:
        """Complete the prompts of a share of the rows, and take the others as they are."""
        is_own = self.choose(run, len(rows))
        prompts = list(compress(rows, is_own))
        others = [row for row, drawn in zip(rows, is_own, strict=True) if not drawn]
        groups = complete(run, prompts, 1) if prompts else []
        if self.on_policy:
            completions = [group[0] for group in groups]
            lengths = torch.tensor([float(each.length) for each in completions])
            cut_off = torch.tensor([float(not each.ended) for each in completions])
            run.log_mean({MEAN_LENGTH: lengths, CLIPPED: cut_off})
        if prompts and not others:
            return batch_completions(prompts, groups)
        given = collate(others)
        # Nobody has drawn these, so that they have no log-probs to compare the policy's with.
        given.columns = {"logprobs": torch.full(given.tokens.shape, torch.nan)}
        if not prompts:
            return given
        own_batch = batch_completions(prompts, groups)
        del own_batch.columns["ended"]
        return concat([own_batch, given])

    def choose(self, run: Run, rows: int) -> list[bool]:
        """Return which of this process's rows of a round are completed by the policy."""
        total = sum(run.gather([rows]))
        draw = torch.Generator().manual_seed(run.seed_for("distill", run.round))
        places = torch.randperm(total, generator=draw)
        return run.shard((places < round(self.on_policy * total)).tolist())

    @hookimpl
    def alignzoo_loss(self, run: Run, batch: Batch) -> Loss:
        """Return the divergence from the teacher at each token of a completion."""
        if self.loss_type == "sampled":
            return self.sampled_loss(run, batch)
        seen, wanted = self.seen_by_teacher(run, batch), {"temperature": run.temperature}
        if self.teacher_top_k:
            teacher = run.teacher(seen, top_k=self.teacher_top_k, **wanted)
            policy = run.policy(batch, top_ids=teacher.top_ids, entropy=True, **wanted)
            divergence = top_k_jsd(policy.top_logprobs, teacher.top_logprobs, self.beta)
        else:
            policy = run.divergence(
                batch, beta=self.beta, teacher_batch=seen, entropy=True, **wanted
            )
            divergence = policy.divergence
        return Loss.per_token(divergence, batch.mask, {"entropy": policy.entropy})

    def sampled_loss(self, run: Run, batch: Batch) -> Loss:
        """Return half the squared log-ratio of each sampled token: see the page."""
        seen = self.seen_by_teacher(run, batch)
        teacher = run.teacher(seen, temperature=run.temperature).logprobs
        policy = run.policy(batch, temperature=run.temperature, entropy=True)
        losses = kl_estimate(policy.logprobs, teacher, "k2")
        if run.external_logprobs and run.recipe.importance_cap:
            losses = losses * self.weigh(run, batch, policy.logprobs.detach())
        reverse_kl = kl_estimate(policy.logprobs, teacher, "k1")
        metrics = {"entropy": policy.entropy, "distill/reverse_kl": reverse_kl}
        return Loss.per_token(losses, batch.mask, metrics)

    @property
    def reads_rewards(self) -> bool:
        """Return whether it reads rewards, which a plain distillation does not."""
        return False

    def seen_by_teacher(self, run: Run, batch: Batch) -> Batch:
        """Return the batch as the teacher sees it."""
        return batch

    def weigh(self, run: Run, batch: Batch, logprobs: Tensor) -> Tensor:
        """Return the importance weights of tokens that another program has drawn, `[N, T]`."""
        cap, mode = run.recipe.importance_cap, run.recipe.importance_mode
        return importance_weights(logprobs, batch["logprobs"], cap, mode, batch.mask)

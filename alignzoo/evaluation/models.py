"""Evaluation of a model outside of any run: on tasks, with samples, votes and examples."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alignzoo.data import Codec, read_task_rows
from alignzoo.environments import Environment, load_environment
from alignzoo.errors import BadInput
from alignzoo.evaluation.answers import Answerer
from alignzoo.evaluation.evaluate import measure_task
from alignzoo.evaluation.items import (
    Evaluation,
    EvaluationItem,
    score_items,
    summarise,
    to_estimate,
)
from alignzoo.evaluation.prompts import choose_split, encode_prompts, note_missing_dev
from alignzoo.evaluation.samples import choose_by_vote, pass_at_k, powers_up_to
from alignzoo.evaluation.statistics import Estimate
from alignzoo.named import load_task
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.recipe import Recipe
from alignzoo.rollout import Sampling
from alignzoo.ui import UI


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is evaluated.

    Args:
        split: "dev" or "test".
        limit: number of prompts of each task.
        seed: of the sampling.
        samples: completions of each prompt.
        shots: worked examples before each prompt, from the task's demonstrations.
        environment: in which the prompts are answered, NAME[,OPTION=VALUE...]; by default that of
            the task, if it has one.
        sampling: the recipe's options for sampling by name; others have their default.
    """

    split: str = "dev"
    limit: int = 200
    seed: int = 0
    samples: int = 1
    shots: int = 0
    environment: str | None = None
    sampling: Mapping[str, Any] | None = None


def evaluate_model(
    model: str,
    tasks: Sequence[str],
    settings: EvaluationSettings,
    *,
    trust_remote_code: bool,
    ui: UI,
) -> dict[str, Evaluation]:
    """Evaluate a model, folder or run on tasks, outside of any run; return results by task.

    Raise `BadInput` for a task without prompts, or without the demonstrations that `shots` needs.
    """
    loaded = {name: load_task(name, "--tasks") for name in tasks}
    for name, task in loaded.items():
        check_task(name, task, settings)
    with ui.phase(f"loading {model}"):
        spec = ModelSpec(model, trust_remote_code=trust_remote_code, seed=settings.seed)
        policy = load_policy(spec)
    policy.require_generative()
    policy.eval()
    return {name: evaluate_task(policy, name, task, settings, ui) for name, task in loaded.items()}


def check_task(name: str, task: Any, settings: EvaluationSettings) -> None:
    """Raise `BadInput` if a task cannot be evaluated as the settings say."""
    if hasattr(task, "measure"):
        flag = "--samples" if settings.samples > 1 else "--shots" if settings.shots else None
        if flag is not None:
            raise BadInput(f"option {flag}: task {name!r} has no prompts that are answered")
        return
    if "prompts" not in task.views:
        raise BadInput(f"task {name!r} has no prompts to evaluate on")
    if settings.shots and "demonstrations" not in task.views:
        raise BadInput(f"option --shots: task {name!r} has no demonstrations to show")
    sampling = settings.sampling or {}
    if settings.samples > 1 and sampling.get("temperature") == 0:
        raise BadInput("option --samples: at temperature 0 all samples of a prompt are identical")


def evaluate_task(
    policy: Policy, name: str, task: Any, settings: EvaluationSettings, ui: UI
) -> Evaluation:
    """Evaluate a loaded model on a task."""
    note_missing_dev(task, settings.split, ui)
    split = choose_split(task, settings.split)
    if hasattr(task, "measure"):
        with ui.phase(f"evaluating on {name}"):
            return measure_task(policy, task, split, settings.limit)
    codec = Codec(policy.tokenizer)
    sampling = Sampling.of(Recipe(algorithm="", **(settings.sampling or {})), codec)
    rows = read_task_rows(task, "prompts", split)[: settings.limit]
    shown = add_examples(task, rows, settings.shots)
    prompts = encode_prompts(codec, shown)
    room = (policy.positions or sys.maxsize) - sampling.max_new_tokens
    environment = load_environment_for(task, settings)
    answerer = Answerer(policy, codec, sampling, settings.seed, environment, room)
    found: list[list[EvaluationItem]] = []
    with ui.items(len(rows) * settings.samples, f"evaluating on {name}") as advance:
        for sample in range(settings.samples):
            answers, seeds = answerer.answer(rows, prompts, advance, sample)
            found.append(score_items(policy, codec, task, rows, prompts, answers, sampling, seeds))
    if settings.samples == 1:
        return Evaluation(summarise(found[0], sampling), [item.as_dict() for item in found[0]])
    return Evaluation(
        summarise_samples(task, found, sampling),
        [item.as_dict() | {"sample": n} for n, items in enumerate(found) for item in items],
    )


def load_environment_for(task: Any, settings: EvaluationSettings) -> Environment | None:
    """Return the environment that the settings name, or else the task; None if neither does."""
    named = settings.environment or getattr(task, "environment", None)
    return None if named is None else load_environment(named)


def summarise_samples(
    task: Any, samples: Sequence[Sequence[EvaluationItem]], sampling: Sampling
) -> dict[str, Estimate]:
    """Return the summary of several samples of each prompt, [n][I]; an interval is over prompts.

    `score` and the others are means over the samples of a prompt. `pass@k` is the probability that
    one of k samples has the task's best score. `majority` is the score of the answer that most
    samples give, if the task reads answers (`answer(completion)`).
    """
    summaries = [summarise(items, sampling) for items in samples]
    by_item = list(zip(*samples, strict=True))
    scores = [[item.score or 0.0 for item in items] for items in by_item]
    summary = {"score": to_estimate([fmean(values) for values in scores])}
    right = [sum(score >= task.best for score in values) for values in scores]
    for k in powers_up_to(len(samples)):
        summary[f"pass@{k}"] = to_estimate([pass_at_k(n, len(samples), k) for n in right])
    if hasattr(task, "answer"):
        votes = [choose_by_vote([task.answer(item.completion) for item in i]) for i in by_item]
        chosen = [values[vote] for values, vote in zip(scores, votes, strict=True)]
        summary["majority"] = to_estimate(chosen)
    for name in summaries[0]:
        if name != "score":
            summary[name] = Estimate(fmean(one[name].mean for one in summaries if name in one))
    return summary


def add_examples(task: Any, rows: Sequence[dict[str, Any]], shots: int) -> list[dict[str, Any]]:
    """Return rows whose prompts begin with so many demonstrations of the task, as a dialogue.

    All prompts have the same ones, the first of the training split that have messages. Raise
    `BadInput` if there are not enough.
    """
    if not shots:
        return list(rows)
    demonstrations = read_task_rows(task, "demonstrations", "train")[:shots]
    if len(demonstrations) < shots:
        raise BadInput(f"option --shots: the task has {len(demonstrations)} demonstrations")
    turns: list[dict[str, Any]] = []
    for row in demonstrations:
        turns += as_turns(row["prompt"], "user") + as_turns(row["completion"], "assistant")
    return [row | {"prompt": turns + as_turns(row["prompt"], "user")} for row in rows]


def as_turns(content: Any, role: str) -> list[dict[str, Any]]:
    """Return a text as one message of a role; messages stay as they are."""
    return [{"role": role, "content": content}] if isinstance(content, str) else list(content)

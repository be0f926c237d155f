"""Held-out prompts of a run, with its own model's answers to them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from alignzoo import BadInput, Example, ModelSpec, collate, load_policy, load_task
from alignzoo.data import Codec, Content, dev_split, read_task_rows, score_by_task, template_values
from alignzoo.evaluation import Estimate, mean_with_interval
from alignzoo.files import read_lines
from alignzoo.policy import Policy, locate_model
from alignzoo.recipe import Recipe, find_code, resolve
from alignzoo.record import read_run
from alignzoo.rollout import Sampling, generate
from alignzoo.ui import UI

SAMPLING = "max_new_tokens temperature top_k top_p min_p stop_text".split()
# Texts on which tokenizers part ways: digits, runs of spaces, apostrophes, other scripts, code.
PROBES = (
    "In 1969, 600 million people - about 15.5% - watched it live; didn't they?",
    "def f(x):\n    return  x**2\t# two  spaces,\n\n\n  and   three",
    "Größe, naïve, Ω≈ç√, 你好 世界, مرحبا, 👩‍🚀🚀",
)


@dataclass(frozen=True)
class Item:
    """A prompt, and one answer of the run's model to it.

    Attributes:
        prompt: text, or messages.
        values: variables of the chat template beside the messages.
        row: the row of the task, None if the answer is not scored.
        ids: the tokens of the prompt.
        answer: the tokens of the answer.
        logprobs: the log-prob (nats) of each token of the answer.
    """

    prompt: Content
    values: Mapping[str, Any]
    row: dict[str, Any] | None
    ids: list[int]
    answer: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Reference:
    """What an export is compared with: items, the run's codec, and how its answers are sampled.

    `four_bit_gap` is the mean change of a token's log-prob, in nats, from the model that was
    trained in 4 bits to the same adapters on the base in full precision, which answered; None if
    the run was not trained in 4 bits.
    """

    items: list[Item]
    codec: Codec
    sampling: Sampling
    task: Any | None
    four_bit_gap: float | None = None

    def score(self, answers: Sequence[Sequence[int]]) -> Estimate | None:
        """Return the task's score of answers to the items, with its interval; None if unscored."""
        scored = [
            score_by_task(self.task, item.row, self.codec.decode(answer))
            for item, answer in zip(self.items, answers, strict=True)
            if item.row is not None
        ]
        return mean_with_interval(scored) if scored else None

    def with_logprobs(self, logprobs: Sequence[list[float]]) -> Reference:
        """Return this reference with the log-probs of another model, that the next is made from."""
        items = [replace(i, logprobs=lp) for i, lp in zip(self.items, logprobs, strict=True)]
        return replace(self, items=items)


def make_reference(
    run: Path, count: int, *, device: torch.device, trust_remote_code: bool, ui: UI
) -> Reference:
    """Answer held-out prompts of a run, at most `count`, by its own model as its evaluation does.

    A model that was trained on 4 bits answers in full precision, as what is exported does.
    Raise `BadInput` if its model answers no prompts.
    """
    recipe = read_run(run)["recipe"]
    task, rows = held_out_rows(run, recipe, ui)
    spec = ModelSpec(
        str(run),
        precision="fp32",
        full_precision=True,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    policy = load_policy(spec)
    policy.require_generative()
    policy.eval()
    codec = Codec(policy.tokenizer)
    sampling = Sampling.of(how_it_samples(recipe), codec)
    room = (policy.positions or sys.maxsize) - sampling.max_new_tokens
    encoded = [(row, codec.prompt(row["prompt"], template_values(row))) for row in rows]
    chosen = [(row, ids) for row, ids in encoded if len(ids) <= room][:count]
    if not chosen:
        raise BadInput("no held-out prompt leaves room for an answer", where=str(run))
    prompts = [ids for _, ids in chosen]
    with ui.items(len(prompts), "answering held-out prompts") as advance:
        seeds = range(len(prompts))
        drawn = generate(policy, prompts, seeds, sampling, advance=advance)
    answers = [completion.tokens for completion in drawn]
    logprobs = score_answers(policy, prompts, answers)
    items = [
        Item(
            prompt=row["prompt"],
            values=template_values(row),
            row=row if task is not None else None,
            ids=ids,
            answer=answer,
            logprobs=scores,
        )
        for (row, ids), answer, scores in zip(chosen, answers, logprobs, strict=True)
    ]
    gap = None
    if locate_model(str(run)).four_bit:
        del policy  # one model at a time
        trained = load_policy(replace(spec, full_precision=False))
        gap = mean_gap(score_answers(trained, prompts, answers), logprobs)
    return Reference(items, codec, sampling, task, gap)


def mean_gap(some: Sequence[list[float]], others: Sequence[list[float]]) -> float:
    """Return the mean absolute difference of the log-probs of tokens."""
    return fmean(
        abs(a - b) for pair in zip(some, others, strict=True) for a, b in zip(*pair, strict=True)
    )


def how_it_samples(recipe: Mapping[str, Any]) -> Recipe:
    """Return a recipe that samples as a stored one; raise `BadInput` for a value that is wrong."""
    kept = ("algorithm", "model", *SAMPLING)
    return resolve({name: recipe[name] for name in kept if name in recipe})


def held_out_rows(
    run: Path, recipe: Mapping[str, Any], ui: UI
) -> tuple[Any | None, list[dict[str, Any]]]:
    """Return the task of a run, and the held-out rows that its evaluation answered.

    The folder of a run is data: a task that is a Python file is not run. Without an installed task
    the prompts are those in `evals.jsonl`, or else `PROBES`, and no answer is scored.
    """
    name = recipe.get("task")
    if name is not None and find_code({"task": name}):
        ui.note(f"the run's task is a Python file, {name}: answers are not scored")
    elif name is not None:
        task = load_task(name, "the run's task")
        if "prompts" in task.views and hasattr(task, "score"):
            split = recipe.get("eval_split", "dev")
            rows = read_task_rows(task, "prompts", dev_split(task) if split == "dev" else split)
            return task, [row for row in rows if not is_begun(row["prompt"])]
    texts = [row["prompt"] for row in read_lines(run / "evals.jsonl") if row.get("prompt")]
    return None, [as_row(text) for text in dict.fromkeys(texts) or PROBES]


def is_begun(prompt: Content) -> bool:
    """Return True if the last message of a prompt is the beginning of the answer."""
    return not isinstance(prompt, str) and prompt[-1]["role"] == "assistant"


def as_row(text: str) -> dict[str, Any]:
    """Return a row whose prompt is a question of the user's."""
    return {"prompt": [{"role": "user", "content": text}]}


@torch.no_grad()
def score_answers(
    policy: Policy, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> list[list[float]]:
    """Return the log-prob (nats) of each token of each answer, at temperature 1."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        batch = collate([Example(prompt, [answer])]).to(policy.device)
        found.append(policy(batch).logprobs[0].tolist())
    return found

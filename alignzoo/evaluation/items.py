"""The items of an evaluation, one for each prompt, and the estimates over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from alignzoo.batch import Example, collate
from alignzoo.data import Codec, join_turns, place_in_task, score_by_task, split_turns
from alignzoo.evaluation.answers import score_of_episode
from alignzoo.evaluation.statistics import Estimate, mean_with_interval
from alignzoo.faults import Blame
from alignzoo.policy import Policy
from alignzoo.reserved import ESTIMATES
from alignzoo.rollout import Completion, Sampling

MICRO_ROWS = 32  # completions in one forward pass of the base model


@dataclass(frozen=True)
class EvaluationItem:
    """One prompt of an evaluation and the model's completion of it.

    Attributes:
        item: position of the prompt among the evaluated ones, from 0.
        prompt: the prompt as text; of a dialogue, its last turn.
        completion: the completion as text.
        score: the task's score of the completion, or the sum of the rewards of an episode; None
            without a task and an environment.
        length: tokens in the completion that the model wrote, the EOS included.
        ended: the completion ended by itself, not by the limit on its length.
        logprob: log-prob (nats) of the completion under the model as it was sampled.
        ref_logprob: log-prob (nats) of the completion under the model before training; None if
            the model has no base.
        seed: the seed by which it was sampled; None if a plugin gave the completion.
        measures: the task's other measures that apply to this prompt, by name.
        turns: of an episode, who wrote each turn and what it says; None of any other completion.
    """

    item: int
    prompt: str
    completion: str
    score: float | None
    length: int
    ended: bool
    logprob: float
    ref_logprob: float | None
    seed: int | None
    measures: dict[str, float] = field(default_factory=dict)
    turns: list[tuple[str, str]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as a row of `evals.jsonl` has them."""
        return {name: x for name, x in asdict(self).items() if name != "turns" or x is not None}


@dataclass
class Evaluation:
    """Estimates by name, in the order in which they are shown, and the items behind them."""

    summary: dict[str, Estimate] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)


def score_items(
    policy: Policy,
    codec: Codec,
    task: Any | None,
    rows: Sequence[dict[str, Any]],
    prompts: Sequence[list[int]],
    completions: Sequence[Completion],
    sampling: Sampling,
    seeds: Sequence[int] | None,
) -> list[EvaluationItem]:
    """Return an item per row: its completion with its score and the base's log-prob.

    The score is the task's, or that of an episode. `seeds` are those that the completions were
    sampled by, None for completions by a plugin.
    """
    examples = [
        Example(completion.prompt or prompt, [completion.tokens], [completion.written])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    base = compute_base_logprobs(policy, examples, sampling.temperature or 1.0)
    items = []
    for index, (row, completion) in enumerate(zip(rows, completions, strict=True)):
        score, turns = score_of_episode(completion), None
        if score is None:
            text = codec.decode(completion.tokens)
            score = score_by_task(task, row, text) if task is not None else None
        else:
            turns = split_turns(codec, completion.tokens, completion.written)
            text = join_turns(turns)
        items.append(
            EvaluationItem(
                item=index,
                prompt=prompt_text(row["prompt"]),
                completion=text,
                score=score,
                length=completion.length,
                ended=completion.ended,
                logprob=completion.logprob,
                ref_logprob=base[index] if base else None,
                seed=None if seeds is None else seeds[index],
                measures=measure_by_task(task, row, text) if task is not None else {},
                turns=turns,
            )
        )
    return items


@torch.no_grad()
def compute_base_logprobs(
    policy: Policy, examples: list[Example], temperature: float = 1.0
) -> list[float] | None:
    """Return each completion's log-prob (nats), over its mask, under the model before training.

    Return None if the model has no base.
    """
    if not policy.has_base:
        return None
    found: list[float] = []
    # In slices: memory must not grow with the number of items.
    for start in range(0, len(examples), MICRO_ROWS):
        part = examples[start : start + MICRO_ROWS]
        batch = collate(part).to(policy.device)
        with policy.base():
            found += batch.total(policy(batch, temperature=temperature).logprobs).tolist()
    return found


def gap_to_base(items: Sequence[EvaluationItem]) -> float:
    """Return the mean difference of the model's and the base's log-prob, in nats per token."""
    apart = sum(abs(item.logprob - (item.ref_logprob or 0.0)) for item in items)
    return apart / max(sum(item.length for item in items), 1)


def to_estimate(value: float | Sequence[float]) -> Estimate:
    """Return one number as it is, and one number per item as their mean with its interval.

    The mean is NaN if one of the numbers is not finite, or their squares overflow.
    """
    if not isinstance(value, Sequence):
        return Estimate(value)
    if not all(map(math.isfinite, value)):
        return Estimate(math.nan, n=len(value))
    try:
        return mean_with_interval(value)
    except OverflowError:
        return Estimate(math.nan, n=len(value))


def summarise(items: Sequence[EvaluationItem], sampling: Sampling) -> dict[str, Estimate]:
    """Return score, KL to the base, length, share ended and measures, each with its interval.

    The KL is the mean of log p(y) - log base(y) over completions y drawn from p. That is right only
    if they were drawn from p unchanged, so it is left out for any other sampling.
    """
    measured = [list_measures(item.as_dict()) for item in items]
    names = ["score", *(["kl"] if sampling.unchanged else []), "length", "ended"]
    names += sorted({name for item in items for name in item.measures})
    # A measure is the mean over the items that it applies to.
    columns = {name: [found[name] for found in measured if name in found] for name in names}
    return {name: to_estimate(values) for name, values in columns.items() if values}


def compare_evaluations(before: Evaluation, after: Evaluation) -> dict[str, Estimate]:
    """Return the change of each estimate that both evaluations have.

    What is measured item by item is compared on the same items: the interval is that of the mean of
    the paired differences, which two separate intervals would hide.
    """
    earlier = {item["item"]: list_measures(item) for item in before.items}
    pairs = [
        (earlier[item["item"]], list_measures(item))
        for item in after.items
        if item["item"] in earlier
    ]
    changes = {}
    for name, new in after.summary.items():
        if name not in before.summary:
            continue
        found = [b[name] - a[name] for a, b in pairs if name in a and name in b]
        paired = len(found) > 1
        changes[name] = (
            to_estimate(found) if paired else Estimate(new.mean - before.summary[name].mean)
        )
    return changes


def measure_by_task(task: Any, row: dict[str, Any], text: str) -> dict[str, float]:
    """Return the task's further measures of a completion.

    Raise `RunFailed` if one is not a number, or has the name of one of the core's.
    """
    if not hasattr(task, "measures"):
        return {}
    place = place_in_task(task, task.measures)
    with Blame(place):
        found: dict[str, float] = task.measures(row, text)
    for name, value in found.items():
        if ESTIMATES.fullmatch(name):
            raise place.fail(f"gave {name!r}, which is the core's own", hint="use another name")
        if not isinstance(value, int | float):
            raise place.fail(f"gave {value!r} as {name!r}, which is not a number")
    return found


def list_measures(item: Mapping[str, Any]) -> dict[str, float]:
    """Return what was measured of an item, by the names of the summary."""
    found = {"score": item["score"], "length": item["length"], "ended": float(item["ended"])}
    if item["ref_logprob"] is not None:
        found["kl"] = item["logprob"] - item["ref_logprob"]
    return {name: x for name, x in {**found, **item["measures"]}.items() if x is not None}


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """Return a prompt as a person reads it: the text, or the last turn of a dialogue."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]

"""Evaluation: the algorithm's own loss on held-out rows, and completions scored one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from alignzoo.algorithm import Traits
from alignzoo.batch import Example, collate
from alignzoo.data import (
    Codec,
    Prompts,
    SourceSize,
    dev_split,
    join_turns,
    name_of_task,
    place_in_task,
    read_task_rows,
    score_by_task,
    split_turns,
    template_values,
)
from alignzoo.errors import BadInput, count
from alignzoo.evaluation.answers import Answerer, score_of_episode
from alignzoo.evaluation.statistics import Estimate, mean_with_interval
from alignzoo.faults import Blame
from alignzoo.loss import Totals
from alignzoo.policy import Policy
from alignzoo.policy.untrained import check_untrained
from alignzoo.reserved import ESTIMATES
from alignzoo.rollout import Completion, Sampling, telling_notes
from alignzoo.run import Run
from alignzoo.ui import UI

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


def evaluate_run(run: Run, phase: str) -> Evaluation:
    """Evaluate the run's model on the run's task and held-out rows, and record every item.

    `phase` is the name of the evaluation in the record: "before", "after" or "step N". Completions
    before training are the model's own; later ones may come from a plugin (`alignzoo_answer`).
    """
    run.model.eval()
    try:
        with torch.no_grad():
            with run.free_of_charge():
                result = Evaluation(measure_held_out(run) if run.recipe.eval_held_out else {})
            rows = choose_prompts(run)
            if measures(run):
                split = choose_split(run.task, run.recipe.eval_split)
                found = measure_task(run.model, run.task, split, run.recipe.eval_size)
                result = Evaluation(found.summary | result.summary, found.items)
            if rows and phase == "before":
                note_missing_dev(run.task, run.recipe.eval_split, run.ui)
                note_cuts(run, rows)
            if rows:
                found = evaluate_prompts(run, phase, rows)
                result = Evaluation(found.summary | result.summary, found.items)
            with run.free_of_charge():
                for scores in run.hook.alignzoo_evaluate(run=run, model=run.model):
                    add_scores(run, result, scores)
    finally:
        run.model.train()
    for name, value in list(result.summary.items()):
        numbers = (value.mean, value.low, value.high)
        if not all(math.isfinite(x) for x in numbers if x is not None):
            run.ui.note(f"evaluation {phase}: {name!r} is not finite and is left out")
            del result.summary[name]
    task = run.recipe.task or "held-out"
    run.record.evals(
        {"phase": phase, "step": run.step, "task": task, **item} for item in result.items
    )
    summary = {name: asdict(value) for name, value in result.summary.items()}
    run.record.set_result(phase, summary, run.ledger)
    run.record.set_status("running", run.ledger)
    return result


def add_scores(run: Run, result: Evaluation, scores: Mapping[str, float | list[float]]) -> None:
    """Add the scores that a plugin gives to the estimates.

    It may give the held-out value of a metric of its loss itself, with an interval. Raise
    `RunFailed` for the name of a measure of the task.
    """
    measures = {name for item in result.items for name in item["measures"]}
    for name, value in scores.items():
        if name in measures:
            giver = run.names.estimates.givers[name]
            raise giver.fail(f"gave {name!r}, which the task measures", hint="use another name")
        result.summary[name] = to_estimate(value)


def estimates_of(run: Run, phase: str) -> dict[str, Estimate]:
    """Return the estimates of an evaluation that is in the record."""
    return {name: Estimate(**value) for name, value in run.record.results[phase].items()}


def evaluate_prompts(run: Run, phase: str, rows: Sequence[dict[str, Any]]) -> Evaluation:
    """Complete prompts by a plugin or by the run's model, and score the completions.

    Only the answers of a plugin are charged.
    """
    sampling = Sampling.of(run.recipe, run.codec)
    prompts = encode_prompts(run.codec, rows, prompt_room(run))
    answers, cost = request_answers(run, rows, prompts) if phase != "before" else (None, {})
    by_plugin, seeds = answers is not None, None
    with run.free_of_charge(), run.ui.items(len(rows), f"evaluating {phase}") as advance:
        if answers is None:
            with telling_notes(run):
                answers, seeds = answerer_of(run, sampling).answer(rows, prompts, advance)
        items = score_items(run.model, run.codec, run.task, rows, prompts, answers, sampling, seeds)
    if phase == "before" and run.model.starts_as_base:
        sides = "the log-probs that completions were sampled with and the base's"
        check_untrained(run.model, gap_to_base(items), sampling.temperature, sides)
    found = summarise(items, sampling)
    if by_plugin:
        found.pop("kl", None)  # its answers may not have been drawn from the model as it is
    return Evaluation(found | cost, [item.as_dict() for item in items])


def answerer_of(run: Run, sampling: Sampling) -> Answerer:
    """Return the model of a run, in the run's environment if it has one."""
    return Answerer(
        run.model, run.codec, sampling, run.recipe.seed, run.environment, prompt_room(run)
    )


def choose_prompts(run: Run) -> list[dict[str, Any]]:
    """Return the rows to complete: the task's held-out ones, or those of the data.

    There are none if the run evaluates nothing, its model does not generate, or its task measures
    the model by itself.
    """
    if run.recipe.eval_size == 0 or not Traits.of(run.algorithm).generates or measures(run):
        return []
    if run.task is not None and "prompts" in run.task.views:
        split = choose_split(run.task, run.recipe.eval_split)
        return read_task_rows(run.task, "prompts", split)[: run.recipe.eval_size]
    return run.data.prompts[: run.recipe.eval_size]


def measures(run: Run) -> bool:
    """Return True if the run's task measures the model by itself: see `measure_task`."""
    generates = Traits.of(run.algorithm).generates
    return run.recipe.eval_size > 0 and generates and hasattr(run.task, "measure")


@torch.no_grad()
def measure_task(policy: Policy, task: Any, split: str, limit: int) -> Evaluation:
    """Evaluate a model by the items that the task's own `measure` returns, or by its evaluation.

    Raise `BadInput` if there are no items. Their summary has the score and the measures: their
    completions were not drawn from the model, so they have no KL and no length to report.
    """
    place = place_in_task(task, task.measure)
    with Blame(place):
        items: Evaluation | list[EvaluationItem] = task.measure(policy, split, limit)
    if isinstance(items, Evaluation):
        return items
    if not isinstance(items, list) or not all(isinstance(x, EvaluationItem) for x in items):
        raise place.fail("gave neither an Evaluation nor a list of EvaluationItem")
    if not items:
        raise BadInput(f"task {name_of_task(task)!r} has no item that can be measured")
    columns: dict[str, list[float]] = {}
    for item in items:
        scores = {} if item.score is None else {"score": item.score}
        for name, value in {**scores, **item.measures}.items():
            columns.setdefault(name, []).append(float(value))
    summary = {name: to_estimate(values) for name, values in columns.items()}
    return Evaluation(summary, [item.as_dict() for item in items])


def choose_split(task: Any, split: str) -> str:
    """Return the split to evaluate on: the one that is asked for, or for "dev" what stands for it.

    A task without a dev split is evaluated on `test`.
    """
    return dev_split(task) if split == "dev" else split


def note_missing_dev(task: Any | None, split: str, ui: UI) -> None:
    """Tell the user if a task's test split stands for the dev split that it does not have."""
    if task is not None and split != choose_split(task, split):
        ui.note(f"task {name_of_task(task)!r} has no dev split: it is evaluated on test")


def prompt_room(run: Run) -> int:
    """Return the most tokens of a prompt: those that are left of it in training."""
    recipe = run.recipe
    if run.algorithm.data is Prompts:
        return recipe.max_length - recipe.max_new_tokens
    return recipe.max_length - min(recipe.max_new_tokens, recipe.max_length // 2)


def note_cuts(run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Tell the user how many prompts and completions of the evaluation are cut, if any are."""
    room, new, limit = prompt_room(run), run.recipe.max_new_tokens, run.model.positions
    lengths = [len(ids) for ids in encode_prompts(run.codec, rows)]
    if cut := sum(length > room for length in lengths):
        run.ui.note(f"{count(cut, 'prompt')} of the evaluation truncated to {room:,} tokens")
    if limit and (short := sum(min(length, room) + new > limit for length in lengths)):
        run.ui.note(
            f"{count(short, 'completion')} of the evaluation cannot have {new:,} tokens: they end "
            f"at the last of the model's {limit:,} positions"
        )


def encode_prompts(
    codec: Codec, rows: Sequence[dict[str, Any]], room: int | None = None
) -> list[list[int]]:
    """Return the ids of the prompt of each row, at most `room` of them if that is given."""
    prompts = [codec.prompt(row["prompt"], template_values(row)) for row in rows]
    return prompts if room is None else [codec.cut_prompt(ids, room) for ids in prompts]


def request_answers(
    run: Run, rows: Sequence[dict[str, Any]], prompts: Sequence[list[int]]
) -> tuple[list[Completion] | None, dict[str, Estimate]]:
    """Return completions of the rows by a plugin, and the cost of one as `answer/flops`.

    Return None and no cost if no plugin answers.
    """
    spent = run.ledger.total_flops
    examples = [Example(ids, [], row=row) for ids, row in zip(prompts, rows, strict=True)]
    with run.forwards.purpose("generation"):
        answers = run.hook.alignzoo_answer(run=run, rows=examples)
    if answers is None:
        return None, {}
    return answers, {"answer/flops": Estimate((run.ledger.total_flops - spent) / len(rows))}


def measure_held_out(run: Run) -> dict[str, Estimate]:
    """Return the mean loss and metrics on held-out rows, each under `held-out/`.

    Of a mixture they are over all rows together; `held-out/loss/NAME` is the loss on the rows of
    one source.
    """
    parts = []
    by_source = {}
    sources: Sequence[SourceSize | None] = run.data.sources or [None]
    for source in sources:
        part = Totals()
        for micro in run.held_out(source):
            part.add(run.hook.alignzoo_loss(run=run, batch=micro), len(micro))
        if source is not None and "loss" in (means := part.means()):
            by_source[f"held-out/loss/{source.name}"] = Estimate(means["loss"], n=part.n)
        parts.append(part)
    whole = Totals()
    whole.merge(parts)
    found = {f"held-out/{name}": Estimate(x, n=whole.n) for name, x in whole.means().items()}
    return found | by_source


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

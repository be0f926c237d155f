"""The evaluation of a run: the loss on held-out rows, and completions scored one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from alignzoo.batch import Example
from alignzoo.data import SourceSize, name_of_task, place_in_task
from alignzoo.errors import BadInput
from alignzoo.evaluation.answers import Answerer
from alignzoo.evaluation.items import (
    Evaluation,
    EvaluationItem,
    gap_to_base,
    score_items,
    summarise,
    to_estimate,
)
from alignzoo.evaluation.prompts import (
    choose_prompts,
    choose_split,
    encode_prompts,
    measures,
    note_cuts,
    note_missing_dev,
    prompt_room,
)
from alignzoo.evaluation.statistics import Estimate
from alignzoo.faults import Blame
from alignzoo.loss import Totals
from alignzoo.policy import Policy
from alignzoo.policy.untrained import check_untrained
from alignzoo.rollout import Completion, Sampling, telling_notes
from alignzoo.run import Run


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

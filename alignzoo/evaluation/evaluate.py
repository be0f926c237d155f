"""Evaluation: the algorithm's own loss on held-out rows, and completions judged one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.batch import Example, collate
from alignzoo.data import Codec, SourceSize
from alignzoo.errors import BadInput
from alignzoo.evaluation.statistics import Estimate, Mean
from alignzoo.loss import Totals
from alignzoo.policy import ModelSpec, Policy, load_policy
from alignzoo.rollout import Completion, Sampling, generate
from alignzoo.run import Run
from alignzoo.ui import UI


@dataclass
class Evaluation:
    """Estimates by name, in the order in which they are shown, and the items behind them."""

    summary: dict[str, Estimate] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)


def evaluate(run: Run, phase: str) -> Evaluation:
    """The run's model as it stands, on the run's task and held-out rows; recorded item by item."""
    run.model.eval()
    try:
        with run.free_of_charge(), torch.no_grad():
            result = Evaluation(summary=held_out(run))
            rows = prompts_of(run)
            if rows:
                sampling = Sampling.of(run.recipe, run.codec)
                answers, cost = answered(run, rows) if phase != "before" else (None, {})
                with run.ui.items(len(rows), f"evaluating {phase}") as advance:
                    result.items = respond(
                        run.model,
                        run.codec,
                        run.task,
                        rows,
                        run.recipe.seed,
                        sampling,
                        advance,
                        answers,
                    )
                result.summary = {**summarise(result.items, sampling), **cost, **result.summary}
            for scores in run.hook.alignzoo_evaluate(run=run, model=run.model):
                result.summary.update({name: estimated(value) for name, value in scores.items()})
    finally:
        run.model.train()
    name = run.recipe.task or "held-out"
    run.record.evals(
        {"phase": phase, "step": run.step, "task": name, **item} for item in result.items
    )
    run.record.facts["results"][phase] = {n: asdict(value) for n, value in result.summary.items()}
    run.record.set_status("running")
    return result


def evaluate_model(
    model: str,
    tasks: Sequence[str],
    *,
    limit: int,
    seed: int,
    temperature: float,
    max_new_tokens: int,
    trust_remote_code: bool,
    ui: UI,
) -> dict[str, Evaluation]:
    """A model, folder or run on tasks by name, outside of any run."""
    loaded = {name: discovery.load("tasks", name)() for name in tasks}
    for name, task in loaded.items():
        if "prompts" not in task.views:
            raise BadInput(f"task {name!r} has no prompts to be judged on")
    with ui.phase(f"loading {model}"):
        policy = load_policy(ModelSpec(model, trust_remote_code=trust_remote_code, seed=seed))
    policy.require_generative()
    policy.eval()
    codec = Codec(policy.tokenizer)
    sampling = Sampling(max_new_tokens, codec.stop_ids, temperature)
    results = {}
    for name, task in loaded.items():
        rows = task.rows("prompts", "test")[:limit]
        with ui.items(len(rows), f"evaluating on {name}") as advance:
            items = respond(policy, codec, task, rows, seed, sampling, advance)
        results[name] = Evaluation(summarise(items, sampling), items)
    return results


def prompts_of(run: Run) -> list[dict[str, Any]]:
    """The rows to complete: the task's held-out ones, or those of the data."""
    if run.recipe.eval_size == 0 or not Traits.of(run.algorithm).generates:
        return []
    if run.task is not None and "prompts" in run.task.views:
        return run.task.rows("prompts", "test")[: run.recipe.eval_size]
    return run.data.prompts[: run.recipe.eval_size]


def answered(
    run: Run, rows: Sequence[dict[str, Any]]
) -> tuple[list[Completion] | None, dict[str, Estimate]]:
    """The answers of a plugin that gives them, with what one costs; None where none does."""
    spent = run.ledger.total_flops
    examples = [Example(run.codec.prompt(row["prompt"]), [], row=row) for row in rows]
    answers = run.hook.alignzoo_answer(run=run, rows=examples)
    if answers is None:
        return None, {}
    return answers, {"answer/flops": Estimate((run.ledger.total_flops - spent) / len(rows))}


def held_out(run: Run) -> dict[str, Estimate]:
    """The loss hook on held-out rows: its loss and metrics, each under `held-out/`.

    Of a mixture they are those of all rows together, and `held-out/loss/NAME` is the loss on the
    rows of one source.
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


def estimated(value: float | Sequence[float]) -> Estimate:
    """A score as it is; of one number per item, the mean and its 95% interval."""
    if not isinstance(value, Sequence):
        return Estimate(value)
    return Estimate(**Mean().compute(predictions=value))


@torch.no_grad()
def respond(
    policy: Policy,
    codec: Codec,
    task: Any | None,
    rows: Sequence[dict[str, Any]],
    seed: int,
    sampling: Sampling,
    advance: Callable[[int], None] | None = None,
    answers: Sequence[Completion] | None = None,
) -> list[dict[str, Any]]:
    """One completion per row: text, length, log-probs under the model and its base, and score.

    `answers` are completions that are there already; else they are drawn.
    """
    prompts = [codec.prompt(row["prompt"]) for row in rows]
    seeds = [item_seed(seed, index) for index in range(len(rows))]
    completions = answers or generate(policy, prompts, seeds, sampling, advance=advance)
    examples = [
        Example(prompt, [completion.tokens])
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    base = base_logprobs(policy, examples, sampling.temperature or 1.0)
    items = []
    for index, (row, completion) in enumerate(zip(rows, completions, strict=True)):
        text = codec.decode(completion.tokens)
        items.append(
            {
                "item": index,
                "prompt": prompt_text(row["prompt"]),
                "completion": text,
                "score": float(task.score(row, text)) if task is not None else None,
                "length": len(completion.tokens),
                "ended": completion.ended,
                "logprob": completion.logprob,
                "ref_logprob": base[index] if base else None,
                "seed": None if answers else seeds[index],
                "measures": task.measures(row, text) if task and hasattr(task, "measures") else {},
            }
        )
    return items


def base_logprobs(
    policy: Policy, examples: list[Example], temperature: float = 1.0
) -> list[float] | None:
    """Log-prob of each completion under the model before training; None when it is not there."""
    if not policy.has_base:
        return None
    found: list[float] = []
    # One after the other in slices, so that memory does not grow with the number of items.
    for start in range(0, len(examples), 32):
        part = examples[start : start + 32]
        batch = collate(part).to(policy.device)
        with policy.base():
            found += policy(batch, temperature=temperature).logprobs.sum(-1).tolist()
    return found


def summarise(items: list[dict[str, Any]], sampling: Sampling) -> dict[str, Estimate]:
    """Score, KL to the base, length and share ended, each with its interval.

    The KL is estimated on what was drawn, mean of log p(y)/base(y) with y from p, which is only
    right when y was drawn from p as it is.
    """
    columns: dict[str, list[float]] = {
        "score": [item["score"] for item in items if item["score"] is not None]
    }
    if sampling.unchanged:
        columns["kl"] = [
            item["logprob"] - item["ref_logprob"]
            for item in items
            if item["ref_logprob"] is not None
        ]
    columns["length"] = [item["length"] for item in items]
    columns["ended"] = [float(item["ended"]) for item in items]
    # A measure is the mean over the items that it applies to.
    for name in sorted({name for item in items for name in item["measures"]}):
        columns[name] = [m[name] for item in items if name in (m := item["measures"])]
    return {name: estimated(values) for name, values in columns.items() if values}


def item_seed(seed: int, index: int) -> int:
    """The same item draws the same numbers before and after training, so that the two compare."""
    digest = hashlib.sha256(f"evaluation {seed} {index}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """A prompt as a person reads it: the text, or the last turn of a dialogue."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]

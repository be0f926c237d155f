"""The task `lm-eval`: a task of lm-evaluation-harness, by its name or its YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge

from alignzoo import BadInput
from alignzoo.errors import first_line, nearest
from alignzoo.evaluation import Estimate, Evaluation, EvaluationItem, mean_with_interval
from alignzoo.policy import Policy

SEED = 1234  # lm_eval's own, for the choice of examples


@dataclass(eq=False)
class LMEval:
    """A task of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness)"""

    task: Annotated[str, "name of a task or a group, or the path of a task's YAML file"] = ""
    include: Annotated[str, "folder with YAML files of tasks, instead of lm_eval's own"] = ""
    shots: Annotated[
        int | None, "worked examples before each prompt [default: the task's]", Ge(0)
    ] = None
    chat: Annotated[bool, "write prompts by the model's chat template"] = False
    batch_size: Annotated[int, "texts at once", Ge(1)] = 16

    positional: ClassVar[str] = "task"
    views: ClassVar[tuple[str, ...]] = ()
    splits: ClassVar[tuple[str, ...]] = ("test",)
    worst: ClassVar[float] = 0.0
    best: ClassVar[float] = 1.0
    name: ClassVar[str] = "lm-eval"

    def rows(self, view: str, split: str) -> list[dict[str, Any]]:
        """Raise `ValueError`: there are no rows to learn from."""
        raise ValueError("the tasks of lm_eval have no rows for training")

    def measure(self, model: Policy, split: str, limit: int) -> Evaluation:
        """Return the task's metrics as lm_eval computes them, and its items.

        Raise `BadInput` without lm_eval, without such a task, or if its data cannot be loaded.
        """
        try:
            from lm_eval.evaluator import evaluate

            from alignzoo_lm_eval.model import PolicyLM
        except ImportError as error:
            raise BadInput(
                f"task 'lm-eval': lm_eval cannot be imported ({first_line(error)})",
                hint="pip install 'alignzoo[lm-eval]'",
            ) from None
        loaded = self.load()
        if self.chat and not model.tokenizer.chat_template:
            raise BadInput("task 'lm-eval': the model has no chat template", where=model.name)
        try:
            found = evaluate(
                PolicyLM(model, self.batch_size),
                loaded,
                limit=limit,
                bootstrap_iters=0,
                apply_chat_template=self.chat,
                fewshot_as_multiturn=self.chat,
            )
        except ValueError as error:  # a task that runs code, or reads images
            raise BadInput(f"task 'lm-eval:{self.task}': {first_line(error)}") from None
        return as_evaluation(found)

    def load(self) -> Any:
        """Return the task as lm_eval loads it, or raise `BadInput`."""
        from lm_eval.tasks import TaskManager

        is_file = self.task.endswith((".yaml", ".yml"))
        if is_file and not Path(self.task).is_file():
            raise BadInput("no such file", where=self.task)
        if self.include and not Path(self.include).is_dir():
            raise BadInput("task 'lm-eval': no such folder", where=self.include)
        manager = TaskManager(
            include_path=self.include or None, include_defaults=not (is_file or self.include)
        )
        if not is_file and self.task not in manager.all_tasks:
            raise BadInput(
                f"lm_eval has no task {self.task!r}",
                hint=nearest(self.task, manager.all_tasks)
                if self.include
                else "lm-eval ls tasks lists them",
            )
        try:
            loaded = manager.load([self.task])
        except Exception as error:  # of YAML, of datasets, of the network: whatever it may be
            raise BadInput(
                f"task 'lm-eval:{self.task}' cannot be loaded: {first_line(error)}",
                hint="offline, a task needs data on this machine: dataset_path: json",
            ) from None
        for task in loaded["tasks"].values():
            task.set_config(key="num_fewshot", value=self._count_shots(task))
            task.set_fewshot_seed(seed=SEED)
        return loaded

    def _count_shots(self, task: Any) -> int:
        own = task.get_config("num_fewshot")
        return (own or 0) if self.shots is None else self.shots


def as_evaluation(found: Mapping[str, Any]) -> Evaluation:
    """Return the results of lm_eval as an evaluation.

    A metric that is a mean over items has our interval. Others (a perplexity, an F1) have none.
    Metrics of several tasks begin with the task's name.
    """
    summary: dict[str, Estimate] = {}
    items: list[EvaluationItem] = []
    several = len(found["samples"]) > 1
    for task, samples in found["samples"].items():
        prefix = f"{task}/" if several else ""
        for key, value in found["results"][task].items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            values = [sample.get(metric) for sample in samples if sample["filter"] == kind]
            summary[prefix + name_of(metric, kind)] = estimate(values, float(value))
        items += list_items(samples, prefix, len(items))
    return Evaluation(summary, [item.as_dict() for item in items])


def estimate(values: list[Any], found: float) -> Estimate:
    """Return a metric as lm_eval found it, with an interval if it is the mean of the values."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if not numbers or len(numbers) < len(values):
        return Estimate(found)
    mean = mean_with_interval(numbers)
    return mean if abs(mean.mean - found) < 1e-9 else Estimate(found)


def list_items(samples: list[dict[str, Any]], prefix: str, start: int) -> list[EvaluationItem]:
    """Return the items of a task, numbered from `start`; the score is the first metric."""
    by_document: dict[int, dict[str, float]] = {}
    first: dict[int, dict[str, Any]] = {}
    for sample in samples:
        document = sample["doc_id"]
        first.setdefault(document, sample)
        scores = by_document.setdefault(document, {})
        for metric in sample["metrics"]:
            if isinstance(sample[metric], int | float):
                scores[prefix + name_of(metric, sample["filter"])] = float(sample[metric])
    return [
        EvaluationItem(
            item=start + place,
            prompt=str(first[document]["arguments"][0][0]),
            completion=str(first[document]["filtered_resps"][0]),
            score=next(iter(scores.values()), None),
            length=0,
            ended=True,
            logprob=0.0,
            ref_logprob=None,
            seed=None,
            measures=scores,
        )
        for place, (document, scores) in enumerate(by_document.items())
    ]


def name_of(metric: str, kind: str) -> str:
    """Return the name of a metric, with the filter of the answers if there is one."""
    return metric if kind == "none" else f"{metric},{kind}"

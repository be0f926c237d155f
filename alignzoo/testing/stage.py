"""An algorithm in a real run that is about to take its first step, with a table for a model."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from alignzoo import discovery
from alignzoo.algorithm import Traits
from alignzoo.batch import Batch, Example
from alignzoo.data import Prompts
from alignzoo.discovery import hookimpl
from alignzoo.files import json_lines, write_text
from alignzoo.loss import Totals
from alignzoo.named import load_task
from alignzoo.options import build, options_of
from alignzoo.policy import keep_bases
from alignzoo.rollout import Completion, Sampler
from alignzoo.run import Run
from alignzoo.session import prepare, recipe_for
from alignzoo.session.session import Permissions
from alignzoo.testing.laws import NotApplicable
from alignzoo.testing.table import Gradient, LogprobTable, Place, TableForwards, chance, prompts_of
from alignzoo.ui import Silent

SHORT_TASK = "sums"  # rows of every view but text, short, with a score that code checks
TEXTS = "style"
ROWS = 24  # of the data
SIZE = 8  # rows of a step
MODEL = "zoo-tiny"
JUDGE = "table"  # judges by a hash of the text

Score = Callable[[Sequence[int], Sequence[int]], float]  # of a completion, by ids of its prompt


def usual_score(prompt: Sequence[int], completion: Sequence[int]) -> float:
    """Return a score in [0, 1) that depends on the prompt and the completion."""
    place = Place(tuple(prompt), tuple(completion), len(completion))
    return int(100 * chance("score", place)) / 100


class TableSampler(Sampler):
    """Draws completions of random tokens, with the log-probs of the table."""

    def __init__(self, table: LogprobTable):
        self.table = table

    def complete(
        self, run: Run, rows: Sequence[Example], size: int, stream: str
    ) -> list[list[Completion]]:
        """Draw `size` completions for each row, one in five of them without an end."""
        return [
            [self.draw(run, row.prompt, f"{stream} {run.round} {n}") for n in range(size)]
            for row in rows
        ]

    def draw(self, run: Run, prompt: Sequence[int], name: str) -> Completion:
        """Draw one completion."""
        # By the prompt and not by the place of its row, so that rows can be put in another order.
        dice = random.Random(f"{run.recipe.seed} {name} {prompt}")
        ended = dice.random() < 0.8
        tokens = [dice.randrange(20, 200) for _ in range(dice.randint(2, 9))]
        if ended:
            tokens[-1] = run.codec.stop_ids[0]
        places = self.table.places_of(prompt, tokens)
        logprobs = [self.table.drawn(place) / run.temperature for place in places]
        return Completion(tokens, logprobs, ended)


class TableReward:
    """Replaces every reward by a score of token ids."""

    def __init__(self, score: Score):
        self.score = score

    @hookimpl(wrapper=True)
    def alignzoo_reward(self, run: Run, batch: Batch) -> Any:
        """Return the same scores for each reward."""
        rewards = yield
        prompts = prompts_of(batch)
        scores = torch.tensor(
            [
                self.score(prompts[b], tokens)
                for b, tokens in zip(batch.group.tolist(), batch.completions(), strict=True)
            ]
        )
        return [scores.clone() for _ in rewards]


@dataclass(frozen=True)
class Measured:
    """The loss of one or more batches: its totals, and its gradient by token."""

    totals: Totals
    gradient: Gradient

    @property
    def loss(self) -> float:
        """Return the loss that the loop would log."""
        return self.totals.sums["loss"] / max(self.totals.counts["loss"], 1.0)

    @property
    def update(self) -> Gradient:
        """Return the gradient divided by the count, as the loop divides it."""
        count = max(self.totals.counts["loss"], 1.0)
        return {place: value / count for place, value in self.gradient.items()}


@dataclass
class Stage:
    """An algorithm before its first step.

    Args:
        name: of the algorithm, or the path of its file.
        options: of the algorithm.
        table: log-probs of the policy and its reference.
        score: replaces the rewards.
        settings: of the recipe, beyond the usual ones.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    table: LogprobTable = field(default_factory=LogprobTable)
    score: Score = usual_score
    settings: Mapping[str, Any] = field(default_factory=dict)

    def vary(self, **changes: Any) -> Stage:
        """Return a stage of its own with some arguments changed."""
        changes["options"] = {**self.options, **changes.get("options", {})}
        changes["settings"] = {**self.settings, **changes.get("settings", {})}
        return replace(self, **changes)

    @cached_property
    def run(self) -> Run:
        """Prepare the run, and start its plugins. Raise `NotApplicable` if it would not train."""
        if not Traits.of(self.plugin).trains:
            raise NotApplicable("the algorithm trains nothing")
        self._folder = tempfile.TemporaryDirectory(prefix="alignzoo-check-")
        run = prepare_run(self.name, self.recipe_settings(Path(self._folder.name)))
        run.forwards = TableForwards(run.model, run.ledger, self.table)
        run.plugins.register(TableReward(self.score), "the rewards of the check")
        run.hook.alignzoo_start(run=run)
        return run

    def recipe_settings(self, folder: Path) -> dict[str, Any]:
        """Return the settings of a run of this algorithm that writes into a folder."""
        cls: Any = discovery.load_plugin("algorithms", self.name)
        traits = Traits.of(self.plugin)
        return {
            **usual_settings(cls.data, folder),
            "options": self.all_options,
            "batch_size": SIZE,
            **({"max_new_tokens": 16} if traits.generates else {}),
            **({"teacher": MODEL, "random_init": True} if traits.needs.teacher else {}),
            **self.settings,
        }

    @property
    def forwards(self) -> TableForwards:
        """Return the forward passes of the run."""
        assert isinstance(self.run.forwards, TableForwards)
        return self.run.forwards

    @cached_property
    def plugin(self) -> Any:
        """Return the algorithm with its options."""
        return build(discovery.load_plugin("algorithms", self.name), self.all_options, self.name)

    @property
    def all_options(self) -> dict[str, Any]:
        """Return the options, with short rounds, and with a judge if the algorithm needs one."""
        cls = discovery.load_plugin("algorithms", self.name)
        defaults = {option.name: option.default for option in options_of(cls)}
        usual: dict[str, Any] = {}
        if defaults.get("judge") is not None:
            usual["judge"] = JUDGE
        if (defaults.get("round_prompts") or 0) > SIZE:
            usual["round_prompts"] = SIZE
        return {**usual, **self.options}

    @property
    def draws(self) -> bool:
        """Return whether the algorithm learns from completions that it draws."""
        return self.run.algorithm.data is Prompts

    @cached_property
    def rows(self) -> list[Example]:
        """Return the first rows of the first round."""
        return [self.run.data.train[i] for i in self.run.order.batch(self.run.round)[:SIZE]]

    def sample(self, rows: Sequence[Example] | None = None) -> Batch:
        """Return what the algorithm learns from in the first round, or from other rows."""
        run = self.run
        torch.manual_seed(run.seed_for("round", run.round, run.world.rank))
        run.round_metrics.numbers.clear()
        with self.table_sampler():
            batch: Batch = run.hook.alignzoo_sample(
                run=run, rows=list(self.rows if rows is None else rows)
            )
        return batch

    @contextmanager
    def table_sampler(self) -> Iterator[None]:
        """Let the table draw the completions inside the block."""
        sampler = TableSampler(self.forwards.table)
        self.run.plugins.register(sampler, "the sampler of the check")
        try:
            yield
        finally:
            self.run.plugins.unregister(sampler)

    @cached_property
    def batch(self) -> Batch:
        """Return the batch of the first round, which nothing may change."""
        return self.sample()

    def measure(
        self, batches: Sequence[Batch] | None = None, *, table: LogprobTable | None = None
    ) -> Measured:
        """Compute the loss of batches, one after the other, and its gradient.

        Without batches, it is that of the first round. `table` replaces that of the policy.
        """
        forwards, kept = self.forwards, self.forwards.table
        forwards.table = table or kept
        totals = Totals()
        try:
            with forwards.recorded() as gradient, forwards.purpose("update"):
                # As in the loop: nothing is computed for a round without rows.
                for batch in filter(len, [self.batch] if batches is None else batches):
                    torch.manual_seed(self.run.seed_for("update", 0))
                    loss = self.run.hook.alignzoo_loss(run=self.run, batch=clone(batch))
                    if loss.sum.requires_grad:
                        loss.sum.backward()
                    totals.add(loss)
        finally:
            forwards.table = kept
        return Measured(totals, dict(gradient))


def clone(batch: Batch) -> Batch:
    """Return a copy of a batch that shares no tensor with it."""
    columns = {name: column.clone() for name, column in batch.columns.items()}
    return replace(
        batch,
        prompts=batch.prompts.clone(),
        prompt_lengths=batch.prompt_lengths.clone(),
        tokens=batch.tokens.clone(),
        lengths=batch.lengths.clone(),
        mask=batch.mask.clone(),
        group=batch.group.clone(),
        columns=columns,
    )


def usual_settings(view: Any, folder: Path) -> dict[str, Any]:
    """Return the settings of a short run with the embedded model that writes into a folder."""
    return {
        "model": MODEL, "task": SHORT_TASK, "data": str(write_rows(view, folder)), "eval_size": 0,
        "steps": 4, "checkpoint_every": 0, "output_dir": str(folder), "name": "run",
    }  # fmt: skip


def prepare_run(algorithm: str, settings: Mapping[str, Any]) -> Run:
    """Prepare a run that shows nothing. The base stays in memory for the next one."""
    keep_bases()
    recipe = recipe_for(algorithm, settings)
    return prepare(recipe, Permissions(allow_code=True), resume=False, ui=Silent())


def write_rows(view: Any, folder: Path) -> Path:
    """Write rows of an embedded task in a view, and return the file."""
    path = folder / f"{view.name}.jsonl"
    write_text(path, json_lines(short_rows(view.name)))
    return path


@cache
def short_rows(view: str) -> list[dict[str, Any]]:
    """Return short rows of a view, of different lengths."""
    task = load_task(TEXTS if view == "text" else SHORT_TASK)
    rows = islice(task.rows(view, "train"), 4 * ROWS)
    return sorted(rows, key=lambda row: len(str(row)))[: 2 * ROWS : 2]

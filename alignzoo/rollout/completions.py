"""Completions drawn in this process, and completions as a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from alignzoo.batch import Batch, Example, collate
from alignzoo.data import TURN_REWARDS
from alignzoo.environments import Environment, Transcripts
from alignzoo.rollout.episodes import EpisodeSettings, Start, play
from alignzoo.rollout.generate import Completion, generate
from alignzoo.rollout.sampling import Sampling, seeds
from alignzoo.run import Run


def complete_in_process(
    run: Run, rows: Sequence[Example], size: int, stream: str, mixture: float = 0.0
) -> list[list[Completion]]:
    """Draw `size` completions of each prompt from the model in memory, and charge them.

    In a run with an environment they are episodes. Return one list per row.
    """
    sampling = Sampling.of(run.recipe, run.codec)
    numbers = seeds(run, len(rows) * size, stream, size)
    draw = partial(generate, run.model, mixture=mixture, charge=run.ledger.charge)
    with run.model.evaluating():
        if run.environment is None:
            prompts = [row.prompt for row in rows for _ in range(size)]
            completions = draw(prompts, numbers, sampling)
        else:
            settings = episode_settings(run, run.environment, sampling)
            of_rows = seeds(run, len(rows), "environment")  # the same in every stream
            starts = [
                Start(row.row, row.prompt, numbers[index * size + k], seed)
                for index, (row, seed) in enumerate(zip(rows, of_rows, strict=True))
                for k in range(size)
            ]
            with telling_notes(run):
                completions = play(settings, starts, draw)
    return [completions[i : i + size] for i in range(0, len(completions), size)]


@contextmanager
def telling_notes(run: Run) -> Iterator[None]:
    """Tell the user what is noted of the chat template inside the block, each note once."""
    before = len(run.codec.notes)
    yield
    for note in run.codec.notes[before:]:
        run.ui.note(note)


def episode_settings(run: Run, environment: Environment, sampling: Sampling) -> EpisodeSettings:
    """Return the settings of a round's episodes.

    If the environment has a state outside of the program, the steps are kept in a file of the round
    in the run's folder; each process has its own.
    """
    transcripts = None
    if environment.outside_state:
        rank = f".{run.world.rank}" if run.world.rank else ""
        path = run.record.folder / "episodes" / f"round-{run.round}{rank}.jsonl"
        transcripts = Transcripts(path)
    room = run.recipe.max_length - run.recipe.max_new_tokens
    return EpisodeSettings(environment, run.codec, sampling, room, run.model.positions, transcripts)


def batch_completions(rows: Sequence[Example], groups: Sequence[Sequence[Completion]]) -> Batch:
    """Return rows and their completions as a batch, with the columns `logprobs` and `ended`.

    Its mask leaves out the tokens that the policy did not write. Completions that are episodes have
    the column `turn_rewards` as well.
    """
    batch = collate(
        [
            replace(
                row,
                prompt=row.prompt if group[0].prompt is None else group[0].prompt,
                completions=[c.tokens for c in group],
                masks=[c.written for c in group],
                columns={"ended": [c.ended for c in group]},
            )
            for row, group in zip(rows, groups, strict=True)
        ]
    )
    drawn = [completion for group in groups for completion in group]
    logprobs = fill_column(batch, [completion.logprobs for completion in drawn])
    batch.columns["logprobs"] = logprobs.masked_fill(~batch.mask, 0.0)  # others' may be NaN
    if any(completion.rewards is not None for completion in drawn):
        rewards = [completion.rewards or [] for completion in drawn]
        batch.columns[TURN_REWARDS] = fill_column(batch, rewards)
    return batch


def fill_column(batch: Batch, values: Sequence[Sequence[float]]) -> Tensor:
    """Return a number per token of each completion as a column `[N, T]`, 0 where there is none."""
    column = torch.zeros(batch.tokens.shape)
    for row, numbers in zip(column, values, strict=True):
        row[: len(numbers)] = torch.tensor(numbers)
    return column

"""Completions that a run drew, with reward and credit, as `rollouts.jsonl` has them."""

from __future__ import annotations

import math
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.data import MODEL, TURN_REWARDS, join_turns, split_turns
from alignzoo.evaluation.items import prompt_text
from alignzoo.functional import REWARD_PREFIX
from alignzoo.run import Run

DRAWN = "ended"  # a column of every batch of completions that the run drew
MOST_COMPLETIONS = 32  # of a round
MOST_CHARACTERS = 4000  # of a prompt, and of a completion
MOST_CREDITS = 512  # tokens of a completion with their credit
SAME = 1e-5  # credit that varies by less, relative to the largest, is the same
FULL_BYTES = 64 * 2**20  # of the file: no round is begun beyond it


def log_rollouts(run: Run, batch: Batch) -> None:
    """Append completions of a round to `rollouts.jsonl`, every `--rollouts-every` steps.

    They are the first of the round, at most 32 of all processes, as the round learns from them:
    an algorithm may have dropped some. All processes call it.
    """
    if not is_logged(run.step, run.schedule.steps_in(run.round), run.recipe.rollouts_every):
        return
    found = describe_completions(run, batch) if DRAWN in batch.columns else []
    gathered = [row for part in run.world.gather_each(found) for row in part]
    if not gathered or not run.record.is_writer or is_full(run):
        return
    rows = sorted(gathered, key=lambda row: row["prompt_index"])[:MOST_COMPLETIONS]
    run.record.rollouts({"step": run.step + 1, "round": run.round, **row} for row in rows)


def is_logged(begun: int, steps: int, every: int) -> bool:
    """Return whether one of the `steps` after the first `begun` has a number 1, 1 + every, ..."""
    return every > 0 and -begun % every < steps


def is_full(run: Run) -> bool:
    """Return whether the file is at its limit, and say so when it gets there."""
    path = run.record.folder / "rollouts.jsonl"
    full = path.exists() and path.stat().st_size >= FULL_BYTES
    if full and ("rollouts.jsonl", "full") not in run.record.told:
        run.record.told.add(("rollouts.jsonl", "full"))
        run.ui.note(f"rollouts.jsonl has {FULL_BYTES // 2**20} MiB: later rounds are not written")
    return full


def describe_completions(run: Run, batch: Batch) -> list[dict[str, Any]]:
    """Return the first completions of this process's part of a round as rows of JSON."""
    rows = []
    scores = {
        name.removeprefix(REWARD_PREFIX): column
        for name, column in batch.columns.items()
        if name.startswith(REWARD_PREFIX)
    }
    answered = zip(batch.group.tolist(), batch.completions(), batch.answered(), strict=True)
    for index, (group, ids, row) in enumerate(islice(answered, MOST_COMPLETIONS)):
        rows.append(
            {
                "prompt_index": group * run.world.size + run.world.rank,
                "prompt": cut_text(prompt_text(row["prompt"])),
                **describe_text(run, batch, index, ids),
                "reward": number_at(batch.columns.get("rewards"), index),
                "rewards": {name: number_at(column, index) for name, column in scores.items()},
                **describe_credit(run, batch, index, ids),
                "length": int(batch.mask[index].sum()),
                "ended": bool(batch[DRAWN][index]),
            }
        )
    return rows


def describe_text(run: Run, batch: Batch, index: int, ids: list[int]) -> dict[str, Any]:
    """Return a completion as text; of an episode also its turns.

    A turn is who wrote it, what it says, and its reward, null for those of the environment.
    """
    if TURN_REWARDS not in batch.columns:
        return {"completion": cut_text(run.codec.decode(ids))}
    written = batch.mask[index, : len(ids)].tolist()
    turns = split_turns(run.codec, ids, written)
    rewards = sum_by_turn(batch[TURN_REWARDS][index].tolist(), written)
    return {
        "completion": cut_text(join_turns(turns)),
        "turns": [
            [who, cut_text(text), to_number(reward) if who == MODEL else None]
            for (who, text), reward in zip(turns, rewards, strict=True)
        ],
    }


def sum_by_turn(rewards: list[float], written: list[bool]) -> list[float]:
    """Return the reward of each turn, from that of each token and whether the model wrote it."""
    pairs = zip(rewards, written, strict=False)
    return [sum(x for x, _ in turn) for _, turn in groupby(pairs, key=itemgetter(1))]


def describe_credit(run: Run, batch: Batch, index: int, ids: list[int]) -> dict[str, Any]:
    """Return the advantage of a completion: the mean over the tokens that the policy wrote.

    If it varies, `credit` has each token as text with its own; it is null for a token that the
    policy did not write.
    """
    advantages = batch.columns.get("advantages")
    if advantages is None or advantages.dim() == 1:
        return {"advantage": number_at(advantages, index)}
    written = batch.mask[index]
    values = advantages[index][written]
    if not values.numel():
        return {"advantage": None}
    found: dict[str, Any] = {"advantage": to_number(float(values.double().mean()))}
    if float(values.max() - values.min()) > SAME * float(values.abs().max()):
        tokens = zip(ids, advantages[index].tolist(), written.tolist(), strict=False)
        found["credit"] = [
            [describe_token(run, token), to_number(value) if own else None]
            for token, value, own in islice(tokens, MOST_CREDITS)
        ]
    return found


def describe_token(run: Run, token: int) -> str:
    """Return a token as text; one that ends a completion is written as the tokenizer names it."""
    return run.codec.decode([token]) or run.codec.tokenizer.decode([token])


def number_at(column: Tensor | None, index: int) -> float | None:
    """Return a number of a column `[N]`, None if there is no column or the number is NaN."""
    return None if column is None else to_number(float(column[index]))


def to_number(value: float) -> float | None:
    """Return a number with 6 digits, None for NaN: the reward does not apply."""
    return None if math.isnan(value) else float(f"{value:.6g}")


def cut_text(text: str) -> str:
    """Return the beginning of a long text, with the number of characters that are left out."""
    rest = len(text) - MOST_CHARACTERS
    return text if rest <= 0 else f"{text[:MOST_CHARACTERS]}… ({rest:,} more characters)"

"""The pairs of a round on disk, for the next one: who wrote them is gone by then.

A file for each round and process in the run's folder, written before the round's first step, so
that it is there for a run that goes on from any checkpoint after that.
"""

from __future__ import annotations

import json
from pathlib import Path

from alignzoo import Example, Run, RunFailed
from alignzoo.files import json_lines, write_text


def path_of(run: Run, index: int) -> Path:
    return run.record.folder / "pairs" / f"round-{index:04d}-{run.world.rank}.jsonl"


def keep(run: Run, pairs: list[Example]) -> None:
    """Write this round's pairs, one to a line, in the place of what was there."""
    path = path_of(run, run.round)
    path.parent.mkdir(exist_ok=True)
    rows = [{"prompt": p.prompt, "completions": p.completions, "row": p.row} for p in pairs]
    # As in a checkpoint: a date, say, of a Parquet file becomes text.
    write_text(path, json_lines(rows, default=str, ensure_ascii=True))


def kept(run: Run, index: int) -> list[Example]:
    """The pairs of that round."""
    path = path_of(run, index)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Example(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise RunFailed(
            f"the pairs of round {index + 1} cannot be read: {error}",
            where=str(path),
            hint="this round learns from them too: start anew; --no-mix needs none",
        ) from error

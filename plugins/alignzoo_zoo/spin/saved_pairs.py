"""The pairs of a round on disk, for the next one: the policy that wrote them no longer exists.

There is one file per round and process in the run's folder. It is written before the first step of
the round, so it exists for a run that is resumed from any later checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

from alignzoo import Example, Run, RunFailed
from alignzoo.files import digest, json_lines, with_digest, without_digest, write_text


def pairs_path(run: Run, index: int) -> Path:
    """Return the path of the pairs of a round of this process."""
    return run.record.folder / "pairs" / f"round-{index:04d}-{run.world.rank}.jsonl"


def save_pairs(run: Run, pairs: list[Example]) -> None:
    """Write the pairs of the current round, one per line, and then their digest."""
    path = pairs_path(run, run.round)
    path.parent.mkdir(exist_ok=True)
    rows = [
        {"prompt": p.prompt, "completions": p.completions, "masks": p.masks, "row": p.row}
        for p in pairs
    ]
    # As in a checkpoint, what JSON does not have (a date in a Parquet file) becomes text.
    text = json_lines(rows, default=str, ensure_ascii=True)
    write_text(path, text + json_lines([with_digest({"rows": digest(text)})]))


def load_pairs(run: Run, index: int) -> list[Example]:
    """Read the pairs of a round; raise `RunFailed` if the file is missing or damaged."""
    path = pairs_path(run, index)
    try:
        *lines, end = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if without_digest(json.loads(end)) != {"rows": digest("".join(lines))}:
            raise ValueError("the file is damaged")
        return [Example(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise RunFailed(
            f"cannot read the pairs of round {index + 1}: {error}",
            where=str(path),
            hint="this round also trains on them: start over, or use --no-mix",
        ) from error

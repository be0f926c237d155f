"""Write rows of gsm8k, each with the worked example of another row, for `self-distill`.

    python benchmarks/teachers/worked_examples.py FOLDER rows.jsonl --rows 40

The rows are the shortest of the task's demonstrations. The column `example` is one question with
its worked solution, the same for all rows, which none of them asks.
"""

from __future__ import annotations

import json
from pathlib import Path

import typer

from alignzoo import load_task


def main(folder: str, out: Path, rows: int = 40) -> None:
    """Write the rows as JSON lines."""
    task = load_task(f"gsm8k,path={folder}")
    found = sorted(task.rows("demonstrations", "train"), key=lambda row: len(str(row)))
    example, *chosen = found[: rows + 1]
    texts = [text_of(example[name]) for name in ("prompt", "completion")]
    lines = [
        json.dumps({name: row[name] for name in ("prompt", "completion")} | {"example": shown})
        for row, shown in ((row, "\n\n".join(texts)) for row in chosen)
    ]
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def text_of(content: str | list[dict[str, str]]) -> str:
    """Return what a prompt or a completion says."""
    return content if isinstance(content, str) else content[-1]["content"]


if __name__ == "__main__":
    typer.run(main)

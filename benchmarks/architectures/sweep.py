"""Check alignzoo on every type of causal language model that transformers has.

    python benchmarks/architectures/sweep.py                    # what has no row yet
    python benchmarks/architectures/sweep.py --only llama,gpt2  # these, again
    python benchmarks/architectures/sweep.py --table            # the table from the rows

Each type is checked in a process of its own, so that a crash is one row, and its row is appended
when it is done: a sweep that was stopped goes on. One thread.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from check import check_model, describe
from configs import model_types, tiny_config
from transformers.utils.logging import set_verbosity_error

from alignzoo.files import append_lines, read_lines, write_text

RESULTS = Path(__file__).resolve().parent.parent / "results" / "architectures"
ROWS, TABLE = RESULTS / "rows.jsonl", RESULTS / "table.md"
FLOPS_TOLERANCE = 0.03
LONGEST = 600  # seconds for one type
PACKAGES = ("torch", "transformers", "peft")


def check_type(model_type: str, file: str) -> None:
    """Check a model type, and write its row into a file."""
    torch.set_num_threads(1)
    set_verbosity_error()
    try:
        config = tiny_config(model_type)
    except Exception as error:
        row = {"status": "not built", "message": describe(error)}
    else:
        with tempfile.TemporaryDirectory() as folder:
            row = check_model(config, Path(folder))
    Path(file).write_text(json.dumps(row), encoding="utf-8")


def run_apart(model_type: str) -> dict[str, Any]:
    """Return the row of a model type, checked in a process of its own."""
    start = time.monotonic()
    with tempfile.NamedTemporaryFile() as file:
        context = multiprocessing.get_context("fork")  # the imports take longer than the checks
        process = context.Process(target=check_type, args=(model_type, file.name))
        process.start()
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            process.join()
        text = Path(file.name).read_text(encoding="utf-8")
    row = json.loads(text) if text else {"status": "wrong", "failed": ["process"]}
    if not text:
        row["message"] = f"the process ended with {process.exitcode}"
    row["versions"] = {name: version(name) for name in PACKAGES}
    return {"type": model_type, **row, "seconds": round(time.monotonic() - start, 1)}


def read_rows() -> dict[str, dict[str, Any]]:
    """Return the last row of each type."""
    return {row["type"]: row for row in read_lines(ROWS)}


def main(
    only: Annotated[str, typer.Option(help="Model types, comma-separated.")] = "",
    table: Annotated[bool, typer.Option(help="Write the table and check nothing.")] = False,
) -> None:
    """Check every type of causal language model, or `only` some."""
    done = read_rows()
    wanted = only.split(",") if only else [name for name in model_types() if name not in done]
    for model_type in [] if table else wanted:
        row = run_apart(model_type)
        append_lines(ROWS, [row])
        print(model_type, row["status"], *row.get("failed", []), row.get("message", ""), flush=True)
    write_text(TABLE, format_table(list(read_rows().values())))


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return the counts, a table of the models that run, and a list of those that do not."""
    rows = sorted(rows, key=lambda row: row["type"])
    run = [row for row in rows if row["status"] in ("right", "wrong")]
    others = [row for row in rows if row["status"] in ("refused", "not built")]
    counts = Counter(row["status"] for row in rows)
    near = sum(abs((row.get("FLOPs ratio") or 0) - 1) < FLOPS_TOLERANCE for row in run)
    packages = ", ".join(f"{name} {n}" for name, n in rows[-1]["versions"].items()) if rows else ""
    lines = [
        f"`python benchmarks/architectures/sweep.py` with {packages}: {len(rows)} model types, "
        f"{counts['right']} right, {counts['wrong']} wrong, {counts['refused']} refused, "
        f"{counts['not built']} not built. The ledger counts {near} of {len(run)} within "
        f"{FLOPS_TOLERANCE:.0%}. The [page](../../architectures/README.md) explains the columns.",
        "",
        "| type | | scoring | decoding | log-probs | gradient | merge | `generate` | FLOPs |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(format_row, run),
        "",
        "| type | | message |",
        "|---|---|---|",
        *(f"| `{row['type']}` | {row['status']} | {escape(row['message'])} |" for row in others),
    ]
    return "\n".join(lines) + "\n"


def format_row(row: dict[str, Any]) -> str:
    """Return the line of a model that runs."""
    what = row["status"]
    if row["failed"]:
        what += f": {', '.join(row['failed'])}"
    if "message" in row:
        what += f" ({row['message']})"
    merge = row.get("merge") or format_number(row.get("merge error"))
    ratio = row.get("FLOPs ratio")
    cells = [
        f"`{row['type']}`",
        what,
        row.get("scoring", "").removesuffix("Scorer").lower(),
        row.get("decoding", "").removesuffix("Decoder").lower(),
        format_number(row.get("log-prob error")),
        format_number(row.get("gradient error")),
        merge,
        row.get("generate", ""),
        "" if ratio is None else f"{ratio:.2f}",
    ]
    return f"| {' | '.join(map(escape, cells))} |"


def format_number(number: float | None) -> str:
    """Return an error with one digit, "" for none."""
    return "" if number is None else f"{number:.0e}"


def escape(text: str) -> str:
    """Return a text for a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    typer.run(main)

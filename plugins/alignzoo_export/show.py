"""Show on the terminal what was proved about an export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from alignzoo.cli.render import clean, lines, start_table


def show(report: Mapping[str, Any], out: Path, console: Console) -> None:
    """Print a table with a row for the run and one per proof, and the folder."""
    table = start_table(["gap", "bound", "score"])
    table.add_row("the run", "", "", Text(estimate_text(report["run_score"])))
    for proof in report["proofs"]:
        table.add_row(
            Text(clean(proof["program"])),
            Text(f"{proof['gap']:.2g}"),
            Text(f"{proof['bound']:g}"),
            Text(estimate_text(proof["score"])),
        )
    console.print(table)
    first = report["proofs"][0]
    console.print(
        f"The tokens of {first['items']} held-out prompts are equal. The gap is the mean change "
        f"of a token's log-prob, in nats, over the {first['tokens']:,} tokens of the answers, from "
        "row to row.",
    )
    if (gap := report["four_bit_gap"]) is not None:
        console.print(
            "The run was trained on a base in 4 bits, and is exported on the base in full "
            f"precision, which changes the log-prob of a token by {gap:.2g}."
        )
    lines(console, [f"exported: {out}"])


def estimate_text(value: Mapping[str, Any] | None) -> str:
    """Return a mean with its interval, `0.51 [0.48, 0.54]`, or a dash."""
    if value is None:
        return "-"
    if value["low"] is None:
        return f"{value['mean']:.2f}"
    return f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"

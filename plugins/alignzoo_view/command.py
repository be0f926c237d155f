"""`alignzoo view`: show the completions of a run on the terminal, as JSON or as a page."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from alignzoo import BadInput
from alignzoo.cli.terminal import console_for
from alignzoo.files import write_text
from alignzoo.record import read_run

COUNT, COUNT_ON_PAGE = 3, 20


@dataclass
class ViewCommand:
    """Show what a run drew in training, and its answers to held-out prompts before and after.

    Completions of training are those of `rollouts.jsonl`, the answers those of `evals.jsonl`.
    """

    run: Annotated[str, "folder of a run, which may be in progress"]
    step: Annotated[int | None, "show the completions of this step alone", Ge(1)] = None
    best: Annotated[bool, "show the highest rewards, and the largest gains in score"] = False
    worst: Annotated[bool, "show the lowest rewards, and the largest losses in score"] = False
    count: Annotated[
        int | None,
        f"completions to show, and held-out prompts [default: {COUNT}; on a page {COUNT_ON_PAGE}, "
        "of each step]",
        Ge(1),
        Le(1000),
    ] = None
    json: Annotated[bool, "print machine-readable JSON"] = False
    html: Annotated[str | None, "write a page that works offline to this file"] = None

    positional: ClassVar[tuple[str, ...]] = ("run",)

    def main(self) -> None:
        """Read the run, select, and show."""
        if self.best and self.worst:
            raise BadInput("options --best and --worst: name one of them")
        if self.json and self.html is not None:
            raise BadInput("options --json and --html: name one of them")
        from alignzoo_view import read, select

        folder = Path(self.run).expanduser()
        facts = read_run(folder)
        drawn = read.read_drawn(folder)
        evaluated = read.read_evaluated(folder, facts.get("results", {}))
        pairs = select.pair_answers(evaluated) if self.step is None else []
        if not drawn and not pairs and self.step is None:
            raise BadInput(
                "there is nothing to view: no completions of training, and no two evaluations",
                where=str(folder),
                hint="`run` writes completions if the algorithm draws them (--rollouts-every), and "
                "answers with --eval-size",
            )
        order: select.Order | None = "best" if self.best else "worst" if self.worst else None
        count = self.count or (COUNT_ON_PAGE if self.html is not None else COUNT)
        found = select.Selection(
            steps=select.summarise_steps(drawn),
            drawn=select.select_drawn(
                drawn, self.step, order, count, every_step=self.html is not None
            ),
            pairs=select.take(pairs, lambda pair: pair.change, order, count),
        )
        if self.html is not None:
            write_page(Path(self.html).expanduser(), folder, facts, found)
        elif self.json:
            print(json.dumps(asdict(found), indent=2))
        else:
            from alignzoo_view.show import show

            show(found, console_for(sys.stdout))


def write_page(path: Path, folder: Path, facts: Mapping[str, Any], found: Any) -> None:
    """Write the page, and print where it is; raise `BadInput` if there is no folder for it."""
    from alignzoo.cli.render import lines
    from alignzoo_view.page import render_page

    if path.is_dir() or not path.absolute().parent.is_dir():
        raise BadInput("option --html: not a file in a folder that exists", where=str(path))
    recipe = facts["recipe"]
    shown = {
        "run": folder.resolve().name,
        "algorithm": str(recipe["algorithm"]),
        "model": str(recipe.get("model")),
        "data": str(recipe.get("data") or recipe.get("task")),
        "status": str(facts["status"]),
    }
    write_text(path, render_page(shown, found))
    lines(console_for(sys.stdout), [f"written: {path}"])

"""The task `sums` with other rows to learn from; it is scored on the prompts of `sums`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from alignzoo_suite.sums import Sums
from alignzoo_zoo.self_distill.algorithm import SelfDistill
from alignzoo_zoo.self_distill.context import privileged_prompt, text_of


@dataclass(eq=False)
class StudiedSums(Sums):
    """Sums with demonstrations from a file, or with the answer shown in their prompts."""

    samples: Annotated[str, "file of demonstrations to train on [default: those of sums]"] = ""
    shown: Annotated[bool, "show the answer in the prompts of the demonstrations"] = False

    name = "studied-sums"
    model = "zoo-tiny"

    def rows(self, view: str, split: str) -> list[dict[str, Any]]:
        """Return the rows of `sums`, with these changes.

        Labelled steps end without a period, so that joined by ". " they are the text that the
        policy writes.
        """
        rows = super().rows(view, split)
        if view == "steps":
            return [row | {"completions": drop_periods(row["completions"])} for row in rows]
        if view != "demonstrations":
            return rows
        if self.samples and split == "train":
            lines = Path(self.samples).read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines]
        return [show_answer(row) for row in rows] if self.shown else rows


def drop_periods(steps: list[str]) -> list[str]:
    """Return the steps of a solution without the period of each but the last."""
    return [*(step.removesuffix(".") for step in steps[:-1]), steps[-1]]


def show_answer(row: dict[str, Any]) -> dict[str, Any]:
    """Return a demonstration whose prompt shows its answer as `self-distill` does by default."""
    template = SelfDistill.template
    return row | {"prompt": privileged_prompt(row["prompt"], text_of(row["completion"]), template)}

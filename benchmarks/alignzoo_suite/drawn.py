"""The base class of tasks whose prompts are drawn at random, one for each row."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Annotated

from annotated_types import Ge

from alignzoo_suite.common import SEED_NAMES, Row, is_held_out, rng
from alignzoo_suite.written import WrittenTask

SHARE = 0.1  # of all prompts: in dev, and in test


@dataclass(eq=False)
class DrawnTask(WrittenTask):
    """A task that draws its prompts; a hash of the prompt decides on its split."""

    prompt_rows: Annotated[int, "prompts of the train split", Ge(1)] = 2_000

    check_options = {**WrittenTask.check_options, "prompt_rows": 200}

    def draw(self, random: Random) -> Row:
        """Draw a prompt with the columns that the score reads."""
        raise NotImplementedError

    def prompts(self, split: str) -> list[Row]:
        """Return the prompts of a split, each once."""
        count = self.prompt_rows if split == "train" else self.held_out
        found: dict[str, Row] = {}
        random = rng(self.seed, self.name, "prompts", SEED_NAMES[split])
        while len(found) < count:
            row = self.draw_of_split(split, random)
            found[row["prompt"][0]["content"]] = row
        return list(found.values())

    def draw_of_split(self, split: str, random: Random) -> Row:
        """Draw until a prompt is of the split."""
        while True:
            row = self.draw(random)
            if split_of(row["prompt"][0]["content"]) == split:
                return row

    def drawer(self, split: str) -> Callable[[Random], Row]:
        return partial(self.draw_of_split, split)


def split_of(prompt: str) -> str:
    """Return the split of a prompt."""
    if is_held_out(prompt, SHARE):
        return "dev"
    return "test" if is_held_out(f"test: {prompt}", SHARE) else "train"

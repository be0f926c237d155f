"""The base class of tasks with a list of prompts and writers of the texts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar

from annotated_types import Ge

from alignzoo_suite import pairs
from alignzoo_suite.common import (
    SEED_NAMES,
    SPLITS,
    STANDARD_VIEWS,
    Row,
    Seed,
    assistant_message,
    check_view,
    is_held_out,
    rng,
    user_message,
)

HELD_OUT = 0.25  # of the prompts that the train split and `dev` share out


@dataclass(eq=False)
class WrittenTask:
    """A task with a name, a list of prompts, two writers and a score."""

    seed: Seed = 0
    text: Annotated[int, "rows of noisy text for pretraining", Ge(1)] = 50_000
    demonstrations: Annotated[int, "good, not perfect examples", Ge(1)] = 2_000
    held_out: Annotated[int, "rows of a generated view's dev split", Ge(1)] = 200

    views: ClassVar[tuple[str, ...]] = STANDARD_VIEWS
    splits: ClassVar[tuple[str, ...]] = SPLITS
    worst: ClassVar[float] = 0.0
    best: ClassVar[float] = 1.0
    name: ClassVar[str]
    phrasings: ClassVar[tuple[str, ...]]  # of the train split and `dev`
    test_phrasings: ClassVar[tuple[str, ...]]
    check_options: ClassVar[Row] = {"text": 200, "demonstrations": 200, "held_out": 50}
    annotator_noise: ClassVar[float]  # in units of gold; see `pairs.prob_first_wins`

    def list_prompts(self, phrasings: Sequence[str]) -> list[Row]:
        """Return a row for each prompt, in each of the phrasings."""
        raise NotImplementedError

    def reply(self, row: Row, random: Random, *, base: bool) -> str:
        """Write a text for a prompt, as the base does or as the better demonstrator does."""
        raise NotImplementedError

    def write(self, row: Row, random: Random, *, base: bool) -> list[Row]:
        """Write the messages that follow a prompt: by default one, with the text of `reply`."""
        return assistant_message(self.reply(row, random, base=base))

    def score(self, row: Row, completion: str) -> float:
        """Return the hidden gold score of a completion."""
        raise NotImplementedError

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of a view: generated, or the shipped pairs sampled from the base."""
        check_view(view, self.views, split)
        if view == "prompts":
            rows = self.prompts(split)
            rng(self.seed, self.name, view, SEED_NAMES[split]).shuffle(rows)
            return rows
        labelled = pairs.rows_from_pairs(
            self.name, view, split, self.score, self.annotator_noise, self.seed
        )
        return self._write_rows(view, split) if labelled is None else labelled

    def prompts(self, split: str) -> list[Row]:
        """Return the prompts of a split: `test` has phrasings of its own."""
        if split == "test":
            return self.list_prompts(self.test_phrasings)
        return [
            row
            for row in self.list_prompts(self.phrasings)
            if is_held_out(row["prompt"][0]["content"], HELD_OUT) == (split == "dev")
        ]

    def drawer(self, split: str) -> Callable[[Random], Row]:
        """Return a function that draws a prompt of a split."""
        choices = self.prompts(split)
        return lambda random: random.choice(choices)

    def _write_rows(self, view: str, split: str) -> list[Row]:
        # The fields with the sizes are named like the views.
        count = getattr(self, view) if split == "train" else self.held_out
        draw = self.drawer(split)
        rows = []
        for index in range(count):
            random = rng(self.seed, self.name, view, SEED_NAMES[split], index)
            row = draw(random)
            written = self.write(row, random, base=view == "text")
            if view == "text":
                rows.append({"messages": row["prompt"] + written})
            else:
                rows.append(row | {"completion": written})
        return rows


def phrase_all(subjects: Iterable[str], phrasings: Sequence[str], name: str) -> list[Row]:
    """Return a prompt for each subject in each phrasing; the column `name` has the subject."""
    return [
        {"prompt": user_message(phrasing.format(subject)), name: subject}
        for subject in subjects
        for phrasing in phrasings
    ]

"""What tasks have in common whose prompts can be listed and whose texts somebody writes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, ClassVar

from alignzoo_suite import pairs
from alignzoo_suite.common import VIEWS, Row, answer, ask, check_view, held_out, rng

HELD_OUT = 0.25


@dataclass(eq=False)
class Written:
    """A task by its `name`, all its `asked` prompts, a writer and a score."""

    seed: int = 0
    text: Annotated[int, "rows of noisy text for pretraining"] = 50_000
    demonstrations: Annotated[int, "good, not perfect examples"] = 2_000
    test: Annotated[int, "rows of a generated view's test split"] = 200

    views: ClassVar[tuple[str, ...]] = VIEWS
    worst: ClassVar[float] = 0.0
    best: ClassVar[float] = 1.0
    name: ClassVar[str]
    annotator_noise: ClassVar[float]  # in units of gold; see `pairs.first_wins`

    def asked(self) -> list[Row]:
        """A row for every prompt, of both splits."""
        raise NotImplementedError

    def reply(self, row: Row, random: Random, *, base: bool) -> str:
        """What is written to a prompt: by the base, or by somebody better."""
        raise NotImplementedError

    def score(self, row: Row, completion: str) -> float:
        """The hidden gold score of a completion."""
        raise NotImplementedError

    def rows(self, view: str, split: str) -> list[Row]:
        """The rows of a view: generated, or for pairs sampled once from the base and shipped."""
        check_view(view, self.views, split)
        if view == "prompts":
            rows = self.prompts(split)
            rng(self.seed, self.name, view, split).shuffle(rows)
            return rows
        labelled = pairs.labelled(
            self.name, view, split, self.score, self.annotator_noise, self.seed
        )
        return self._written(view, split) if labelled is None else labelled

    def prompts(self, split: str) -> list[Row]:
        """The rows of `asked` whose prompt belongs to the split."""
        test = split == "test"
        return [
            row for row in self.asked() if held_out(row["prompt"][0]["content"], HELD_OUT) == test
        ]

    def _written(self, view: str, split: str) -> list[Row]:
        count = getattr(self, view) if split == "train" else self.test  # sizes are named like views
        choices = self.prompts(split)
        rows = []
        for index in range(count):
            random = rng(self.seed, self.name, view, split, index)
            row = random.choice(choices)
            reply = answer(self.reply(row, random, base=view == "text"))
            if view == "text":
                rows.append({"messages": row["prompt"] + reply})
            else:
                rows.append(row | {"completion": reply})
        return rows


def asked_about(subjects: Iterable[str], phrasings: Sequence[str], name: str) -> list[Row]:
    """Every subject in every phrasing; the subject stands in the column `name`."""
    return [
        {"prompt": ask(phrasing.format(subject)), name: subject}
        for subject in subjects
        for phrasing in phrasings
    ]

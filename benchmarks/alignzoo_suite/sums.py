"""Small additions with worked steps, verified exactly."""

import re
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Annotated

from alignzoo_suite import pairs
from alignzoo_suite.common import VIEWS, Row, answer, ask, check_view, held_out, rng

PHRASINGS = ("What is {} + {}?", "Add {} and {}.", "Work out {} + {}.", "How much is {} + {}?")
OPERANDS = range(10, 100)
HELD_OUT = 0.1
ANNOTATOR_NOISE = 0.4  # in units of gold; see `pairs.first_wins`

NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
CLAIM = re.compile(r"\banswer(?:\s+is\b|\s*[:=])")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


def problems(split: str) -> list[tuple[int, int]]:
    """The operands of a split. 27 + 15 and 15 + 27 are always in the same one."""
    test = split == "test"
    return [
        (a, b)
        for a in OPERANDS
        for b in OPERANDS
        if held_out(f"{min(a, b)}+{max(a, b)}", HELD_OUT) == test
    ]


@dataclass(frozen=True)
class Slips:
    """How somebody errs: chances, drawn for each of the three steps."""

    off: float  # a sum is off by one; a carry is made up
    forgotten: float  # a carry is forgotten


# The base forgets a carry more often than not, so its likeliest text is wrong: becoming surer of
# what it already says mends the other slips, but this one has to be unlearnt.
BASE = Slips(off=0.2, forgotten=0.6)
DEMONSTRATOR = Slips(off=0.025, forgotten=0.025)
NOBODY = Slips(off=0.0, forgotten=0.0)


def work_out(a: int, b: int, slips: Slips, random: Random) -> str:
    """The worked steps of a + b by somebody who slips at times.

    There are three steps: the sum of the ones, the carry, the sum of the tens. What follows a slip
    is consistent with it. With c the chance of a wrong carry, the share that comes out right is
    (1 - off) ((1 - c) (1 - off) + c off / 2): two slips may undo each other.
    """
    ones = a % 10 + b % 10
    if random.random() < slips.off:
        ones = max(0, ones + random.choice((-1, 1)))
    carry = ones // 10
    if random.random() < (slips.forgotten if carry else slips.off):
        carry = 1 - carry
    tens = a // 10 + b // 10 + carry
    if random.random() < slips.off:
        tens += random.choice((-1, 1))
    return (
        f"{a % 10} + {b % 10} = {ones}, write {ones % 10}, carry {carry}. "
        f"{a // 10} + {b // 10} + {carry} = {tens}. The answer is {10 * tens + ones % 10}."
    )


def steps_of(text: str) -> list[str]:
    """The sentences of worked steps: the ones and their carry, the tens, the answer."""
    return re.split(r"(?<=\.) ", text)


def final_answer(text: str) -> Fraction | None:
    """The number a text gives as its answer, or None.

    It is the last number in the sentence that begins at the last "answer is", "answer:" or
    "answer =", and without one of these the last number of the text. Only one number counts, so
    naming several cannot help. "1,042" is 1042, "42.0" is 42 and "42.5" is not 42.
    """
    claims = list(CLAIM.finditer(text.lower()))
    if claims:
        text = SENTENCE_END.split(text[claims[-1].end() :].lstrip(" :\n"), maxsplit=1)[0]
    numbers = NUMBER.findall(text)
    if not numbers or len(numbers[-1]) > 30:  # Python refuses to read thousands of digits
        return None
    return Fraction(numbers[-1].replace(",", ""))


@dataclass(eq=False)
class Sums:
    """Add two numbers in worked steps; right is 1, wrong is 0."""

    seed: int = 0
    text: Annotated[int, "rows of noisy text for pretraining"] = 50_000
    demonstrations: Annotated[int, "good, not perfect examples"] = 2_000
    prompts: Annotated[int, "problems to practise on"] = 2_000
    steps: Annotated[int, "worked sums of which each step is labelled"] = 2_000
    test: Annotated[int, "rows of a generated view's test split"] = 200

    views = (*VIEWS, "steps")
    worst = 0.0
    best = 1.0

    def rows(self, view: str, split: str) -> list[Row]:
        """The rows of a view: generated, or for pairs sampled once from zoo-tiny and shipped."""
        check_view(view, self.views, split)
        rows = pairs.labelled("sums", view, split, self.score, ANNOTATOR_NOISE, self.seed)
        return self._written(view, split) if rows is None else rows

    def score(self, row: Row, completion: str) -> float:
        """1 if the completion's final answer is the sum, else 0."""
        return float(final_answer(completion) == row["a"] + row["b"])

    def _written(self, view: str, split: str) -> list[Row]:
        slips = BASE if view in ("text", "steps") else DEMONSTRATOR
        count = getattr(self, view) if split == "train" else self.test  # sizes are named like views
        choices = problems(split)
        rng(self.seed, "sums", view, split).shuffle(choices)
        rows = []
        for index in range(count):
            random = rng(self.seed, "sums", view, split, index)
            a, b = choices[index % len(choices)]
            row: Row = {"prompt": ask(random.choice(PHRASINGS).format(a, b)), "a": a, "b": b}
            worked = work_out(a, b, slips, random)
            reply = answer(worked)
            if view == "text":
                rows.append({"messages": row["prompt"] + reply})
            elif view == "demonstrations":
                rows.append(row | {"completion": reply})
            elif view == "steps":
                steps, right = steps_of(worked), steps_of(work_out(a, b, NOBODY, random))
                labels = [one == other for one, other in zip(steps, right, strict=True)]
                rows.append(row | {"completions": steps, "labels": labels})
            else:
                rows.append(row)
        return rows

"""Small additions with worked steps, verified exactly."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from random import Random
from typing import Annotated

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

PHRASINGS = ("What is {} + {}?", "Add {} and {}.", "Work out {} + {}.", "How much is {} + {}?")
OPERANDS = range(10, 100)
HELD_OUT = 0.1  # of the problems
DEV_ROWS = 200  # of a generated view
APART = ("prompts", "demonstrations")  # views whose dev rows share no problem with `test`
SHARED_PROBLEMS = (
    "text, pairs, labels and steps of dev kept their rows when test was made; what is looked at "
    "while one tunes, prompts and demonstrations of dev, shares none with it"
)
ANNOTATOR_NOISE = 0.4  # in units of gold; see `pairs.prob_first_wins`
Problem = tuple[int, int]  # its operands

NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
CLAIM = re.compile(r"\banswer(?:\s+is\b|\s*[:=])")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


def list_problems(*, held_out: bool) -> list[Problem]:
    """Return the problems of the train split, or the others; 27 + 15 and 15 + 27 go together."""
    return [
        (a, b)
        for a in OPERANDS
        for b in OPERANDS
        if is_held_out(f"{min(a, b)}+{max(a, b)}", HELD_OUT) == held_out
    ]


def shuffle_problems(view: str, split: str, seed: int) -> list[Problem]:
    """Return the problems of a view in the order of its rows."""
    found = list_problems(held_out=split != "train")
    rng(seed, "sums", view, SEED_NAMES[split]).shuffle(found)
    if split == "test":
        return [problem for problem in found if problem in list_test_problems()]
    if split == "dev" and view in APART:
        return [problem for problem in found if problem not in list_test_problems()]
    return found


@cache
def list_test_problems() -> frozenset[Problem]:
    """Return the problems of `test`: those that no dev prompt or demonstration had at seed 0,
    either way round, when there was no split but `dev` to look at."""
    held_out = list_problems(held_out=True)
    seen = set()
    for view in APART:
        order = held_out.copy()
        rng(0, "sums", view, SEED_NAMES["dev"]).shuffle(order)
        seen |= {frozenset(problem) for problem in order[:DEV_ROWS]}
    return frozenset(problem for problem in held_out if frozenset(problem) not in seen)


@dataclass(frozen=True)
class Slips:
    """How often a writer errs: probabilities, drawn for each of the three steps."""

    off: float  # a sum is off by one; a carry is made up
    forgotten: float  # a carry is forgotten


# The base forgets a carry more often than not, so its most likely text is wrong: a sharper policy
# has fewer of the other slips, but this one has to be unlearned.
BASE = Slips(off=0.2, forgotten=0.6)
DEMONSTRATOR = Slips(off=0.025, forgotten=0.025)
NO_SLIPS = Slips(off=0.0, forgotten=0.0)


def work_out(a: int, b: int, slips: Slips, random: Random) -> str:
    """Return the worked steps of a + b by a writer that slips at times.

    There are three steps: the sum of the ones, the carry, the sum of the tens. Later steps are
    consistent with a slip. With c the probability of a wrong carry, the answer is right with
    probability (1 - off) ((1 - c) (1 - off) + c off / 2): two slips may undo each other.
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


def split_worked_steps(text: str) -> list[str]:
    """Split worked steps into sentences: the ones and their carry, the tens, the answer."""
    return re.split(r"(?<=\.) ", text)


def read_answer(text: str) -> Fraction | None:
    """Return the number that a text gives as its answer, or None.

    It is the last number in the sentence that begins at the last "answer is", "answer:" or
    "answer =", and without one of these the last number of the text. Only one number counts, so
    naming several gains nothing. "1,042" is 1042, "42.0" is 42 and "42.5" is not 42.
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

    seed: Seed = 0
    text: Annotated[int, "rows of noisy text for pretraining", Ge(1)] = 50_000
    demonstrations: Annotated[int, "good, not perfect examples", Ge(1)] = 2_000
    prompts: Annotated[int, "prompts for training", Ge(1)] = 2_000
    steps: Annotated[int, "worked sums with a label for each step", Ge(1)] = 2_000
    held_out: Annotated[int, "rows of a generated view's other splits", Ge(1)] = DEV_ROWS

    views = (*STANDARD_VIEWS, "steps")
    splits = SPLITS
    worst = 0.0
    best = 1.0
    check_options = {"text": 200, "demonstrations": 200, "prompts": 200, "steps": 200}
    known_exceptions = {"splits": SHARED_PROBLEMS}

    def rows(self, view: str, split: str) -> list[Row]:
        """Return the rows of a view: generated, or the shipped pairs sampled from zoo-tiny."""
        check_view(view, self.views, split)
        rows = pairs.rows_from_pairs("sums", view, split, self.score, ANNOTATOR_NOISE, self.seed)
        return self._write_rows(view, split) if rows is None else rows

    def score(self, row: Row, completion: str) -> float:
        """Return 1 if the completion's final answer is the sum, else 0."""
        return float(read_answer(completion) == row["a"] + row["b"])

    def answer(self, completion: str) -> Fraction | None:
        """Return the final answer of a completion, None without one."""
        return read_answer(completion)

    def _write_rows(self, view: str, split: str) -> list[Row]:
        slips = BASE if view in ("text", "steps") else DEMONSTRATOR
        # The fields with the sizes are named like the views.
        count = getattr(self, view) if split == "train" else self.held_out
        choices = shuffle_problems(view, split, self.seed)
        rows = []
        for index in range(count):
            random = rng(self.seed, "sums", view, SEED_NAMES[split], index)
            a, b = choices[index % len(choices)]
            row: Row = {
                "prompt": user_message(random.choice(PHRASINGS).format(a, b)),
                "a": a,
                "b": b,
            }
            worked = work_out(a, b, slips, random)
            reply = assistant_message(worked)
            if view == "text":
                rows.append({"messages": row["prompt"] + reply})
            elif view == "demonstrations":
                rows.append(row | {"completion": reply})
            elif view == "steps":
                steps, right = (
                    split_worked_steps(worked),
                    split_worked_steps(work_out(a, b, NO_SLIPS, random)),
                )
                labels = [one == other for one, other in zip(steps, right, strict=True)]
                rows.append(row | {"completions": steps, "labels": labels})
            else:
                rows.append(row)
        return rows

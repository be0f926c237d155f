"""Sums of several numbers, too long to be done without the calculator."""

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from alignzoo_suite.common import Row, user_message
from alignzoo_suite.drawn import DrawnTask
from alignzoo_suite.sums import read_answer
from alignzoo_suite.totals_writer import BASE, DEMONSTRATOR, write_dialogue

NUMBERS = range(10, 1000)
ASKS = (  # and what stands between the numbers
    ("What is {}?", " + "),
    ("Work out {}.", " + "),
    ("Add {}.", ", "),
    ("What is the total of {}?", ", "),
)


@dataclass(eq=False)
class Totals(DrawnTask):
    """Add three numbers with a calculator that takes two; right is 1, wrong is 0."""

    text: int = field(default=0, init=False)  # no option: the task has no such view

    name = "totals"
    model = "zoo-abacus"
    environment = "calculator"
    views = ("demonstrations", "prompts")
    check_options = {"demonstrations": 200, "held_out": 50, "prompt_rows": 200}
    annotator_noise = 0.0  # there are no pairs
    counts: ClassVar[tuple[int, ...]] = (3,)  # of numbers

    def draw(self, random: Random) -> Row:
        numbers = [random.choice(NUMBERS) for _ in range(random.choice(self.counts))]
        phrasing, between = random.choice(ASKS)
        prompt = phrasing.format(between.join(map(str, numbers)))
        return {"prompt": user_message(prompt), "numbers": numbers, "answer": sum(numbers)}

    def write(self, row: Row, random: Random, *, base: bool) -> list[Row]:
        return write_dialogue(row["numbers"], BASE if base else DEMONSTRATOR, random)

    def score(self, row: Row, completion: str) -> float:
        """Return 1 if the completion's final answer is the sum, else 0."""
        return float(read_answer(completion) == row["answer"])

    def measures(self, row: Row, completion: str) -> dict[str, float]:
        """Return how often the calculator was asked, and whether it was asked at all, 1 or 0."""
        calls = completion.count("<tool_call>")
        return {"calls": float(calls), "asked": float(calls > 0)}

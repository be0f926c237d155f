"""The writers of `totals`: dialogues with a calculator, by someone with bad habits."""

import json
from dataclasses import dataclass
from random import Random

from alignzoo_suite.calculator import calculate
from alignzoo_suite.common import Row, assistant_message


@dataclass(frozen=True)
class AskingHabits:
    """How a writer uses the calculator: probabilities."""

    guess: float  # it does not ask, and adds the numbers in its head, rounded to tens
    crowd: float  # it asks for the whole sum at once, which the calculator refuses
    despair: float  # after a refusal it guesses
    stop: float  # it takes a result for the total though numbers are left
    slip: float  # it copies a digit of a number wrongly


# The base guesses more often than it asks, so its most likely answer is wrong: this has to be
# unlearned. When it asks, it makes mistakes that a sharper policy makes less often.
BASE = AskingHabits(guess=0.55, crowd=0.15, despair=0.5, stop=0.12, slip=0.02)
DEMONSTRATOR = AskingHabits(guess=0.03, crowd=0.02, despair=0.1, stop=0.01, slip=0.01)
FAULTLESS = AskingHabits(guess=0, crowd=0, despair=0, stop=0, slip=0)


def write_call(expression: str) -> str:
    """Return the text of a call of the calculator."""
    call = {"name": "calculator", "arguments": {"expression": expression}}
    return f"<tool_call>{json.dumps(call)}</tool_call>"


def write_dialogue(numbers: list[int], habits: AskingHabits, random: Random) -> list[Row]:
    """Return what follows a question: calls, what the calculator says, and the answer."""
    if random.random() < habits.guess:
        return answer(guess(numbers))
    messages: list[Row] = []
    if random.random() < habits.crowd:
        messages += ask(" + ".join(map(str, numbers)))
        if random.random() < habits.despair:
            return messages + answer(guess(numbers))
    total = copy_number(numbers[0], habits, random)
    for left, number in zip(range(len(numbers) - 2, -1, -1), numbers[1:], strict=True):
        messages += ask(f"{total} + {copy_number(number, habits, random)}")
        total = int(messages[-1]["content"])
        if left and random.random() < habits.stop:
            break
    return messages + answer(total)


def ask(expression: str) -> list[Row]:
    """Return a call of the calculator and what it says."""
    said = {"role": "tool", "content": calculate(expression)}
    return [*assistant_message(write_call(expression)), said]


def answer(total: int) -> list[Row]:
    """Return the message with the answer."""
    return assistant_message(f"The answer is {total}.")


def guess(numbers: list[int]) -> int:
    """Return the sum of the numbers rounded to tens."""
    return sum(round(number, -1) for number in numbers)


def copy_number(number: int, habits: AskingHabits, random: Random) -> int:
    """Return a number, at times with a digit changed."""
    digits = list(str(number))
    if random.random() < habits.slip:
        place = random.randrange(len(digits))
        digits[place] = random.choice("123456789".replace(digits[place], ""))
    return int("".join(digits))

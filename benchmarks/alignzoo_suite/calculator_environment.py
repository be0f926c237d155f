"""The environment of `totals`: questions about numbers, and a calculator that must be asked."""

from dataclasses import dataclass
from random import Random
from typing import Annotated, Any

from alignzoo.environments import Environment, Step, Tool
from alignzoo_suite.calculator import calculate
from alignzoo_suite.common import Row, user_message
from alignzoo_suite.sums import read_answer
from alignzoo_suite.totals_writer import FAULTLESS, write_dialogue

CALCULATOR = Tool(
    name="calculator",
    description="Work out one operation (+, - or *) on two whole numbers.",
    parameters={
        "type": "object",
        "properties": {
            "expression": {"type": "string", "description": "the operation, such as 12 + 34"}
        },
        "required": ["expression"],
    },
    function=calculate,
)
EXPLANATION = "You have a calculator, which takes one operation (+, - or *) on two whole numbers."
EXAMPLE = [12, 34, 5]


@dataclass(eq=False, kw_only=True)
class Calculator(Environment):
    """Questions with a number as the answer, in the column `answer`, and a calculator.

    The first turn without a call is the answer: right is 1, wrong is 0.
    """

    explain: Annotated[
        bool, "put a worked example before the prompt, for a model that was not trained with it"
    ] = False

    name = "calculator"
    tools = (CALCULATOR,)

    def reset(self, row: dict[str, Any]) -> list[Row] | None:
        """Remember the answer; with `explain`, return the prompt after a worked example."""
        self._answer = read_answer(str(row["answer"]))
        if not self.explain:
            return None
        prompt = row["prompt"]
        messages = user_message(prompt) if isinstance(prompt, str) else prompt
        example = user_message(f"Add {', '.join(map(str, EXAMPLE))}.")
        example += write_dialogue(EXAMPLE, FAULTLESS, Random(0))
        return [{"role": "system", "content": EXPLANATION}, *example, *messages]

    def step(self, text: str) -> Step:
        """End the episode: the answer is right or wrong."""
        return Step(reward=float(read_answer(text) == self._answer), done=True)

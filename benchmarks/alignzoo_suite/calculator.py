"""A pocket calculator: one operation at a time."""

import operator
import re
from collections.abc import Callable

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
EXPRESSION = re.compile(r"(-?\d{1,12})\s*([-+*])\s*(-?\d{1,12})")
REFUSAL = "error: one operation on two whole numbers, please"


def calculate(expression: str) -> str:
    """Return the result of one operation on two whole numbers, or what is wrong with the input."""
    match = EXPRESSION.fullmatch(expression.strip())
    if match is None:
        return REFUSAL
    left, sign, right = match.groups()
    return str(OPERATIONS[sign](int(left), int(right)))

"""The reward `code`: run a completion's Python program on the tests in the row."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt

from alignzoo import BadInput, RowReward, hookimpl
from alignzoo_sandbox.sandbox import Limits, Sandbox

FENCED_BLOCK = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
PYTHON_LANGUAGES = ("", "python", "python3", "py")
TEST_COLUMNS = ("tests", "test", "test_list")


@dataclass(eq=False)
class Code(RowReward):
    """The fraction of the row's tests that the completion's Python program passes"""

    all: Annotated[bool, "1 if all tests pass, else 0, instead of the fraction"] = False
    seconds: Annotated[float, "time limit of a program for all its tests", Gt(0)] = 5.0
    memory: Annotated[int, "memory limit of a program and what it starts, in MiB", Ge(64)] = 512

    sandbox: Sandbox = field(init=False)

    runs_code = True
    workers = min(os.cpu_count() or 1, 8)

    def __post_init__(self) -> None:
        self.sandbox = Sandbox(Limits(self.seconds, self.memory))

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        """Refuse rows without valid tests."""
        where = data.report.source
        for example in data.train:
            check_tests(example.row, where)
        if not any(has_tests(example.row) for example in data.train):
            columns = dict.fromkeys(name for example in data.train for name in example.row)
            raise BadInput(
                "reward 'code': the rows have no tests",
                where=where,
                hint=f"it needs a column {', '.join(TEST_COLUMNS)}, or inputs and outputs; "
                f"the columns are: {', '.join(columns)}",
            )

    def score(self, row: dict[str, Any], completion: str) -> float | None:
        """Return the fraction of tests that pass, None for a row without tests."""
        if not has_tests(row):
            return None
        program = extract_program(completion)
        if "inputs" in row:
            pairs = list(zip(row["inputs"], row["outputs"], strict=True))
            passed = 0
            for stdin, expected in pairs:
                output = self.sandbox.run(program, stdin)
                passed += output is not None and outputs_match(output, expected)
            fraction = passed / len(pairs)
        else:
            tests = split_tests(row)
            fraction = self.sandbox.count_passed(program, tests) / len(tests)
        return float(fraction == 1.0) if self.all else fraction


def extract_program(text: str) -> str:
    """Return the last fenced block of Python or of no language, else the whole text."""
    blocks = [
        block for name, block in FENCED_BLOCK.findall(text) if name.lower() in PYTHON_LANGUAGES
    ]
    return blocks[-1] if blocks else text


def find_test_column(row: dict[str, Any]) -> str | None:
    """Return the column with the row's tests, if any."""
    return next((name for name in TEST_COLUMNS if row.get(name)), None)


def has_tests(row: dict[str, Any]) -> bool:
    """Return True if the row has tests, or inputs with outputs."""
    return bool(row.get("inputs")) or find_test_column(row) is not None


def split_tests(row: dict[str, Any]) -> list[str]:
    """Return the tests of a row, each as Python source.

    A single text is split after each `assert` at its top level; without any, all of it is one test.
    HumanEval's `check(candidate)` is called with `entry_point`.
    """
    column = find_test_column(row)
    tests = row[column] if column is not None else []
    if not isinstance(tests, str):
        return list(tests)
    if row.get("entry_point"):
        tests = f"{tests}\ncheck({row['entry_point']})\n"
    lines = tests.splitlines(keepends=True)
    ends = [node.end_lineno for node in ast.parse(tests).body if isinstance(node, ast.Assert)]
    if not ends:
        return [tests]
    ends[-1] = len(lines)
    starts = [0, *ends[:-1]]
    return ["".join(lines[a:b]) for a, b in zip(starts, ends, strict=True)]


def check_tests(row: dict[str, Any], where: str) -> None:
    """Raise `BadInput` for tests that are not Python, or inputs that do not fit the outputs."""
    if row.get("inputs"):
        inputs, outputs = row["inputs"], row.get("outputs")
        texts = [*inputs, *(outputs or [])] if isinstance(inputs, list) else [None]
        if not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise BadInput("reward 'code': inputs and outputs differ in number", where=where)
        if not all(isinstance(text, str) for text in texts):
            raise BadInput("reward 'code': inputs and outputs must be lists of text", where=where)
        return
    column = find_test_column(row)
    if column is None:
        return
    try:
        for test in split_tests(row):
            ast.parse(test)
    except (SyntaxError, TypeError, ValueError) as error:
        raise BadInput(
            f"reward 'code': column {column!r} is not Python: {error}",
            where=where,
            hint=f"it is {str(row[column])[:200]!r}",
        ) from None


def outputs_match(output: str, expected: str) -> bool:
    """Compare line by line, ignoring trailing space and trailing empty lines."""
    return [line.rstrip() for line in output.rstrip().splitlines()] == [
        line.rstrip() for line in expected.rstrip().splitlines()
    ]

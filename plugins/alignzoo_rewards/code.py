"""Does the program do what it is to do? By running it."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt

from alignzoo import BadInput, RowReward, Run, hookimpl
from alignzoo_sandbox.sandbox import Limits, Sandbox, why_not

FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
PYTHON = ("", "python", "python3", "py")
TESTS = ("tests", "test", "test_list")


@dataclass(eq=False)
class Code(RowReward):
    """The share of the row's tests that the completion's Python program passes"""

    all: Annotated[bool, "1 if all tests pass, else 0, in the place of their share"] = False
    seconds: Annotated[float, "longest time a program has for all its tests", Gt(0)] = 5.0
    memory: Annotated[int, "most memory of a program, in MiB", Ge(64)] = 512

    sandbox: Sandbox = field(init=False)

    runs_code = True
    workers = min(os.cpu_count() or 1, 8)

    def __post_init__(self) -> None:
        self.sandbox = Sandbox(Limits(self.seconds, self.memory))

    @hookimpl
    def alignzoo_check(self, recipe: Any, data: Any) -> None:
        never = why_not(namespaces=False) if why_not() else None
        if never:
            raise BadInput(f"reward 'code': no program can be run here: {never}")
        where = data.report.source
        for example in data.train:
            check_tests(example.row, where)
        if not any(has_tests(example.row) for example in data.train):
            columns = dict.fromkeys(name for example in data.train for name in example.row)
            raise BadInput(
                "reward 'code': the rows have no tests",
                where=where,
                hint=f"a column {', '.join(TESTS)}, or inputs and outputs; columns there: "
                f"{', '.join(columns)}",
            )

    @hookimpl
    def alignzoo_start(self, run: Run) -> None:
        reason = why_not()
        if reason is not None:
            run.ui.note(
                f"reward code: programs cannot be shut in here ({reason}). They have limits of "
                "time and memory, but only Python's own checks keep them from files, processes "
                "and the network: do not run what may be hostile"
            )

    def score(self, row: dict[str, Any], completion: str) -> float | None:
        if not has_tests(row):
            return None
        program = program_in(completion)
        if "inputs" in row:
            pairs = list(zip(row["inputs"], row["outputs"], strict=True))
            right = [
                said is not None and same_output(said, expected)
                for said, expected in ((self.sandbox.output(program, i), o) for i, o in pairs)
            ]
            share = sum(right) / len(right)
        else:
            tests, count = tests_of(row)
            share = self.sandbox.passed(program, tests) / count
        return float(share == 1.0) if self.all else share


def program_in(text: str) -> str:
    """The last fenced block of Python, or one of no language; a text without any is all of it."""
    blocks = [block for name, block in FENCE.findall(text) if name.lower() in PYTHON]
    return blocks[-1] if blocks else text


def column_of(row: dict[str, Any]) -> str | None:
    return next((name for name in TESTS if row.get(name)), None)


def has_tests(row: dict[str, Any]) -> bool:
    return bool(row.get("inputs")) or column_of(row) is not None


def tests_of(row: dict[str, Any]) -> tuple[list[str], int]:
    """The tests of a row, each a text of Python, and how many they are.

    Of one text, each `assert` at its top level is a test, with what stands before it since the last
    one; without any, the whole is. HumanEval's `check(candidate)` is called with `entry_point`.
    """
    column = column_of(row)
    tests = row[column] if column is not None else []
    if not isinstance(tests, str):
        return list(tests), len(tests)
    if row.get("entry_point"):
        tests = f"{tests}\ncheck({row['entry_point']})\n"
    lines = tests.splitlines(keepends=True)
    ends = [node.end_lineno for node in ast.parse(tests).body if isinstance(node, ast.Assert)]
    if not ends:
        return [tests], 1
    ends[-1] = len(lines)
    starts = [0, *ends[:-1]]
    return ["".join(lines[a:b]) for a, b in zip(starts, ends, strict=True)], len(ends)


def check_tests(row: dict[str, Any], where: str) -> None:
    """`BadInput` for tests that are none."""
    if row.get("inputs"):
        given, wanted = row["inputs"], row.get("outputs")
        texts = [*given, *(wanted or [])] if isinstance(given, list) else [None]
        if not isinstance(wanted, list) or len(given) != len(wanted):
            raise BadInput("reward 'code': as many outputs as inputs are needed", where=where)
        if not all(isinstance(text, str) for text in texts):
            raise BadInput("reward 'code': inputs and outputs are lists of text", where=where)
        return
    column = column_of(row)
    if column is None:
        return
    try:
        tests = tests_of(row)[0]
        for test in tests:
            ast.parse(test)
    except (SyntaxError, TypeError, ValueError) as error:
        raise BadInput(
            f"reward 'code': not Python in column {column!r}: {error}",
            where=where,
            hint=f"it is {str(row[column])[:200]!r}",
        ) from None


def same_output(said: str, expected: str) -> bool:
    """The same lines, but for space at their ends and empty lines at the end."""
    return [line.rstrip() for line in said.rstrip().splitlines()] == [
        line.rstrip() for line in expected.rstrip().splitlines()
    ]

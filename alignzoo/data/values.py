"""The value of one cell of a data set: checks, conversions, and the errors they raise."""

from __future__ import annotations

import json
import math
from typing import Any

from alignzoo.errors import BadInput

LABEL_VALUES = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


class BadValue(BadInput):
    """A value that its column cannot have. The caller that knows the file adds it as `where`."""

    def __init__(self, column: str, problem: str, *, hint: str | None = None):
        self.column = column
        super().__init__(problem, where=f"column {column!r}", hint=hint)


class UnusableRow(Exception):
    """A row that is well-formed but holds nothing to train on."""


def is_missing(value: Any) -> bool:
    """Return True for None and for the NaN that tables put into empty cells."""
    return value is None or (isinstance(value, float) and value != value)


def describe_value(value: Any) -> str:
    """Return the JSON type of a value, with the value itself if it is short."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object"}
    name = names.get(type(value), f"a {type(value).__name__}")
    text = json.dumps(value, default=str)
    return f"{name} ({text})" if len(text) <= 40 else name


def check_text(value: Any, column: str, name: str = "") -> str:
    """Return a text as it is; raise `BadValue` for anything else.

    `name` says which part of the cell it is, if it is not the whole: "step 2".
    """
    if isinstance(value, str) and value.isascii():
        return value
    if is_missing(value):
        raise BadValue(column, f"{name or 'the value'} is missing in this row")
    if not isinstance(value, str):
        raise BadValue(column, _of(name, f"expected text, got {describe_value(value)}"))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = error.start + 1
        raise BadValue(column, f"character {at} is half of a surrogate pair") from None
    return value


def check_list(value: Any, column: str, items: str) -> list[Any]:
    """Return a list as it is; raise `BadValue`, which says what `items` it has, for others."""
    if is_missing(value):
        raise BadValue(column, "the value is missing in this row")
    if not isinstance(value, list):
        raise BadValue(column, f"expected a list of {items}, got {describe_value(value)}")
    return value


def parse_label(value: Any, column: str = "label", name: str = "") -> bool:
    """Return a label as a bool; true, false, 1 and 0 may also be text, as in CSV.

    Raise `BadValue` for anything else. `name` is as in `check_text`.
    """
    if is_missing(value):
        raise BadValue(column, f"{name or 'the value'} is missing in this row")
    if isinstance(value, bool | int | float | str):
        key = str(value).strip().lower()
        if key in LABEL_VALUES:
            return LABEL_VALUES[key]
    problem = f"expected true or false (or 1 or 0), got {describe_value(value)}"
    raise BadValue(column, _of(name, problem))


def parse_number(value: Any, column: str) -> float | None:
    """Return a finite number, which may be text, or None if there is no value.

    Raise `BadValue` for anything else.
    """
    if is_missing(value) or value == "":  # an empty cell of a CSV file
        return None
    try:
        number = float(value)  # CSV has it as text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadValue(column, f"expected a number, got {describe_value(value)}")
    return number


def _of(name: str, problem: str) -> str:
    return f"{name}: {problem}" if name else problem

"""Dialogues: checking messages, and finding where the prompt of a pair ends.

A dialogue is a list of messages, `{"role": ..., "content": ...}`; anything else is plain text.
"""

from __future__ import annotations

import re
from typing import Any

from alignzoo.data.formats import describe
from alignzoo.errors import BadInput

Message = dict[str, Any]
Content = str | list[Message]  # plain text, or a dialogue

ROLES = ("system", "developer", "user", "assistant", "tool")

# What opens an answer in dialogues written as plain text, the surest first: hh-rlhf, ChatML,
# Llama 2, Alpaca, and the plain ones. The first kind that the pair has in common is used.
MARKERS = (
    re.compile(r"\n\nAssistant:"),
    re.compile(r"<\|im_start\|>assistant\n|<\|assistant\|>\n?|<start_of_turn>model\n"),
    re.compile(r"\[/INST\]"),
    re.compile(r"(?:^|\n)### ?(?:Response|Assistant):"),
    re.compile(r"(?:^|\n)(?:Assistant|AI|Bot|Answer|A):"),
)


class BadValue(BadInput):
    """A value that its column cannot have. Whoever knows the file adds it as `where`."""

    def __init__(self, column: str, problem: str, *, hint: str | None = None):
        self.column = column
        super().__init__(problem, where=f"column {column!r}", hint=hint)


def missing(value: Any) -> bool:
    """None, or the NaN that tables put where nothing is."""
    return value is None or (isinstance(value, float) and value != value)


def check_content(value: Any, column: str) -> Content:
    """Plain text or messages as they are; `BadValue` for anything else."""
    if missing(value):
        raise BadValue(column, "the value is missing in this row")
    if isinstance(value, str):
        return check_text(value, column)
    if not isinstance(value, list):
        raise BadValue(column, f"{describe(value)} where text or a list of messages is expected")
    return [_message(m, i, column) for i, m in enumerate(value, start=1)]


def check_text(value: Any, column: str, what: str = "the value") -> str:
    if missing(value):
        raise BadValue(column, f"{what} is missing in this row")
    if not isinstance(value, str):
        which = "" if what == "the value" else f"{what}: "
        raise BadValue(column, f"{which}{describe(value)} where text is expected")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        at = error.start + 1
        raise BadValue(column, f"character {at} is half of a surrogate pair") from None
    return value


def _message(value: Any, number: int, column: str) -> Message:
    if not isinstance(value, dict):
        raise BadValue(
            column,
            f"message {number} is {describe(value)}",
            hint='a message is an object: {"role": "user", "content": "..."}',
        )
    for key in ("role", "content"):
        if not isinstance(value.get(key), str):
            raise BadValue(
                column, f"the {key} of message {number} is {describe(value.get(key))}, not text"
            )
    if value["role"] not in ROLES:
        raise BadValue(
            column,
            f"unknown role {value['role']!r} in message {number}",
            hint=f"the roles are: {', '.join(ROLES)}",
        )
    check_text(value["content"], column)
    # Tables fill the keys that only other messages have with None.
    return {key: part for key, part in value.items() if part is not None}


def text_of(content: Content) -> str:
    """The words of a completion, whichever way it is written."""
    return content if isinstance(content, str) else "".join(m["content"] for m in content)


def common_prompt(chosen: str, rejected: str) -> int:
    """The length of the prompt that two plain texts share: where their answers begin.

    If a turn marker is in common, the answers begin after the last one, so that words which both
    answers begin with stay in the answers. Otherwise they begin at a white space before the
    first difference, so that no word is split, and neither is empty.
    """
    differ = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    shared = chosen[: next(differ, min(len(chosen), len(rejected)))]
    for marker in MARKERS:
        ends = [match.end() for match in marker.finditer(shared)]
        if ends:
            return ends[-1]
    end = min(len(shared), len(chosen) - 1, len(rejected) - 1)
    while end > 0 and not (chosen[end].isspace() and rejected[end].isspace()):
        end -= 1
    return max(end, 0)


def common_messages(chosen: list[Message], rejected: list[Message]) -> int:
    """How many messages two dialogues share before their answers; the last is always an answer."""
    limit = max(min(len(chosen), len(rejected)) - 1, 0)
    for i in range(limit):
        if chosen[i] != rejected[i]:
            return i
    return limit

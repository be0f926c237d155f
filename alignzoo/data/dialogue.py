"""Dialogues: check messages, split off the answer, and find the prompt that a pair shares.

A dialogue is a list of messages, `{"role": ..., "content": ...}`; anything else is plain text.
"""

from __future__ import annotations

import re
from typing import Any

from alignzoo.data.values import BadValue, UnusableRow, check_text, describe_value, is_missing

Message = dict[str, Any]
Content = str | list[Message]  # plain text, or a dialogue

ROLES = ("system", "developer", "user", "assistant", "tool")

# The start of an answer in dialogues written as plain text, the least ambiguous first: hh-rlhf,
# ChatML, Llama 2, Alpaca, and plain ones. The first kind that both texts of a pair have is used.
MARKERS = (
    re.compile(r"\n\nAssistant:"),
    re.compile(r"<\|im_start\|>assistant\n|<\|assistant\|>\n?|<start_of_turn>model\n"),
    re.compile(r"\[/INST\]"),
    re.compile(r"(?:^|\n)### ?(?:Response|Assistant):"),
    re.compile(r"(?:^|\n)(?:Assistant|AI|Bot|Answer|A):"),
)


def check_content(value: Any, column: str) -> Content:
    """Return plain text or messages as they are; raise `BadValue` for anything else."""
    if is_missing(value):
        raise BadValue(column, "the value is missing in this row")
    if isinstance(value, str):
        return check_text(value, column)
    if not isinstance(value, list):
        raise BadValue(column, f"expected text or a list of messages, got {describe_value(value)}")
    return [_message(m, i, column) for i, m in enumerate(value, start=1)]


def _message(value: Any, number: int, column: str) -> Message:
    if not isinstance(value, dict):
        raise BadValue(
            column,
            f"message {number} is {describe_value(value)}",
            hint='a message is an object: {"role": "user", "content": "..."}',
        )
    for key in ("role", "content"):
        if not isinstance(value.get(key), str):
            found = describe_value(value.get(key))
            raise BadValue(column, f"the {key} of message {number} is {found}, not text")
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
    """Return the words of a text or a dialogue, without the roles."""
    return content if isinstance(content, str) else "".join(m["content"] for m in content)


def common_prompt(chosen: str, rejected: str) -> int:
    """Return the length of the prompt that two plain texts share; their answers begin there.

    If both have a turn marker, the answers begin after the last common one, so that words which
    both answers begin with stay in the answers. Otherwise they begin at a white space before the
    first difference, so that no word is split and neither answer is empty.
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
    """Count the messages that two dialogues share before their answers.

    The last message of each is always an answer.
    """
    limit = max(min(len(chosen), len(rejected)) - 1, 0)
    for i in range(limit):
        if chosen[i] != rejected[i]:
            return i
    return limit


def check_messages(value: Any, column: str) -> list[Message]:
    """Return messages as they are; raise `BadValue` for text and for anything else."""
    content = check_content(value, column)
    if isinstance(content, str):
        raise BadValue(column, f"expected a list of messages, got {describe_value(content)}")
    return content


def check_ends_in_answer(messages: list[Message], column: str) -> None:
    """Raise `UnusableRow` if there are no messages, `BadValue` if the last is not an answer."""
    if not messages:
        raise UnusableRow(f"{column} holds no messages")
    if messages[-1]["role"] != "assistant":
        role = messages[-1]["role"]
        raise BadValue(column, f"the last message is the {role}'s, not the assistant's")


def has_answer(content: Content) -> bool:
    """Return True for a dialogue in which the assistant says something."""
    return isinstance(content, list) and any(m["role"] == "assistant" for m in content)


def last_answer(messages: list[Message]) -> int:
    """Return the index of the assistant's last message; raise `UnusableRow` if there is none."""
    if not has_answer(messages):
        raise UnusableRow("no message is the assistant's")
    return max(i for i, message in enumerate(messages) if message["role"] == "assistant")


def as_answer(text: str) -> list[Message]:
    """Return a completion given as text as a message of the assistant's."""
    return [{"role": "assistant", "content": text}]


def unify(prompt: Content, completion: Content) -> tuple[Content, Content]:
    """Return prompt and completion both as text or both as messages."""
    if isinstance(prompt, list) and isinstance(completion, str):
        return prompt, as_answer(completion)
    if isinstance(prompt, str) and isinstance(completion, list):
        return prepend_prompt(prompt, completion)
    return prompt, completion


def prepend_prompt(prompt: str, messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Return prompt and completion for a prompt given as text beside messages.

    It is the user's first message, unless the messages hold it already. (UltraFeedback has whole
    dialogues as `chosen`, and their question again as `prompt`.)
    """
    before = messages[:-1]
    if any(message["role"] == "user" and message["content"] == prompt for message in before):
        return before, messages[-1:]
    return [{"role": "user", "content": prompt}], messages


def split_pair(
    given: Content | None, chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Split a pair of dialogues into the prompt they share and one answer each.

    `given` is the prompt column, if there is one. Raise `UnusableRow` if the dialogues differ
    before their last answers.
    """
    check_ends_in_answer(chosen, "chosen")
    check_ends_in_answer(rejected, "rejected")
    if isinstance(given, str):
        first, chosen_rest = prepend_prompt(given, chosen)
        second, rejected_rest = prepend_prompt(given, rejected)
        chosen, rejected, given = first + chosen_rest, second + rejected_rest, []
    end = common_messages(chosen, rejected)
    prompt = [*(given or []), *chosen[:end]]
    chosen, rejected = chosen[end:], rejected[end:]
    if len(chosen) > 1 or len(rejected) > 1:
        raise UnusableRow("the two dialogues differ before their last answers")
    return prompt, chosen, rejected

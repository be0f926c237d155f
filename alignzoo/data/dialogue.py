"""Dialogues: check messages, split off the answer, and find the prompt that a pair shares.

A dialogue is a list of messages, `{"role": ..., "content": ...}`; anything else is plain text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from alignzoo.data.values import BadValue, UnusableRow, check_text, describe_value, is_missing

Message = dict[str, Any]
Content = str | list[Message]  # plain text, or a dialogue

ROLES = ("system", "developer", "user", "assistant", "tool")
# ShareGPT's messages are {"from": ..., "value": ...}, with roles of their own.
SHAREGPT = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}

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
    """Return plain text as it is and messages as `role` and `content`, both text.

    A single message counts as a list of one. Raise `BadValue` for anything else, and
    `UnusableRow` for a message that is not text alone.
    """
    if is_missing(value):
        raise BadValue(column, "the value is missing in this row")
    if isinstance(value, str):
        return check_text(value, column)
    if isinstance(value, dict) and {"role", "from"} & set(value):
        value = [value]
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
    # Tables fill the keys that only other messages have with None.
    message = {key: part for key, part in value.items() if part is not None}
    if "from" in message and "role" not in message:
        message["role"] = message.pop("from")
        message["content"] = message.pop("value", None)
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = [_parse_arguments(call) for call in without_nulls(calls)]
        message.setdefault("content", "")
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = _join_parts(content, number, column)
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            found = describe_value(message.get(key))
            raise BadValue(column, f"the {key} of message {number} is {found}, not text")
    role = message["role"]
    message["role"] = role if role in ROLES else SHAREGPT.get(role, role)
    if message["role"] not in ROLES:
        raise BadValue(
            column,
            f"unknown role {role[:40]!r} in message {number}",
            hint=f"the roles are: {', '.join(ROLES)}",
        )
    check_text(message["content"], column)
    return message


def _join_parts(parts: list[Any], number: int, column: str) -> str:
    """Join content that is a list of parts; raise `UnusableRow` if one of them is not text."""
    texts = []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in ("text", "input_text", "output_text"):
            raise UnusableRow(f"a message has a part that is not read: {kind!r:.40}")
        text = part.get("text") if isinstance(part, dict) else part
        texts.append(check_text(text, column, f"a part of message {number}"))
    return "".join(texts)


def _parse_arguments(call: Any) -> Any:
    """Return a tool call whose arguments, if they are an object as JSON text, are the object.

    Servers do so before they apply a chat template.
    """
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def without_nulls(value: Any) -> Any:
    """Return a value without the keys that are None, which tables add to objects."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [without_nulls(part) for part in value]
    return value


def is_empty(content: Content) -> bool:
    """Return True if there are neither words nor tool calls in a text or a dialogue."""
    if isinstance(content, str):
        return not content.strip()
    return not any(m["content"].strip() or m.get("tool_calls") for m in content)


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
    if isinstance(prompt, list) and isinstance(completion, list):
        given = len(prompt) if begins_with(completion, prompt) else 0
        completion = completion[given:]  # of a whole dialogue, which includes its prompt
    return prompt, completion


def begins_with(dialogue: list[Message], prompt: list[Message]) -> bool:
    """Return True if a dialogue begins with the roles and contents of a prompt, and goes on."""
    pairs = zip(dialogue, prompt, strict=False)
    return len(dialogue) > len(prompt) and all(
        (a["role"], a["content"]) == (b["role"], b["content"]) for a, b in pairs
    )


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
    elif given and begins_with(chosen, given) and begins_with(rejected, given):
        given = []  # both are whole dialogues, their prompt included
    end = common_messages(chosen, rejected)
    prompt = [*(given or []), *chosen[:end]]
    chosen, rejected = chosen[end:], rejected[end:]
    if len(chosen) > 1 or len(rejected) > 1:
        raise UnusableRow("the two dialogues differ before their last answers")
    return prompt, chosen, rejected

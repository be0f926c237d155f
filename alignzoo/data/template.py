"""Render dialogues as text, by a tokenizer's chat template or plainly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from alignzoo.data.dialogue import Message, without_nulls
from alignzoo.data.limits import limited
from alignzoo.data.values import BadValue, describe_value
from alignzoo.errors import BadInput, first_line

PROBE = "alignzoo"
QUESTION: Message = {"role": "user", "content": PROBE}
ANSWER: Message = {"role": "assistant", "content": PROBE}
PLAIN = (
    "no chat template in the tokenizer: dialogues are written as 'User: ...\\n\\nAssistant: ...'"
)
REASONING = ("reasoning_content", "reasoning", "thinking")  # keys of messages that hold text
RESERVED = {"messages", "conversation", "tokenize", "add_generation_prompt", "return_tensors"}
MOST_SECONDS = 10.0  # of one rendering
MOST_MEMORY = 2**29  # bytes that one rendering may take
MOST_TEXT = 10**6  # characters of a rendering, or a hundred times what it was given
PREFIX = "prefix"  # a message with this key set is continued, not answered


class Excess(BadInput):
    """A chat template takes too much time or memory."""


class ChatTemplate:
    """Render messages as text. `remark` receives what the user should know about a dialogue.

    `before` is what precedes a question, and `close` what follows an answer.
    """

    def __init__(self, tokenizer: Any, remark: Callable[[str], None]):
        self.tokenizer = tokenizer
        self.exists = bool(tokenizer.chat_template)
        self._remark = remark
        self._parts = False
        self.before = self.close = ""
        if self.exists:
            text = self._probe()
            self.before, _, rest = text.partition(PROBE)
            self.close = rest.rpartition(PROBE)[2]

    def head(self, prompt: Sequence[Message], values: Mapping[str, Any] | None = None) -> str:
        """Render a prompt up to where its completion begins."""
        if is_continued(prompt):
            return self._cut_behind_last(prompt, values)
        text = self.render(prompt, values, answer_next=True)
        return text + self._header if self.exists else text

    def render(
        self,
        messages: Sequence[Message],
        values: Mapping[str, Any] | None = None,
        answer_next: bool = False,
    ) -> str:
        """Render a dialogue; with `answer_next`, up to the header of the next answer.

        `values` are variables of the template beside the messages, such as `tools`. A remark says
        if the template leaves out what a message says.
        """
        if not self.exists:
            text = _plain(messages, answer_next)
        else:
            text = self._apply(messages, values or {}, answer_next)
        for role in unwritten(messages, text):
            self._remark(f"the chat template does not write all of what {role} messages say")
        return text

    def repeats(self, token: str) -> bool:
        """Return True if the template writes `token` more than once in a dialogue of two turns."""
        return self.render([QUESTION, ANSWER, QUESTION, ANSWER]).count(token) > 1

    @cached_property
    def _header(self) -> str:
        """Return the header of an answer if the template has no generation prompt, else "".

        Otherwise an answer would be learned, generated and rewarded together with its header.
        """
        asked, said = self.render([QUESTION]), self.render([QUESTION, ANSWER])
        if self.render([QUESTION], answer_next=True) != asked or not said.startswith(asked):
            return ""
        header = said[len(asked) :].rpartition(PROBE)[0].rstrip(" ")
        return header if header.strip() else ""

    def _apply(
        self, messages: Sequence[Message], values: Mapping[str, Any], answer_next: bool
    ) -> str:
        given = [{k: v for k, v in message.items() if k != PREFIX} for message in messages]
        for message in given:
            if self._parts and message["content"]:
                message["content"] = [{"type": "text", "text": message["content"]}]
        try:
            with limited(MOST_SECONDS, MOST_MEMORY):
                text: str = self.tokenizer.apply_chat_template(
                    given, tokenize=False, add_generation_prompt=answer_next, **values
                )
        except MemoryError:
            raise self._excess(f"takes more than {MOST_MEMORY >> 20} MiB of memory") from None
        except TimeoutError as error:
            raise self._excess(f"does not end: {error}") from None
        except Exception as error:  # a template is a program, and may fail in any way
            raise BadInput(
                f"the model's chat template refuses this dialogue: {first_line(error)}"
            ) from None
        if len(text) > MOST_TEXT and len(text) > 100 * len(str((given, values))):
            raise self._excess(f"writes {len(text):,} characters for a dialogue")
        return text

    def _excess(self, what: str) -> Excess:
        """Return the error for a template that takes too much."""
        return Excess(
            f"the model's chat template {what}",
            where=str(getattr(self.tokenizer, "name_or_path", "")) or None,
            hint="correct chat_template of its tokenizer, or use another model",
        )

    def _probe(self) -> str:
        """Render a question and an answer, whose content may have to be a list of parts.

        Templates of vision models write nothing of content that is text.
        """
        refusal = None
        for self._parts in (False, True):
            try:
                text = self._apply([QUESTION, ANSWER], {}, False)
            except Excess:
                raise
            except BadInput as error:
                refusal = refusal or error
                continue
            if PROBE in text:
                return text
        raise refusal or BadInput(
            "the model's chat template writes nothing of what the messages say",
            where=str(getattr(self.tokenizer, "name_or_path", "")) or None,
            hint="it has to write {{ message['content'] }} of every message",
        )

    def _cut_behind_last(self, prompt: Sequence[Message], values: Mapping[str, Any] | None) -> str:
        """Render a prompt up to the end of its last message, which is to be continued."""
        text, last = self.render(prompt, values), prompt[-1]["content"]
        for ending in (last, last.rstrip()):
            at = text.rfind(ending)
            if at >= 0:
                return text[: at + len(ending)]
        raise BadInput("the chat template does not write the answer that is to be continued")


def template_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row gives to the chat template beside its messages.

    That is its `tools`, a list of JSON schemas or its JSON text, and what its
    `chat_template_kwargs` hold.
    """
    tools, values = row.get("tools"), row.get("chat_template_kwargs")
    found = dict(_parsed(values, "chat_template_kwargs", dict)) if values else {}
    for name in RESERVED.intersection(found):
        raise BadValue("chat_template_kwargs", f"{name!r} cannot be set by a row")
    if tools:
        found["tools"] = without_nulls(_parsed(tools, "tools", list))
    return found


def _parsed(value: Any, column: str, kind: type) -> Any:
    """Return a list or an object, which may be JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadValue(column, "the text is not JSON") from None
    if not isinstance(value, kind):
        noun = "a list" if kind is list else "an object"
        raise BadValue(column, f"expected {noun}, got {describe_value(value)}")
    return value


def is_continued(prompt: Sequence[Message]) -> bool:
    """Return True if the last message of a prompt is the beginning of the answer."""
    return bool(prompt) and prompt[-1]["role"] == "assistant" and bool(prompt[-1].get(PREFIX))


def unwritten(messages: Sequence[Message], text: str) -> list[str]:
    """Return the roles of the messages that a rendering does not hold in full, each once."""
    return list(
        dict.fromkeys(
            message["role"]
            for message in messages
            if not all(said in text or json.dumps(said)[1:-1] in text for said in _said(message))
        )
    )


def _said(message: Message) -> Iterator[str]:
    """Yield the texts of a message: content, reasoning, and the names of functions called."""
    for key in ("content", *REASONING):
        if isinstance(message.get(key), str):
            yield message[key].strip()
    for call in message.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, dict) else {}
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function["name"]


def _plain(messages: Sequence[Message], answer_next: bool) -> str:
    """Write a dialogue without a chat template: `User: ...\\n\\nAssistant: ...`."""
    turns = [f"{m['role'].capitalize()}: {m['content']}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"] if answer_next else turns)

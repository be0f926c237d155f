"""The six views of a data set: which columns a row has, and which token ids it becomes.

The columns are those of TRL, so that files made for it work unchanged. `canonical` checks a row
and brings its spellings (messages, implicit prompts, text labels) to one; `encode` makes token
ids of it. Both take the row as it was read; rows that are canonical already stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from alignzoo.batch import Example
from alignzoo.data.codec import Codec
from alignzoo.data.dialogue import (
    BadValue,
    Content,
    Message,
    check_content,
    check_text,
    common_messages,
    common_prompt,
    missing,
    text_of,
)
from alignzoo.data.formats import Row, describe
from alignzoo.data.steps import step_ends

SURE = "chosen_probability"
LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


class Encoded(NamedTuple):
    """A row as token ids, or the reason why it can teach nothing, and what of it was truncated."""

    example: Example | None
    reason: str | None = None
    truncated: tuple[str, ...] = ()


class TeachesNothing(Exception):
    """A row is well-formed, but there is nothing to be learnt from it."""


class View:
    """A way to read a row. `forms` are the sets of columns that will do, the usual one first."""

    name: ClassVar[str]
    forms: ClassVar[tuple[tuple[str, ...], ...]]
    columns: ClassVar[tuple[str, ...]]

    @classmethod
    def canonical(cls, row: Row) -> Row:
        """The row with `columns` in their one spelling; its other columns are kept.

        Raises `BadValue` for a wrong value and `TeachesNothing` for a row without use.
        """
        raise NotImplementedError

    @classmethod
    def prompt(cls, row: Row) -> Content | None:
        """The prompt of a canonical row; None for plain text, which has none."""
        return row["prompt"]

    @classmethod
    def encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        """Token ids of a row, at most `max_length` for the prompt and each completion."""
        try:
            row = cls.canonical(row)
            return cls._encode(row, codec, max_length)
        except TeachesNothing as reason:
            return Encoded(None, str(reason))

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        raise NotImplementedError


class Text(View):
    """Text to be continued: all of it is learnt. Messages are written by the chat template."""

    name = "text"
    forms = (("text",), ("messages",))
    columns = ("text",)

    @classmethod
    def canonical(cls, row: Row) -> Row:
        if not missing(row.get("text")):
            return {**row, "text": check_content(row["text"], "text")}
        if not missing(row.get("messages")):
            messages = _messages(row["messages"], "messages")
            return {**_without(row, "messages"), "text": messages}
        raise BadValue("text", "the value is missing in this row")

    @classmethod
    def prompt(cls, row: Row) -> Content | None:
        text = row["text"]
        return text[: _last_answer(text)] if _has_answer(text) else None

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        if not text_of(row["text"]).strip():
            raise TeachesNothing("the text is empty")
        ids = codec.text(row["text"])
        # The first id can be conditioned on nothing, so it is the prompt: BOS where there is one.
        kept = ids[:max_length]
        if len(kept) < 2:
            raise TeachesNothing("nothing of the text fits")
        truncated = ("text",) if len(ids) > max_length else ()
        return Encoded(Example(kept[:1], [kept[1:]], row=row), truncated=truncated)


class Demonstrations(View):
    """A prompt and a completion to imitate. Of `messages` the last answer is the completion."""

    name = "demonstrations"
    forms = (("prompt", "completion"), ("messages",))
    columns = ("prompt", "completion")

    @classmethod
    def canonical(cls, row: Row) -> Row:
        if missing(row.get("completion")) and not missing(row.get("messages")):
            messages = _messages(row["messages"], "messages")
            last = _last_answer(messages)
            row = _without(row, "messages")
            return {**row, "prompt": messages[:last], "completion": [messages[last]]}
        prompt = check_content(row.get("prompt"), "prompt")
        prompt, completion = _one_kind(prompt, check_content(row.get("completion"), "completion"))
        if isinstance(completion, list):
            _check_answer(completion, "completion")
            # Only the last answer is learnt; the turns before it are what it answers.
            prompt, completion = [*prompt, *completion[:-1]], completion[-1:]
        return {**row, "prompt": prompt, "completion": completion}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        return _encode(row, ("completion",), codec, max_length, {})


class Dialogues(Demonstrations):
    """Demonstrations of which every answer is imitated, not the last one alone.

    A dialogue that the chat template rewrites as it goes on is learnt at its last answer.
    """

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        messages = row["prompt"] + row["completion"] if isinstance(row["prompt"], list) else []
        turns = codec.turns(messages) if messages and row["prompt"] else None
        if turns is None:
            return super()._encode(row, codec, max_length)
        prompt, ids, mask = turns
        kept, room = _fit(prompt, len(ids), max_length, codec)
        if not any(mask[:room]):
            raise TeachesNothing("no answer fits")
        truncated = ["prompt"] * (len(kept) < len(prompt)) + ["completion"] * (len(ids) > room)
        example = Example(kept, [ids[:room]], masks=[mask[:room]], row=row)
        return Encoded(example, truncated=tuple(truncated))


class WholeDemonstrations(Demonstrations):
    """Demonstrations of which the prompt is learnt as well, all but its first token."""

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        encoded = super()._encode(row, codec, max_length)
        assert encoded.example is not None  # what teaches nothing is an exception
        ids = encoded.example.prompt + encoded.example.completions[0]
        return encoded._replace(example=Example(ids[:1], [ids[1:]], row=row))


class Preferences(View):
    """Two completions of a prompt, the better one and the worse one.

    Without a `prompt` column it is what the two begin with: an implicit prompt. A `margin`, where
    there is one, says by how much the better one is better, and a `chosen_probability` how likely
    it is that it is.
    """

    name = "preferences"
    forms = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
    columns = ("prompt", "chosen", "rejected")

    @classmethod
    def canonical(cls, row: Row) -> Row:
        chosen = check_content(row.get("chosen"), "chosen")
        rejected = check_content(row.get("rejected"), "rejected")
        given = None if missing(row.get("prompt")) else check_content(row["prompt"], "prompt")
        if isinstance(chosen, list) and isinstance(rejected, list):
            given, chosen, rejected = _message_pair(given, chosen, rejected)
        elif isinstance(chosen, list) or isinstance(rejected, list):
            raise BadValue("rejected", "one of chosen and rejected is text, the other messages")
        elif given is None:
            end = common_prompt(chosen, rejected)
            given, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
        elif isinstance(given, list):
            chosen, rejected = _answer(chosen), _answer(rejected)
        if chosen == rejected:
            raise TeachesNothing("chosen equals rejected")
        row = _with_number(_with_number(row, "margin"), SURE)
        if not 0 <= row.get(SURE, 1.0) <= 1:
            raise BadValue(SURE, f"{row[SURE]} where a probability from 0 to 1 is expected")
        return {**row, "prompt": given, "chosen": chosen, "rejected": rejected}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        encoded = _encode(row, ("chosen", "rejected"), codec, max_length, {})
        if encoded.example and encoded.example.completions[0] == encoded.example.completions[1]:
            cut = {"chosen", "rejected"} & set(encoded.truncated)
            raise TeachesNothing(
                "chosen equals rejected after truncation" if cut else "chosen equals rejected"
            )
        return encoded


class Feedback(View):
    """A completion of a prompt and whether it was found good."""

    name = "feedback"
    forms = (("prompt", "completion", "label"),)
    columns = ("prompt", "completion", "label")

    @classmethod
    def canonical(cls, row: Row) -> Row:
        return {**Demonstrations.canonical(row), "label": label_of(row.get("label"))}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        return _encode(row, ("completion",), codec, max_length, {"label": [row["label"]]})


class Prompts(View):
    """A prompt to be completed, with whatever columns a reward reads.

    The completion is generated, so that its length is not known here: `max_length` is the room
    for the prompt alone.
    """

    name = "prompts"
    forms = (("prompt",),)
    columns = ("prompt",)

    @classmethod
    def canonical(cls, row: Row) -> Row:
        return {**row, "prompt": check_content(row.get("prompt"), "prompt")}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        prompt = _prompt_ids(row["prompt"], codec)
        kept = _cut_prompt(prompt, max_length, codec)
        truncated = ("prompt",) if len(kept) < len(prompt) else ()
        return Encoded(Example(kept, [], row=row), truncated=truncated)


class Steps(View):
    """A solution in steps, and of each step whether it is right.

    The solution is the steps with `separator` between them, and its tokens are those of that
    text. Its mask holds the tokens at which a step is complete, its column `labels` their labels.
    """

    name = "steps"
    forms = (("prompt", "completions", "labels"),)
    columns = ("prompt", "completions", "labels")
    separator: ClassVar[str] = "\n"

    @classmethod
    def separated_by(cls, separator: str) -> type[Steps]:
        """The same view with another separator."""
        return type(cls.__name__, (cls,), {"separator": separator})

    @classmethod
    def canonical(cls, row: Row) -> Row:
        prompt = check_content(row.get("prompt"), "prompt")
        steps = [
            check_text(step, "completions", f"step {number}")
            for number, step in enumerate(_list(row, "completions", "steps"), start=1)
        ]
        labels = [
            label_of(label, "labels", f"label {number}")
            for number, label in enumerate(_list(row, "labels", "labels"), start=1)
        ]
        if len(labels) != len(steps):
            raise BadValue(
                "labels",
                f"{len(labels)} where there are {len(steps)} steps",
                hint="each step has a label of its own",
            )
        return {**row, "prompt": prompt, "completions": steps, "labels": labels}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        steps, labels = row["completions"], row["labels"]
        if not steps:
            raise TeachesNothing("there are no steps")
        if not all(step.strip() for step in steps):
            raise TeachesNothing("a step is empty")
        prompt = _prompt_ids(row["prompt"], codec)
        ids = codec.completion(row["prompt"], cls.separator.join(steps))
        ends = step_ends(codec, ids, steps, cls.separator)
        if ends is None or len(set(ends)) < len(ends):
            raise TeachesNothing("the steps cannot be told apart in the tokens")
        kept, room = _fit(prompt, len(ids), max_length, codec)
        # A step that is not complete has no label; nor is there anything to read behind the last.
        fitting = dict(zip((end for end in ends if end < room), labels, strict=False))
        if not fitting:
            raise TeachesNothing("no step fits")
        places = range(max(fitting) + 1)
        example = Example(
            kept,
            [ids[: len(places)]],
            masks=[[place in fitting for place in places]],
            columns={"labels": [[fitting.get(place, False) for place in places]]},
            row=row,
        )
        truncated = ["prompt"] * (len(kept) < len(prompt)) + ["steps"] * (len(ends) - len(fitting))
        return Encoded(example, truncated=tuple(truncated))


VIEWS: dict[str, type[View]] = {
    view.name: view for view in (Text, Demonstrations, Preferences, Feedback, Steps, Prompts)
}


def label_of(value: Any, column: str = "label", what: str = "the value") -> bool:
    """A label as a truth value: true or false, 1 or 0, or one of these as text (CSV)."""
    if missing(value):
        raise BadValue(column, f"{what} is missing in this row")
    if isinstance(value, bool | int | float | str):
        key = str(value).strip().lower()
        if key in LABELS:
            return LABELS[key]
    which = "" if what == "the value" else f"{what}: "
    raise BadValue(column, f"{which}{describe(value)} where true or false (or 1 or 0) is expected")


def _list(row: Row, column: str, of: str) -> list[Any]:
    value = row.get(column)
    if missing(value):
        raise BadValue(column, "the value is missing in this row")
    if not isinstance(value, list):
        raise BadValue(column, f"{describe(value)} where a list of {of} is expected")
    return value


def _encode(
    row: Row, names: Sequence[str], codec: Codec, max_length: int, columns: dict[str, list[Any]]
) -> Encoded:
    """A prompt and the completions of those names, cut to size.

    A prompt loses its start and a completion its end. The completions are sure of half the room,
    or of what the longest one needs; all of them share the same truncated prompt.
    """
    for name in names:
        if not text_of(row[name]).strip():
            noun = "the completion" if name == "completion" else name
            raise TeachesNothing(f"{noun} is empty")
    prompt = _prompt_ids(row["prompt"], codec)
    completions = [codec.completion(row["prompt"], row[name]) for name in names]
    kept, room = _fit(prompt, max(map(len, completions)), max_length, codec)
    truncated = ["prompt"] if len(kept) < len(prompt) else []
    truncated += [n for n, c in zip(names, completions, strict=True) if len(c) > room]
    example = Example(kept, [c[:room] for c in completions], columns=columns, row=row)
    return Encoded(example, truncated=tuple(truncated))


def _fit(prompt: list[int], longest: int, max_length: int, codec: Codec) -> tuple[list[int], int]:
    """What is kept of a prompt, and the room for the longest of its completions."""
    kept = _cut_prompt(prompt, max_length - min(longest, max_length // 2), codec)
    room = max_length - len(kept)
    if room < 1:
        raise TeachesNothing("nothing of the completion fits")
    return kept, room


def _prompt_ids(prompt: Content, codec: Codec) -> list[int]:
    if not prompt and (isinstance(prompt, list) or codec.bos is None):
        raise TeachesNothing("the prompt is empty")
    return codec.prompt(prompt)


def _cut_prompt(ids: list[int], room: int, codec: Codec) -> list[int]:
    """The end of a prompt, with its BOS kept in front."""
    if len(ids) <= room:
        return ids
    keep = 1 if codec.bos is not None and room > 0 else 0
    return ids[:keep] + ids[len(ids) - (room - keep) :]


def _without(row: Row, column: str) -> Row:
    return {name: value for name, value in row.items() if name != column}


def _with_number(row: Row, column: str) -> Row:
    """The row with that column as a number, or without it where it has no value."""
    value: Any = row.get(column)
    if missing(value) or value == "":  # an empty cell of a CSV file
        return _without(row, column)
    try:
        number = float(value)  # CSV has it as text
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadValue(column, f"{describe(value)} where a number is expected")
    return {**row, column: number}


def _answer(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _messages(value: Any, column: str) -> list[Message]:
    content = check_content(value, column)
    if isinstance(content, str):
        raise BadValue(column, f"{describe(content)} where a list of messages is expected")
    return content


def _has_answer(content: Content) -> bool:
    return isinstance(content, list) and any(m["role"] == "assistant" for m in content)


def _last_answer(messages: list[Message]) -> int:
    """The index of the last message that is the assistant's."""
    if not _has_answer(messages):
        raise TeachesNothing("no message is the assistant's")
    return max(i for i, message in enumerate(messages) if message["role"] == "assistant")


def _check_answer(messages: list[Message], column: str) -> None:
    """A completion that is a dialogue ends in an answer."""
    if not messages:
        raise TeachesNothing(f"{column} holds no messages")
    if messages[-1]["role"] != "assistant":
        raise BadValue(
            column, f"the last message is the {messages[-1]['role']}'s, not the assistant's"
        )


def _one_kind(prompt: Content, completion: Content) -> tuple[Content, Content]:
    """Both as text, or both as messages."""
    if isinstance(prompt, list) and isinstance(completion, str):
        return prompt, _answer(completion)
    if isinstance(prompt, str) and isinstance(completion, list):
        return _dialogue_of(prompt, completion)
    return prompt, completion


def _dialogue_of(prompt: str, completion: list[Message]) -> tuple[list[Message], list[Message]]:
    """A prompt given as text beside messages is the user's, unless these hold it already.

    (UltraFeedback has whole dialogues as `chosen`, and their question as `prompt` again.)
    """
    before = completion[:-1]
    if any(message["role"] == "user" and message["content"] == prompt for message in before):
        return before, completion[-1:]
    return [{"role": "user", "content": prompt}], completion


def _message_pair(
    given: Content | None, chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """A pair of dialogues as the messages in common and one answer each."""
    _check_answer(chosen, "chosen")
    _check_answer(rejected, "rejected")
    if isinstance(given, str):
        first, chosen_rest = _dialogue_of(given, chosen)
        second, rejected_rest = _dialogue_of(given, rejected)
        chosen, rejected, given = first + chosen_rest, second + rejected_rest, []
    end = common_messages(chosen, rejected)
    prompt = [*(given or []), *chosen[:end]]
    chosen, rejected = chosen[end:], rejected[end:]
    if len(chosen) > 1 or len(rejected) > 1:
        raise TeachesNothing("the two dialogues differ before their last answers")
    return prompt, chosen, rejected

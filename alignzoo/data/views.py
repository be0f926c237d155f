"""The six views of a data set: which columns a row has, and which token ids it becomes.

The columns are those of TRL, so that files made for it work unchanged. `canonical` checks a row
and normalises its spellings (messages, implicit prompts, text labels); `encode` converts it to
token ids. Both take the row as it was read; canonical rows stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from alignzoo.batch import Example
from alignzoo.data.codec import Codec, NoTokens
from alignzoo.data.dialogue import (
    Content,
    as_answer,
    check_content,
    check_ends_in_answer,
    check_messages,
    common_prompt,
    has_answer,
    is_empty,
    last_answer,
    split_pair,
    unify,
)
from alignzoo.data.formats import Row
from alignzoo.data.reasoning_steps import step_ends
from alignzoo.data.template import template_values
from alignzoo.data.values import (
    BadValue,
    UnusableRow,
    check_list,
    check_text,
    is_missing,
    parse_label,
    parse_number,
)
from alignzoo.errors import BadInput, count, nearest

CHOSEN_PROBABILITY = "chosen_probability"
LAST_ONLY = (
    "only the last answer is learned: the text of earlier ones is another once the dialogue goes on"
)


class Encoded(NamedTuple):
    """A row as token ids, or the reason why it is unusable, and its parts that were truncated."""

    example: Example | None
    reason: str | None = None
    truncated: tuple[str, ...] = ()


class View:
    """A way to read a row.

    `forms` are the sets of columns that suffice, the usual one first, and `optional` those that are
    read if they are there.
    """

    name: ClassVar[str]
    forms: ClassVar[tuple[tuple[str, ...], ...]]
    columns: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def canonical(cls, row: Row) -> Row:
        """Return the row with `columns` in their one spelling; its other columns are kept.

        Raise `BadValue` for a wrong value and `UnusableRow` for a row with nothing to train on.
        """
        raise NotImplementedError

    @classmethod
    def prompt(cls, row: Row) -> Content | None:
        """Return the prompt of a canonical row; None for plain text, which has none."""
        return row["prompt"]

    @classmethod
    def encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        """Convert a row to token ids, at most `max_length` of the prompt and each completion."""
        try:
            row = cls.canonical(row)
            return cls._encode(row, codec, max_length)
        except (UnusableRow, NoTokens) as reason:
            return Encoded(None, str(reason))

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        raise NotImplementedError


def check_views(names: Sequence[str], owner: str) -> None:
    """Raise `BadInput` for a name of a task's views that no view has, not even a plugin's own.

    A missing view is derived from others, so that a misspelt one would go unnoticed.
    """
    pending, known = [View], []
    while pending:
        views = pending.pop().__subclasses__()
        pending += views
        known += [view.name for view in views]
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            hint = nearest(str(name), set(known))
            raise BadInput(f"{name!r} in its `views` is not a view", where=owner, hint=hint)


class Text(View):
    """Plain text, trained on as a whole. Messages are written by the chat template."""

    name = "text"
    forms = (("text",), ("messages",))
    columns = ("text",)

    @classmethod
    def canonical(cls, row: Row) -> Row:
        if not is_missing(row.get("text")):
            return {**row, "text": check_content(row["text"], "text")}
        if not is_missing(row.get("messages")):
            messages = check_messages(row["messages"], "messages")
            return {**_without(row, "messages"), "text": messages}
        raise BadValue("text", "the value is missing in this row")

    @classmethod
    def prompt(cls, row: Row) -> Content | None:
        text = row["text"]
        return text[: last_answer(text)] if has_answer(text) else None

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        if is_empty(row["text"]):
            raise UnusableRow("the text is empty")
        ids = codec.text(row["text"], template_values(row))
        # The first id (BOS, if there is one) has nothing to be conditioned on: it is the prompt.
        kept = ids[:max_length]
        if len(kept) < 2:
            raise UnusableRow("nothing of the text fits")
        truncated = ("text",) if len(ids) > max_length else ()
        return Encoded(Example(kept[:1], [kept[1:]], row=row), truncated=truncated)


class Demonstrations(View):
    """A prompt and a completion to imitate. Of `messages` the last answer is the completion."""

    name = "demonstrations"
    forms = (("prompt", "completion"), ("messages",))
    columns = ("prompt", "completion")

    @classmethod
    def canonical(cls, row: Row) -> Row:
        if is_missing(row.get("completion")) and not is_missing(row.get("messages")):
            messages = check_messages(row["messages"], "messages")
            last = last_answer(messages)
            row = _without(row, "messages")
            return {**row, "prompt": messages[:last], "completion": [messages[last]]}
        prompt = check_content(row.get("prompt"), "prompt")
        prompt, completion = unify(prompt, check_content(row.get("completion"), "completion"))
        if isinstance(completion, list):
            check_ends_in_answer(completion, "completion")
            # Only the last answer is trained on; the turns before it are its context.
            prompt, completion = [*prompt, *completion[:-1]], completion[-1:]
        return {**row, "prompt": prompt, "completion": completion}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        return _encode(row, ("completion",), codec, max_length, {})


class Dialogues(Demonstrations):
    """Demonstrations of which every answer is imitated, not the last one alone.

    If the chat template rewrites earlier answers of a dialogue, only its last answer is.
    """

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        messages = row["prompt"] + row["completion"] if isinstance(row["prompt"], list) else []
        turns = codec.turns(messages, template_values(row)) if messages and row["prompt"] else None
        if turns is None:
            if sum(m["role"] == "assistant" for m in messages[1:]) > 1:
                codec.remark(LAST_ONLY)
            return super()._encode(row, codec, max_length)
        prompt, ids, mask = turns
        kept, room = codec.fit(prompt, len(ids), max_length)
        if not any(mask[:room]):
            raise UnusableRow("no answer fits")
        truncated = ["prompt"] * (len(kept) < len(prompt)) + ["completion"] * (len(ids) > room)
        example = Example(kept, [ids[:room]], masks=[mask[:room]], row=row)
        return Encoded(example, truncated=tuple(truncated))


class WholeDemonstrations(Demonstrations):
    """Demonstrations of which the prompt is trained on as well, all but its first token."""

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        encoded = super()._encode(row, codec, max_length)
        assert encoded.example is not None  # an unusable row is an exception
        ids = encoded.example.prompt + encoded.example.completions[0]
        return encoded._replace(example=Example(ids[:1], [ids[1:]], row=row))


class Preferences(View):
    """Two completions of a prompt, the better one (`chosen`) and the worse one (`rejected`).

    Without a `prompt` column, the text that both begin with is the prompt. An optional `margin`
    says how much better the chosen one is, `chosen_probability` how likely it is the better one.
    A subclass may have more `answers`, columns of the canonical row that follow these two.
    """

    name = "preferences"
    forms = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
    columns: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")
    optional: ClassVar[tuple[str, ...]] = ("margin", CHOSEN_PROBABILITY)
    answers: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    @classmethod
    def canonical(cls, row: Row) -> Row:
        chosen = check_content(row.get("chosen"), "chosen")
        rejected = check_content(row.get("rejected"), "rejected")
        given = None if is_missing(row.get("prompt")) else check_content(row["prompt"], "prompt")
        if isinstance(chosen, list) and isinstance(rejected, list):
            given, chosen, rejected = split_pair(given, chosen, rejected)
        elif isinstance(chosen, list) or isinstance(rejected, list):
            raise BadValue("rejected", "one of chosen and rejected is text, the other messages")
        elif given is None:
            end = common_prompt(chosen, rejected)
            given, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
        elif isinstance(given, list):
            chosen, rejected = as_answer(chosen), as_answer(rejected)
        if chosen == rejected:
            raise UnusableRow("chosen equals rejected")
        row = _with_number(_with_number(row, "margin"), CHOSEN_PROBABILITY)
        if not 0 <= row.get(CHOSEN_PROBABILITY, 1.0) <= 1:
            found = row[CHOSEN_PROBABILITY]
            raise BadValue(CHOSEN_PROBABILITY, f"expected a probability from 0 to 1, got {found}")
        return {**row, "prompt": given, "chosen": chosen, "rejected": rejected}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        encoded = _encode(row, cls.answers, codec, max_length, {})
        if encoded.example and encoded.example.completions[0] == encoded.example.completions[1]:
            cut = {"chosen", "rejected"} & set(encoded.truncated)
            raise UnusableRow(
                "chosen equals rejected after truncation" if cut else "chosen equals rejected"
            )
        return encoded


class Feedback(View):
    """A completion of a prompt, and a label: true for a good one."""

    name = "feedback"
    forms = (("prompt", "completion", "label"),)
    columns = ("prompt", "completion", "label")

    @classmethod
    def canonical(cls, row: Row) -> Row:
        return {**Demonstrations.canonical(row), "label": parse_label(row.get("label"))}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        return _encode(row, ("completion",), codec, max_length, {"label": [row["label"]]})


class Prompts(View):
    """A prompt to be completed, with any columns that a reward reads.

    The completion is generated, so its length is not known here: `max_length` bounds the prompt
    alone.
    """

    name = "prompts"
    forms = (("prompt",),)
    columns = ("prompt",)

    @classmethod
    def canonical(cls, row: Row) -> Row:
        return {**row, "prompt": check_content(row.get("prompt"), "prompt")}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        prompt = _encode_prompt(row, codec)
        kept = codec.cut_prompt(prompt, max_length)
        truncated = ("prompt",) if len(kept) < len(prompt) else ()
        return Encoded(Example(kept, [], row=row), truncated=truncated)


class Steps(View):
    """A solution in steps, with a label for each step: true for a right one.

    The solution is the steps joined by `separator`, and its tokens are those of that text. Its
    mask marks the tokens at which a step is complete; its column `labels` has their labels.
    """

    name = "steps"
    forms = (("prompt", "completions", "labels"),)
    columns = ("prompt", "completions", "labels")
    separator: ClassVar[str] = "\n"

    @classmethod
    def separated_by(cls, separator: str) -> type[Steps]:
        """Return this view with another separator."""
        return type(cls.__name__, (cls,), {"separator": separator})

    @classmethod
    def canonical(cls, row: Row) -> Row:
        prompt = check_content(row.get("prompt"), "prompt")
        steps = check_list(row.get("completions"), "completions", "steps")
        steps = [check_text(step, "completions", f"step {n}") for n, step in enumerate(steps, 1)]
        labels = check_list(row.get("labels"), "labels", "labels")
        labels = [parse_label(label, "labels", f"label {n}") for n, label in enumerate(labels, 1)]
        if len(labels) != len(steps):
            raise BadValue(
                "labels",
                f"{count(len(labels), 'label')} for {count(len(steps), 'step')}",
                hint="give each step a label",
            )
        return {**row, "prompt": prompt, "completions": steps, "labels": labels}

    @classmethod
    def _encode(cls, row: Row, codec: Codec, max_length: int) -> Encoded:
        steps, labels = row["completions"], row["labels"]
        if not steps:
            raise UnusableRow("no steps")
        if not all(step.strip() for step in steps):
            raise UnusableRow("a step is empty")
        _check_prompt(row, codec)
        solution = cls.separator.join(steps)
        prompt, (ids,) = codec.group(row["prompt"], [solution], template_values(row))
        ends = step_ends(codec, ids, steps, cls.separator)
        if ends is None or len(set(ends)) < len(ends):
            raise UnusableRow("the steps cannot be told apart in the tokens")
        kept, room = codec.fit(prompt, len(ids), max_length)
        # A step that is cut off has no label; nothing is read after the last complete one.
        fitting = dict(zip((end for end in ends if end < room), labels, strict=False))
        if not fitting:
            raise UnusableRow("no step fits")
        positions = range(max(fitting) + 1)
        example = Example(
            kept,
            [ids[: len(positions)]],
            masks=[[at in fitting for at in positions]],
            columns={"labels": [[fitting.get(at, False) for at in positions]]},
            row=row,
        )
        truncated = ["prompt"] * (len(kept) < len(prompt)) + ["steps"] * (len(ends) - len(fitting))
        return Encoded(example, truncated=tuple(truncated))


VIEWS: dict[str, type[View]] = {
    view.name: view for view in (Text, Demonstrations, Preferences, Feedback, Steps, Prompts)
}


def _encode(
    row: Row, names: Sequence[str], codec: Codec, max_length: int, columns: dict[str, list[Any]]
) -> Encoded:
    """Encode a prompt and the completions of those names, cut to `max_length` by `Codec.fit`."""
    for name in names:
        if is_empty(row[name]):
            noun = "the completion" if name == "completion" else name
            raise UnusableRow(f"{noun} is empty")
    _check_prompt(row, codec)
    answers = [row[name] for name in names]
    prompt, completions = codec.group(row["prompt"], answers, template_values(row))
    kept, room = codec.fit(prompt, max(map(len, completions)), max_length)
    truncated = ["prompt"] if len(kept) < len(prompt) else []
    truncated += [n for n, c in zip(names, completions, strict=True) if len(c) > room]
    example = Example(kept, [c[:room] for c in completions], columns=columns, row=row)
    return Encoded(example, truncated=tuple(truncated))


def _encode_prompt(row: Row, codec: Codec) -> list[int]:
    _check_prompt(row, codec)
    return codec.prompt(row["prompt"], template_values(row))


def _check_prompt(row: Row, codec: Codec) -> None:
    """Raise `UnusableRow` for an empty prompt, unless a BOS stands for it."""
    prompt = row["prompt"]
    if not prompt and (isinstance(prompt, list) or codec.bos is None):
        raise UnusableRow("the prompt is empty")


def _without(row: Row, column: str) -> Row:
    return {name: value for name, value in row.items() if name != column}


def _with_number(row: Row, column: str) -> Row:
    """Return the row with that column as a number, or without the column if it has no value."""
    number = parse_number(row.get(column), column)
    return _without(row, column) if number is None else {**row, column: number}

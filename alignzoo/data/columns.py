"""The columns of a table: which are read, as what, and which are not.

Beside the columns of a view a table may have others that carry meaning: a system message, a
context, earlier turns. They become part of the prompt, as other tools of the field read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignzoo.data.dialogue import Message
from alignzoo.data.formats import Row
from alignzoo.data.template import PREFIX
from alignzoo.data.values import BadValue, UnusableRow, check_text, is_missing
from alignzoo.errors import count

# Column names in data sets of questions and instructions; the first that exists is taken.
PROMPT = ("question", "instruction")
COMPLETION = ("answer", "response", "output")
MESSAGES = ("conversations", "conversation")
SYSTEM = ("system", "system_prompt")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
TEMPLATE = ("tools", "chat_template_kwargs")
ANSWERS = ("chosen", "rejected", "completion")
MESSAGE_KEYS = {"role", "content", "from", "value", "tool_calls", "tool_call_id", PREFIX}
MOST_NAMES = 30  # names of columns in one note


@dataclass(frozen=True)
class Columns:
    """How a table is read.

    `form` are the columns of the view, and `renamed` the table's own names of some of them.
    `joined` follow the question, `system` is a message before the prompt, and `history` holds
    earlier turns. `repeating` are the answers that begin with the prompt in every row. `unread`
    are all other columns.
    """

    form: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    joined: tuple[str, ...] = ()
    system: str | None = None
    history: bool = False
    repeating: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def apply(self, row: Row) -> Row:
        """Return a row with the view's names added and with all that belongs to its prompt.

        Its own columns stay, for rewards to read. Raise `BadValue` for a wrong value, and
        `UnusableRow` if the row has images or the like.
        """
        for column in MEDIA:
            if not _is_blank(row.get(column)):
                raise UnusableRow(f"it has {column!r}, which are not read")
        row = {**row, **{name: row[own] for name, own in self.renamed.items() if own in row}}
        for column in self.form:
            if is_missing(row.get(column)):
                there = ", ".join(name for name in row if not is_missing(row[name]))
                raise BadValue(column, "missing in this row", hint=f"columns of this row: {there}")
        for column in self.joined:
            if not is_missing(row.get(column)):
                question, more = (
                    check_text(row["prompt"], "prompt"),
                    check_text(row[column], column),
                )
                row["prompt"] = f"{question}\n\n{more}" if more.strip() else question
        for column in self.repeating:
            row[column] = row[column].removeprefix(row["prompt"])
        return self._with_turns(row)

    def _with_turns(self, row: Row) -> Row:
        """Return the row with what comes before the prompt, and with an answer to be continued."""
        first = []
        if self.system and not is_missing(row.get(self.system)):
            system = check_text(row[self.system], self.system)
            first = [{"role": "system", "content": system}] if system.strip() else []
        earlier = _turns(row.get("history")) if self.history else []
        for column in self.form:
            value = row[column]
            if column == "prompt" and isinstance(value, str) and (self.system or self.history):
                value = [{"role": "user", "content": value}]
            if not isinstance(value, list) or not _opens(column, self.form):
                continue
            has_system = _role(value[:1]) in ("system", "developer")
            value = value[:1] + earlier + value[1:] if has_system else first + earlier + value
            begun = _role(value[-1:]) in ("assistant", "gpt") and value[-1].get("content")
            if column == "prompt" and begun:
                value = [*value[:-1], {**value[-1], PREFIX: True}]
            row[column] = value
        return row

    def notes(self, rewarded: bool) -> list[str]:
        """Return what the user should know: how columns were read, and which were not.

        `rewarded` says that rewards may read the others.
        """
        found = []
        for name, own in self.renamed.items():
            more = f" (followed by {' and '.join(map(repr, self.joined))})" if self.joined else ""
            found.append(f"column {own!r}{more * (name == 'prompt')} was read as {name!r}")
        if self.system:
            found.append(f"column {self.system!r} was read as a system message before the prompt")
        if self.history:
            found.append("column 'history' was read as the turns before the prompt")
        if self.repeating:
            names = " and ".join(map(repr, self.repeating))
            found.append(f"{names} began with the prompt in every row: it was taken off")
        if self.unread:
            what = "read by rewards alone, if at all" if rewarded else "not read"
            noun = "column" if len(self.unread) == 1 else "columns"
            found.append(f"{noun} {what}: {_listing(self.unread)}")
        return found


def read_columns(
    form: tuple[str, ...], renamed: dict[str, str], optional: Sequence[str], rows: Sequence[Row]
) -> Columns:
    """Decide how a table is read, by all of its rows.

    `optional` are the columns that the view reads if they are there.
    """
    there = columns_of(rows)
    joined: tuple[str, ...] = ()
    if renamed.get("prompt") in PROMPT:
        more = ("input", "context") if renamed["prompt"] == "instruction" else ("context",)
        joined = tuple(name for name in more if name in there and _is_text(rows, name))
    talks = {"prompt", "messages"} & set(form) or _are_dialogues(rows, form)
    system = next((n for n in SYSTEM if talks and n in there and _is_text(rows, n)), None)
    history = "prompt" in form and "history" in there and _are_turns(rows)
    # Only a dialogue has a chat template to give them to.
    dialogues = system or history or _are_dialogues(rows, [renamed.get(c, c) for c in form])
    template = TEMPLATE if dialogues else ()
    own = [renamed.get(column, column) for column in form]
    used = {*own, *optional, *joined, system, *template, *(["history"] if history else [])}
    repeating = _repeating(rows, form, renamed)
    unread = tuple(name for name in there if name not in used)
    return Columns(form, renamed, joined, system, history, repeating, unread)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the columns that have a value in some row, in the order of first use."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            if name not in found and not is_missing(value):
                found[name] = None
    return list(found)


def find_aliases(columns: Iterable[str]) -> dict[str, str]:
    """Map each canonical name that is missing to the column that takes its place.

    There are none beside `messages`, and no completion beside pairs, where such columns have
    meanings of their own.
    """
    there = set(columns)
    found: dict[str, str] = {}
    if there.isdisjoint({"prompt", "messages"}):
        _take(found, "prompt", PROMPT, there)
    if ("prompt" in there or found) and there.isdisjoint({"completion", "messages", "chosen"}):
        _take(found, "completion", COMPLETION, there)
    if there.isdisjoint({"prompt", "messages"}) and "prompt" not in found:
        # Beside a pair of answers, a dialogue is their prompt.
        _take(found, "prompt" if {"chosen", "rejected"} <= there else "messages", MESSAGES, there)
    return found


def message_keys(rows: Iterable[Row], columns: Iterable[str]) -> list[str]:
    """Return the keys of messages that nothing but the chat template can read."""
    columns = list(columns)
    found: dict[str, None] = {}
    for row in rows:
        for cell in (row.get(column) for column in columns):
            for message in cell if isinstance(cell, list) else ():
                if not isinstance(message, dict) or message.keys() <= MESSAGE_KEYS:
                    continue
                if {"role", "from"} & set(message):
                    found |= dict.fromkeys(k for k, v in message.items() if v is not None)
    return [key for key in found if key not in MESSAGE_KEYS]


def _take(found: dict[str, str], name: str, choices: Iterable[str], there: set[str]) -> None:
    alias = next((choice for choice in choices if choice in there), None)
    if alias:
        found[name] = alias


def _opens(column: str, form: Sequence[str]) -> bool:
    """Return True for a column that holds the beginning of the dialogue."""
    return column in ("prompt", "messages") or (
        "prompt" not in form and column in ("chosen", "rejected", "text")
    )


def _role(messages: Sequence[Any]) -> Any:
    """Return the role of the first of these messages, if any."""
    first = messages[0] if messages else None
    return first.get("role", first.get("from")) if isinstance(first, dict) else None


def _turns(history: Any) -> list[Message]:
    """Return earlier turns, each a question and its answer, as messages."""
    found: list[Message] = []
    for question, answer in history or ():
        found.append({"role": "user", "content": question})
        found.append({"role": "assistant", "content": answer})
    return found


def _is_text(rows: Iterable[Row], column: str) -> bool:
    return all(isinstance(row.get(column) or "", str) for row in rows)


def _are_turns(rows: Iterable[Row]) -> bool:
    """Return True if `history` holds pairs of texts in every row that has it."""
    return all(
        isinstance(turns, list)
        and all(isinstance(t, list) and [type(x) for x in t] == [str, str] for t in turns)
        for turns in (row.get("history") or [] for row in rows)
    )


def _are_dialogues(rows: Iterable[Row], columns: Iterable[str]) -> bool:
    columns = list(columns)
    return any(isinstance(row.get(column), list) for row in rows for column in columns)


def _repeating(
    rows: Iterable[Row], form: Sequence[str], renamed: dict[str, str]
) -> tuple[str, ...]:
    """Return the answers that begin with the prompt in all rows, if all of them do.

    Older files hold whole texts there. A prompt of one word says nothing: many an answer begins
    with it.
    """
    names = [name for name in ANSWERS if name in form]
    if "prompt" not in form or not names:
        return ()
    telling = False
    for row in rows:
        prompt, *answers = (row.get(renamed.get(name, name)) for name in ("prompt", *names))
        if not isinstance(prompt, str) or not prompt:
            return ()
        if not all(isinstance(a, str) and a.startswith(prompt) and a != prompt for a in answers):
            return ()
        telling = telling or len(prompt.split()) > 1
    return tuple(names) if telling else ()


def _is_blank(value: Any) -> bool:
    return is_missing(value) or value == "" or value == []


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r:.60}" for name in names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} and {count(more, 'more column', 'more columns')}" if more > 0 else shown

"""Answers stored in the user's cache: one file of JSON lines per judge, one line per answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, TypeVar

from alignzoo.data import Message
from alignzoo.errors import count, one_line
from alignzoo.files import (
    append_lines,
    cache_home,
    json_lines,
    with_digest,
    without_digest,
    write_bytes,
)
from alignzoo_judges.judge import Answer, Judge, Question, Usage, is_usable

QUESTIONS_PER_PART = 64  # sent to the judge at once
Value = list[float] | str  # the answer to a question; the next turn of a dialogue
T = TypeVar("T", bound=Value)


class CachedJudge(Judge):
    """A judge that is asked only what is not cached; each new answer is appended to the cache.

    Every question is a call, and costs what its answer cost when it was computed: what a run comes
    to does not depend on the cache. What is read, or stands twice in the same request, also counts
    as saved. Unusable answers are not stored, so the next request asks again.

    `note` shows a line to the user: damage that was found, or a cache that cannot be written.
    """

    def __init__(self, judge: Judge, note: Callable[[str], None] = lambda text: None):
        assert judge.identity is not None
        self.judge, self.identity, self.ledger = judge, judge.identity, judge.ledger
        self.note, self.can_write = note, True
        name = sha256(judge.identity.encode()).hexdigest()[:32]
        self.file = cache_home() / "judges" / f"{name}.jsonl"
        self.known = self.read()

    @property
    def writes_text(self) -> bool:
        """Return True if the judge behind the cache can write text."""
        return self.judge.writes_text

    def price(self, usage: Usage) -> float:
        """Return the price of tokens by the options of this judge, whatever they have cost."""
        return self.judge.price(usage)

    def answers(self, questions: Sequence[Question]) -> Iterator[Answer[list[float]]]:
        """Yield the cached answers, and ask for the others."""
        keys = [question.key(self.judge.identity or "") for question in questions]
        return self.look_up(
            keys, lambda part: self.judge.checked_answers([questions[i] for i in part]), is_usable
        )

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[Answer[str]]:
        """Yield the cached turns, and have the others written."""
        contents = [[self.identity, dialogue, max_new_tokens] for dialogue in dialogues]
        keys = [sha256(json.dumps(each).encode()).hexdigest() for each in contents]
        return self.look_up(
            keys,
            lambda part: self.judge.checked_texts([dialogues[i] for i in part], max_new_tokens),
            bool,
        )

    def look_up(
        self,
        keys: Sequence[str],
        ask: Callable[[Sequence[int]], Iterable[Answer[T]]],
        is_usable: Callable[[T], bool],
    ) -> Iterator[Answer[T]]:
        """Yield the answer to each key.

        `ask` gets the indices of those not cached, each key once, part by part.
        """
        missing: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key not in self.known:
                missing.setdefault(key, index)
        new: dict[str, tuple[Any, Usage]] = {}
        indices = list(missing.values())
        for start in range(0, len(indices), QUESTIONS_PER_PART):
            part = indices[start : start + QUESTIONS_PER_PART]
            for i, value, usage in ask(part):
                key = keys[part[i]]
                new[key] = value, usage
                if is_usable(value):
                    self.store(key, value, usage)
        for index, key in enumerate(keys):
            value, usage = new[key] if key in new else self.known[key]
            if self.ledger is not None and missing.get(key) != index:
                self.ledger.save(usage.cost, money=self.price(usage), judge_calls=1)
            yield Answer(index, value, usage)

    def store(self, key: str, value: Value, usage: Usage) -> None:
        """Append an answer to the cache. If it cannot be written, say so once and go on."""
        self.known[key] = value, usage
        if not self.can_write:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # ASCII, because an answer may hold half of a surrogate pair.
            append_lines(self.file, [as_line(key, value, usage)], ensure_ascii=True)
        except OSError as error:
            self.can_write = False
            self.note(f"the judge's answers cannot be cached: {one_line(error)}")

    def read(self) -> dict[str, tuple[Any, Usage]]:
        """Return the stored answers and what they cost, by key.

        Lines that are damaged, or of an older version, are deleted; their questions are asked
        again.
        """
        if not self.file.is_file():
            return {}
        text = self.file.read_bytes().decode(errors="replace")
        found, left_out = parse_lines(text)
        if left_out:
            self.note(
                f"{self.file}: {count(left_out, 'line')} damaged or of an older version; what is "
                "not cached is asked again"
            )
            lines = [as_line(key, *entry) for key, entry in found.items()]
            try:
                # An answer that another program appends meanwhile is lost, and asked again.
                write_bytes(self.file, json_lines(lines, ensure_ascii=True).encode())
            except OSError as error:
                self.note(f"they cannot be deleted: {one_line(error)}")
        return found


def as_line(key: str, value: Value, usage: Usage) -> dict[str, Any]:
    """Return the line of an answer."""
    return with_digest({"question": key, "answer": value, "usage": list(usage)})


def parse_lines(text: str) -> tuple[dict[str, tuple[Any, Usage]], int]:
    """Return the answers by key, and the number of lines that are none."""
    found: dict[str, tuple[Any, Usage]] = {}
    *lines, cut = text.split("\n")
    left_out = len(lines) + bool(cut)
    for line in lines:
        try:
            row = without_digest(json.loads(line))
        except ValueError:
            continue
        if row is not None:
            found[row["question"]] = row["answer"], Usage(*row["usage"])
            left_out -= 1
    return found, left_out

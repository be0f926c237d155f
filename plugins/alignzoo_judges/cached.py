"""Answers that were given once, in the user's cache: a file for each judge, a line for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from alignzoo.data.dialogue import Message
from alignzoo.files import append_lines, cache_home, read_lines
from alignzoo_judges.judge import Judge, Question, is_usable

PART = 64  # questions that are asked before what was answered is looked up again
Answer = list[float] | str  # to a question; to a dialogue
T = TypeVar("T", bound=Answer)


class Cached(Judge):
    """Asks a judge what it has not been asked before, and keeps what it says as it says it.

    What it spends is what was computed; every question counts as a call, and one whose answer is
    known, or is asked for at the same time, as cached too. An answer that cannot be
    used is not kept, so that the next one who asks may have better luck.
    """

    def __init__(self, judge: Judge):
        assert judge.identity is not None
        self.judge, self.identity, self.ledger = judge, judge.identity, judge.ledger
        name = sha256(judge.identity.encode()).hexdigest()[:32]
        self.file = cache_home() / "judges" / f"{name}.jsonl"
        self.known = read(self.file)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        keys = [question.key(self.judge.identity or "") for question in questions]
        return self.through(
            keys, lambda part: self.judge.answers([questions[i] for i in part]), is_usable
        )

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[tuple[int, str]]:
        about = [[self.identity, dialogue, max_new_tokens] for dialogue in dialogues]
        keys = [sha256(json.dumps(each).encode()).hexdigest() for each in about]
        return self.through(
            keys, lambda part: self.judge.texts([dialogues[i] for i in part], max_new_tokens), bool
        )

    def through(
        self,
        keys: Sequence[str],
        ask: Callable[[Sequence[int]], Iterator[tuple[int, T]]],
        usable: Callable[[T], bool],
    ) -> Iterator[tuple[int, T]]:
        """The answers to `keys`, by number; `ask` is given the numbers of those that are lacking,
        each once, some at a time."""
        lacking: dict[str, int] = {}
        for number, key in enumerate(keys):
            if key not in self.known:
                lacking.setdefault(key, number)
        if self.ledger is not None:
            self.ledger.use_feedback("judge_cached", len(keys) - len(lacking))
        asked: dict[str, Any] = {}
        numbers = list(lacking.values())
        for start in range(0, len(numbers), PART):
            part = numbers[start : start + PART]
            for i, answer in ask(part):
                key = keys[part[i]]
                asked[key] = answer
                if usable(answer):
                    self.keep(key, answer)
        for number, key in enumerate(keys):
            yield number, self.known[key] if key in self.known else asked[key]

    def keep(self, key: str, answer: Answer) -> None:
        self.known[key] = answer
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # ASCII, for a judge may answer with half of a surrogate pair.
        append_lines(self.file, [{"question": key, "answer": answer}], ensure_ascii=True)


def read(path: Path) -> dict[str, Any]:
    """Questions and their answers; a line that a crash has cut off is left out."""
    found: dict[str, Any] = {}
    for entry in read_lines(path, skip_damaged=True):
        try:
            answer = entry["answer"]
            known = answer if isinstance(answer, str) else [float(p) for p in answer]
            found[entry["question"]] = known
        except (ValueError, TypeError, KeyError):
            continue
    return found

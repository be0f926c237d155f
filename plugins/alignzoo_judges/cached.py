"""Answers stored in the user's cache: one file of JSON lines per judge, one line per answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from alignzoo.data import Message
from alignzoo.files import append_lines, cache_home, read_lines
from alignzoo_judges.judge import Judge, Question, is_usable

QUESTIONS_PER_PART = 64  # sent to the judge at once
Answer = list[float] | str  # to a question; the next turn of a dialogue
T = TypeVar("T", bound=Answer)


class CachedJudge(Judge):
    """A judge that is asked only what is not cached; each new answer is appended to the cache.

    The ledger is charged only for what is computed. Every question counts as a call, and one that
    is cached, or stands twice in the same request, as cached too. Unusable answers are not stored,
    so the next request asks again.
    """

    def __init__(self, judge: Judge):
        assert judge.identity is not None
        self.judge, self.identity, self.ledger = judge, judge.identity, judge.ledger
        name = sha256(judge.identity.encode()).hexdigest()[:32]
        self.file = cache_home() / "judges" / f"{name}.jsonl"
        self.known = read_answers(self.file)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        """Yield the cached answers, and ask for the others."""
        keys = [question.key(self.judge.identity or "") for question in questions]
        return self.look_up(
            keys, lambda part: self.judge.answers([questions[i] for i in part]), is_usable
        )

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[tuple[int, str]]:
        """Yield the cached turns, and have the others written."""
        contents = [[self.identity, dialogue, max_new_tokens] for dialogue in dialogues]
        keys = [sha256(json.dumps(each).encode()).hexdigest() for each in contents]
        return self.look_up(
            keys, lambda part: self.judge.texts([dialogues[i] for i in part], max_new_tokens), bool
        )

    def look_up(
        self,
        keys: Sequence[str],
        ask: Callable[[Sequence[int]], Iterator[tuple[int, T]]],
        is_usable: Callable[[T], bool],
    ) -> Iterator[tuple[int, T]]:
        """Yield the index and the answer of each key.

        `ask` gets the indices of those not cached, each key once, part by part.
        """
        missing: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key not in self.known:
                missing.setdefault(key, index)
        if self.ledger is not None:
            self.ledger.use_feedback("judge_cached", len(keys) - len(missing))
        new: dict[str, Any] = {}
        indices = list(missing.values())
        for start in range(0, len(indices), QUESTIONS_PER_PART):
            part = indices[start : start + QUESTIONS_PER_PART]
            for i, answer in ask(part):
                key = keys[part[i]]
                new[key] = answer
                if is_usable(answer):
                    self.store(key, answer)
        for index, key in enumerate(keys):
            yield index, self.known[key] if key in self.known else new[key]

    def store(self, key: str, answer: Answer) -> None:
        """Append an answer to the cache."""
        self.known[key] = answer
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # ASCII, because an answer may hold half of a surrogate pair.
        append_lines(self.file, [{"question": key, "answer": answer}], ensure_ascii=True)


def read_answers(path: Path) -> dict[str, Any]:
    """Return the stored answers by key; a damaged line, as a crash may leave, is skipped."""
    found: dict[str, Any] = {}
    for entry in read_lines(path, skip_damaged=True):
        try:
            answer = entry["answer"]
            known = answer if isinstance(answer, str) else [float(p) for p in answer]
            found[entry["question"]] = known
        except (ValueError, TypeError, KeyError):
            continue
    return found

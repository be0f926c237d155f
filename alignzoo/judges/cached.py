"""Answers that were given once, in the user's cache: a file for each judge, a line for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from alignzoo.files import cache_home
from alignzoo.judges.judge import Judge
from alignzoo.judges.question import Question, is_usable

PART = 64  # questions that are asked before what was answered is looked up again


class Cached(Judge):
    """Asks a judge what it has not been asked before, and keeps what it says as it says it.

    What it spends is what was computed; every question counts as a call. An answer that cannot be
    used is not kept, so that the next one who asks may have better luck.
    """

    def __init__(self, judge: Judge):
        assert judge.identity is not None
        self.judge, self.identity, self.ledger = judge, judge.identity, judge.ledger
        name = sha256(judge.identity.encode()).hexdigest()[:32]
        self.file = cache_home() / "judges" / f"{name}.jsonl"
        self.known = read(self.file)

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        assert self.identity is not None
        keys = [question.key(self.identity) for question in questions]
        lacking: dict[str, int] = {}
        for number, key in enumerate(keys):
            if key not in self.known:
                lacking.setdefault(key, number)
        asked: dict[str, list[float]] = {}
        numbers = list(lacking.values())
        for start in range(0, len(numbers), PART):
            part = numbers[start : start + PART]
            for i, answer in self.judge.answers([questions[number] for number in part]):
                asked[keys[part[i]]] = answer
                self.keep(keys[part[i]], answer)
        for number, key in enumerate(keys):
            yield number, self.known[key] if key in self.known else asked[key]

    def keep(self, key: str, answer: list[float]) -> None:
        if not is_usable(answer):
            return
        self.known[key] = answer
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # One short write at the end of the file: several processes may add to it.
        with self.file.open("ab", buffering=0) as file:
            file.write((json.dumps({"question": key, "answer": answer}) + "\n").encode())


def read(path: Path) -> dict[str, list[float]]:
    """Questions and their answers; a line that a crash has cut off is left out."""
    found: dict[str, list[float]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry: Any = json.loads(line)
                found[entry["question"]] = [float(p) for p in entry["answer"]]
            except (ValueError, TypeError, KeyError):
                continue
    return found

"""What a judge is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any


@dataclass(frozen=True)
class Question:
    """Messages that end in a question, and the options of which its answer is one.

    `row` and `completions` are what it is about, for a judge that reads no words: the gold score.
    Options are texts that a model would answer with as they stand: "A", "B".
    """

    messages: list[dict[str, str]]
    options: tuple[str, ...]
    row: dict[str, Any] = field(default_factory=dict, compare=False)
    completions: tuple[str, ...] = field(default=(), compare=False)

    def key(self, judge: str) -> str:
        """What an answer is kept under: a hash of who was asked, what, and with which options."""
        return sha256(json.dumps([judge, self.messages, self.options]).encode()).hexdigest()


def as_messages(prompt: str | list[dict[str, str]]) -> list[dict[str, str]]:
    """A prompt as a dialogue: text is what the user said."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


UNUSABLE = float("nan")  # as the probability of each option: there was no answer among them


def unusable(question: Question) -> list[float]:
    return [UNUSABLE] * len(question.options)


def is_usable(answer: list[float]) -> bool:
    return all(p == p for p in answer)

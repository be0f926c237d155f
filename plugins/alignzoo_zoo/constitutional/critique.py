"""Critique of an answer by a principle, and its revision.

Bai et al. 2022, section 3.1, https://arxiv.org/abs/2212.08073. The writer is a function from
dialogues to their next turns: no model is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignzoo_judges import Principle

Message = dict[str, str]
Dialogue = list[Message]
Write = Callable[[Sequence[Dialogue]], list[str]]


@dataclass(frozen=True)
class Revision:
    """The critique of an answer by a principle, and the answer after it."""

    principle: str
    critique: str
    revision: str


def revise(
    prompts: Sequence[Dialogue],
    answers: Sequence[str],
    principles: Sequence[Principle],
    write: Write,
    *,
    critique: bool = True,
    examples: Sequence[Message] = (),
) -> list[Revision]:
    """Criticise and revise each answer once, by its principle.

    `write` returns the next turn of each dialogue. If a turn is empty, the answer stays as it was.
    Without `critique` there is only the request for a revision. `examples` precede each dialogue.
    """
    dialogues = [
        [*examples, *prompt, assistant_turn(answer)]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    critiques = [""] * len(dialogues)
    if critique:
        dialogues = add_requests(dialogues, [principle.critique for principle in principles])
        critiques = write(dialogues)
        dialogues = [
            [*dialogue, assistant_turn(text)]
            for dialogue, text in zip(dialogues, critiques, strict=True)
        ]
    revised = write(add_requests(dialogues, [principle.revision for principle in principles]))
    return [
        Revision(principle.name, found, new if new and (found or not critique) else old)
        for principle, found, new, old in zip(principles, critiques, revised, answers, strict=True)
    ]


def add_requests(dialogues: Sequence[Dialogue], requests: Sequence[str]) -> list[Dialogue]:
    """Append a user's turn to each dialogue."""
    return [
        [*dialogue, {"role": "user", "content": request}]
        for dialogue, request in zip(dialogues, requests, strict=True)
    ]


def assistant_turn(text: str) -> Message:
    """Return a turn of the assistant."""
    return {"role": "assistant", "content": text}

"""An answer, what is found wrong with it by a principle, its revision, and so on.

Bai et al. 2022, section 3.1, https://arxiv.org/abs/2212.08073. Whoever writes is a function from
dialogues to their next turns; nothing here knows a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignzoo_judges import Principle

Message = dict[str, str]
Dialogue = list[Message]
Write = Callable[[Sequence[Dialogue]], list[str]]


@dataclass(frozen=True)
class Step:
    """What a principle found in an answer, and the answer that came of it."""

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
    shown: Sequence[Message] = (),
) -> list[Step]:
    """One step for each prompt and answer, by its principle.

    `write` gives the next turn of each dialogue; where it is empty the answer stays as it was.
    Without `critique` the revision is asked for at once. `shown` are examples that stand before
    every dialogue.
    """
    dialogues = [
        [*shown, *prompt, said(answer)] for prompt, answer in zip(prompts, answers, strict=True)
    ]
    found = [""] * len(dialogues)
    if critique:
        dialogues = asked(dialogues, [principle.critique for principle in principles])
        found = write(dialogues)
        dialogues = [[*d, said(text)] for d, text in zip(dialogues, found, strict=True)]
    revised = write(asked(dialogues, [principle.revision for principle in principles]))
    return [
        Step(principle.name, finding, new if new and (finding or not critique) else old)
        for principle, finding, new, old in zip(principles, found, revised, answers, strict=True)
    ]


def asked(dialogues: Sequence[Dialogue], requests: Sequence[str]) -> list[Dialogue]:
    return [
        [*dialogue, {"role": "user", "content": request}]
        for dialogue, request in zip(dialogues, requests, strict=True)
    ]


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}

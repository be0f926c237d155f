"""Prove that an export is what it was made from: its tokens, its log-probs, its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from alignzoo import RunFailed
from alignzoo.data import Content
from alignzoo.evaluation import Estimate
from alignzoo.rollout import Sampling
from alignzoo.ui import UI
from alignzoo_export.items import PROBES, Reference

# The most that the log-prob of a token may change, on average, in nats: by the rounding of the
# weights, measured on a model of 135 million parameters (docs/export.md) with room for others.
BOUNDS = {
    "float32": 0.001,
    "float16": 0.01,
    "bfloat16": 0.05,
    "f16": 0.02,
    "q8_0": 0.2,
    "q4_k_m": 0.75,
}


class Subject(Protocol):
    """An exported model in another program."""

    name: str

    @property
    def bos(self) -> int | None:
        """Return the id of its BOS, None if it has none."""

    @property
    def eos(self) -> int | None:
        """Return the id of its EOS."""

    def stops_at(self, token: int) -> bool:
        """Return whether generation ends with this token."""

    def encode(self, prompt: Content, values: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a prompt, messages by its chat template."""

    def logprobs(self, prompt: list[int], answer: list[int]) -> list[float]:
        """Return the log-prob (nats) of each token of an answer."""

    def answer(self, prompt: list[int], sampling: Sampling, seed: int) -> list[int]:
        """Return the tokens of an answer."""


@dataclass(frozen=True)
class Proof:
    """What was measured on an export.

    Attributes:
        program: what it was loaded with, "transformers" say.
        compared_with: what it was compared with, "the run" say.
        items: number of prompts, all of whose tokens were equal.
        tokens: number of tokens of the answers.
        gap: mean absolute difference of a token's log-prob, in nats.
        largest: largest difference of a token's log-prob, in nats.
        bound: the most that the mean may be.
        logprob: mean log-prob of a token of the answers under the export, in nats.
        score: the task's score of the export's own answers; None if it has none.
    """

    program: str
    compared_with: str
    items: int
    tokens: int
    gap: float
    largest: float
    bound: float
    logprob: float
    score: Estimate | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def prove(
    subject: Subject, reference: Reference, bound: float, compared_with: str, ui: UI
) -> tuple[Proof, Reference]:
    """Return what was measured on an export, and a reference with its own log-probs.

    Raise `RunFailed` if its tokens are others, or its log-probs differ by more than the bound.
    """
    check_special_tokens(subject, reference)
    check_prompts(subject, reference)
    items = reference.items
    with ui.phase(f"scoring the answers with {subject.name}"):
        found = [subject.logprobs(item.ids, item.answer) for item in items]
    gaps = [
        abs(theirs - ours)
        for item, logprobs in zip(items, found, strict=True)
        for theirs, ours in zip(logprobs, item.logprobs, strict=True)
    ]
    gap = sum(gaps) / len(gaps)
    if not gap <= bound:  # also if it is NaN
        raise RunFailed(
            f"{subject.name} gives other log-probs than {compared_with}: they differ by "
            f"{gap:.3g} nats per token, and at most {bound:g} is allowed; nothing was exported",
        )
    total = sum(sum(logprobs) for logprobs in found)
    proof = Proof(
        program=subject.name,
        compared_with=compared_with,
        items=len(items),
        tokens=len(gaps),
        gap=gap,
        largest=max(gaps),
        bound=bound,
        logprob=total / len(gaps),
        score=score_answers(subject, reference, ui),
    )
    return proof, reference.with_logprobs(found)


def score_answers(subject: Subject, reference: Reference, ui: UI) -> Estimate | None:
    """Return the task's score of an export's own answers; None if the run has none."""
    items = reference.items
    if all(item.row is None for item in items):
        return None
    answers = []
    with ui.items(len(items), f"answering with {subject.name}") as advance:
        for seed, item in enumerate(items):
            answer = subject.answer(item.ids, reference.sampling, seed)
            answers.append(cut_at_end(answer, reference.sampling))
            advance(1)
    return reference.score(answers)


def cut_at_end(answer: list[int], sampling: Sampling) -> list[int]:
    """Return an answer up to where the run would have ended it: other programs know no texts."""
    ends = (n for n in range(1, len(answer) + 1) if sampling.ends(answer[:n]))
    return answer[: next(ends, len(answer))]


def check_special_tokens(subject: Subject, reference: Reference) -> None:
    """Raise `RunFailed` if BOS or EOS are others, or an answer would not end where it should."""
    tokenizer = reference.codec.tokenizer
    for name, theirs, ours in (
        ("BOS", subject.bos, tokenizer.bos_token_id),
        ("EOS", subject.eos, tokenizer.eos_token_id),
    ):
        if ours is not None and theirs != ours:
            raise RunFailed(
                f"{subject.name} has {name} {theirs}, the run {ours}; nothing was exported"
            )
    for token in reference.codec.stop_ids:
        if not subject.stops_at(token):
            text = tokenizer.convert_ids_to_tokens(token)
            raise RunFailed(
                f"{subject.name} does not end an answer at {text!r}, as the run does; "
                "nothing was exported"
            )


def check_prompts(subject: Subject, reference: Reference) -> None:
    """Raise `RunFailed` if a prompt has other tokens: those of the items, and of some odd texts."""
    codec = reference.codec
    prompts: list[tuple[Content, Mapping[str, Any], list[int]]] = [
        (item.prompt, item.values, item.ids) for item in reference.items
    ]
    for text in PROBES:
        message = [{"role": "user", "content": text}]
        prompts.append((message, {}, codec.prompt(message)))
    for prompt, values, ours in prompts:
        theirs = subject.encode(prompt, values)
        if theirs != ours:
            at = first_difference(theirs, ours)
            text = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
            raise RunFailed(
                f"{subject.name} reads other tokens than the run in {text[:60]!r}, from the "
                f"{at + 1}th on: {theirs[at : at + 3]} instead of {ours[at : at + 3]}; "
                "nothing was exported",
                hint=(
                    "the run puts a BOS before a text, and the tokenizer alone does not: "
                    "write prompts as messages"
                    if isinstance(prompt, str) and theirs == ours[1:]
                    else "the tokenizer or the chat template is read in another way"
                ),
            )


def first_difference(some: Sequence[int], others: Sequence[int]) -> int:
    """Return the first place at which two sequences differ; the shorter one may end there."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(some), len(others)))

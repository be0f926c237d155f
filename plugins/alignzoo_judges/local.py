"""A model in this process as a judge: its log-probs of the options, as completions of one prompt.

The options share the prompt, so that it is computed once. Each ends as an answer does: an option
that begins like another is told apart from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

import torch

from alignzoo.batch import Batch, Example, collate
from alignzoo.data import Codec
from alignzoo.data.dialogue import Message
from alignzoo.policy import Policy
from alignzoo.policy.adapters import adapter_parameters
from alignzoo.rollout import Sampling, generate
from alignzoo_judges.judge import Judge, Question, unusable
from alignzoo_judges.numbers import normalised

MICRO_TOKENS = 4096  # of a forward pass
# A question has the same answer in whatever batch it is computed, so that a run which was stopped
# among its questions, and asks those that are left, is still the same run.
DIGITS = 4


class Local(Judge):
    """A policy as it stands inside `within`, by its codec. It writes greedily."""

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        within: Callable[[], AbstractContextManager[Any]],
        *,
        base: bool = False,
    ):
        self.policy, self.codec, self.within = policy, codec, within
        self.identity = identity(policy, codec, base=base)
        config = policy.model.config.get_text_config()
        self.longest = getattr(config, "max_position_embeddings", None)

    @torch.no_grad()
    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        examples = []
        for number, question in enumerate(questions):
            example = self.example(number, question)
            # What does not fit would be read wrongly, or not at all.
            if self.fits(len(example.prompt) + max(map(len, example.completions))):
                examples.append(example)
            else:
                yield number, unusable(question)
        if not examples:
            return
        for micro in collate(examples).split(MICRO_TOKENS):
            with self.within():
                self.charge(micro)
                logprobs = self.policy(micro.to(self.policy.device)).logprobs.cpu()
            totals = micro.total(logprobs.double())
            for b, row in enumerate(micro.rows):
                found = normalised(totals[micro.group == b].tolist())
                yield row["number"], [round(p, DIGITS) for p in found]

    @torch.no_grad()
    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[tuple[int, str]]:
        prompts = {number: self.codec.prompt(each) for number, each in enumerate(dialogues)}
        for number, prompt in list(prompts.items()):
            if not self.fits(len(prompt) + max_new_tokens):
                yield number, ""
                del prompts[number]
        if not prompts:
            return
        with self.within():
            completions = generate(
                self.policy,
                list(prompts.values()),
                [0] * len(prompts),  # nothing is drawn
                Sampling(max_new_tokens, self.codec.stop_ids, temperature=0.0),
            )
            written = list(zip(prompts.items(), completions, strict=True))
            self.charge(collate([Example(prompt, [c.tokens]) for (_, prompt), c in written]))
        for (number, _), completion in written:
            yield number, self.codec.decode(completion.tokens).strip()

    def charge(self, batch: Batch) -> None:
        """What the policy as it stands computes of this batch, into the ledger."""
        if self.ledger is not None:
            self.ledger.charge("judge", self.policy.cost(batch))

    def example(self, number: int, question: Question) -> Example:
        prompt = question.messages
        return Example(
            self.codec.prompt(prompt),
            [self.codec.completion(prompt, option) for option in question.options],
            row={"number": number},
        )

    def fits(self, tokens: int) -> bool:
        return self.longest is None or tokens + self.policy.virtual.count <= self.longest


def identity(policy: Policy, codec: Codec, *, base: bool) -> str:
    """Of the weights, how they are computed, and how text becomes tokens. With `base` what an
    adapter adds is left out, so that a run is the same judge at every step."""
    facts = dict(policy.reference_facts())
    if not base:
        digest = sha256()
        for name, weight in sorted(adapter_parameters(policy.model).items()):
            values = weight.detach().float().cpu().contiguous().numpy().tobytes()
            digest.update(name.encode() + values)
        facts["adapter"] = digest.hexdigest()
    tokens = codec.tokenizer
    written = f"{tokens.chat_template}\n{sorted(tokens.get_vocab().items())}"
    return f"local {facts} {sha256(written.encode()).hexdigest()}"

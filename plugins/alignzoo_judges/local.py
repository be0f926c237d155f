"""A model in this process as a judge: the log-probs of the options as completions of the question.

The options share the prompt, so it is computed once. Each option ends with the token that ends an
answer, which tells an option apart from a longer one that begins with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

import torch

from alignzoo import Example, collate
from alignzoo.data import Codec, Message
from alignzoo.ledger import Cost, sum_costs
from alignzoo.policy import Policy, adapter_parameters
from alignzoo.rollout import Sampling, generate
from alignzoo_judges.judge import Answer, Judge, Question, Usage, normalise, unusable

MICRO_TOKENS = 4096  # of a forward pass
# Rounding makes the answer independent of the batch that a question is computed in, so that a run
# stopped in the middle of its questions continues exactly.
DIGITS = 4


class LocalJudge(Judge):
    """A policy with the weights that it has inside `context`; it writes greedily."""

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        context: Callable[[], AbstractContextManager[Any]],
        *,
        base: bool = False,
    ):
        self.policy, self.codec, self.context = policy, codec, context
        self.identity = compute_identity(policy, codec, base=base)
        config = policy.model.config.get_text_config()
        self.max_tokens = getattr(config, "max_position_embeddings", None)

    @torch.no_grad()
    def answers(self, questions: Sequence[Question]) -> Iterator[Answer[list[float]]]:
        """Yield the answers; a question that exceeds the model's context is unusable."""
        examples = []
        for index, question in enumerate(questions):
            example = self.build_example(index, question)
            if self.fits(len(example.prompt) + max(map(len, example.completions))):
                examples.append(example)
            else:
                yield Answer(index, unusable(question))
        if not examples:
            return
        for micro in collate(examples).split(MICRO_TOKENS):
            with self.context():
                alone = [self.policy.cost(micro.select([b])) for b in range(len(micro))]
                usages = share(self.policy.cost(micro), alone)
                with self.policy.meter.covered():  # each answer has its usage
                    logprobs = self.policy(micro.to(self.policy.device)).logprobs.cpu()  # (N, T)
            totals = micro.total(logprobs.double())  # (N,)
            for b, row in enumerate(micro.rows):
                probabilities = normalise(totals[micro.group == b].tolist())
                rounded = [round(p, DIGITS) for p in probabilities]
                yield Answer(row["index"], rounded, usages[b])

    @torch.no_grad()
    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[Answer[str]]:
        """Yield the next turns; the text is empty if it could exceed the model's context."""
        prompts = {index: self.codec.prompt(each) for index, each in enumerate(dialogues)}
        for index, prompt in list(prompts.items()):
            if not self.fits(len(prompt) + max_new_tokens):
                yield Answer(index, "")
                del prompts[index]
        if not prompts:
            return
        spent: list[Cost] = []
        with self.context():
            completions = generate(
                self.policy,
                list(prompts.values()),
                [0] * len(prompts),  # greedy: the seeds have no effect
                Sampling(max_new_tokens, self.codec.stop_ids, temperature=0.0),
                charge=lambda _, cost: spent.append(cost),
            )
            written = list(zip(prompts.items(), completions, strict=True))
            alone = [
                self.policy.generation_cost(collate([Example(prompt, [c.tokens])]), passes=0)
                for (_, prompt), c in written
            ]
        usages = share(sum_costs(spent), alone)
        for ((index, _), completion), usage in zip(written, usages, strict=True):
            yield Answer(index, self.codec.decode(completion.tokens).strip(), usage)

    def build_example(self, index: int, question: Question) -> Example:
        """Return the question as a prompt, and its options as the completions."""
        prompt = question.messages
        return Example(
            self.codec.prompt(prompt),
            [self.codec.completion(prompt, option) for option in question.options],
            row={"index": index},
        )

    def fits(self, tokens: int) -> bool:
        """Return True if the model has position embeddings for so many tokens."""
        return self.max_tokens is None or tokens + self.policy.virtual.count <= self.max_tokens


def share(total: Cost, alone: Sequence[Cost]) -> list[Usage]:
    """Return what each of several answers costs alone; the first one also takes the rest.

    The rest is what an adapter computes once per pass, and what equal questions share. There is
    none for the judges whose answers are cached: they have no adapter, and are asked once. So what
    is stored does not depend on the questions that were asked together.
    """
    own = sum_costs(alone)
    usages = [Usage(round(cost.flops), cost.tokens) for cost in alone]
    flops, tokens = round(total.flops - own.flops), total.tokens - own.tokens
    usages[0] = Usage(usages[0].flops + flops, usages[0].read + tokens)
    return usages


def compute_identity(policy: Policy, codec: Codec, *, base: bool) -> str:
    """Describe the weights, the computation, and the tokenizer and its chat template.

    With `base` the adapter is left out, so that a run's base is the same judge at every step.
    """
    facts = dict(policy.reference_facts())
    if not base:
        digest = sha256()
        for name, weight in sorted(adapter_parameters(policy.model).items()):
            # A copy, for numpy pins the memory of what it is given, which --shard could not free.
            values = weight.detach().to("cpu", torch.float32, copy=True).contiguous()
            digest.update(name.encode() + values.numpy().tobytes())
        facts["adapter"] = digest.hexdigest()
    tokenizer = codec.tokenizer
    described = f"{tokenizer.chat_template}\n{sorted(tokenizer.get_vocab().items())}"
    return f"local {facts} {sha256(described.encode()).hexdigest()}"

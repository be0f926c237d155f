"""Laws for samplers: completions of the current policy, as many as asked, by their seeds alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from alignzoo.batch import Batch, Example
from alignzoo.rollout import Completion, batch_completions, complete
from alignzoo.run import Run
from alignzoo.testing.laws import Broken, law
from alignzoo.testing.subject import Subject

Groups = list[list[Completion]]
ROWS, SIZE = 4, 3  # prompts, and completions of each
MAX_NEW_TOKENS = 40  # of the model's completions, some end before
LOGPROB_TOLERANCE = 0.01  # nats per token
TEMPERATURES = (0.3, 3.0)
MOVED = 0.05  # standard deviation of what is added to each weight


@dataclass
class SamplerSubject(Subject):
    """A sampler in a run that is about to draw."""

    kind = "samplers"

    @cached_property
    def run(self) -> Run:
        """Return a run with this sampler."""
        run = self.prepare_run("grpo", sampler=self.text, max_new_tokens=MAX_NEW_TOKENS)
        run.model.eval()
        return run

    def fresh(self) -> SamplerSubject:
        """Return a subject of its own for the same sampler."""
        return type(self)(self.name, self.options)

    def start(self) -> None:
        """Prepare the run, and draw once."""
        self.draw(self.rows[:1], 1)

    @cached_property
    def rows(self) -> list[Example]:
        """Return twice as many rows as are drawn for at once, with different prompts."""
        first = {tuple(row.prompt): row for row in self.run.data.train}
        return list(first.values())[: 2 * ROWS]

    def draw(
        self, rows: Sequence[Example] | None = None, size: int = SIZE, stream: str = "sample"
    ) -> Groups:
        """Draw completions as the loop has them drawn."""
        chosen = self.rows[:ROWS] if rows is None else rows
        found: Groups = complete(self.run, list(chosen), size, stream)
        return found

    def observe(self) -> list[list[list[int]]]:
        """Return the tokens of the usual completions."""
        return tokens_of(self.draw())

    def at_temperature(self, temperature: float) -> SamplerSubject:
        """Return a subject of its own that draws at another temperature."""
        other = self.fresh()
        other.run.recipe = replace(other.run.recipe, temperature=temperature)
        return other

    def policy_logprobs(self, groups: Groups, temperature: float) -> tuple[Batch, torch.Tensor]:
        """Return completions as a batch, and the trainer's log-probs of them, `[N, T]`."""
        batch = batch_completions(self.rows[: len(groups)], groups)
        with torch.no_grad(), self.run.free_of_charge(), self.run.model.evaluating():
            own = self.run.policy(batch.to(self.run.device), temperature=temperature).logprobs
        return batch, own.cpu()


def tokens_of(groups: Groups) -> list[list[list[int]]]:
    """Return the token ids of completions."""
    return [[list(completion.tokens) for completion in group] for group in groups]


def list_completions(groups: Groups) -> list[Completion]:
    """Return the completions of all rows."""
    return [completion for group in groups for completion in group]


def sampler_law(name: str, *, says: str, cause: str) -> Callable[[Any], Any]:
    """Register the decorated function as the check of a law for samplers."""
    return law("samplers", name, says=says, cause=cause, hook="complete")


@sampler_law(
    "completions",
    says="each row has as many completions as asked, each with a log-prob for each token",
    cause="a flat list in place of one for each row, or rows that are left out",
)
def check_counts(subject: SamplerSubject) -> None:
    """Count rows, completions, tokens and log-probs."""
    for count, size in ((ROWS, SIZE), (1, 1), (2, 5)):
        groups = subject.draw(subject.rows[:count], size)
        if len(groups) != count or any(len(group) != size for group in groups):
            found = [len(group) for group in groups]
            raise Broken(f"{count} rows of {size} completions each were asked for, and are {found}")
        for completion in list_completions(groups):
            if len(completion.tokens) != len(completion.logprobs):
                raise Broken(
                    f"a completion of {len(completion.tokens)} tokens has "
                    f"{len(completion.logprobs)} log-probs"
                )
            _ = completion.written  # raises if the mask does not fit


@sampler_law(
    "stream",
    says="the same stream gives the same completions, another stream or round gives others",
    cause="seeds of its own in place of `seeds(run, count, stream)`",
)
def check_stream(subject: SamplerSubject) -> None:
    """Draw twice from one stream, then from another one and in another round."""
    first = subject.observe()
    if subject.observe() != first:
        raise Broken("a second call for the same stream gives other completions")
    if tokens_of(subject.draw(stream="another")) == first:
        raise Broken("another stream gives the same completions")
    subject.run.schedule.round += 1
    try:
        if subject.observe() == first:
            raise Broken("another round gives the same completions")
    finally:
        subject.run.schedule.round -= 1
    if all(len(set(map(tuple, group))) == 1 for group in first):
        raise Broken(f"the {SIZE} completions of each prompt are the same")


@sampler_law(
    "other prompts",
    says="a completion does not depend on the prompts beside its own",
    cause="one generator for the whole batch, or padding that is attended to",
)
def check_other_prompts(subject: SamplerSubject) -> None:
    """Draw with every other prompt replaced."""
    rows = subject.rows
    mixed = [rows[i if i % 2 == 0 else i + ROWS] for i in range(ROWS)]
    one, other = subject.observe(), tokens_of(subject.draw(mixed))
    for i in range(0, ROWS, 2):
        if one[i] != other[i]:
            raise Broken(f"other prompts beside it change the completions of row {i}")


@sampler_law(
    "tokens",
    says="a completion has from one to --max-new-tokens tokens, all of them in the vocabulary",
    cause="ids of another tokenizer, or a limit that counts the prompt",
)
def check_tokens(subject: SamplerSubject) -> None:
    """Look at the number and the ids of the tokens."""
    vocabulary = subject.run.model.model.get_input_embeddings().num_embeddings
    most = subject.run.recipe.max_new_tokens
    for completion in list_completions(subject.draw()):
        if not 1 <= len(completion.tokens) <= most:
            raise Broken(f"a completion has {len(completion.tokens)} tokens of at most {most}")
        wrong = [t for t in completion.tokens if type(t) is not int or not 0 <= t < vocabulary]
        if wrong:
            raise Broken(f"{wrong[0]!r} is no token id below {vocabulary}")


@sampler_law(
    "ended",
    says="a completion has ended exactly if its last token is one that ends it, and no other is",
    cause="a stop token that is cut off, as most servers do, or `ended` from the length",
)
def check_ended(subject: SamplerSubject) -> None:
    """Compare `ended` with the last token."""
    stop_ids = set(subject.run.codec.stop_ids)
    drawn = list_completions(subject.draw(subject.rows, SIZE))
    for completion in drawn:
        ends = completion.tokens[-1] in stop_ids
        if completion.ended != ends:
            is_end = "ends" if ends else "does not end"
            raise Broken(f"ended is {completion.ended}, and the last token {is_end} a completion")
        if stop_ids & set(completion.tokens[:-1]):
            raise Broken("a completion goes on after a token that ends it")
    if not any(completion.ended for completion in drawn):
        raise Broken(f"none of {len(drawn)} completions has ended; the model ends most of its own")


@sampler_law(
    "log-probs",
    says="log-probs are finite, at most 0, and the trainer's within 0.01 nats, if they are not "
    "`external_logprobs`",
    cause="log-probs after top-k or top-p, without the temperature, or of the token before",
)
def check_logprobs(subject: SamplerSubject) -> None:
    """Compare log-probs with those of a forward pass, at two temperatures."""
    for temperature in (1.0, 0.7):
        other = subject.at_temperature(temperature)
        compare_logprobs(other, temperature, f"at temperature {temperature}")


def compare_logprobs(subject: SamplerSubject, temperature: float, when: str) -> None:
    """Raise `Broken` if the log-probs of new completions are not those of the policy."""
    groups = subject.draw()
    for completion in list_completions(groups):
        for x, written in zip(completion.logprobs, completion.written, strict=True):
            if written and not (math.isfinite(x) and x <= 0):
                raise Broken(f"a log-prob is {x}, {when}")
    if subject.plugin.external_logprobs:
        return
    batch, own = subject.policy_logprobs(groups, temperature)
    apart = float((own - batch["logprobs"]).abs()[batch.mask].max())
    if apart > LOGPROB_TOLERANCE:
        raise Broken(f"a log-prob is {apart:.3g} nats from the trainer's, {when}")


@sampler_law(
    "sampling temperature",
    says="--temperature is used: 0 takes the most likely token, and higher ones less likely ones",
    cause="settings of its own in place of `Sampling.of(run.recipe, run.codec)`",
)
def check_sampling_temperature(subject: SamplerSubject) -> None:
    """Compare how likely the completions of several temperatures are."""
    greedy = subject.at_temperature(0.0).observe()
    if any(len(set(map(tuple, group))) > 1 for group in greedy):
        raise Broken("completions of one prompt differ at temperature 0")
    means = []
    for temperature in TEMPERATURES:
        other = subject.at_temperature(temperature)
        batch, own = other.policy_logprobs(other.draw(), 1.0)
        means.append(float(own[batch.mask].mean()))
    if not means[0] > means[1]:
        raise Broken(
            f"tokens have a mean log-prob of {means[0]:.3g} nats at temperature "
            f"{TEMPERATURES[0]}, and of {means[1]:.3g} at {TEMPERATURES[1]}"
        )


@sampler_law(
    "current weights",
    says="completions are drawn under the weights of the current step",
    cause="an adapter that is loaded once, or a copy of the weights that nobody renews",
)
def check_current_weights(subject: SamplerSubject) -> None:
    """Draw, move the weights, and draw again."""
    other = subject.fresh()
    before = other.observe()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.run.model.parameters():
            moved = torch.randn(parameter.shape, generator=generator) * MOVED
            parameter.add_(moved.to(parameter))
    other.run.schedule.step += 1
    if other.observe() == before:
        raise Broken("other weights give the same completions")
    compare_logprobs(other, 1.0, "after the weights have moved")


@sampler_law(
    "charges",
    says="what is drawn is charged to the ledger, under generation",
    cause="passes inside `run.free_of_charge()`, or a charge for a part of them",
)
def check_charges(subject: SamplerSubject) -> None:
    """Compare the tokens drawn with those charged."""
    ledger = subject.run.ledger
    tokens, flops = ledger.tokens["generation"], ledger.total_flops
    drawn = sum(len(completion.tokens) for completion in list_completions(subject.draw()))
    charged = ledger.tokens["generation"] - tokens
    if charged < drawn:
        raise Broken(f"{drawn} tokens were drawn, and {charged} charged")
    if not ledger.total_flops > flops:
        raise Broken("tokens were charged, and no FLOPs")


@sampler_law(
    "kept rows",
    says="rows are not changed",
    cause="row.completions.append(...), or a prompt that grows by what is drawn",
)
def check_kept_rows(subject: SamplerSubject) -> None:
    """Compare rows with copies made before."""
    kept = deepcopy(subject.rows)
    subject.draw()
    if kept != subject.rows:
        raise Broken("a row has been changed")

"""A model that answers the prompts, in an order and with random numbers that follow from a seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch

from alignzoo import BadInput, Example, ModelSpec, collate, load_policy
from alignzoo.data import Codec, template_values
from alignzoo.policy import Policy
from alignzoo.recipe import resolve
from alignzoo.record import read_run
from alignzoo.rollout import Sampling, generate
from alignzoo_label.answers import as_content
from alignzoo_label.candidates import Candidates, is_text

CHUNK = 8  # prompts that are answered at once
LONGEST = 2048  # tokens of a prompt and a completion, for their state
SAMPLING = "max_new_tokens temperature top_k top_p min_p stop_text".split()


class Writer:
    """A model that answers prompts as the run does that it comes from.

    A setting that is None is the run's own, or else the default of a run.
    """

    def __init__(
        self,
        model: str,
        *,
        temperature: float | None,
        max_new_tokens: int | None,
        trust_remote_code: bool,
    ):
        spec = ModelSpec(model, trust_remote_code=trust_remote_code)
        self.policy: Policy = load_policy(spec)
        self.policy.require_generative()
        self.policy.eval()
        self.codec = Codec(self.policy.tokenizer)
        settings = {"temperature": temperature, "max_new_tokens": max_new_tokens}
        typed = {name: value for name, value in settings.items() if value is not None}
        recipe = resolve({"algorithm": "dpo", **recipe_of(model), **typed})
        self.sampling = Sampling.of(recipe, self.codec)

    def draw(
        self, prompts: Sequence[Candidates], seed: int, pairs: int, size: int, *, states: bool
    ) -> Iterator[Candidates]:
        """Draw candidates for prompts, `pairs` in all, each with up to `size` completions.

        Prompts come in an order that follows from the seed, again with other completions once all
        have had a turn. Blank completions, and all but one of those that are alike, are left out.
        """
        turns = self._turns(prompts, Random(f"{seed} order"))
        random = Random(f"{seed} completions")
        left = pairs
        while left > 0 and (chunk := list(islice(turns, min(CHUNK, left)))):
            left -= len(chunk)
            asked = [ids for _, ids in chunk for _ in range(size)]
            seeds = [random.randrange(2**63) for _ in asked]
            drawn = generate(self.policy, asked, seeds, self.sampling)
            texts = [self.codec.decode(completion.tokens) for completion in drawn]
            for i, (one, _) in enumerate(chunk):
                found = filter(is_text, texts[i * size : (i + 1) * size])
                made = replace(one, completions=tuple(dict.fromkeys(found)))
                yield self.with_states(made) if states and made.completions else made

    def _turns(
        self, prompts: Sequence[Candidates], random: Random
    ) -> Iterator[tuple[Candidates, list[int]]]:
        """Yield prompts with their token ids without end, all of them once in each turn.

        Raise `BadInput` if the model has no room for an answer to any of them.
        """
        room = (self.policy.positions or sys.maxsize) - self.sampling.max_new_tokens
        encoded = [
            (one, self.codec.prompt(one.prompt, template_values(one.columns))) for one in prompts
        ]
        fitting = [(one, ids) for one, ids in encoded if len(ids) <= room]
        if not fitting:
            raise BadInput("no prompt leaves room for an answer", where=self.policy.name)
        while True:
            random.shuffle(fitting)
            yield from fitting

    def with_states(self, candidates: Candidates) -> Candidates:
        """Return candidates with this frozen model's state of each completion, `[K, 2 H]`.

        It is the last layer's state at the last token beside the mean over all tokens, in float32.
        A prompt loses its start, and a completion its end, if both have more than `LONGEST` tokens.
        """
        answers = [as_content(candidates.prompt, text) for text in candidates.completions]
        values = template_values(candidates.columns)
        prompt, completions = self.codec.group(candidates.prompt, answers, values)
        limit = min(LONGEST, self.policy.positions or LONGEST)
        prompt = self.codec.cut_prompt(prompt, limit // 2)
        kept = [tokens[: limit - len(prompt)] for tokens in completions]
        batch = collate([Example(prompt, kept)]).to(self.policy.device)
        with torch.no_grad():
            hidden = self.policy(batch, hidden=True).hidden.float()  # (K, T, H)
        mask = batch.mask[..., None]  # (K, T, 1)
        mean = (hidden * mask).sum(1) / mask.sum(1)  # (K, H)
        last = hidden[torch.arange(len(kept)), batch.lengths - 1]  # (K, H)
        return replace(candidates, states=torch.cat([last, mean], -1).cpu())


def recipe_of(model: str) -> dict[str, Any]:
    """Return how a run samples, by its recipe; nothing for a model that is no run."""
    folder = Path(model).expanduser()
    if not (folder / "run.json").is_file():
        return {}
    recipe = read_run(folder)["recipe"]
    return {name: recipe[name] for name in SAMPLING if name in recipe}

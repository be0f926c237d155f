"""Answers of a model to the prompts of an evaluation: completions, or episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alignzoo.data import Codec
from alignzoo.environments import Environment
from alignzoo.policy import Policy
from alignzoo.rollout import Completion, EpisodeSettings, Sampling, Start, generate, play
from alignzoo.run.schedule import seed_from


@dataclass(frozen=True)
class Answerer:
    """A model that answers prompts: in an environment, if there is one, by an episode each.

    Args:
        policy: the model, in eval mode.
        codec: of its tokenizer.
        sampling: how completions are drawn.
        seed: of the evaluation.
        environment: in which the prompts are answered; None for a completion each.
        room: the most tokens of a prompt that an environment gives.
    """

    policy: Policy
    codec: Codec
    sampling: Sampling
    seed: int
    environment: Environment | None
    room: int

    def answer(
        self,
        rows: Sequence[Mapping[str, Any]],
        prompts: Sequence[list[int]],
        advance: Callable[[int], None],
        sample: int = 0,
    ) -> tuple[list[Completion], list[int]]:
        """Return a completion of each prompt, and the seeds by which they were drawn.

        Several samples of a prompt meet an environment of the same seed.
        """
        items = [seed_for_item(self.seed, index) for index in range(len(rows))]
        seeds = [seed + sample for seed in items]
        draw = partial(generate, self.policy)
        if self.environment is None:
            return draw(prompts, seeds, self.sampling, advance=advance), seeds
        settings = EpisodeSettings(
            self.environment, self.codec, self.sampling, self.room, self.policy.positions
        )
        starts = [
            Start(row, prompt, seed, item)
            for row, prompt, seed, item in zip(rows, prompts, seeds, items, strict=True)
        ]
        return play(settings, starts, draw, advance), seeds


def seed_for_item(seed: int, index: int) -> int:
    """Return the seed of one item, the same before and after training so that the two compare."""
    return seed_from(f"evaluation {seed} {index}")


def score_of_episode(completion: Completion) -> float | None:
    """Return the sum of the rewards of an episode; None for any other completion."""
    return None if completion.rewards is None else float(sum(completion.rewards))

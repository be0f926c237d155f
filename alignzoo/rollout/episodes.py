"""Episodes: completions of several turns, between which an environment answers.

All episodes are played side by side: each turn of the model is drawn for those that go on, then
each environment answers. The ids of a turn are kept as they were drawn, and what the environment
says follows them as ids of its own, masked as context. A turn has a seed of its own, so that an
episode does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from alignzoo.data import Codec, Turns, template_values
from alignzoo.environments import Environment, Episode, KeptEpisode, Transcripts
from alignzoo.errors import BadInput, count
from alignzoo.faults import describe_row
from alignzoo.rollout.generate import Completion
from alignzoo.rollout.sampling import Sampling
from alignzoo.run.schedule import seed_from

UNSEEN_TOOLS = "the chat template does not write the tools: the prompt has to describe them"

# Draw a completion of each prompt, by its seed.
Draw = Callable[[list[list[int]], list[int], Sampling], list[Completion]]


@dataclass(frozen=True)
class Start:
    """Where an episode starts.

    Args:
        row: of data.
        prompt: its token ids, unless the environment gives another.
        seed: of what the model draws.
        environment_seed: the environment's own, the same for all episodes of a group.
    """

    row: Mapping[str, Any]
    prompt: list[int]
    seed: int
    environment_seed: int


@dataclass(frozen=True)
class EpisodeSettings:
    """What all episodes of a run have in common.

    Args:
        environment: of which each episode has an object of its own.
        codec: of the model.
        sampling: `max_new_tokens` is the most tokens of an episode after its prompt, those of the
            environment counted.
        room: the most tokens of a prompt.
        positions: those that the model has, None if they do not end.
        transcripts: where steps are kept, and taken from if they are there.
    """

    environment: Environment
    codec: Codec
    sampling: Sampling
    room: int
    positions: int | None = None
    transcripts: Transcripts | None = None

    def begin(self, start: Start) -> Episode:
        """Return the episode of a start, not begun."""
        where = (self.environment, start.row, start.environment_seed)
        if self.transcripts is None:
            return Episode(*where)
        return KeptEpisode(*where, self.transcripts, start.seed)


class Player:
    """An episode in progress: the environment on one side, the completion on the other.

    Args:
        settings: what it has in common with others.
        start: where it starts.
    """

    def __init__(self, settings: EpisodeSettings, start: Start):
        self.settings, self.start = settings, start
        self.episode = settings.begin(start)
        self.completion = Completion(mask=[], rewards=[], prompt=self._begin())
        self.turn, self.closed = 0, False
        self.over = self.room < 1

    def _begin(self) -> list[int]:
        """Reset the environment, and return the ids of the prompt."""
        given, codec, row = self.episode.begin(), self.settings.codec, self.start.row
        content = row.get("prompt", "") if given is None else given
        tools = self.episode.tool_schemas
        values = template_values(row) | ({"tools": tools} if tools else {})
        chat = not isinstance(content, str)
        self.turns = Turns(codec, chat=chat, template=values)
        if given is None and not (chat and tools):
            return self.start.prompt
        if chat and not all(
            tool["function"]["name"] in codec.head(content, values) for tool in tools
        ):
            codec.note(UNSEEN_TOOLS)
        ids = codec.prompt(content, values)
        if len(ids) > self.settings.room:
            raise BadInput(
                f"environment {self.episode.environment.label!r}: a prompt of "
                f"{count(len(ids), 'token')}, and there is room for {self.settings.room:,}",
                hint=f"raise --max-length; for the {describe_row(row)}",
            )
        return ids

    @property
    def context(self) -> list[int]:
        """Return all ids so far, the prompt's included."""
        return [*(self.completion.prompt or ()), *self.completion.tokens]

    @property
    def room(self) -> int:
        """Return how many tokens the completion may still have."""
        done = len(self.completion.tokens)
        left = self.settings.sampling.max_new_tokens - done
        if self.settings.positions is not None:
            left = min(left, self.settings.positions - len(self.completion.prompt or ()) - done)
        return left

    @property
    def seed(self) -> int:
        """Return the seed of the next turn; of the first, that of the episode."""
        return self.start.seed if self.turn == 0 else seed_from(f"{self.start.seed} {self.turn}")

    def take(self, drawn: Completion) -> None:
        """Take a turn of the model, and let the environment answer it.

        A turn that was cut off ends the episode, when the environment has seen it.
        """
        tokens = drawn.tokens[: self.room]
        cut = not drawn.ended or len(tokens) < len(drawn.tokens)
        self._append(tokens, drawn.logprobs[: len(tokens)], written=True)
        self.turn += 1
        step = self.episode.answer(self.settings.codec.decode(tokens))
        assert self.completion.rewards is not None
        self.completion.rewards[-1] = step.reward
        self.completion.ended = step.done and not cut
        last = self.turn == self.episode.environment.max_turns
        self.over = step.done or cut or last or step.observation is None
        if self.over or step.observation is None:
            return
        most = self.episode.environment.observation_tokens
        said = self.turns.after(tokens, step.observation, most)
        if len(said) < self.room:
            self._append(said, [math.nan] * len(said), written=False)
        else:  # there is no room for another turn
            self.over = True

    def close(self) -> None:
        """Close the environment, once."""
        if not self.closed:
            self.closed = True
            self.episode.close()

    def _append(self, tokens: list[int], logprobs: list[float], *, written: bool) -> None:
        completion = self.completion
        assert completion.mask is not None and completion.rewards is not None
        completion.tokens += tokens
        completion.logprobs += logprobs
        completion.mask += [written] * len(tokens)
        completion.rewards += [0.0] * len(tokens)


def play(
    settings: EpisodeSettings,
    starts: Sequence[Start],
    draw: Draw,
    advance: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Play one episode from each start, and return its completion.

    Args:
        settings: what they have in common.
        starts: those of the same row and environment seed have the same prompt.
        draw: draws a turn of the model after each context.
        advance: called with the number of episodes that ended since the last call.
    """
    with ExitStack() as stack:
        players = []
        for start in starts:
            players.append(Player(settings, start))
            stack.callback(players[-1].close)
        check_prompts(players)
        play_turns(settings, players, draw, advance)
    return [player.completion for player in players]


def play_turns(
    settings: EpisodeSettings,
    players: Sequence[Player],
    draw: Draw,
    advance: Callable[[int], None] | None,
) -> None:
    """Let model and environments take turns until all episodes are over."""
    going = [player for player in players if not player.over]
    while going:
        # A turn is cut to its own room: the first tokens of a row do not depend on how many follow.
        sampling = replace(settings.sampling, max_new_tokens=max(player.room for player in going))
        contexts, seeds = [one.context for one in going], [one.seed for one in going]
        for player, drawn in zip(going, draw(contexts, seeds, sampling), strict=True):
            player.take(drawn)
            if player.over:
                player.close()
        before, going = len(going), [player for player in going if not player.over]
        if advance:
            advance(before - len(going))


def check_prompts(players: Sequence[Player]) -> None:
    """Raise `RunFailed` if an environment gave two prompts for one row and one seed."""
    prompts: dict[tuple[int, int], list[int] | None] = {}
    for player in players:
        key = (id(player.start.row), player.start.environment_seed)
        prompt = player.completion.prompt
        if prompts.setdefault(key, prompt) != prompt:
            raise player.episode.fail_in_reset(
                "gave two prompts for one row: its completions share a prompt",
                "draw from random.Random(self.seed)",
            )

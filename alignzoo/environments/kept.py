"""Steps of episodes as they were, in a file: a run that is resumed takes them from there.

That is for environments with a state outside of the program, which may answer otherwise when they
are asked again. An environment is asked again only when an episode goes on behind its kept steps:
it is then taken through them first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignzoo.data import Content
from alignzoo.environments.environment import Environment, Step
from alignzoo.environments.episode import Episode
from alignzoo.files import (
    append_lines,
    json_lines,
    read_lines,
    with_digest,
    without_digest,
    write_text,
)

KeptStep = dict[str, Any]


class Transcripts:
    """The kept steps of episodes, in a file with a line each.

    A step is found by its episode, a number, and its turn; 0 is the reset. Damaged lines are left
    out.
    """

    def __init__(self, path: Path):
        self.path = path
        rows = map(without_digest, read_lines(path, skip_damaged=True))
        self._rows = {(row["episode"], row["turn"]): row for row in rows if row is not None}
        path.parent.mkdir(exist_ok=True)
        # A line that a crash cut off would spoil the next one.
        write_text(path, json_lines(map(with_digest, self._rows.values())))

    def find(self, episode: int, turn: int) -> KeptStep | None:
        """Return a kept step, None if there is none."""
        return self._rows.get((episode, turn))

    def add(self, episode: int, turn: int, **contents: Any) -> None:
        """Keep a step."""
        row = {"episode": episode, "turn": turn, **contents}
        self._rows[episode, turn] = row
        append_lines(self.path, [with_digest(row)])


class KeptEpisode(Episode):
    """An episode whose steps are kept, and taken from there if the model writes the same again.

    Args:
        transcripts: where they are kept.
        number: of the episode, the same in a resumed run.
    """

    def __init__(
        self,
        environment: Environment,
        row: Mapping[str, Any],
        seed: int,
        transcripts: Transcripts,
        number: int,
    ):
        super().__init__(environment, row, seed)
        self.transcripts, self.number, self.turn = transcripts, number, 0
        self._behind: list[str] | None = None  # turns that the environment has not been told
        self._schemas: list[dict[str, Any]] = []

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """Return the tools as chat templates take them."""
        return self._schemas

    def begin(self) -> Content | None:
        """Return the kept prompt, or reset the environment."""
        kept = self.transcripts.find(self.number, 0)
        if kept is None:
            prompt = super().begin()
            self._schemas = super().tool_schemas
            self.transcripts.add(self.number, 0, prompt=prompt, tools=self._schemas)
            return prompt
        self._behind, self._schemas = [], kept["tools"]
        given: Content | None = kept["prompt"]
        return given

    def answer(self, text: str) -> Step:
        """Return the kept answer to a turn, or that of the environment."""
        self.turn += 1
        kept = self.transcripts.find(self.number, self.turn)
        if self._behind is not None and kept is not None and kept["text"] == text:
            self._behind.append(text)
            return Step(kept["observation"], kept["reward"], kept["done"])
        self._catch_up()
        step = super().answer(text)
        contents = {"observation": step.observation, "reward": step.reward, "done": step.done}
        self.transcripts.add(self.number, self.turn, text=text, **contents)
        return step

    def _catch_up(self) -> None:
        """Take the environment through the turns that it has not been told."""
        if self._behind is not None:
            super().begin()
            for text in self._behind:
                super().answer(text)
        self._behind = None

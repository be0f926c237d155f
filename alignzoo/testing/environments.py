"""Laws for environments: episodes that follow from a row, a seed and texts, whatever these are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

from alignzoo.data import Codec, Prompts
from alignzoo.environments import Environment, Episode, Tool, ToolError
from alignzoo.policy import load_policy
from alignzoo.rollout import Completion, EpisodeSettings, Sampling, Start, play
from alignzoo.testing.laws import Broken, NotApplicable, law
from alignzoo.testing.odd_texts import ODD_TEXTS
from alignzoo.testing.rewards import CHECK_ROWS, USUAL_ROWS
from alignzoo.testing.subject import Subject, require_same

CHECK_TURNS = "check_turns"  # the attribute of an environment: texts of a model in an episode
USUAL_TURNS = ("I will try 5.", "Then 57, or 18.", "The answer is 9.")
ROOM = 4000  # tokens of an episode, and of its prompt
SEED = 7
# A value of each type of JSON, to call tools with.
USUAL_VALUES: Mapping[str, Any] = {
    "string": "x", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {},
    "null": None,
}  # fmt: skip
Told = list[Any]  # the prompt, then steps


@dataclass
class EnvironmentSubject(Subject):
    """An environment, and what episodes of it are played with."""

    kind = "environments"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return rows with the columns that the environment reads."""
        return [Prompts.canonical(deepcopy(x)) for x in getattr(self.cls, CHECK_ROWS, USUAL_ROWS)]

    @cached_property
    def turns(self) -> Sequence[str]:
        """Return what a model writes in an episode, turn after turn."""
        return tuple(getattr(self.cls, CHECK_TURNS, USUAL_TURNS))

    def fresh(self) -> EnvironmentSubject:
        """Return a subject of its own for the same environment."""
        return EnvironmentSubject(self.name, self.options)

    def episode(self, row: int = 0, seed: int = SEED) -> Episode:
        """Return an episode from a row, not begun."""
        return Episode(self.plugin, self.rows[row], seed)

    def tell(self, texts: Sequence[str], row: int = 0) -> Told:
        """Return the prompt of an episode, and its answers to texts as far as it goes."""
        episode = self.episode(row)
        found: Told = [episode.begin()]
        for text in texts:
            step = episode.answer(text)
            found.append(step)
            if step.done:
                break
        return found

    def start(self) -> None:
        """Play an episode as a run does, from the first row, with each of the usual turns."""
        for option in fields(Environment):  # the core reads them, if an episode is long enough
            getattr(self.plugin, option.name)
        codec = Codec(load_policy("zoo-tiny").tokenizer)
        left = list(self.turns)

        def draw(contexts: Any, seeds: Any, sampling: Any) -> list[Completion]:
            ids = codec.completion("?", left.pop(0) if left else USUAL_TURNS[-1])
            return [Completion(ids, [-1.0] * len(ids), True)]

        row = self.rows[0]
        settings = EpisodeSettings(self.plugin, codec, Sampling(ROOM, codec.stop_ids), ROOM)
        play(settings, [Start(row, codec.prompt(row["prompt"]), 1, SEED)], draw)

    def observe(self) -> list[Told]:
        """Return an episode from each row."""
        return [self.tell(self.turns, row) for row in range(len(self.rows))]


def environment_law(name: str, *, says: str, cause: str, hook: str) -> Callable[[Any], Any]:
    """Register the decorated function as the check of a law for environments."""
    return law("environments", name, says=says, cause=cause, hook=hook)


@environment_law(
    "same episode",
    says="the same row, seed and texts give the same prompt, answers and rewards",
    cause="random numbers without self.seed, the time, or a server: if it cannot be otherwise, set "
    "self.outside_state = True",
    hook="step",
)
def check_same_episode(subject: EnvironmentSubject) -> None:
    """Play each episode twice, by the object of this subject and by another."""
    if subject.plugin.outside_state:
        raise NotApplicable("it says that it has a state outside of the program")
    first = subject.observe()
    require_same(first, subject.observe(), "a second episode")
    require_same(first, subject.fresh().observe(), "another object")


@environment_law(
    "neighbours",
    says="an episode does not depend on others that are played beside it",
    cause="a list or a counter of the class in place of one of the object: make it in reset",
    hook="reset",
)
def check_neighbours(subject: EnvironmentSubject) -> None:
    """Play two episodes turn by turn, and compare them with one that was played alone."""
    if subject.plugin.outside_state:
        raise NotApplicable("it says that it has a state outside of the program")
    alone = subject.tell(subject.turns)
    one, other = subject.episode(), subject.episode(-1, SEED + 1)
    found: Told = [one.begin()]
    other.begin()
    others_goes_on = True
    for text in subject.turns:
        if others_goes_on:
            others_goes_on = not other.answer(text[::-1]).done
        step = one.answer(text)
        found.append(step)
        if step.done:
            break
    require_same(alone, found, "another episode beside it")


@environment_law(
    "odd texts",
    says="every text of a model gets an answer",
    cause="text.split()[0], int(text), or a regular expression that takes for ever",
    hook="step",
)
def check_odd_texts(subject: EnvironmentSubject) -> None:
    """Begin an episode with each odd text."""
    for name, text in ODD_TEXTS.items():
        try:
            subject.tell([text, text])
        except Exception as error:
            raise Broken(f"{name}: {str(error).splitlines()[0]}") from None


@environment_law(
    "tools",
    says="a call whose arguments fit the schema is answered",
    cause="parameters of the schema that the function does not take, or types that it does not "
    "expect; for a value that is no good it raises ToolError",
    hook="reset",
)
def check_tools_answer(subject: EnvironmentSubject) -> None:
    """Call each tool with all its arguments, and with the required ones alone."""
    episode = subject.episode()
    episode.begin()
    tools = episode.environment.tools
    if not tools:
        raise NotApplicable("it has no tools")
    for tool in tools:
        for arguments in usual_arguments(tool):
            called = partial(tool.function, **arguments)
            try:
                json.dumps(called())
            except ToolError:
                continue
            except Exception as error:
                named = f"{tool.name}({json.dumps(arguments)[1:-1]})"
                raise Broken(f"{named}: {type(error).__name__}: {error}") from None


def usual_arguments(tool: Tool) -> list[dict[str, Any]]:
    """Return arguments that fit the schema of a tool, if its types are plain."""
    properties = tool.parameters.get("properties", {})
    values = {name: usual_value(schema) for name, schema in properties.items()}
    return [values, {name: values[name] for name in tool.parameters.get("required", ())}]


def usual_value(schema: Mapping[str, Any]) -> Any:
    """Return a value of the type that a schema has."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    kind = schema.get("type", "string")
    value = USUAL_VALUES.get(kind if isinstance(kind, str) else kind[0], "x")
    return schema.get("minimum", value) if isinstance(value, int | float) else value

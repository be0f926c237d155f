"""The base class of environments, and what a step of one gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from alignzoo.data import Content
from alignzoo.environments.tools import Tool, ToolCall, check_tools, parse_tool_calls
from alignzoo.errors import BadInput
from alignzoo.named import build_named


@dataclass(frozen=True)
class Step:
    """What an environment gives after a turn of the model.

    Args:
        observation: what the environment says: a text, which is a message of the user's in a
            dialogue, or messages. None only if the episode is over.
        reward: of the turn. The reward of the episode is the sum over its turns.
        done: True if the episode is over.
    """

    observation: Content | None = None
    reward: float = 0.0
    done: bool = False


@dataclass(eq=False, kw_only=True)
class Environment(ABC):
    """Base class of environments. A subclass implements `step`, and `reset` if it has a state.

    There is one object per episode, made with the options of the run. What it gives follows from
    the row, `seed` and the texts of the model alone, or it sets `outside_state`.

    Attributes:
        tools: what the model may call. A turn with calls is answered by the tools, and `step` is
            not called for it; the episode goes on.
        outside_state: True if a step may give something else when it is repeated, because there is
            a server behind it, for example. A run then keeps each step in its folder, under
            `episodes/`, and a resumed run takes it from there.
        seed: a number of the row in this round, the same for all episodes of a group: draw from
            `random.Random(self.seed)`.
    """

    max_turns: Annotated[int, "most turns of the model in an episode", Ge(1), Le(1000)] = 8
    observation_tokens: Annotated[
        int, "most tokens that the environment says after a turn; the rest is cut", Ge(8), Le(10**6)
    ] = 512
    step_seconds: Annotated[
        float, "most seconds of a reset, a step, or a call of a tool", Gt(0), Le(86_400)
    ] = 60.0

    tools: Sequence[Tool] = field(default=(), init=False)
    outside_state: bool = field(default=False, init=False)
    seed: int = field(default=0, init=False)

    @property
    def label(self) -> str:
        """Return the environment's name for messages: its own, or that of its class."""
        return str(getattr(self, "name", None) or type(self).__name__.lower())

    def reset(self, row: dict[str, Any]) -> Content | None:
        """Begin an episode from a row of data.

        Return a prompt, a text or messages, that takes the place of the row's; None to keep that.
        """
        return None

    @abstractmethod
    def step(self, text: str) -> Step:
        """Return what the environment says to a turn of the model, with a reward."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give back what the episode has taken, such as a connection.

        Called when the episode is over, and when the run fails in the middle of it.
        """

    def parse_calls(self, text: str) -> list[ToolCall]:
        """Return the calls of tools in a turn of the model; by default those of `tools`' format."""
        return parse_tool_calls(text) if self.tools else []


def load_environment(text: str, flag: str = "--environment") -> Environment:
    """Build the environment that `NAME[,OPTION=VALUE...]` names.

    Raise `BadInput` if there is no such environment, or if one of its tools is wrong.
    """
    found = build_named("environments", text, flag)
    if not isinstance(found, Environment):
        raise BadInput(
            f"environment {text!r} is not an alignzoo.environments.Environment",
            hint="derive its class from that, and implement the method `step`",
        )
    check_tools(list_tools(found), f"environment {found.label!r}")
    return found


def list_tools(environment: Environment) -> Sequence[Tool]:
    """Return the tools of an environment; raise `BadInput` if they are not a list."""
    tools = environment.tools
    if not isinstance(tools, list | tuple):
        owner = f"environment {environment.label!r}"
        raise BadInput(f"its tools are of type {type(tools).__name__}, not a list", where=owner)
    return tools


def another_of(environment: Environment) -> Environment:
    """Return a new object with the options of an environment, for an episode of its own."""
    given = vars(environment)  # what reads an option as an attribute is the environment's own work
    return type(environment)(
        **{each.name: given[each.name] for each in fields(environment) if each.init}
    )

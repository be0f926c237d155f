"""Environments of verifiers 0.1, as an environment, and as a task with their data.

A rollout of verifiers calls a model; here it is run as a coroutine, whose model waits until the
text of the next turn is known.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar

from alignzoo import BadInput
from alignzoo.discovery import FUNCTION
from alignzoo.environments import Environment, Step, Tool, ToolCall, parse_tool_calls
from alignzoo.errors import NotAvailable
from alignzoo.options import quote

Name = Annotated[str, "python: and the name of the environment, whose module is imported"]
Arguments = Annotated[str, "arguments of its load_environment, an object as JSON"]


@cache
def load(name: str, arguments: str) -> tuple[Any, asyncio.AbstractEventLoop]:
    """Return the environment of verifiers by its name, and the event loop that it runs in."""
    if find_spec("verifiers") is None or find_spec("verifiers.envs") is None:
        raise NotAvailable(
            "environment 'verifiers' needs verifiers 0.1", hint="pip install alignzoo[verifiers]"
        )
    import verifiers

    if not name.startswith(FUNCTION):
        raise BadInput(
            f"option id: {name!r} is imported as a module, which has to be said",
            hint=f"write id={FUNCTION}{name}",
        )
    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise BadInput(f"option args: {arguments!r} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadInput(f"option args: {arguments!r} is not an object")
    environment = verifiers.load_environment(name.removeprefix(FUNCTION), **given)
    return environment, asyncio.new_event_loop()


@dataclass(eq=False)
class Verifiers(Environment):
    """An environment of verifiers, by its name"""

    id: Name
    args: Arguments = "{}"

    def __post_init__(self) -> None:
        self.outside_state = True  # a rubric may ask a judge, and a tool a server
        self.env, self.loop = load(self.id, self.args)

    def reset(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Begin a rollout; return its prompt."""
        from alignzoo_environments.turn_client import TurnClient

        self.client = TurnClient(self.loop)
        rollout = self.env.rollout({"example_id": 0, **row}, self.client, "alignzoo", {})
        self.rollout = self.loop.create_task(rollout)
        prompt = self.wait()
        if prompt is None:
            raise BadInput("the environment was done before the first turn", where=self.id)
        self.seen = len(prompt)
        self.tools = [
            Tool(each.name, each.description, each.parameters, lambda **_: "")
            for each in self.client.tools
        ]
        return [to_dict(message) for message in prompt]

    def parse_calls(self, text: str) -> list[ToolCall]:
        """Return no calls: verifiers answers them itself."""
        return []

    def step(self, text: str) -> Step:
        """Give the rollout a turn, with the tools that it calls; score it when it is done."""
        self.client.say(text, [call for call in parse_tool_calls(text) if call.problem is None])
        prompt = self.wait()
        if prompt is None:
            state = self.rollout.result()
            if state.get("error") is not None:
                raise state["error"]
            self.run(self.env.rubric.score_rollout(state))
            return Step(None, float(state["reward"]), done=True)
        said = [to_dict(message) for message in prompt[self.seen + 1 :]]
        self.seen = len(prompt)
        return Step(said)

    def close(self) -> None:
        """Cancel a rollout that did not end."""
        if hasattr(self, "rollout") and not self.rollout.done():
            self.rollout.cancel()
            self.run(asyncio.wait([self.rollout]))

    def wait(self) -> list[Any] | None:
        """Run the rollout until it asks the model; return the prompt, None if it is done."""
        asked = self.loop.create_task(self.client.asked.get())
        self.run(asyncio.wait([asked, self.rollout], return_when=asyncio.FIRST_COMPLETED))
        if asked.done():
            return asked.result()
        asked.cancel()
        return None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run the event loop until some work is done."""
        return self.loop.run_until_complete(work)


def to_dict(message: Any) -> dict[str, Any]:
    """Return a message of verifiers as a role and a text."""
    content = message.content
    if isinstance(content, list):
        content = "".join(getattr(part, "text", "") for part in content)
    return {"role": message.role, "content": content or ""}


@dataclass(eq=False)
class VerifiersTask:
    """The data of an environment of verifiers, played in that environment"""

    id: Name
    args: Arguments = "{}"

    views: ClassVar[tuple[str, ...]] = ("prompts",)
    worst, best = 0.0, 1.0

    @property
    def environment(self) -> str:
        """Return the environment that a run on this task has."""
        return f"verifiers,id={quote(self.id)},args={quote(self.args)}"

    def rows(self, view: str, split: str) -> list[dict[str, Any]]:
        """Return the rows of its data set, or of the one for evaluation."""
        if view not in self.views or split not in ("train", "test"):
            raise BadInput(f"there is no view {view!r} of the split {split!r}")
        env, _ = load(self.id, self.args)
        data = env.get_dataset() if split == "train" else env.get_eval_dataset()
        return [dict(row) for row in data]

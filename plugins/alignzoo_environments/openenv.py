"""Episodes on an OpenEnv server, by the client of openenv-core."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any

from alignzoo.environments import Environment, Step
from alignzoo.errors import NotAvailable

MOST_SEED = 2**31  # servers hand seeds on to numpy
ABOUT = ("done", "reward", "metadata")  # keys of an observation that are not shown


@dataclass(eq=False)
class OpenEnv(Environment):
    """An OpenEnv server: each turn of the model is an action"""

    url: Annotated[str, "of the server, such as http://127.0.0.1:8000"]
    action: Annotated[str, "key of the action that holds the text of a turn"] = "message"
    observation: Annotated[
        str | None, "key of the observation that is shown [default: all of it, as JSON]"
    ] = None

    def __post_init__(self) -> None:
        self.outside_state = True
        if find_spec("openenv") is None:
            raise NotAvailable(
                "environment 'openenv' needs openenv-core", hint="pip install alignzoo[openenv]"
            )

    def reset(self, row: dict[str, Any]) -> Any:
        """Connect, reset the server by the seed, and show what it says behind the prompt."""
        from openenv.core.generic_client import GenericEnvClient

        self.client = GenericEnvClient(self.url, message_timeout_s=self.step_seconds).sync()
        said = self.show(self.client.reset(seed=self.seed % MOST_SEED).observation)
        return add_to_prompt(row["prompt"], said) if said else None

    def step(self, text: str) -> Step:
        """Send a turn as an action."""
        result = self.client.step({self.action: text})
        reward = 0.0 if result.reward is None else float(result.reward)
        return Step(self.show(result.observation) or "(nothing)", reward, bool(result.done))

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "client"):
            self.client.close()

    def show(self, observation: dict[str, Any]) -> str:
        """Return an observation as text."""
        if self.observation is not None:
            return str(observation[self.observation])
        shown = {name: value for name, value in observation.items() if name not in ABOUT}
        return json.dumps(shown, ensure_ascii=False) if shown else ""


def add_to_prompt(prompt: Any, text: str) -> Any:
    """Return a prompt, a text or messages, with a text behind it."""
    if isinstance(prompt, str):
        return f"{prompt}\n{text}"
    last = prompt[-1]
    return [*prompt[:-1], {**last, "content": f"{last['content']}\n{text}"}]

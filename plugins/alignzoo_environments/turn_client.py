"""A model for rollouts of verifiers that waits for each of its turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from verifiers.clients.client import Client
from verifiers.types import Response, ResponseMessage
from verifiers.types import ToolCall as VerifiersCall

from alignzoo.environments import ToolCall


class TurnClient(Client):
    """A client of verifiers: what it is asked is in `asked`, and `say` gives the answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        super().__init__(loop)
        self.asked: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.turns: asyncio.Queue[ResponseMessage] = asyncio.Queue()
        self.tools: Sequence[Any] = ()

    def say(self, text: str, calls: Sequence[ToolCall]) -> None:
        """Answer what was asked by a text, and the calls of tools in it."""
        made = [
            VerifiersCall(id=f"call_{n}", name=one.name, arguments=json.dumps(one.arguments))
            for n, one in enumerate(calls)
        ]
        message = ResponseMessage(
            content=text,
            tool_calls=made or None,
            finish_reason="tool_calls" if made else "stop",
            is_truncated=False,
        )
        self.turns.put_nowait(message)

    async def get_native_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **more: Any
    ) -> Response:
        """Wait for the next turn."""
        self.tools = tools or ()
        self.asked.put_nowait(prompt)
        message = await self.turns.get()
        return Response(id="", created=0, model=model, message=message)

    # The forms of verifiers are used as they are.

    def setup_client(self, config: Any) -> Any:
        """Return what stands for a connection."""
        return config

    async def to_native_tool(self, tool: Any) -> Any:
        """Return a tool as it is."""
        return tool

    async def to_native_prompt(self, messages: Any) -> tuple[Any, dict[str, Any]]:
        """Return messages as they are."""
        return messages, {}

    async def raise_from_native_response(self, response: Any) -> None:
        """Find nothing wrong."""

    async def from_native_response(self, response: Response) -> Response:
        """Return a response as it is."""
        return response

    async def close(self) -> None:
        """Close nothing."""

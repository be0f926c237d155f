"""One episode of an environment: each call limited in time, and each answer checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

from alignzoo.data import Content, Message, check_content, is_empty
from alignzoo.data.limits import limited_time
from alignzoo.data.values import BadValue, UnusableRow
from alignzoo.environments.environment import Environment, Step, another_of, list_tools
from alignzoo.environments.tools import ToolCall, answer_call, check_tools, find_tool
from alignzoo.errors import RunFailed
from alignzoo.faults import Blame, PluginMethod, describe_row

LARGEST_REWARD = 1e15  # of a turn: a reward of an episode is below 1e18

Given = TypeVar("Given")
Method = Callable[..., Any]


class Episode:
    """An episode of an environment, by an object of its own, from a row of data.

    Whatever is wrong with what the environment gives is a `RunFailed` that names the environment,
    the method and the row. `seed` is the environment's.
    """

    def __init__(self, environment: Environment, row: Mapping[str, Any], seed: int):
        self.row = row
        self.environment = environment
        self.environment = self._call(type(environment).__init__, another_of, environment)
        self.environment.seed = seed

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """Return the tools as chat templates take them."""
        return [tool.schema for tool in list_tools(self.environment)]

    def begin(self) -> Content | None:
        """Reset the environment; return the prompt that it gives, None to keep the row's."""
        reset = self.environment.reset
        found = self._call(reset, reset, deepcopy(dict(self.row)))
        place = f"environment {self.environment.label!r}"
        check_tools(list_tools(self.environment), f"{place}, for the {describe_row(self.row)}")
        if found is None:
            return None
        prompt = self._check_content(reset, found, "prompt")
        if is_empty(prompt):
            raise self._fail(reset, "returned a prompt without text")
        return prompt

    def fail_in_reset(self, problem: str, hint: str) -> RunFailed:
        """Return the error for a prompt that does not fit the others."""
        error = self._fail(self.environment.reset, problem)
        return RunFailed(error.problem, where=error.where, hint=f"{hint}; {error.hint}")

    def answer(self, text: str) -> Step:
        """Return the answer to a turn of the model: of the tools that it calls, or of `step`."""
        parse, step = self.environment.parse_calls, self.environment.step
        calls = self._call(parse, parse, text)
        if not isinstance(calls, list) or not all(isinstance(one, ToolCall) for one in calls):
            raise self._fail(parse, "returned no list of ToolCalls")
        if calls:
            return Step([self._answer_call(call) for call in calls])
        return self._check_step(self._call(step, step, text))

    def close(self) -> None:
        """Close the environment."""
        close = self.environment.close
        self._call(close, close)

    def _answer_call(self, call: ToolCall) -> Message:
        """Return the message with which a tool answers a call."""
        tools = list_tools(self.environment)
        tool = find_tool(call, tools)
        function = tool.function if tool else self.environment.parse_calls
        message = {
            "role": "tool",
            "name": call.name,
            "content": self._call(function, answer_call, call, tools),
        }
        self._check_content(function, [message], "answer")
        return message

    def _call(self, method: Method, function: Callable[..., Given], *arguments: Any) -> Given:
        """Call a function that calls a method of the environment, within its time.

        Raise `RunFailed` for whatever it raises.
        """
        seconds = self.environment.step_seconds
        try:
            with Blame(self._place(method)), limited_time(seconds):
                return function(*arguments)
        except RunFailed as error:
            hint = f"for the {describe_row(self.row)}"
            if isinstance(error.__cause__, TimeoutError):
                hint = f"its option step_seconds is {seconds:g}; {hint}"
            raise RunFailed(error.problem, where=error.where, hint=hint) from error

    def _check_step(self, step: Any) -> Step:
        """Return a step as it is used; raise `RunFailed` for one that is no answer."""
        method = self.environment.step
        if not isinstance(step, Step):
            raise self._fail(method, f"returned a value of type {type(step).__name__}, not a Step")
        if not isinstance(step.done, bool):
            raise self._fail(method, f"returned done = {step.done!r:.80}, not True or False")
        is_number = isinstance(step.reward, int | float) and not isinstance(step.reward, bool)
        if not is_number or not abs(step.reward) <= LARGEST_REWARD:
            raise self._fail(method, f"returned {step.reward!r:.80} as a reward, not a number")
        said = step.observation
        if said is not None:
            said = self._check_content(method, said, "observation")
            if isinstance(said, list) and any(one["role"] == "assistant" for one in said):
                raise self._fail(method, "returned an observation that the assistant says")
        if not step.done and (said is None or is_empty(said)):
            raise self._fail(method, "returned no observation, and the episode goes on")
        return Step(said or None, float(step.reward), step.done)

    def _check_content(self, method: Method, content: Any, what: str) -> Content:
        """Return a text or messages, checked; raise `RunFailed` for anything else."""
        try:
            return check_content(content, what)
        except (BadValue, UnusableRow) as error:
            problem = getattr(error, "problem", error)
            raise self._fail(method, f"returned what is no {what}: {problem}") from None

    def _place(self, method: Method) -> PluginMethod:
        owner = f"environment {self.environment.label!r}"
        return PluginMethod.of(owner, self.environment, method)

    def _fail(self, method: Method, problem: str) -> RunFailed:
        """Return the error for a wrong answer of a method."""
        return self._place(method).fail(problem, hint=f"for the {describe_row(self.row)}")

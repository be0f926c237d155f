"""Tools: functions that the model calls in its text, by a name and arguments that are checked.

A call is written as chat templates of the Hermes and Qwen families write it:

    <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError

from alignzoo.errors import BadInput, first_line, nearest

CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
FORM = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'


class ToolError(Exception):
    """A tool refuses a call: its text is the answer to the model.

    A function of a tool raises it for what the model did wrong. Any other exception is a fault of
    the environment, and ends the run.
    """


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    Args:
        name: by which it is called: letters, digits, `_`, `.` and `-`.
        description: what it does, for the model.
        parameters: the JSON schema of its arguments, of type "object".
        function: called with the arguments by name; its result is the answer, as text or as JSON.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Tool:
        """Return the tool of a function, by its type hints and its docstring.

        They are read as transformers does: each argument has a hint, and a line under `Args:`.
        """
        from transformers.utils import get_json_schema  # slow to import

        schema = get_json_schema(function)["function"]
        return cls(schema["name"], schema["description"], schema["parameters"], function)

    @property
    def schema(self) -> dict[str, Any]:
        """Return the tool as chat templates take it."""
        described = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**described, "parameters": dict(self.parameters)}}


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool as the model wrote it.

    Args:
        name: of the tool, "" if it could not be read.
        arguments: by name.
        problem: what is wrong with how the call is written; the model gets it as the answer.
    """

    name: str
    arguments: Mapping[str, Any]
    problem: str | None = None


def check_tools(tools: Sequence[Tool], owner: str) -> None:
    """Raise `BadInput` unless tools have names of their own and schemas of objects."""
    names: set[str] = set()
    for tool in tools:
        if not isinstance(tool, Tool):
            raise BadInput(f"one of its tools is of type {type(tool).__name__}", where=owner)
        if not NAME.fullmatch(str(tool.name)) or tool.name in names:
            raise BadInput(
                f"{tool.name!r:.80} names {'two tools' if tool.name in names else 'no tool'}",
                where=owner,
                hint="the name of a tool is its own: letters, digits, _, . and -",
            )
        names.add(tool.name)
        problem = find_schema_problem(tool.parameters)
        if problem:
            raise BadInput(
                f"the parameters of its tool {tool.name!r} are no JSON schema: {problem}",
                where=owner,
                hint='write {"type": "object", "properties": {NAME: {"type": ...}}, "required": '
                "[NAME]}",
            )


def find_schema_problem(schema: Any) -> str:
    """Return what is wrong with the schema of a tool's arguments, or ""."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return 'its type is not "object"'
    try:
        json.dumps(schema)
        jsonschema.Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{'/'.join(map(str, error.absolute_path))}: {first_line(error)}"
    except (TypeError, ValueError, RecursionError) as error:
        return first_line(error)
    return ""


def parse_tool_calls(text: str) -> list[ToolCall]:
    """Return the calls in a text, each within `<tool_call>` and `</tool_call>`.

    One that is not an object with `name` and `arguments` has its `problem`. The last may lack its
    end: generation may stop there.
    """
    return [parse_call(found) for found in CALL.findall(text)]


def parse_call(text: str) -> ToolCall:
    """Return the call that a JSON text stands for."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError) as error:
        return ToolCall("", {}, f"the call is not JSON: {first_line(error)}; write {FORM}")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return ToolCall("", {}, f"the call is not an object with a name; write {FORM}")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return ToolCall(call["name"], {}, f"the arguments are not an object; write {FORM}")
    return ToolCall(call["name"], arguments)


def answer_call(call: ToolCall, tools: Sequence[Tool]) -> str:
    """Return what the model is told about its call: the result of the tool, or what is wrong.

    Raise what the tool's function raises, but for `ToolError`.
    """
    if call.problem:
        return f"error: {call.problem}"
    tool = find_tool(call, tools)
    if tool is None:
        return f"error: there is no tool {call.name!r:.80}. {nearest(call.name, tool_names(tools))}"
    problem = find_argument_problem(call.arguments, tool.parameters)
    if problem:
        return f"error: {problem}"
    try:
        result = tool.function(**call.arguments)
    except ToolError as error:
        return f"error: {error}"
    return result if isinstance(result, str) else json.dumps(result)


def find_tool(call: ToolCall, tools: Sequence[Tool]) -> Tool | None:
    """Return the tool that is called, None if there is none of this name."""
    return next((tool for tool in tools if tool.name == call.name), None)


def find_argument_problem(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return what is wrong with the arguments of a call, or "".

    A name that the schema does not list is wrong too, unless it allows others.
    """
    strict = {"additionalProperties": False, **schema}
    errors = jsonschema.Draft202012Validator(strict).iter_errors(arguments)
    first = next(iter(sorted(errors, key=lambda error: list(map(str, error.absolute_path)))), None)
    if first is None:
        return ""
    at = "/".join(map(str, first.absolute_path))
    return f"argument {at}: {first_line(first)}" if at else first_line(first)


def tool_names(tools: Sequence[Tool]) -> list[str]:
    """Return the names of tools."""
    return [tool.name for tool in tools]

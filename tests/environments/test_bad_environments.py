"""Environments and tools that are wrong: one message, which names the environment and the row."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from alignzoo.cli import status
from alignzoo.environments import (
    Environment,
    Episode,
    Step,
    Tool,
    ToolCall,
    ToolError,
    load_environment,
)
from alignzoo.environments.tools import answer_call, find_schema_problem, parse_tool_calls
from alignzoo.errors import BadInput, RunFailed

ROW = {"prompt": "What is 2 + 3?", "a": 2}


def wait() -> None:
    while True:
        time.sleep(0.01)


BROKEN_STEPS = {
    "raises": (lambda: 1 / 0, "step failed: ZeroDivisionError: division by zero"),
    "exits": (lambda: exit(3), r"step tried to end the program: SystemExit\(3\)"),
    "hangs": (wait, "step failed: TimeoutError: it runs for more than 0.2 seconds"),
    "nothing": (lambda: None, "step returned a value of type NoneType, not a Step"),
    "a tuple": (lambda: ("x", 1.0, True), "step returned a value of type tuple, not a Step"),
    "a number": (lambda: Step(3), "step returned what is no observation: expected text or a list"),
    "a role": (lambda: Step([{"role": "judge", "content": "x"}]), "unknown role 'judge'"),
    "the assistant": (
        lambda: Step([{"role": "assistant", "content": "x"}]),
        "step returned an observation that the assistant says",
    ),
    "half a character": (lambda: Step("\ud800"), "half of a surrogate pair"),
    "silence": (lambda: Step(), "step returned no observation, and the episode goes on"),
    "an empty text": (lambda: Step(" "), "step returned no observation, and the episode goes on"),
    "nan": (lambda: Step("x", math.nan), "step returned nan as a reward, not a number"),
    "infinite": (lambda: Step("x", -math.inf), "step returned -inf as a reward, not a number"),
    "a text as a reward": (lambda: Step("x", "1"), "step returned '1' as a reward"),
    "a bool as a reward": (lambda: Step("x", True), "step returned True as a reward"),
    "done as a number": (lambda: Step("x", 1.0, 1), "step returned done = 1, not True or False"),
}


def episode(step=None, reset=None, tools=(), **options) -> Episode:
    """An episode, begun, of an environment with these methods."""

    class Broken(Environment):
        def reset(self, row):
            self.tools = tools
            return reset() if reset else None

        def step(self, text):
            return step()

    found = Episode(Broken(**options), ROW, 1)
    found.begin()
    return found


@pytest.mark.parametrize("name", BROKEN_STEPS)
def test_a_wrong_step_is_one_message(name):
    step, message = BROKEN_STEPS[name]
    with pytest.raises(RunFailed, match=message) as error:
        episode(step, step_seconds=0.2).answer("5")
    assert error.value.problem.startswith("environment 'broken': step ")
    assert "row with prompt='What is 2 + 3?', a=2" in error.value.hint
    assert f"{__file__}, line " in error.value.where
    assert ("step_seconds is 0.2" in error.value.hint) == ("Timeout" in error.value.problem)


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        (lambda: 1 / 0, "reset failed: ZeroDivisionError"),
        (lambda: 5, "reset returned what is no prompt: expected text or a list of messages"),
        (lambda: " ", "reset returned a prompt without text"),
        (lambda: [{"role": "user"}], "reset returned what is no prompt: the content of message 1"),
    ],
)
def test_a_wrong_reset_is_one_message(reset, message):
    with pytest.raises(RunFailed, match=f"environment 'broken': {message}") as error:
        episode(reset=reset)
    assert "row with prompt='What is 2 + 3?'" in error.value.hint


NUMBER = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}


def call(**contents) -> str:
    return f"<tool_call>{json.dumps(contents)}</tool_call>"


def halve(a):
    if a == 0:
        raise ToolError("not 0")
    return {"half": 1 / (2 / a)} if a < 100 else "x" * 10


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (call(name="halve", arguments={"a": 4}), ['{"half": 2.0}']),
        (call(name="halve", arguments={"a": 400}), ["x" * 10]),
        (call(name="halve", arguments={"a": 0}), ["error: not 0"]),
        (call(name="halve", arguments={"a": "4"}), ["error: argument a: '4' is not of type"]),
        (call(name="halve", arguments={}), ["error: 'a' is a required property"]),
        (call(name="halve"), ["error: 'a' is a required property"]),
        (call(name="halve", arguments={"a": 1, "b": 2}), ["error: Additional properties are not"]),
        (call(name="halve", arguments=[4]), ["error: the arguments are not an object"]),
        (call(name="double", arguments={}), ["error: there is no tool 'double'"]),
        (call(arguments={}), ["error: the call is not an object with a name"]),
        ("<tool_call>[1]</tool_call>", ["error: the call is not an object with a name"]),
        ("<tool_call>halve 4</tool_call>", ["error: the call is not JSON"]),
        ("<tool_call>" + "[" * 100_000, ["error: the call is not JSON"]),
        (f"x {call(name='halve', arguments={'a': 2})}\n" * 2, ['{"half": 1.0}'] * 2),
        (call(name="halve", arguments={"a": 6}).removesuffix("</tool_call>"), ['{"half": 3.0}']),
    ],
)
def test_a_call_of_a_tool_is_answered_or_told_what_is_wrong(text, answers):
    step = episode(tools=[Tool("halve", "Halve a number.", NUMBER, halve)]).answer(text)
    assert (step.reward, step.done, len(step.observation)) == (0.0, False, len(answers))
    for message, answer in zip(step.observation, answers, strict=True):
        assert message["role"] == "tool" and message["content"].startswith(answer)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a: 1 / 0, "failed: ZeroDivisionError"),
        (lambda a: object(), "failed: TypeError: Object of type object is not JSON"),
        (lambda: 1, "failed: TypeError: .* unexpected keyword argument 'a'"),
        (lambda a: wait(), "failed: TimeoutError"),
        (lambda a: "\ud800", "returned what is no answer: .* half of a surrogate pair"),
    ],
)
def test_a_tool_that_fails_ends_the_run_with_one_message(function, message):
    found = episode(tools=[Tool("halve", "Halve.", NUMBER, function)], step_seconds=0.2)
    with pytest.raises(RunFailed, match=f"environment 'broken': .*{message}") as error:
        found.answer(call(name="halve", arguments={"a": 4}))
    assert "row with prompt='What is 2 + 3?'" in error.value.hint


def test_an_environment_with_calls_of_its_own_form():
    class Slash(Environment):
        tools = (Tool("halve", "Halve.", NUMBER, halve),)

        def parse_calls(self, text):
            return [ToolCall("halve", {"a": 4})] if text == "/halve 4" else []

        def step(self, text):
            return Step(done=True)

    found = Episode(Slash(), ROW, 1)
    assert found.answer("/halve 4").observation[0]["content"] == '{"half": 2.0}'
    assert found.answer("2").done
    Slash.parse_calls = lambda self, text: text
    with pytest.raises(RunFailed, match="<lambda> returned no list of ToolCalls"):
        found.answer("2")


BROKEN_SCHEMAS = [
    ({"type": "number"}, 'its type is not "object"'),
    ([], 'its type is not "object"'),
    (
        {"type": "object", "properties": {"a": {"type": "nmber"}}},
        "properties/a/type: 'nmber' is not",
    ),
    ({"type": "object", "required": "a"}, "required: 'a' is not of type 'array'"),
    ({"type": "object", "default": object()}, "Object of type object is not JSON"),
]


@pytest.mark.parametrize(("schema", "problem"), BROKEN_SCHEMAS)
def test_a_broken_schema_is_found(schema, problem):
    assert find_schema_problem(schema).startswith(problem)
    with pytest.raises(BadInput, match="the parameters of its tool 'halve' are no JSON") as error:
        episode(tools=[Tool("halve", "Halve.", schema, halve)])
    assert error.value.where.startswith("environment 'broken', for the row with prompt=")


CODE = """
from dataclasses import dataclass
from alignzoo.environments import Environment, Step, Tool

class Halves(Environment):
    tools = TOOLS

    def step(self, text):
        return Step("go on", REWARD)
"""


@pytest.mark.parametrize(
    ("tools", "reward", "code", "message"),
    [
        ("[Tool('halve', '', {'type': 'text'}, print)]", "1.0", 2, "are no JSON schema"),
        ("[Tool('a b', '', {'type': 'object'}, print)]", "1.0", 2, "'a b' names no tool"),
        ("[Tool('a', '', {'type': 'object'}, print)] * 2", "1.0", 2, "'a' names two tools"),
        ("['halve']", "1.0", 2, "one of its tools is of type str"),
        ("7", "1.0", 2, "its tools are of type int, not a list"),
        ("()", "float('nan')", 1, "environment 'halves': step returned nan as a reward"),
    ],
)
def test_a_run_says_it_in_one_message(tmp_path, capsys, tools, reward, code, message):
    path = tmp_path / "halves.py"
    path.write_text(CODE.replace("TOOLS", tools).replace("REWARD", reward))
    words = ["run", "grpo", "--task", "style", "--environment", str(path), "--eval-size", "0"]
    words += ["--output-dir", str(tmp_path / "runs"), "--steps", "1", "--batch-size", "2"]
    assert status(words) == code
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
    assert (tmp_path / "runs").exists() == (code == 1)
    if code == 1:
        assert "for the row with prompt=" in shown


def test_what_is_no_environment_and_what_cannot_play_one_is_refused(tmp_path, capsys):
    path = tmp_path / "plain.py"
    path.write_text("class Plain:\n    def step(self, text): ...\n")
    with pytest.raises(BadInput, match="is not an alignzoo.environments.Environment"):
        load_environment(str(path))
    toys = str(Path(__file__).parent / "toys.py")
    vllm = "vllm,url=http://127.0.0.1:9/v1"
    assert status(["run", "grpo", "--environment", toys, "--sampler", vllm]) == 2
    assert "option --sampler: 'vllm,url" in capsys.readouterr().err
    assert status(["run", "grpo", "--task", "style", "--reward", "environment"]) == 2
    assert "'environment' is the reward of an --environment" in capsys.readouterr().err


def test_a_tool_of_a_function():
    def add(a: int, b: int = 0) -> int:
        """
        Add two numbers.

        Args:
            a: the first.
            b: the second.
        """
        return a + b

    tool = Tool.of(add)
    assert (tool.name, tool.description) == ("add", "Add two numbers.")
    assert tool.parameters["required"] == ["a"]
    (found,) = parse_tool_calls(call(name="add", arguments={"a": 2, "b": 3}))
    assert answer_call(found, [tool]) == "5"

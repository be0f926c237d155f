"""Environments of other libraries. OpenEnv's client is a stub here; verifiers is the real package.

`openenv-core` itself, against a server of its own, is tested if it is installed.
"""

from __future__ import annotations

import sys
import threading
import time
from importlib.util import find_spec

import pytest

from alignzoo import BadInput
from alignzoo.environments import Episode
from alignzoo.errors import NotAvailable
from alignzoo.recipe import find_code
from alignzoo_environments import openenv, verifiers

# As openenv-core 0.3.0 has it: a client of dictionaries, and a wrapper that is not asynchronous.
CLIENT = """
from types import SimpleNamespace

class GenericEnvClient:
    open = 0

    def __init__(self, base_url, message_timeout_s):
        self.base_url, self.count = base_url, 0

    def sync(self):
        GenericEnvClient.open += 1
        return self

    def reset(self, **given):
        self.count = given["seed"] % 10
        return SimpleNamespace(observation={"text": f"count {self.count}"}, reward=None, done=False)

    def step(self, action):
        self.count += len(action["message"])
        seen = {"text": f"count {self.count}", "done": False, "metadata": {}}
        return SimpleNamespace(observation=seen, reward=0.5, done=self.count > 12)

    def close(self):
        GenericEnvClient.open -= 1
"""


def forget(package: str) -> None:
    """Let a package be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture
def client(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "openenv" / "core"
    folder.mkdir(parents=True)
    for name, text in {
        "../__init__.py": "",
        "__init__.py": "",
        "generic_client.py": CLIENT,
    }.items():
        (folder / name).write_text(text)
    for name in [name for name in sys.modules if name.startswith("openenv")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "site")
    from openenv.core.generic_client import GenericEnvClient

    yield GenericEnvClient
    forget("openenv")


def test_a_turn_is_an_action_on_an_openenv_server(client):
    environment = openenv.OpenEnv(url="http://127.0.0.1:9", observation="text")
    assert environment.outside_state
    episode = Episode(environment, {"prompt": "Count."}, seed=23)
    assert episode.begin() == "Count.\ncount 3"
    assert client.open == 1
    step = episode.answer("hello")
    assert (step.observation, step.reward, step.done) == ("count 8", 0.5, False)
    assert episode.answer("hello").done
    episode.close()
    assert client.open == 0


def test_an_observation_without_a_key_is_shown_as_json(client):
    environment = openenv.OpenEnv(url="http://127.0.0.1:9")
    row = {"prompt": [{"role": "user", "content": "Count."}]}
    episode = Episode(environment, row, seed=1)
    assert episode.begin() == [{"role": "user", "content": 'Count.\n{"text": "count 1"}'}]
    assert episode.answer("x").observation == '{"text": "count 2"}'


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(openenv, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"needs openenv-core"):
        openenv.OpenEnv(url="http://127.0.0.1:9")
    monkeypatch.setattr(verifiers, "find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"needs verifiers"):
        verifiers.Verifiers(id="none")


def test_the_real_client_and_a_server_of_its_own():
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("openenv.core.generic_client")
    from openenv.core.env_server import Action, Environment, Observation, State
    from openenv.core.env_server.http_server import create_fastapi_app

    class Said(Action):
        message: str

    class Seen(Observation):
        text: str = ""

    class Counts(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed=None, episode_id=None, **more):
            self.count = seed % 10
            return Seen(text=f"count {self.count}", done=False, reward=None)

        def step(self, action, **more):
            self.count += len(action.message)
            return Seen(text=f"count {self.count}", done=self.count > 12, reward=0.5)

        @property
        def state(self):
            return State(episode_id="1", step_count=0)

    app = create_fastapi_app(Counts, Said, Seen, max_concurrent_envs=2)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    environment = openenv.OpenEnv(url=f"http://127.0.0.1:{port}", observation="text")
    episode, other = (Episode(environment, {"prompt": "Count."}, seed=seed) for seed in (23, 4))
    assert [episode.begin(), other.begin()] == ["Count.\ncount 3", "Count.\ncount 4"]
    step = episode.answer("hello")
    assert (step.observation, step.reward, step.done) == ("count 8", 0.5, False)
    assert other.answer("").observation == "count 4"
    assert episode.answer("hello").done
    episode.close()
    other.close()
    server.should_exit = True
    thread.join()


VERIFIERS = '''
import verifiers as vf
from datasets import Dataset

class Asks(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        said = messages[-1].content
        if "stop" in said:
            state["final_env_response"] = [vf.UserMessage(content="bye")]
            return state["final_env_response"]
        return [vf.UserMessage(content=f"{len(messages)}: {said[::-1]}")]

def last(completion, answer):
    return float(any(answer in (m.content or "") for m in completion if m.role == "assistant"))

def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b

def load_environment(kind="asks"):
    data = Dataset.from_list([{"question": "What is 2 + 3?", "answer": "5"}])
    if kind == "asks":
        return Asks(dataset=data, rubric=vf.Rubric(funcs=[last]), max_turns=3)
    rubric = vf.Rubric(funcs=[last])
    if kind == "single":
        return vf.SingleTurnEnv(dataset=data, rubric=rubric, system_prompt="Be brief.")
    return vf.ToolEnv(dataset=data, rubric=rubric, tools=[add], max_turns=4)
'''


@pytest.fixture
def library(tmp_path, monkeypatch):
    if find_spec("verifiers") is None or find_spec("verifiers.envs") is None:
        pytest.skip("verifiers 0.1 is not installed")
    (tmp_path / "zoo_asks.py").write_text(VERIFIERS)
    monkeypatch.syspath_prepend(tmp_path)
    verifiers.load.cache_clear()
    yield "python:zoo-asks"
    forget("zoo_asks")


def episode_of(name, kind):
    task = verifiers.VerifiersTask(id=name, args=f'{{"kind": "{kind}"}}')
    (row,) = task.rows("prompts", "train")
    environment = verifiers.Verifiers(id=name, args=task.args)
    episode = Episode(environment, row, seed=1)
    return episode, episode.begin()


def test_an_environment_of_several_turns(library):
    episode, prompt = episode_of(library, "asks")
    assert prompt == [{"role": "user", "content": "What is 2 + 3?"}]
    step = episode.answer("hm")
    assert step.observation == [{"role": "user", "content": "2: mh"}] and not step.done
    assert episode.answer("so").observation == [{"role": "user", "content": "4: os"}]
    step = episode.answer("it is 5")
    assert (step.reward, step.done) == (1.0, True)
    episode.close()
    other, _ = episode_of(library, "asks")
    assert other.answer("stop").reward == 0.0
    cut, _ = episode_of(library, "asks")
    cut.answer("hm")
    cut.close()
    assert cut.environment.rollout.cancelled()


def test_an_environment_of_one_turn(library):
    episode, prompt = episode_of(library, "single")
    assert [message["role"] for message in prompt] == ["system", "user"]
    step = episode.answer("5")
    assert (step.reward, step.done) == (1.0, True)


def test_an_environment_with_tools(library):
    episode, _ = episode_of(library, "tools")
    (schema,) = episode.tool_schemas
    assert schema["function"]["name"] == "add"
    call = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
    assert episode.answer(call).observation == [{"role": "tool", "content": "5"}]
    assert episode.answer("It is 5.").reward == 1.0


def test_the_task_brings_the_environment(library):
    from alignzoo import load_task
    from alignzoo.environments import load_environment

    task = load_task(f'verifiers,id={library},args="{{\\"kind\\": \\"single\\"}}"')
    environment = load_environment(task.environment)
    assert (environment.id, environment.args) == (library, '{"kind": "single"}')
    with pytest.raises(BadInput, match="is not JSON"):
        verifiers.Verifiers(id=library, args="{")
    with pytest.raises(BadInput, match="imported as a module, which has to be said"):
        verifiers.Verifiers(id="zoo-asks")
    assert find_code({"task": f"verifiers,id={library}"})  # refused in a recipe of a stranger

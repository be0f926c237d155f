from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_fakes import evaluation

from alignzoo import discovery
from alignzoo.cli import status

Alignzoo = Callable[..., Any]
HEAVY = ["torch", "transformers", "peft", "datasets", "accelerate", "numpy"]


@pytest.mark.parametrize(
    "words", [["--help"], ["plugins"], ["run", "--help"], ["judge", "--help"], ["--version"]]
)
def test_quick_commands_import_nothing_heavy(alignzoo: Alignzoo, words: list[str]) -> None:
    done = alignzoo(
        code=f"import sys\nfrom alignzoo.cli import status\ncode = status({words!r})\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    assert done.stdout.splitlines()[-1] == "HEAVY [] 0", done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 0, ""),
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        (["rum"], 2, "alignzoo: no such command 'rum'. Did you mean 'run'?"),
        (["--verson"], 2, "alignzoo: unknown option --verson: did you mean --version?"),
        (["run"], 2, "alignzoo: missing ALGO; usage: alignzoo run ALGO [options]"),
        (["run", "--seed", "1"], 2, "alignzoo: missing ALGO; usage: alignzoo run ALGO [options]"),
        (["run", "no-such-algorithm"], 2, "alignzoo: unknown algorithm 'no-such-algorithm'"),
        (["run", "./none.py"], 2, "alignzoo: none.py: no such file"),
        (["run", "--recipe", "none.yaml"], 2, "alignzoo: none.yaml: no such recipe file"),
        (["eval"], 2, "alignzoo: missing argument 'MODEL'"),
        (["eval", "x", "--limit", "0"], 2, "alignzoo: option --limit: '0' is not allowed"),
        (["eval", "x", "--tasks", "a,,b"], 2, "alignzoo: option --tasks: 'a,,b' has an empty name"),
    ],
)
def test_exit_codes(
    capfd: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert status(words) == code
    err = capfd.readouterr().err
    assert err.startswith(message)
    assert bool(err) == bool(message)


def test_a_message_quotes_no_more_than_a_screen(capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["plugins", "x" * 5000], ["plugins", "--" + "x" * 5000], ["x" * 5000]):
        assert status(words) == 2
        assert len(capfd.readouterr().err) < 1000


def test_the_process_leaves_with_the_code(alignzoo: Alignzoo) -> None:
    done = alignzoo("eval", "x", "--limt", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean --limit?" in done.stderr


def test_the_environment_is_set_for_libraries_and_a_users_value_wins(alignzoo: Alignzoo) -> None:
    code = (
        "import os\nfrom alignzoo.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['TRANSFORMERS_VERBOSITY'])"
    )
    assert alignzoo(code=code, TRANSFORMERS_VERBOSITY="info").stdout.endswith("1 info\n")


def test_an_unforeseen_error_of_a_quick_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(discovery, "discover", broken)
    assert status(["plugins"]) == 1
    first, second = capfd.readouterr().err.splitlines()
    assert first == "alignzoo: OSError: the disk is gone"
    log = Path(second.rpartition(" ")[2])
    assert "in broken" in log.read_text()
    log.unlink()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def discover(kind: str) -> dict[str, discovery.Found]:
        if kind != "algorithms":
            return {}
        entry = EntryPoint("good", "alignzoo.ui:Silent", "alignzoo.algorithms")
        return {"good": discovery.Found(kind, "good", entry)}

    monkeypatch.setattr(discovery, "discover", discover)


@pytest.mark.usefixtures("installed")
def test_plugins_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert status(["plugins", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert rows == [
        {
            "kind": "algorithms",
            "name": "good",
            "package": "alignzoo",
            "version": "unknown",
            "summary": "A UI that shows nothing.",
        }
    ]


@pytest.mark.usefixtures("installed")
def test_help_without_an_algorithm_lists_them_all(capfd: pytest.CaptureFixture[str]) -> None:
    assert status(["run", "--help"]) == 0
    out = capfd.readouterr().out
    assert "A UI that shows nothing." in out
    assert "--learning-rate" in out


def fake_evaluation(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def evaluate_model(
        model: str, tasks: list[str], settings: Any, *, ui: Any, **others: Any
    ) -> dict[str, Any]:
        print("noise")
        ui.note("a note")
        seen.update(model=model, tasks=tasks, **settings, **others)
        return {task: evaluation(0.5, "words") for task in tasks}

    fake = SimpleNamespace(evaluate_model=evaluate_model, EvaluationSettings=dict)
    monkeypatch.setitem(sys.modules, "alignzoo.evaluation", fake)
    return seen


def test_eval_prints_a_table(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake_evaluation(monkeypatch)
    assert status(["eval", "zoo-tiny", "--tasks", "a, b,a", "--seed", "3"]) == 0
    assert (seen["tasks"], seen["seed"], seen["limit"]) == (["a", "b"], 3, 200)
    out = capfd.readouterr().out
    assert "noise" not in out
    assert out.count("0.500 [0.400, 0.600]") == 2


def test_eval_as_json_has_nothing_else_on_stdout(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_evaluation(monkeypatch)
    facts = {"recipe": {"algorithm": "dpo", "task": "sums"}, "status": "finished"}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    assert status(["eval", str(tmp_path), "--json"]) == 0
    assert seen["tasks"] == ["sums"]
    out, err = capfd.readouterr()
    assert json.loads(out)["tasks"].keys() == {"sums"}
    assert "a note" in err


def test_eval_samples_as_the_run_did_unless_told_otherwise(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_evaluation(monkeypatch)
    recipe = {"algorithm": "dpo", "task": "sums", "temperature": 0.0, "max_new_tokens": 12}
    recipe |= {"stop": ["a b"], "top_k": 5, "top_p": 1.0}  # `stop` is the former name
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe, "status": "finished"}))
    assert status(["eval", str(tmp_path)]) == 0
    of_run = {"temperature": 0.0, "max_new_tokens": 12, "stop_text": ["a b"], "top_k": 5}
    assert seen["sampling"] == of_run | {"top_p": 1.0, "min_p": 0.0}
    said = "sampling as the run did: --max-new-tokens 12 --temperature 0.0 --top-k 5 --stop-text"
    assert said in " ".join(capfd.readouterr().out.split())
    words = "--temperature 0.7 --max-new-tokens 20 --top-k 0 --stop-text x".split()
    assert status(["eval", str(tmp_path), *words]) == 0
    typed = {"temperature": 0.7, "max_new_tokens": 20, "stop_text": ["x"], "top_k": 0}
    assert seen["sampling"] == typed | {"top_p": 1.0, "min_p": 0.0}
    assert "as the run did" not in capfd.readouterr().out
    assert status(["eval", "zoo-tiny"]) == 0
    assert (seen["sampling"]["temperature"], seen["sampling"]["max_new_tokens"]) == (1.0, 64)
    recipe["temperature"] = "hot"
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe, "status": "finished"}))
    assert status(["eval", str(tmp_path)]) == 2
    assert "'hot' is not allowed" in capfd.readouterr().err


def test_what_json_does_not_know_becomes_null() -> None:
    from alignzoo.cli.render import to_plain

    estimate = {"mean": float("nan"), "low": None, "n": 3}
    assert to_plain({"a": (1.5, float("inf")), "b": estimate}) == {
        "a": [1.5, None],
        "b": {"mean": None, "low": None, "n": 3},
    }


class ChatModel:
    """Answers with its whole history."""

    def __init__(self, model: str, *, trust_remote_code: bool):
        print("noise")
        self.has_base = model == "run"

    def reply(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "tuned " + "/".join(message["content"] for message in messages)

    def base_reply(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "base " + "/".join(message["content"] for message in messages)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "alignzoo.cli.chat_model", SimpleNamespace(ChatModel=ChatModel)
    )


@pytest.mark.usefixtures("chat")
def test_chat_in_one_shot(capfd: pytest.CaptureFixture[str]) -> None:
    assert status(["chat", "zoo-tiny", "--prompt", "hi \x1b[2J", "--system", "be nice"]) == 0
    assert capfd.readouterr().out == "tuned be nice/hi \\x1b[2J\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--prompt", "a \ud800"], "half of a surrogate pair"),
        (["--prompt", "a", "--system", "\udcff"], "half of a surrogate pair"),
        (["--prompt", "a", "--max-new-tokens", "1000000000"], "--max-new-tokens"),
        (["--prompt", "a", "--temperature", "1e9"], "--temperature"),
    ],
)
def test_chat_refuses_what_is_no_text_or_too_much(capfd, words, problem) -> None:
    assert status(["chat", "zoo-tiny", *words]) == 2
    assert problem in capfd.readouterr().err


def test_chat_goes_on_after_what_it_cannot_answer(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["a \ud800", "/reset"])

    def read(prompt: str) -> str:
        if (text := next(typed, None)) is None:
            raise EOFError
        return text

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert status(["chat", "zoo-tiny"]) == 0
    out = capfd.readouterr().out
    assert "half of a surrogate pair" in out
    assert "starting over" in out


@pytest.mark.usefixtures("chat")
def test_chat_keeps_a_history_for_each_side_until_reset(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n/reset\nthree\n"))
    assert status(["chat", "run"]) == 0
    lines = [line.strip() for line in capfd.readouterr().out.splitlines() if line.strip()]
    assert lines == [
        "loading run",
        "base", "base one", "tuned", "tuned one",
        "base", "base one/base one/two", "tuned", "tuned one/tuned one/two",
        "starting over",
        "base", "base three", "tuned", "tuned three",
    ]  # fmt: skip

"""What a plugin prints, debugs, raises and claims, as the command line shows it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alignzoo import discovery
from alignzoo.cli import status
from alignzoo.cli.quiet import quiet
from alignzoo.errors import RunFailed

CLASS = "from alignzoo.discovery import hookimpl\nclass Mine:\n    @hookimpl\n"
HOOK = f"{CLASS}    def alignzoo_round_end(self):\n"


def load(tmp_path: Path, text: str, name: str = "mine.py") -> type:
    path = tmp_path / name
    path.write_text(text)
    return discovery.load_plugin("addons", str(path))


def test_what_a_plugin_prints_is_shown_and_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = (
        "        import pprint, sys\n"
        "        print('half', end='')\n"
        "        print(' a line', '\\x1b[2J')\n"
        "        pprint.pprint({'a': 1})\n"
        "        print('to stderr', file=sys.stderr)\n"
        "        print('a question? ', end='', flush=True)\n"
    )
    with quiet(tmp_path / "log.txt"):
        plugin = load(tmp_path, "print('importing')\n" + HOOK + body)
        print("a library")
        plugin().alignzoo_round_end()
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "importing\nhalf a line \\x1b[2J\n{'a': 1}\nto stderr\na question? \n"
    log = (tmp_path / "log.txt").read_text()
    assert all(text in log for text in ("importing", "half a line", "to stderr", "a library"))


def test_a_progress_bar_is_stopped_and_shown_again(tmp_path: Path) -> None:
    from io import StringIO

    from alignzoo.cli.terminal import Terminal

    with quiet() as log:
        terminal = Terminal(StringIO(), log)
        terminal.console.is_interactive = True
        with terminal.progress(10, None) as update:
            log.pause()
            assert terminal.bar is not None and not terminal.bar.live.is_started
            update(1, 0.1, {})
            assert terminal.bar.live.is_started
        log.show("a line of a plugin")
    assert "a line of a plugin" in terminal.console.file.getvalue()


@pytest.mark.parametrize(
    "problem", ["sys.exit(0)", "raise Stop('no')", "print(1 / 0)", "json.loads('{')"]
)
def test_what_a_plugin_raises_names_its_line(tmp_path: Path, problem: str) -> None:
    text = f"import json, sys\nclass Stop(BaseException): ...\n{HOOK}        {problem}\n"
    with pytest.raises(RunFailed) as error, quiet(tmp_path / "log.txt"):
        load(tmp_path, text)().alignzoo_round_end()
    assert error.value.message.startswith(f"{tmp_path / 'mine.py'}, line 7: ")


COMMAND = (
    "import sys\nfrom dataclasses import dataclass\n@dataclass\nclass Serve:\n"
    '    """Serve it"""\n    def main(self):\n        {}\n'
)


def test_a_command_that_exits_names_its_package(
    install: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    files = {"serving.py": COMMAND.format("sys.exit(3)")}
    folder = install(
        "server", "commands", {"serve": "serving:Serve", "run": "serving:Serve"}, files
    )
    assert status(["serve"]) == 1
    place = f"package server, {folder / 'serving.py'}, line 7"
    err = capfd.readouterr().err
    assert err.startswith(f"alignzoo: {place}: SystemExit: 3\n")
    Path(err.rpartition(" ")[2].strip()).unlink()
    assert status(["-p", "no:server", "serve"]) == 2
    assert status(["--help"]) == 0
    out = capfd.readouterr().out
    assert "server:run" in out  # a command of the core is nobody else's
    assert "Train a model" in out


def test_two_commands_of_one_name(
    install: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for package in ("one", "two"):
        files = {f"{package}_mod.py": COMMAND.format(f"print('this is {package}')")}
        install(package, "commands", {"serve": f"{package}_mod:Serve"}, files)
    assert status(["serve"]) == 2
    assert "write one:serve or two:serve" in capfd.readouterr().err
    assert status(["two:serve"]) == 0
    assert "this is two" in capfd.readouterr().out
    assert status(["-p", "no:two", "serve"]) == 0
    assert "this is one" in capfd.readouterr().out


def test_listings_show_both_algorithms_of_one_name_and_what_is_wrong(
    install: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for package in ("one", "two"):
        files = {f"{package}_mod.py": HOOK + "        ...\n"}
        install(package, "algorithms", {"anneal": f"{package}_mod:Mine"}, files)
    install("broken", "rewards", {"gone": "no_such_module:Gone"}, {})
    for words in (["plugins"], ["run", "--help"]):
        assert status(words) == 0
        out, err = capfd.readouterr()
        assert "one:anneal" in out and "two:anneal" in out and "dpo" in out
        assert "algorithm 'anneal' is claimed by one (one_mod:Mine) and two (two_mod:Mine)" in err
    assert status(["plugins"]) == 0
    assert "reward 'gone' of package broken cannot be used" in capfd.readouterr().err
    assert status(["run", "anneal"]) == 2
    assert "write one:anneal or two:anneal" in capfd.readouterr().err
    assert status(["run", "two:anneal", "--help"]) == 0
    assert status(["-p", "no:two", "-p", "no:broken", "plugins"]) == 0
    err = capfd.readouterr().err
    assert "claimed by" not in err and "broken" not in err


@pytest.mark.parametrize("words", [["-p", "x"], ["-p"], ["-p", "no:"], ["-pno:no-such-name"]])
def test_a_wrong_word_behind_p(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert status([*words, "plugins"] if words != ["-p"] else words) == 2
    assert capfd.readouterr().err.startswith("alignzoo: option -p: ")


def test_the_command_that_resumes_leaves_out_the_same_plugins() -> None:
    from alignzoo.cli.run import resume_command

    with discovery.blocking(["dpo"]):
        assert resume_command(["sft"], None) == "alignzoo -p no:dpo run sft --resume"


DEBUGGED = """
import sys
from alignzoo import discovery
from alignzoo.cli.quiet import quiet
with quiet() as log:
    discovery.load_plugin("addons", "mine.py")().alignzoo_round_end()
print("after")
"""


def debugged(tmp_path: Path, **options: object) -> subprocess.Popen[str]:
    body = "        answer = 41\n        breakpoint()\n        print('went on', answer)\n"
    (tmp_path / "mine.py").write_text(HOOK + body)
    words = [sys.executable, "-c", DEBUGGED]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONBREAKPOINT"}
    return subprocess.Popen(words, cwd=tmp_path, text=True, env=environment, **options)


def test_a_breakpoint_opens_the_debugger_in_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with debugged(tmp_path, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"p answer + 1\ncontinue\n")
        text = b""
        with open(ours, "rb", buffering=0) as stream:
            while True:
                try:
                    piece = stream.read(4096)
                except OSError:  # Linux's end of a terminal
                    break
                if not piece:
                    break
                text += piece
    shown = text.decode()
    assert process.returncode == 0, shown
    assert "mine.py(7)" in shown
    assert "(Pdb) 42" in shown
    assert shown.index("went on 41") < shown.index("after")


def test_a_breakpoint_without_a_terminal_is_passed_over(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with debugged(tmp_path, **pipes) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "after\n")
    assert "mine.py, line 6: breakpoint() is passed over" in err
    assert "went on 41" in err

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_fakes import evaluation

from alignzoo.cli import status
from alignzoo.cli.run import list_next, load_algorithm
from alignzoo.errors import BadInput, RunFailed
from alignzoo.ledger import Ledger

Use = Callable[[Callable[..., Any]], None]


def finished(recipe: Any, *, ui: Any, **_: Any) -> SimpleNamespace:
    folder = Path("runs/it")
    folder.mkdir(parents=True, exist_ok=True)
    print("a library speaks")
    with ui.phase("loading"):
        os.write(2, b"C++ speaks\n")
    ui.opened(folder)
    warnings.warn("a warning", stacklevel=1)
    with ui.items(4, "evaluating") as advance:
        advance(4)
    with ui.progress(100, "kl") as update:
        for step in range(1, 101):
            update(step, step / 100, {"loss": 0.5, "kl": 0.25})
    ui.note("note [red]plain[/red]")
    before, after = (
        evaluation(0.5, "old [red]words[/red]"),
        evaluation(0.7, "new \x1b[31m words\r\x07"),
    )
    return SimpleNamespace(
        folder=folder,
        before=before,
        after=after,
        status="finished",
        ledger=Ledger(),
        generates=True,
        trains=True,
    )


def test_a_run_shows_our_words_and_nothing_else(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str]
) -> None:
    session(finished)
    assert status(["run", toy]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "speaks" not in out
    assert "a warning" not in out
    log = Path("runs/it/log.txt").read_text()
    assert log.startswith("a library speaks\nC++ speaks\n2")  # and then a line with its time
    assert "WARNING py.warnings" in log

    assert [line for line in out.splitlines() if "step" in line] == [
        f"{10 * i:3d}%  step {10 * i}/100  loss 0.5  kl 0.25" for i in range(1, 11)
    ]
    assert "note [red]plain[/red]" in out
    assert "0.500   0.700   +0.200 [+0.200, +0.200]" in out
    assert "90%" in out
    assert out.count("old [red]words[/red]") == 2
    assert r"new \x1b[31m words\r\x07" in out
    assert "\x1b" not in out
    assert "prompt 1" in out
    assert "prompt 2" not in out
    assert "finished: runs/it\n" in out
    assert "alignzoo chat runs/it" in out


def test_what_was_typed_reaches_the_core(toy: str, session: Use) -> None:
    seen: dict[str, Any] = {}

    def execute(recipe: Any, **others: Any) -> Any:
        seen.update(recipe=recipe, **others)
        return SimpleNamespace(
            folder=Path("runs/it"),
            before=None,
            after=None,
            status="finished",
            ledger=Ledger(),
            generates=True,
            trains=True,
        )

    session(execute)
    words = ["--seed", "5", toy, "--beta", "2", "--no-center", "--resume", "--with", "a"]
    assert status(["run", *words]) == 0
    assert seen["recipe"].seed == 5
    assert seen["recipe"].addons == ["a"]
    assert seen["recipe"].options == {"beta": 2.0, "center": False}
    assert (seen["resume"], seen["trust_remote_code"]) == (True, False)

    Path("r.yaml").write_text(f"algorithm: {toy}\noptions: {{beta: 3}}\n")
    assert status(["run", "--recipe", "r.yaml", "--seed=6", "--allow-code"]) == 0
    assert (seen["recipe"].algorithm, seen["recipe"].options["beta"]) == (toy, 3.0)


@pytest.mark.parametrize(
    ("words", "added"), [([], " --name it --resume"), (["--name", "it", "--resume"], "")]
)
def test_an_interrupted_run_says_how_to_go_on(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str], words: list[str], added: str
) -> None:
    def execute(recipe: Any, **_: Any) -> None:
        error = KeyboardInterrupt()
        error.folder = Path("runs/it")  # type: ignore[attr-defined]
        raise error

    session(execute)
    assert status(["run", toy, *words]) == 130
    command = " ".join(["alignzoo run", toy, *words]) + added
    assert (
        capfd.readouterr().err == f"alignzoo: interrupted; runs/it can be resumed:\n  {command}\n"
    )


def test_the_hint_of_an_interrupted_run_is_quoted(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str]
) -> None:
    def execute(recipe: Any, **_: Any) -> None:
        error = KeyboardInterrupt()
        error.folder = Path(recipe.output_dir) / "it"  # type: ignore[attr-defined]
        raise error

    session(execute)
    assert status(["run", toy, "--output-dir", "my \x1b[31mruns; ls"]) == 130
    err = capfd.readouterr().err
    quoted = r"$'my \x1b[31mruns; ls"
    assert f"interrupted; {quoted}/it' can be resumed" in err
    assert f"--output-dir {quoted}' --name it --resume" in err and "\x1b" not in err


def test_an_interruption_before_the_run_has_a_folder(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str]
) -> None:
    session(lambda recipe, **_: os.kill(os.getpid(), signal.SIGINT))
    assert status(["run", toy]) == 130
    assert "interrupted before the run began" in capfd.readouterr().err


def test_a_failed_run_has_one_line_and_its_traceback_in_the_log(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(recipe: Any, *, ui: Any, **_: Any) -> None:
        Path("runs/it").mkdir(parents=True, exist_ok=True)
        ui.opened(Path("runs/it"))
        raise ValueError("shape\nmore of it")

    session(execute)
    assert status(["run", toy]) == 1
    expected = "alignzoo: ValueError: shape\n  the traceback is in runs/it/log.txt\n"
    assert capfd.readouterr().err == expected
    log = Path("runs/it/log.txt").read_text()
    assert "Traceback" in log
    assert "more of it" in log

    monkeypatch.setenv("ALIGNZOO_DEBUG", "1")
    assert status(["run", toy]) == 1
    assert "in execute" in capfd.readouterr().err


def test_an_error_of_ours_is_shown_as_it_is(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str]
) -> None:
    def execute(recipe: Any, **_: Any) -> None:
        raise RunFailed("the loss is NaN \x1b[2J", where="step 3", hint="lower it")

    session(execute)
    assert status(["run", toy]) == 1
    assert capfd.readouterr().err == "alignzoo: step 3: the loss is NaN \\x1b[2J\n  lower it\n"


def test_only_the_first_process_speaks(
    toy: str, session: Use, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    session(finished)
    assert status(["run", toy]) == 0
    assert capfd.readouterr() == ("", "")
    assert not Path("runs/it/log.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_bars_in_a_terminal_let_no_library_through(toy: str, tmp_path: Path) -> None:
    import pty

    script = tmp_path / "go.py"
    script.write_text(
        "import sys, types\n"
        "from pathlib import Path\n"
        "from alignzoo.ledger import Ledger\n"
        "def execute(recipe, *, ui, **_):\n"
        "    with ui.phase('loading'): print('NOISE')\n"
        "    with ui.progress(None, None) as update:\n"
        "        update(1, 0.5, {'loss': 0.5})\n"
        "        with ui.items(2, 'evaluating') as advance:\n"
        "            sys.stderr.write('NOISE'); advance(2)\n"
        "    return types.SimpleNamespace(\n"
        "        folder=Path('r'), before=None, after=None, status='finished',\n"
        "        ledger=Ledger(), generates=True, trains=True)\n"
        "sys.modules['alignzoo.session'] = types.SimpleNamespace(execute=execute)\n"
        "from alignzoo.cli import main\n"
        "main(['run', './toy.py'])\n"
    )
    shown = bytearray()

    def read(fd: int) -> bytes:
        data = os.read(fd, 4096)
        shown.extend(data)
        return data or b"\n"

    root = str(Path(__file__).parents[2])
    code = pty.spawn(["env", f"PYTHONPATH={root}", "TERM=xterm", sys.executable, str(script)], read)
    text = shown.decode()
    assert code == 0, text
    assert "NOISE" not in text
    assert "step 1" in text
    assert "evaluating" in text
    assert "finished: r" in text


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_looked_for_while_libraries_are_imported(monkeypatch, fails):
    seen = []

    def load(kind: str, name: str) -> type:
        seen.append((kind, name, gc.isenabled()))
        if fails:
            raise BadInput("no such algorithm")
        return int

    monkeypatch.setattr("alignzoo.discovery.load_plugin", load)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch", raising=False)
        try:
            with pytest.raises(BadInput) if fails else nullcontext():
                assert load_algorithm("dpo") is int
            assert gc.isenabled() and gc.get_freeze_count() > 0
        finally:
            gc.unfreeze()
    assert seen == [("algorithms", "dpo", False)]


@pytest.mark.parametrize(
    ("generates", "drew", "commands"),
    [(True, True, "view chat eval run"), (True, False, "chat eval run"), (False, False, "run")],
)
def test_the_commands_that_come_next(tmp_path, generates, drew, commands):
    if drew:
        (tmp_path / "rollouts.jsonl").touch()
    found = list_next(SimpleNamespace(folder=tmp_path, trains=True, generates=generates))
    assert [line.split()[1] for line in found] == commands.split()

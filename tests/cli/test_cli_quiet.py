from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from alignzoo.cli.quiet import quiet
from alignzoo.errors import BadInput, RunFailed


def test_everything_goes_to_the_log_and_ours_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tqdm import tqdm

    path = tmp_path / "log.txt"
    print("before")
    with quiet(path) as log:
        print("python")
        os.write(1, b"C to 1\n")
        os.write(2, b"C to 2\n")
        subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("lib").warning("logged")
        list(tqdm(range(3), desc="bar"))
        log.out.write("ours\n")
        log.err.write("ours too\n")
    print("after")
    assert capfd.readouterr() == ("before\nours\nafter\n", "ours too\n")
    text = path.read_text()
    parts = (
        "python\n",
        "C to 1\n",
        "C to 2\n",
        "a child\n",
        "a warning",
        "WARNING lib: logged",
        "bar: 100%",
    )
    for part in parts:
        assert part in text


def test_the_log_moves_with_all_that_was_in_it(tmp_path: Path) -> None:
    target = tmp_path / "log.txt"
    target.write_text("an earlier run\n")
    with quiet() as log:
        first = log.path
        print("one")
        log.move_to(target)
        log.move_to(target)
        print("two")
        os.write(2, b"three\n")
    assert target.read_text() == "an earlier run\none\ntwo\nthree\n"
    assert not first.exists()


def test_a_temporary_log_goes_away_unless_it_holds_a_traceback() -> None:
    with quiet() as log:
        pass
    assert not log.path.exists()
    with pytest.raises(BadInput), quiet() as log:
        raise BadInput("no")
    assert not log.path.exists()
    with (
        pytest.raises(RunFailed, match=r"^KeyError: 'x'\n  the traceback is in ") as caught,
        quiet() as log,
    ):
        raise KeyError("x")
    assert str(log.path) in caught.value.message
    assert "Traceback" in log.path.read_text()
    log.path.unlink()


def test_logging_and_streams_are_as_before() -> None:
    root, streams = logging.getLogger(), (sys.stdout, sys.stderr)
    before = (list(root.handlers), root.level, warnings.showwarning)
    with pytest.raises(KeyboardInterrupt), quiet():
        raise KeyboardInterrupt
    assert (list(root.handlers), root.level, warnings.showwarning) == before
    assert (sys.stdout, sys.stderr) == streams


def test_a_handler_made_meanwhile_still_works_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        handler = logging.StreamHandler(sys.stderr)
    handler.emit(logging.LogRecord("lib", 30, "", 1, "late", (), None))
    assert capfd.readouterr().err == "late\n"

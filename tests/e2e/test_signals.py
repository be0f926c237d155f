"""A signal ends a run after the step in progress: it is saved, and resumed bit for bit."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crash_points import RUN, Recorder, differences, make_command, restore
from resuming import assert_same_run, rows_of, state_of

from alignzoo.cli import status

ADDON = """
import os, signal
from alignzoo import hookimpl

class Killer:
    "Sends the signals KILL_SIGNAL to this process at the hook KILL_AT, after KILL_STEP steps."

    def kill(self, run, at):
        if os.environ.get("KILL_AT") == at and run.step == int(os.environ["KILL_STEP"]):
            for number in os.environ["KILL_SIGNAL"].split():
                os.kill(os.getpid(), int(number))

    @hookimpl
    def alignzoo_step(self, run):
        self.kill(run, "step")

    @hookimpl
    def alignzoo_round_end(self, run):
        self.kill(run, "round_end")

    @hookimpl(wrapper=True)
    def alignzoo_loss(self, run):
        loss = yield
        if loss.sum.requires_grad:
            self.kill(run, "loss")
        return loss

    @hookimpl(wrapper=True)
    def alignzoo_sample(self, run):
        batch = yield
        self.kill(run, "sample")
        return batch

    @hookimpl
    def alignzoo_evaluate(self, run):
        self.kill(run, "evaluate")
        return {}
"""

SFT = ["run", "sft", "--task", "sums", "--steps", "6", "--batch-size", "4", "--eval-every", "2"]
GRPO = ["run", "grpo", "--task", "sums", "--steps", "6", "--batch-size", "2", "--eval-every", "3"]
GRPO += ["--round-prompts", "6", "--group-size", "2"]
MORE = ["--eval-size", "2", "--max-new-tokens", "8", "--lora-dropout", "0.1"]


@pytest.fixture
def addon(tmp_path: Path) -> str:
    path = tmp_path / "killer.py"
    path.write_text(ADDON)
    return str(path)


@pytest.fixture
def words(tmp_path: Path, addon):
    def make(base: list[str], name: str) -> list[str]:
        out = ["--output-dir", str(tmp_path / "runs"), "--name", name]
        return [*base, *MORE, *out, "--with", addon]

    return make


def kill(monkeypatch, at: str, step: int, *numbers: int) -> None:
    monkeypatch.setenv("KILL_AT", at)
    monkeypatch.setenv("KILL_STEP", str(step))
    monkeypatch.setenv("KILL_SIGNAL", " ".join(str(int(number)) for number in numbers))


@pytest.mark.parametrize(
    ("base", "at", "step", "number"),
    [
        (SFT, "step", 3, signal.SIGTERM),
        (SFT, "sample", 0, signal.SIGINT),
        (SFT, "evaluate", 2, signal.SIGHUP),
        (SFT, "step", 6, signal.SIGTERM),
        (SFT, "evaluate", 6, signal.SIGTERM),
        (GRPO, "step", 2, signal.SIGHUP),
        (GRPO, "sample", 3, signal.SIGTERM),
        (GRPO, "round_end", 3, signal.SIGINT),
    ],
)
def test_a_signal_saves_what_was_done(
    tmp_path: Path, monkeypatch, capfd, words, base, at, step, number
):
    assert status(words(base, "straight")) == 0
    with monkeypatch.context() as patch:
        kill(patch, at, step, number)
        assert status(words(base, "broken")) == 128 + number
    straight, broken = tmp_path / "runs" / "straight", tmp_path / "runs" / "broken"
    told = capfd.readouterr().err
    assert f"{broken} can be resumed:\n  alignzoo run" in told and "--resume" in told
    assert json.loads((broken / "run.json").read_text())["status"] == "interrupted"
    assert state_of(broken)["step"] == step
    assert status([*words(base, "broken"), "--resume"]) == 0
    assert_same_run(broken, straight)
    assert (broken / "evals.jsonl").read_text() == (straight / "evals.jsonl").read_text()
    results = [json.loads((run / "run.json").read_text())["results"] for run in (broken, straight)]
    assert list(results[0].items()) == list(results[1].items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "sampled"),  # steps that are done when a later round is sampled, or the only one
    [
        ("constitutional", 0),
        ("dpo", 1),
        ("grpo", 2),
        ("kto", 1),
        ("online-dpo", 1),
        ("ppo", 0),
        ("reward", 1),
        ("rlaif", 2),
        ("sft", 1),
        ("spin", 0),
    ],
)
def test_sigterm_loses_the_step_in_progress_at_most(
    tmp_path: Path, monkeypatch, addon, algorithm, sampled
):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("ALIGNZOO_CACHE", str(work / "cache"))
    words = [*make_command(algorithm, tmp_path, work), "--checkpoint-every", "0", "--with", addon]
    assert status(words) == 0
    straight = Recorder(work).read()
    # In the middle of a step, which is then done; in the middle of sampling.
    for at, begun, done in (("loss", 0, 1), ("sample", sampled, sampled)):
        restore({".": None}, work)
        with monkeypatch.context() as patch:
            kill(patch, at, begun, signal.SIGTERM)
            assert status(words) == 143
        assert state_of(work / RUN)["step"] == done
        assert status([*words, "--resume"]) == 0
        # The checkpoint that the signal wrote is kept beside the last one.
        own = f"{RUN}/checkpoints/step-{done:08d}"
        differ = differences(Recorder(work).read(), straight)
        assert [name for name in differ if not name.startswith(own)] == [], at


def test_ctrl_c_twice_ends_at_once(tmp_path: Path, monkeypatch, words):
    kill(monkeypatch, "step", 3, signal.SIGINT, signal.SIGINT)
    assert status(words(SFT, "broken")) == 130
    assert [row["step"] for row in rows_of(tmp_path / "runs" / "broken")] == [1, 2]
    assert not (tmp_path / "runs" / "broken" / "checkpoints").exists()


def test_a_run_outlives_its_reader(tmp_path: Path, words):
    run = subprocess.Popen(
        [sys.executable, "-m", "alignzoo", *words(SFT, "it")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline()
    run.stdout.close()
    assert run.stderr.read() == ""
    assert run.wait() == 0
    assert len(rows_of(tmp_path / "runs" / "it")) == 6
    assert "evaluating after" in (tmp_path / "runs" / "it" / "log.txt").read_text()


def test_a_run_outlives_its_terminal(tmp_path: Path, words):
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "alignzoo", *words(SFT, "it")]
    # Its own session: the terminal's end sends it no signal.
    run = subprocess.Popen(command, stdout=side, stderr=side, start_new_session=True)
    os.close(side)
    os.read(terminal, 1)
    os.close(terminal)
    assert run.wait() == 0
    assert len(rows_of(tmp_path / "runs" / "it")) == 6

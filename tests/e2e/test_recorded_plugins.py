"""Every plugin that a run loads is in its `run.json`, and is compared when it is resumed."""

from __future__ import annotations

import re

import pytest

from alignzoo.errors import BadInput
from alignzoo.session.session import start_plugins

JUDGE = """
from alignzoo_judges import Judge

class Even(Judge):
    def answers(self, questions):
        for i, question in enumerate(questions):
            yield i, [1 / len(question.options)] * len(question.options)
"""
LATE = """
from alignzoo import hookimpl
from alignzoo_judges import resolve_judge

class Late:
    "Has a judge of its own, from the start of the run."

    @hookimpl
    def alignzoo_start(self, run):
        self.judge = resolve_judge("./late_judge.py", run=run)
"""
SAMPLER = """
from alignzoo.rollout.sampler import DefaultSampler

class Mine(DefaultSampler):
    "Draws as usual."
"""


def test_judges_learners_and_samplers_are_recorded_and_compared(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"even.py": JUDGE, "late_judge.py": JUDGE, "late.py": LATE, "mine.py": SAMPLER}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    settings = {
        "task": "style",
        "options": {"judge": "./even.py", "rl": "grpo", "direct": True},
        "sampler": "./mine.py",
        "addons": ["./late.py"],
        "name": "it",
        "steps": 1,
    }
    run = make_run("rlaif", **settings)
    start_plugins(run, allow_changes=False)
    plugins = {(one["kind"], one["name"]): one for one in run.record.facts["plugins"]}
    assert next(iter(plugins)) == ("algorithms", "rlaif")
    assert set(plugins) == {
        ("algorithms", "rlaif"),
        ("algorithms", "grpo"),
        ("tasks", "style"),
        ("samplers", "mine.py"),
        ("addons", "late.py"),
        ("judges", "even.py"),
        ("judges", "late_judge.py"),
    }
    assert all(len(one["sha256"]) == 64 for one in plugins.values())
    assert plugins["algorithms", "rlaif"]["package"] == "alignzoo"
    run.record.set_status("interrupted")
    run.record.close()

    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}# other code\n")
    changed = r"addon late\.py has changed|judge even\.py has changed|sampler mine\.py has changed"
    with pytest.raises(BadInput) as error:
        make_run("rlaif", **settings, resume=True)
    assert len(re.findall(changed, error.value.message)) == 3

    for name in ("even.py", "late.py", "mine.py"):
        (tmp_path / name).write_text(files[name])
    run = make_run("rlaif", **settings, resume=True)
    with pytest.raises(BadInput, match=r"the code of judge late_judge\.py has changed"):
        start_plugins(run, allow_changes=False)
    run.record.close()

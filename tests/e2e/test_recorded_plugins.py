"""Every plugin that a run loads is in its `run.json`, and is compared when it is resumed."""

from __future__ import annotations

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
SAMPLER = """
from alignzoo.rollout.sampler import DefaultSampler

class Mine(DefaultSampler):
    "Draws as usual."
"""


def test_judges_learners_and_samplers_are_recorded_and_compared(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge, sampler = tmp_path / "even.py", tmp_path / "mine.py"
    judge.write_text(JUDGE)
    sampler.write_text(SAMPLER)
    settings = {
        "task": "style",
        "options": {"judge": "./even.py", "rl": "grpo", "direct": True},
        "sampler": "./mine.py",
        "name": "it",
        "steps": 1,
    }
    run = make_run("rlaif", **settings)
    start_plugins(run, allow_changes=False)
    plugins = {(one["kind"], one["name"]): one for one in run.record.facts["plugins"]}
    assert list(plugins) == [
        ("algorithms", "rlaif"),
        ("algorithms", "grpo"),
        ("tasks", "style"),
        ("samplers", "mine.py"),
        ("judges", "even.py"),
    ]
    assert all(len(one["sha256"]) == 64 for one in plugins.values())
    assert plugins["algorithms", "rlaif"]["package"] == "alignzoo"
    run.record.set_status("interrupted")
    run.record.close()

    judge.write_text(JUDGE + "# another judge\n")
    run = make_run("rlaif", **settings, resume=True)
    with pytest.raises(BadInput, match=r"the code of judge even\.py has changed"):
        start_plugins(run, allow_changes=False)
    start_plugins(run, allow_changes=True)
    run.record.set_status("interrupted")
    run.record.close()

    sampler.write_text(SAMPLER + "# another sampler\n")
    with pytest.raises(BadInput, match=r"the code of sampler mine\.py has changed"):
        make_run("rlaif", **settings, resume=True)

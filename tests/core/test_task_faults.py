"""What a task gives is checked where a run asks for it, and its faults name the task."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch

from alignzoo import RunFailed
from alignzoo.data import read_task_rows, score_by_task
from alignzoo.evaluation.evaluate import add_scores
from alignzoo.evaluation.items import Evaluation, measure_by_task
from alignzoo.faults import PluginMethod
from alignzoo.reserved import Names
from alignzoo.rewards.rows import TaskReward

NAN, INF = float("nan"), float("inf")


class Task:
    name = "mine"
    worst, best = 0.0, 1.0

    def __init__(self, give=None):
        self.give = give

    def score(self, row, completion):
        return self.give

    def measures(self, row, completion):
        return self.give

    def rows(self, view, split):
        return self.give()


@pytest.mark.parametrize("score", [1.5, -0.1, NAN, INF, "1", None, torch.tensor(1.0)])
def test_a_score_is_a_number_from_worst_to_best(score):
    for scored in (score_by_task, lambda task, row, text: TaskReward(task).score(row, text)):
        with pytest.raises(
            RunFailed, match="not a number from its worst, 0.0, to its best"
        ) as error:
            scored(Task(score), {}, "an answer")
        message = error.value.message
        assert message.startswith(f"{__file__}, line ") and "task 'mine': score gave" in message
        assert "the completion was 'an answer'" in message


@pytest.mark.parametrize("score", [0, 1, True, 0.5, 1 + 1e-9])
def test_ends_and_rounding_are_in_the_range(score):
    assert score_by_task(Task(score), {}, "") == float(score)


def test_a_range_may_run_down():
    task = Task(-3.0)
    task.worst, task.best = 0.0, -5.0  # an error that is best when small
    assert score_by_task(task, {}, "") == -3.0


def test_an_exception_of_a_task_names_its_line():
    class Broken(Task):
        def score(self, row, completion):
            return row["missing"]

    with pytest.raises(RunFailed, match="task 'mine': score failed: KeyError: 'missing'") as error:
        score_by_task(Broken(), {}, "")
    line = Broken.score.__code__.co_firstlineno + 1
    assert error.value.message.startswith(f"{__file__}, line {line}: ")


def test_rows_are_the_same_at_each_call():
    steady = Task(lambda: [{"prompt": "a"}, {"prompt": "b"}])
    assert read_task_rows(steady, "prompts", "dev") == read_task_rows(steady, "prompts", "dev")
    drawn = Task(lambda: [{"prompt": random.random()}])
    read_task_rows(drawn, "prompts", "dev")
    read_task_rows(drawn, "prompts", "test")  # another split may have others
    with pytest.raises(RunFailed, match="other rows of prompts, dev than before"):
        read_task_rows(drawn, "prompts", "dev")
    for wrong in (None, ["a"], iter([])):
        with pytest.raises(RunFailed, match="not a list of dicts"):
            read_task_rows(Task(lambda wrong=wrong: wrong), "prompts", "dev")


def test_measures_are_numbers_under_names_of_the_tasks_own():
    assert measure_by_task(Task({"valid": 1.0}), {}, "") == {"valid": 1.0}
    assert measure_by_task(SimpleNamespace(), {}, "") == {}
    for name in ("score", "kl", "length", "ended", "answer/flops", "held-out/loss/a", "pass@4"):
        with pytest.raises(RunFailed, match=f"'mine': measures gave '{name}', which is the core's"):
            measure_by_task(Task({name: 1.0}), {}, "")
    with pytest.raises(RunFailed, match="gave 'yes' as 'valid', which is not a number"):
        measure_by_task(Task({"valid": "yes"}), {}, "")


def test_a_plugin_does_not_give_the_measure_of_a_task():
    run = SimpleNamespace(names=Names())
    run.names.estimates.claim("valid", PluginMethod("plugin 'x'", "alignzoo_evaluate", "x.py", 3))
    result = Evaluation(items=[{"measures": {"valid": 1.0}}])
    with pytest.raises(RunFailed, match="x.py, line 3: plugin 'x': alignzoo_evaluate gave 'valid'"):
        add_scores(run, result, {"valid": 0.0})

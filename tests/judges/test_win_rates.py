"""Win rates within groups: by hand, without answers, and as a reward."""

from __future__ import annotations

import math

import pytest
import torch
from judge_stub import Stub, serving, text

from alignzoo.errors import BadInput
from alignzoo.ledger import Ledger
from alignzoo_judges import Judge, resolve_judge, win_rates
from alignzoo_judges.judge import unusable


class Table(Judge):
    """Answers with these probabilities plus a bias to the first position."""

    def __init__(self, better: dict[tuple[str, str], float], bias: float = 0.0):
        self.better, self.bias, self.ledger = better, bias, Ledger()
        self.asked: list[tuple[str, ...]] = []

    def answers(self, questions):
        for number, question in enumerate(questions):
            first, second = question.completions
            self.asked.append(question.completions)
            if (first, second) in self.better:
                p = self.better[first, second] + self.bias
            elif (second, first) in self.better:
                p = 1 - self.better[second, first] + self.bias
            else:
                yield number, unusable(question)
                continue
            yield number, [p, 1 - p]


ROWS = [{"prompt": "one"}, {"prompt": "two"}]


def test_means_over_the_others_by_hand():
    # a beats b with 0.8 and c with 0.6, b beats c with 0.3.
    judge = Table({("a", "b"): 0.8, ("a", "c"): 0.6, ("b", "c"): 0.3}, bias=0.1)
    found = win_rates(judge, ROWS, [["a", "b", "c"], ["c", "a"]])
    assert found[0] == pytest.approx([(0.8 + 0.6) / 2, (0.2 + 0.3) / 2, (0.4 + 0.7) / 2])
    assert found[1] == pytest.approx([0.4, 0.6])
    assert sum(found[0]) == pytest.approx(3 / 2)
    assert judge.ledger.feedback["judge_calls"] == 2 * 3 + 2


def test_identical_texts_are_a_tie_and_cost_no_call():
    judge = Table({("a", "b"): 1.0})
    assert win_rates(judge, ROWS, [["a", "a", "b"], ["b", "b"]]) == [[0.75, 0.75, 0.0], [0.5, 0.5]]
    assert len(judge.asked) == 2 * 2


def test_a_comparison_without_an_answer_is_left_out():
    judge = Table({("a", "b"): 0.9})
    (found, none) = win_rates(judge, ROWS, [["a", "b", "c"], ["a", "c"]])
    assert found[:2] == pytest.approx([0.9, 0.1]) and math.isnan(found[2])
    assert all(map(math.isnan, none))


def test_a_single_completion_has_no_win_rate():
    assert math.isnan(win_rates(Table({}), ROWS[:1], [["a"]])[0][0])


SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 40, "options": {"group_size": 4}}


def test_the_reward_is_the_win_rate_within_the_group(make_run):
    run = make_run("grpo", reward=["judge,judge=gold,pairs=true", "task"], **SETTINGS)
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:6])
    scores = batch.groups(batch["reward/task"])
    better = scores[:, :, None] - scores[:, None, :]
    expected = ((better.sign() + 1) / 2).sum(-1) - 0.5  # without the comparison with itself
    assert torch.allclose(batch.groups(batch["reward/judge"]), expected / 3)
    assert batch["reward/judge"].std() > 0


def test_pairs_have_their_own_default_question(make_run):
    stub = Stub(lambda body: text("A"))
    with serving(stub) as url:
        run = make_run("grpo", reward=[f"judge,judge={url},pairs=true"], **SETTINGS)
        run.hook.alignzoo_start(run=run)
        batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert "Which response is better?" in stub.asked[0]["messages"][0]["content"]
    # A judge that always prefers the first gives 0.5: both orders cancel.
    assert batch["reward/judge"].tolist() == [0.5] * 8


def test_the_policy_judges_with_its_current_weights_without_a_cache(make_run):
    run = make_run("grpo", task="sums", batch_size=2, options={"group_size": 2})
    judge, base = resolve_judge("policy", run=run), resolve_judge("self", run=run)
    rows = [run.data.train[0].row]

    def asked(judge: Judge) -> list[float]:
        return win_rates(judge, rows, [["1", "2 and more"]])[0]

    before = asked(judge)
    assert before == pytest.approx(asked(base), abs=1e-5)
    with torch.no_grad():
        for name, p in run.model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    assert asked(judge) != pytest.approx(before, abs=1e-3)
    assert asked(base) == pytest.approx(before, abs=1e-5)


def test_the_policy_is_a_judge_only_within_a_run():
    with pytest.raises(BadInput, match="the model that a run trains"):
        resolve_judge("policy")

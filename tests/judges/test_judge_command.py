"""`alignzoo judge`: what is said of a judge, and that every answer is in it."""

from __future__ import annotations

import json
import math

import pytest
from judge_stub import Stub, serving, text, tops

from alignzoo.cli import status
from alignzoo.evaluation.judging import judged
from alignzoo.judges import Comparison, Verdict


def test_the_numbers_by_hand():
    pairs = [
        Comparison("p", a, b) for a, b in (("aaa", "b"), ("a", "bbb"), ("aa", "b"), ("a", "b"))
    ]
    verdicts = [
        Verdict([0.9, 0.1], [0.1, 0.9]),  # the chosen one, 0.9, in both orders
        Verdict([0.7, 0.3], [0.9, 0.1]),  # the first both times: 0.4 for the chosen one
        Verdict([0.6, 0.4], [0.4, 0.6]),  # the chosen one, 0.6
        Verdict([math.nan] * 2, [0.4, 0.6]),
    ]
    found = {name: value.mean for name, value in judged(pairs, verdicts).summary.items()}
    assert (found["judge/pairs"], found["judge/unusable"]) == (4, 1)
    assert found["judge/agreement"] == pytest.approx(2 / 3)
    assert found["judge/flips"] == pytest.approx(1 / 3)
    # (0.9 + 0.1) / 2 = 0.5, (0.7 + 0.9) / 2 = 0.8, 0.5.
    assert found["judge/first"] == pytest.approx(1.8 / 3)
    # Longer: 1, -1, 1. Leaning: 0.8, -0.2, 0.2. Both ways the means are 0:
    # r = sum xy / sqrt(sum xx sum yy) = 1.2 / sqrt(3 * 0.72).
    assert found["judge/length"] == pytest.approx(1.2 / math.sqrt(3 * 0.72))


def test_no_usable_answer_at_all_is_a_table_of_dashes():
    summary = judged([Comparison("p", "a", "b")], [Verdict([math.nan] * 2, [0.5, 0.5])]).summary
    assert math.isnan(summary["judge/agreement"].mean)
    assert summary["judge/unusable"].mean == 1


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad"} for i in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def honest(body):
    good_first = "[Response A]\ngood" in body["messages"][0]["content"]
    return tops(A=-0.1, B=-2.0) if good_first else tops(A=-2.0, B=-0.1)


def test_every_answer_of_a_bad_server_is_accounted_for(pairs, capfd):
    stub = Stub(honest)
    rubbish = {"n": 0}

    def trouble(n):
        if n % 5 == 2:
            return 503, "busy"
        if n % 9 == 4:
            rubbish["n"] += 1
            return 200, text("I would rather not")
        return (200, "{broken") if n % 7 == 3 else None

    stub.trouble = trouble
    with serving(stub) as url:
        assert status(["judge", "--judge", url, "--data", pairs, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    spoilt = [item for item in found["items"] if not item["usable"]]
    missing = sum((i["a_first"][0] is None) + (i["b_first"][0] is None) for i in spoilt)
    assert missing == rubbish["n"] > 0
    summary = {name: value["mean"] for name, value in found["summary"].items()}
    assert (summary["judge/pairs"], summary["judge/unusable"]) == (20, len(spoilt))
    assert (summary["judge/agreement"], summary["judge/flips"]) == (1, 0)
    assert len(found["items"]) == 20


def test_gold_agrees_with_the_labels_of_its_task_but_for_their_noise(capfd):
    assert status(["judge", "--judge", "gold", "--task", "sums", "--limit", "50"]) == 0
    out = capfd.readouterr().out
    assert "agreement with the labels" in out
    assert "0.500 [0.500, 0.500]" in out  # mean P(first)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--judge", "zoo-tiny"], "there is nothing to judge"),
        (["--judge", "gold", "--task", "style", "--limit", "0"], "option --limit"),
        (["--judge", "gold", "--data", "PAIRS"], "score of a --task"),
        (["--judge", "self", "--task", "sums"], "base of a run"),
        (["--judge", "http://127.0.0.1:9/v1", "--task", "sums"], "no answer from"),
        (["--judge", "gold", "--data", "none.jsonl"], "no such file"),
    ],
)
def test_bad_input(words, says, pairs, capfd):
    assert status(["judge", *(pairs if word == "PAIRS" else word for word in words)]) == 2
    assert says in capfd.readouterr().err

"""`alignzoo eval` with several samples of each prompt, and with worked examples before it."""

import json

import pytest

from alignzoo.cli import status


def evaluate(capfd, *words):
    assert status(["eval", "zoo-tiny", "--tasks", "sums", "--limit", "12", "--json", *words]) == 0
    return json.loads(capfd.readouterr().out)["tasks"]["sums"]


def test_samples_give_pass_at_k_and_a_vote(capfd):
    one, four = evaluate(capfd), evaluate(capfd, "--samples", "4")
    items = four["items"]
    assert [item["completion"] for item in items if item["sample"] == 0] == [
        item["completion"] for item in one["items"]
    ]
    right = [[i["score"] for i in items if i["item"] == n] for n in range(12)]
    assert len({item["seed"] for item in items}) == 48
    summary = four["summary"]
    assert summary["score"]["mean"] == pytest.approx(sum(map(sum, right)) / 48)
    assert summary["score"]["n"] == 12  # an interval is over prompts
    assert summary["pass@4"]["mean"] == pytest.approx(sum(map(any, right)) / 12)
    assert summary["score"]["mean"] <= summary["pass@2"]["mean"] <= summary["pass@4"]["mean"]
    assert 0 <= summary["majority"]["mean"] <= 1


def test_worked_examples_come_first_in_the_prompt(capfd):
    plain, shown = evaluate(capfd), evaluate(capfd, "--shots", "2")
    assert [i["prompt"] for i in shown["items"]] == [i["prompt"] for i in plain["items"]]
    assert [i["completion"] for i in shown["items"]] != [i["completion"] for i in plain["items"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "sums", "--samples", "2", "--temperature", "0"], "all samples"),
        (["--tasks", "xstest,path=nowhere.csv", "--shots", "1"], "no demonstrations"),
        (["--samples", "0"], "option --samples"),
        (["--shots", "-1"], "option --shots"),
    ],
)
def test_what_cannot_be_evaluated_so_is_refused(capfd, words, message):
    assert status(["eval", "zoo-tiny", *words]) == 2
    assert message in capfd.readouterr().err

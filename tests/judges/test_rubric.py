"""`--reward judge,rubric=COLUMN`: weighted criteria of each prompt, asked in one call."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from judge_stub import Stub, serving, text

from alignzoo.errors import BadInput
from alignzoo_judges.rubric import MOST_NAMES, check_rubrics, parse_marks, parse_rubric, weigh_marks

RUBRIC = [
    {"criterion": "names a digit", "weight": 3},
    {"title": "Short", "description": "is one\nline", "weight": 1},
    {"criterion": "is rude", "weight": -2},
    "is true",
]
SETTINGS = {"batch_size": 2, "max_new_tokens": 4, "options": {"group_size": 2}}


@pytest.fixture
def data(tmp_path: Path):
    def write(*rubrics) -> str:
        rows = [{"prompt": f"Say {i}.", "rubric": rubric} for i, rubric in enumerate(rubrics)]
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def test_each_form_of_a_criterion():
    found = parse_rubric([*RUBRIC, {"criterion": "x" * 50, "points": -1.5, "tags": ["a"]}])
    assert [c.name for c in found[:4]] == ["names a digit", "Short", "is rude", "is true"]
    assert found[1].text == "is one line"
    assert [c.weight for c in found] == [3, 1, -2, 1, -1.5]
    assert found[4].name == "x" * 39 + "…" and found[4].text == "x" * 50


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([True, True, False, True], 1.0),
        ([True, False, False, False], 3 / 5),
        ([True, False, True, False], 1 / 5),
        ([False, True, True, False], 0.0),  # -1/5, clipped
        ([False, False, False, False], 0.0),
    ],
)
def test_the_weighted_share(marks, expected):
    assert weigh_marks(parse_rubric(RUBRIC), marks) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        ("1: yes\n2: no", [True, False]),
        (" 2. No\n- 1) YES, it does", [True, False]),
        ("**Criterion 1**: yes\ncriterion 2 - no\n3: yes", [True, False]),
        ("1: no\n1: yes\n2: no", [False, False]),
        ("1: yes", None),
        ("1: yesterday\n2: no", None),
        ("12: yes\n2: no", None),
        ("", None),
    ],
)
def test_a_reply_is_read(reply, marks):
    assert parse_marks(reply, 2) == marks


@pytest.mark.parametrize(
    ("rubric", "problem"),
    [
        ("be nice", "a text, not a list"),
        ({"criterion": "x"}, "an object, not a list"),
        ([], "0 criteria"),
        (["x"] * 65, "65 criteria"),
        ([3], "criterion 1: it is a number"),
        (["x", {"weight": 1}], "criterion 2: it has no text"),
        ([{"criterion": " "}], "no text"),
        ([{"criterion": "x", "weight": "1"}], "its weight is '1'"),
        ([{"criterion": "x", "weight": True}], "its weight is True"),
        ([{"criterion": "x", "weight": -1}], "above 0"),
        ([{"criterion": "x", "title": 5}], "its title is a number"),
    ],
)
def test_a_wrong_rubric_is_refused_by_its_row(rubric, problem):
    rows = [{"prompt": "one", "r": None}, {"prompt": "two", "r": rubric}]
    with pytest.raises(BadInput, match=problem) as caught:
        check_rubrics(rows, "r")
    assert caught.value.where == "training row 2, 'two'"


def test_few_names_are_logged_and_the_commonest():
    rows = [{"prompt": "p", "r": [f"only {i}", "common"]} for i in range(50)]
    names = check_rubrics(rows, "r")
    assert len(names) == MOST_NAMES and names[0] == "common"


def test_a_refused_run_leaves_nothing(make_run, data, tmp_path):
    path = data(*[RUBRIC] * 7, 5, *[RUBRIC] * 8)
    with pytest.raises(BadInput, match="column 'rubric': it is a number"):
        make_run("grpo", data=path, reward=["judge,rubric=rubric"], **SETTINGS)
    with pytest.raises(BadInput, match="no row has a rubric in column 'rubrik'"):
        make_run("grpo", data=data(*[RUBRIC] * 4), reward=["judge,rubric=rubrik"], **SETTINGS)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("other", ["pairs=true", "question=Is it nice?"])
def test_other_questions_are_refused(make_run, data, other):
    with pytest.raises(BadInput, match="has its own questions"):
        make_run("grpo", data=data(RUBRIC, RUBRIC), reward=[f"judge,rubric=rubric,{other}"])


@pytest.mark.parametrize("judge", ["gold", "table"])
def test_a_judge_that_writes_nothing_is_refused(make_run, data, judge):
    settings = {**SETTINGS, "task": "sums"} if judge == "gold" else SETTINGS
    path = data(*[RUBRIC] * 4)
    run = make_run("grpo", data=path, reward=[f"judge,judge={judge},rubric=rubric"], **settings)
    with pytest.raises(BadInput, match="cannot answer a rubric"):
        run.hook.alignzoo_start(run=run)


def test_one_call_for_each_completion(make_run, data):
    replies = {"names a digit": "1: yes\n2: no\n3: yes\n4: no", "only": "1: yes", "never": "no"}

    def answer(body):
        asked = body["messages"][0]["content"]
        return text(next(reply for key, reply in replies.items() if key in asked))

    rubrics = [RUBRIC, ["only"], ["never"], None]
    stub = Stub(answer)
    with serving(stub) as url:
        reward = f"judge,judge={url},rubric=rubric"
        run = make_run("grpo", data=data(*rubrics, RUBRIC), reward=[reward], **SETTINGS)
        run.hook.alignzoo_start(run=run)
        batch = run.hook.alignzoo_sample(run=run, rows=run.data.train)
    scores = {"names a digit": 1 / 5, "only": 1.0, "never": math.nan, "None": math.nan}
    expected = [
        next(score for key, score in scores.items() if key in str(row["rubric"]))
        for row in batch.answered()
    ]
    assert batch["reward/judge"].tolist() == pytest.approx(expected, nan_ok=True)
    rubrics_asked = sum(row["rubric"] is not None for row in batch.answered())
    assert run.ledger.feedback["judge_calls"] == rubrics_asked
    content = stub.asked[0]["messages"][0]["content"]
    assert content.count("[Criteria]") == 1
    numbers = run.round_metrics.numbers
    met = {name: x for name, x in numbers.items() if name.startswith("rubric/")}
    assert met == {
        "rubric/names a digit": 1.0, "rubric/Short": 0.0, "rubric/is rude": 1.0,
        "rubric/is true": 0.0, "rubric/only": 1.0,
    }  # fmt: skip

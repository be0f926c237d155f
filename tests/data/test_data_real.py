"""Real data sets through a real vocabulary."""

import pytest

from alignzoo.data import Demonstrations, Feedback, Preferences, Prompts, load_data
from alignzoo.data.read import read_rows
from alignzoo.errors import BadInput

SETTINGS = {"max_length": 256, "strict": False, "seed": 0, "holdout": 100}


def test_every_implicit_prompt_of_hh_rlhf_ends_where_the_assistant_speaks(shared):
    rows = read_rows(shared("hh-rlhf/harmless-base-test.jsonl.gz"))
    assert len(rows) == 2312
    for row in rows:
        pair = Preferences.canonical(row)
        assert pair["prompt"].endswith("\n\nAssistant:") and pair["prompt"].strip()
        assert pair["prompt"] + pair["chosen"] == row["chosen"]
        assert pair["prompt"] + pair["rejected"] == row["rejected"]


def test_hh_rlhf(shared, gpt2):
    data = load_data(
        Preferences, gpt2, data=shared("hh-rlhf/harmless-base-test.jsonl.gz"), **SETTINGS
    )
    # Four of its chosen answers are empty.
    assert data.report.left_out == {"chosen is empty": [87, 517, 926, 1104]}
    assert (len(data.train), len(data.test), len(data.prompts)) == (2208, 100, 100)
    for example in data.train + data.test:
        assert example.prompt and len(example.completions) == 2
        assert max(len(example.prompt) + len(c) for c in example.completions) <= 256
        if len(example.prompt) + len(example.completions[0]) < 256:
            assert gpt2.decode(example.completions[0]) == example.row["chosen"]


@pytest.mark.parametrize("view", [Demonstrations, Prompts])
def test_gsm8k(shared, gpt2, view):
    data = load_data(view, gpt2, data=shared("gsm8k/test.jsonl"), **SETTINGS)
    assert len(data.train) + len(data.test) == 1319
    assert all(row["prompt"] == row["question"] for row in data.prompts)
    assert "column 'question' was read as 'prompt'" in data.report.notes


def test_svamp_is_refused_with_the_columns_it_has(shared, gpt2):
    with pytest.raises(BadInput, match="column 'prompt' missing") as error:
        load_data(Prompts, gpt2, data=shared("svamp/SVAMP.json"), **SETTINGS)
    assert "ID, Body, Question, Equation, Answer, Type" in str(error.value)


def test_xstest(shared, gpt2):
    data = load_data(Prompts, gpt2, data=shared("xstest/xstest_prompts.csv"), **SETTINGS)
    assert (len(data.train), len(data.test)) == (405, 45)
    with pytest.raises(BadInput, match="column 'completion' missing"):
        load_data(Feedback, gpt2, data=shared("xstest/xstest_prompts.csv"), **SETTINGS)

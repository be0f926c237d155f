"""Several data sets in one `--data`: their names, their shares, and what they hold out."""

import json
from collections import Counter

import pytest

from alignzoo.data import (
    DataSpec,
    Demonstrations,
    Feedback,
    Preferences,
    Text,
    load_data,
    parse_data,
)
from alignzoo.errors import BadInput


def load(view, codec, data, **changes):
    settings = {"max_length": 64, "strict": False, "seed": 0, "holdout": 0}
    return load_data(view, codec, data=data, **{**settings, **changes})


def rows(name, n, prompts=None):
    return [{"prompt": f"{name} {i % (prompts or n)}", "completion": f"{i}"} for i in range(n)]


def said(data):
    return "\n".join(data.report.lines())


def told(error):
    return error.value.message


@pytest.fixture
def two(jsonl, tmp_path, monkeypatch):
    """a.jsonl with 40 rows and b.jsonl with 20, in the working directory."""
    monkeypatch.chdir(tmp_path)
    jsonl(rows("a", 40), "a.jsonl")
    jsonl(rows("b", 20), "b.jsonl")


# --- names


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a.jsonl", [("a.jsonl", None)]),
        ("openai/gsm8k:main", [("openai/gsm8k:main", None)]),
        ("openai/gsm8k:2024", [("openai/gsm8k:2024", None)]),
        ("openai/gsm8k:main@test", [("openai/gsm8k:main@test", None)]),
        ("b/c@train[:90%]:2,a/b@test:1", [("b/c@train[:90%]", 2.0), ("a/b@test", 1.0)]),
        ("C:\\data\\a.jsonl", [("C:\\data\\a.jsonl", None)]),
        ("https://host/a.jsonl", [("https://host/a.jsonl", None)]),
        ("a.jsonl:0.7,b.parquet:0.3", [("a.jsonl", 0.7), ("b.parquet", 0.3)]),
        ("a.jsonl:1, b.csv:2", [("a.jsonl", 1), ("b.csv", 2)]),
        ("a.jsonl,openai/gsm8k:main", [("a.jsonl", None), ("openai/gsm8k:main", None)]),
        ("org/a:main:.5,org/b:1e-1", [("org/a:main", 0.5), ("org/b", 0.1)]),
        ("C:\\a.jsonl:7,D:\\b.jsonl:3", [("C:\\a.jsonl", 7), ("D:\\b.jsonl", 3)]),
        ("https://h/a.csv:7,https://h/b.csv:3", [("https://h/a.csv", 7), ("https://h/b.csv", 3)]),
        ({"a.jsonl": 0.7, "org/b:main": 3}, [("a.jsonl", 0.7), ("org/b:main", 3)]),
        ({"a,b:1.jsonl": None, "c": None}, [("a,b:1.jsonl", None), ("c", None)]),
    ],
)
def test_what_is_named(data, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_data(data) == [DataSpec(*pair) for pair in expected]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a,b.jsonl", "a,b.jsonl", [("a,b.jsonl", None)]),
        ("a,b.jsonl", "a,b.jsonl:1,c.jsonl:2", [("a,b.jsonl", 1), ("c.jsonl", 2)]),
        ("a,b.jsonl", "c.jsonl,a,b.jsonl", [("c.jsonl", None), ("a,b.jsonl", None)]),
        ("a:0.7", "a:0.7", [("a:0.7", None)]),
        ("a:0.7", "a:0.7:2,c.csv:1", [("a:0.7", 2), ("c.csv", 1)]),
        ("a:0.7,b:0.3", "a:0.7,b:0.3", [("a:0.7,b:0.3", None)]),
    ],
)
def test_the_literal_name_of_what_is_there_wins(name, data, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("x")
    assert parse_data(data) == [DataSpec(*pair) for pair in expected]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.jsonl:x,b.jsonl:1", "the weight of a.jsonl is 'x', not a number above 0"),
        ("a.jsonl:0,b.jsonl:1", "the weight of a.jsonl is '0', not"),
        ("a.jsonl:1,b.jsonl:-2", "the weight of b.jsonl is '-2', not"),
        ("a.jsonl:1,b.jsonl:nan", "the weight of b.jsonl is 'nan', not"),
        ("a.jsonl:1,b.jsonl:inf", "the weight of b.jsonl is 'inf', not"),
        ("a.jsonl:,b.jsonl:1", "the weight of a.jsonl is '', not"),
        ("org/a:0,org/b:1", "the weight of org/a is '0', not"),
        ("a.jsonl:1,b.jsonl", "no weight for b.jsonl, but for others"),
        ("a.jsonl:0.7", "a weight for a.jsonl, but no other data set"),
        ("a.jsonl,", "has an empty name"),
        ("", "has an empty name"),
        ({"a.jsonl": "much", "b.jsonl": 1}, "the weight of a.jsonl is 'much', not"),
        ({"a.jsonl": True, "b.jsonl": 1}, "the weight of a.jsonl is True, not"),
        ({"a.jsonl": 10**400, "b.jsonl": 1}, "the weight of a.jsonl is 1000"),
        ({"a.jsonl": [1], "b.jsonl": 1}, "the weight of a.jsonl is [1], not"),
        ({}, "has an empty name"),
    ],
)
def test_what_is_not_named_rightly_is_refused(data, message):
    with pytest.raises(BadInput) as error:
        parse_data(data)
    assert f"option --data: {message}" in told(error) or message in told(error)
    assert error.value.hint


def test_a_name_longer_than_any_file_s_is_no_file(plain):
    with pytest.raises(BadInput, match="no such file"):
        load(Text, plain, "./" + "a" * 300)
    with pytest.raises(BadInput, match="no such file"):
        load(Text, plain, ",".join(f"none-{i}.jsonl" for i in range(60)))


# --- shares


def drawn(data, epochs=1, batch_size=7):
    """How often each source comes in the first epochs."""
    n = len(data.train)
    order = data.order(batch_size, seed=0)
    stream = [row for step in range(-(-epochs * n // batch_size)) for row in order.batch(step)]
    return Counter(data.train[row].row["prompt"][0] for row in stream[: epochs * n])


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((0.7, 0.3), {"a": 42, "b": 18}),
        ((7, 3), {"a": 42, "b": 18}),
        ((1, 9), {"a": 6, "b": 54}),
        ((1, 1), {"a": 30, "b": 30}),
    ],
)
def test_an_epoch_has_the_shares_that_were_asked_for(plain, two, weights, shares):
    data = load(Demonstrations, plain, dict(zip(("a.jsonl", "b.jsonl"), weights, strict=True)))
    assert len(data.train) == 60  # an epoch is as long as without weights
    assert drawn(data) == shares
    assert drawn(data, epochs=3) == {name: 3 * n for name, n in shares.items()}
    assert data.train == load(Demonstrations, plain, "a.jsonl,b.jsonl").train


def test_without_weights_every_row_comes_once_an_epoch(plain, two, jsonl):
    data = load(Demonstrations, plain, "a.jsonl,b.jsonl")
    one = load(Demonstrations, plain, jsonl(rows("a", 40) + rows("b", 20)))
    assert data.train == one.train
    assert [data.order(7, 3).batch(i) for i in range(20)] == [
        one.order(7, 3).batch(i) for i in range(20)
    ]
    assert said(data).splitlines() == [
        "a.jsonl: 40 rows read",
        "b.jsonl: 20 rows read",
        "60 training examples, 0 held out",
    ]


def test_the_report_tells_the_shares(plain, two):
    assert said(load(Demonstrations, plain, "a.jsonl:1,b.jsonl:3")).splitlines() == [
        "a.jsonl: 40 rows read",
        "a.jsonl: 0.25 of an epoch, 15 draws from 40 examples",
        "b.jsonl: 20 rows read",
        "b.jsonl: 0.75 of an epoch, 45 draws from 20 examples",
        "60 training examples, 0 held out",
    ]


def test_a_share_of_less_than_one_example_is_refused(plain, two):
    with pytest.raises(BadInput, match="less than one of the 60 examples") as error:
        load(Demonstrations, plain, "a.jsonl:1,b.jsonl:0.001")
    assert error.value.where == "b.jsonl"


@pytest.mark.parametrize(
    "data", ["a.jsonl,./a.jsonl", "a.jsonl:1,b.jsonl:1,a.jsonl:2", ".,a.jsonl"]
)
def test_a_file_twice_is_refused(plain, two, data):
    with pytest.raises(BadInput, match="is read twice, by"):
        load(Demonstrations, plain, data)


def test_the_fingerprint_covers_every_source_and_weight(plain, two, jsonl):
    names = ["a.jsonl,b.jsonl", "b.jsonl,a.jsonl", "a.jsonl:1,b.jsonl:2", "a.jsonl:2,b.jsonl:1"]
    found = [load(Demonstrations, plain, name).fingerprint for name in names]
    assert len(set(found)) == 4
    jsonl([*rows("b", 19), {"prompt": "b 19", "completion": "changed"}], "b.jsonl")
    assert load(Demonstrations, plain, names[0]).fingerprint not in found


# --- every source has its own columns, and its own words


def test_each_source_has_columns_and_derivations_of_its_own(plain, two, jsonl):
    jsonl([{"question": f"q{i}", "answer": "x"} for i in range(3)], "c.jsonl")
    jsonl([{"prompt": f"d{i}", "chosen": "y", "rejected": "z"} for i in range(3)], "d.jsonl")
    data = load(Demonstrations, plain, "a.jsonl,c.jsonl,d.jsonl", max_length=8)
    assert [plain.decode(e.completions[0]) for e in data.train[40:]] == ["x"] * 3 + ["y"] * 3
    assert "c.jsonl: column 'question' was read as 'prompt'" in said(data)
    assert "d.jsonl: demonstrations derived from preferences" in said(data)
    assert "a.jsonl: column" not in said(data)


def test_errors_name_the_source_and_its_row(plain, two, jsonl):
    jsonl([{"question": "q", "answer": "x"}, {"question": "q", "answer": 5}], "c.jsonl")
    with pytest.raises(BadInput, match="a number") as error:
        load(Demonstrations, plain, "a.jsonl,c.jsonl")
    assert error.value.where == "c.jsonl, row 2, column 'answer'"
    jsonl([{"body": "q"}], "c.jsonl")
    with pytest.raises(BadInput, match="column 'messages' missing") as error:
        load(Demonstrations, plain, "a.jsonl,c.jsonl")
    assert error.value.where == "c.jsonl"
    jsonl([{"prompt": "q", "completion": ""}] * 2, "c.jsonl")
    with pytest.raises(BadInput, match=r"no usable rows \(2 rows read\)") as error:
        load(Demonstrations, plain, "a.jsonl,c.jsonl")
    assert error.value.where == "c.jsonl"
    with pytest.raises(BadInput, match="unusable row") as error:
        load(Demonstrations, plain, "a.jsonl,c.jsonl", strict=True)
    assert error.value.where == "c.jsonl, row 1"
    with pytest.raises(BadInput, match="no such file") as error:
        load(Demonstrations, plain, "a.jsonl:1,bb.jsonl:2")
    assert error.value.hint == "did you mean 'b.jsonl'?"


def test_labels_of_one_class_in_one_source_are_fine_beside_others(plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, label in (("good", True), ("bad", False)):
        lines = [json.dumps({**row, "label": label}) for row in rows(name, 3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    load(Feedback, plain, "good.jsonl,bad.jsonl").need_both_labels()
    with pytest.raises(BadInput, match="true in all 3 rows") as error:
        load(Feedback, plain, "good.jsonl").need_both_labels()
    assert error.value.where == "good.jsonl"


def test_notes_of_the_codec_come_once(make_tokenizer, two, jsonl, user):
    from alignzoo.data.codec import Codec

    jsonl([{"prompt": [user(f"a{i}")], "completion": "x"} for i in range(2)], "a.jsonl")
    jsonl([{"prompt": [user(f"b{i}")], "completion": "x"} for i in range(2)], "b.jsonl")
    data = load(Demonstrations, Codec(make_tokenizer()), "a.jsonl,b.jsonl")
    assert said(data).count("no chat template in the tokenizer") == 1


# --- held-out rows


def prompts(examples):
    return {example.row["prompt"] for example in examples}


def test_each_source_holds_out_rows_of_its_own(plain, two):
    data = load(Demonstrations, plain, "a.jsonl,b.jsonl", holdout=6)
    assert [(s.name, s.train, s.test) for s in data.sources] == [("a", 36, 4), ("b", 18, 2)]
    assert Counter(e.row["prompt"][0] for e in data.test) == {"a": 4, "b": 2}
    assert prompts(data.test).isdisjoint(prompts(data.train))
    assert [e.row["prompt"][0] for e in data.test[data.held_out_of(data.sources[1])]] == ["b", "b"]
    assert prompts(data.test) == {row["prompt"] for row in data.prompts}
    weighted = load(Demonstrations, plain, "a.jsonl:1,b.jsonl:9", holdout=3)
    assert [s.test for s in weighted.sources] == [1, 2]
    assert load(Demonstrations, plain, "a.jsonl,b.jsonl", holdout=1).sources[1].test == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_prompt_held_out_in_one_source_is_not_trained_on_in_another(plain, two, jsonl, seed):
    jsonl(rows("a", 40), "a.jsonl")
    jsonl([{**row, "completion": "other"} for row in rows("a", 40)], "b.jsonl")
    data = load(Demonstrations, plain, "a.jsonl,b.jsonl", holdout=8, seed=seed)
    assert len(data.test) == 8
    assert prompts(data.test).isdisjoint(prompts(data.train))
    held = prompts(data.test[:4]), prompts(data.test[4:])
    assert len(data.train) == 72 - len(held[0] - held[1]) - len(held[1] - held[0])
    lost = len(held[1] - held[0])
    assert (f"a.jsonl: {lost} example" in said(data)) == (lost > 0)
    assert data.report.train == len(data.train) == sum(source.train for source in data.sources)


def test_the_same_prompt_is_known_in_another_spelling(chatml, two, jsonl, user, assistant):
    jsonl([{"messages": [user(f"a {i}"), assistant("x")]} for i in range(40)], "b.jsonl")
    data = load(Demonstrations, chatml, "a.jsonl,b.jsonl", holdout=2)
    text, messages = (example.row["prompt"] for example in data.test)
    trained = [example.row["prompt"] for example in data.train]
    assert len(trained) == 80 - 2 - 2 * (messages[0]["content"] != text)
    assert [user(text)] not in trained and messages[0]["content"] not in trained


def test_a_source_that_is_all_held_out_by_another_is_refused(plain, two, tmp_path, jsonl):
    (tmp_path / "f").mkdir()
    jsonl(rows("x", 20), "f/train.jsonl")
    jsonl(rows("b", 20), "f/test.jsonl")
    with pytest.raises(BadInput, match="every prompt is held out") as error:
        load(Demonstrations, plain, "b.jsonl,f", holdout=60)
    assert error.value.where == "b.jsonl"


def test_prompts_of_the_test_file_are_dropped_from_the_train_file(plain, tmp_path, jsonl):
    jsonl(rows("a", 20), "train.jsonl")
    jsonl(rows("a", 5), "test.jsonl")
    data = load(Demonstrations, plain, str(tmp_path), holdout=3)
    assert (len(data.train), len(data.test)) == (17, 3)
    assert "3 examples dropped from training: the prompt is held out" in said(data)


def test_pairs_and_texts_are_mixed_alike(plain, two, jsonl):
    jsonl([{"prompt": f"c {i}", "chosen": "y", "rejected": "z"} for i in range(20)], "c.jsonl")
    jsonl([{"prompt": f"d {i}", "chosen": "y", "rejected": "z"} for i in range(20)], "d.jsonl")
    data = load(Preferences, plain, "c.jsonl:3,d.jsonl:1", holdout=4)
    assert drawn(data) == {"c": 28, "d": 9}  # 18 and 19 are left
    jsonl([{"text": f"t {i}"} for i in range(20)], "t.jsonl")
    assert len(load(Text, plain, "t.jsonl,a.jsonl", holdout=4).test) == 4

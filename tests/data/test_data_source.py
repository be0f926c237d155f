"""`load_data`: rows to examples, derivations, held-out rows, and the account of it all."""

import re

import pytest

from alignzoo.data import Demonstrations, Feedback, Preferences, Prompts, Text, load_data
from alignzoo.errors import BadInput

EOS = 257
PAIRS = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(8)]


def load(view, codec, path=None, **changes):
    settings = {"max_length": 64, "strict": False, "seed": 0, "holdout": 0}
    return load_data(view, codec, **{"data": path, **settings, **changes})


def said(data):
    return "\n".join(data.report.lines())


def texts(codec, data):
    return [[codec.decode(e.prompt), *map(codec.decode, e.completions)] for e in data.train]


# --- derivations


def test_pairs_as_they_are(plain, jsonl):
    data = load(Preferences, plain, path := jsonl(PAIRS))
    assert texts(plain, data) == [[r["prompt"], r["chosen"], r["rejected"]] for r in PAIRS]
    assert data.report.lines() == [
        f"{path}: 8 rows read",
        "8 training examples, 0 held out",
    ]


def test_pairs_to_feedback_are_shuffled_by_the_seed(plain, jsonl):
    path = jsonl(PAIRS)
    data = load(Feedback, plain, path)
    labels = [example.columns["label"][0] for example in data.train]
    got = [(*pair, label) for pair, label in zip(texts(plain, data), labels, strict=True)]
    good = [(r["prompt"], r["chosen"], True) for r in PAIRS]
    bad = [(r["prompt"], r["rejected"], False) for r in PAIRS]
    assert sorted(got) == sorted(good + bad)
    assert labels not in ([True, False] * 8, [True] * 8 + [False] * 8)
    assert texts(plain, load(Feedback, plain, path)) == texts(plain, data)
    assert texts(plain, load(Feedback, plain, path, seed=1)) != texts(plain, data)
    assert "feedback derived from preferences" in said(data)
    assert "(16 rows from 8)" in said(data)


def test_pairs_to_demonstrations_prompts_and_text(plain, jsonl):
    path = jsonl(PAIRS[:1])
    data = load(Demonstrations, plain, path)
    assert texts(plain, data) == [["p0", "c0"]]
    assert "the chosen completion of each pair (1 row from 1)" in said(data)
    data = load(Text, plain, path)
    assert texts(plain, data) == [["p", "0c0"]]
    assert "text derived from demonstrations" in said(data)
    dialogue = "\n\nHuman: a\n\nAssistant:"
    path = jsonl([{"chosen": f"{dialogue} x", "rejected": f"{dialogue} y"}])
    data = load(Prompts, plain, path)
    assert texts(plain, data) == [[dialogue]]
    assert "prompts derived from preferences" in said(data)


def test_feedback_to_demonstrations_keeps_what_was_found_good(plain, jsonl):
    rows = [{"prompt": "a", "completion": f"x{i}", "label": i % 2} for i in range(4)]
    data = load(Demonstrations, plain, jsonl(rows))
    assert texts(plain, data) == [["a", "x1"], ["a", "x3"]]
    assert "the completions with a true label (2 rows from 4)" in said(data)
    assert texts(plain, load(Text, plain, jsonl(rows))) == [["a", "x1"], ["a", "x3"]]


def test_a_label_of_another_kind_does_not_choose(plain, jsonl):
    rows = [{"prompt": "a", "completion": "x", "label": label} for label in ("safe", "unsafe")]
    assert len(load(Demonstrations, plain, jsonl(rows)).train) == 2


def test_messages_to_prompts_and_text(chatml, jsonl, user, assistant):
    path = jsonl([{"messages": [user("a"), assistant("x")]}])
    data = load(Prompts, chatml, path)
    assert data.train[0].prompt == chatml.prompt([user("a")])
    assert "prompts derived from demonstrations" in said(data)
    data = load(Text, chatml, path)
    assert data.report.derivations == []  # text takes messages as they are
    pair = {"prompt": [user("a")], "chosen": [assistant("x")], "rejected": [assistant("y")]}
    derived = load(Text, chatml, jsonl([pair]))
    assert derived.train[0].completions == data.train[0].completions


def test_what_cannot_be_derived_is_one_message(plain, jsonl):
    path = jsonl([{"prompt": "a", "completion": "b", "extra": 1}])
    with pytest.raises(BadInput) as error:
        load(Preferences, plain, path)
    assert str(error.value) == (
        f"{path}: columns 'chosen', 'rejected' missing; "
        "preferences need prompt + chosen + rejected or chosen + rejected\n"
        "  columns: prompt, completion, extra. Rename or add columns. "
        "As it is, the file can serve as: text, demonstrations, prompts."
    )
    with pytest.raises(BadInput, match="column 'text' missing") as error:
        load(Text, plain, jsonl([{"body": "a"}]))
    assert error.value.hint == "columns: body. Rename or add columns."


# --- other names of columns


def test_questions_and_answers(plain, jsonl):
    data = load(Demonstrations, plain, jsonl([{"question": "q", "answer": "a"}]))
    assert texts(plain, data) == [["q", "a"]]
    assert "column 'question' was read as 'prompt'" in said(data)
    assert "column 'answer' was read as 'completion'" in said(data)
    data = load(Prompts, plain, jsonl([{"question": "q", "answer": "a"}]))
    assert data.train[0].row == {"question": "q", "answer": "a", "prompt": "q"}
    assert "column read by rewards alone, if at all: 'answer'" in said(data)


def test_instructions_with_and_without_input(plain, jsonl):
    rows = [
        {"instruction": "do", "input": "this", "output": "x"},
        {"instruction": "do", "input": "", "output": "x"},
        {"instruction": "do", "output": "x"},
    ]
    data = load(Demonstrations, plain, jsonl(rows))
    assert texts(plain, data) == [["do\n\nthis", "x"], ["do", "x"], ["do", "x"]]
    assert "column 'instruction' (followed by 'input') was read as 'prompt'" in said(data)


def test_a_question_beside_pairs_is_their_prompt(plain, jsonl):
    rows = [{"question": "q", "chosen": "It is a", "rejected": "It is b", "answer": "a"}]
    data = load(Preferences, plain, jsonl(rows))
    assert texts(plain, data) == [["q", "It is a", "It is b"]]
    assert texts(plain, load(Demonstrations, plain, jsonl(rows))) == [["q", "It is a"]]


def test_canonical_names_win(plain, jsonl):
    rows = [{"prompt": "p", "completion": "c", "question": "q", "answer": "a"}]
    data = load(Demonstrations, plain, jsonl(rows))
    assert texts(plain, data) == [["p", "c"]]
    assert data.report.notes == ["columns not read: 'question', 'answer'"]


# --- errors in rows


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        ({"prompt": "a"}, "completion", "missing in this row"),
        ({"prompt": "a", "completion": None}, "completion", "missing in this row"),
        ({"prompt": "a", "completion": float("nan")}, "completion", "missing in this row"),
        ({"prompt": "a", "completion": 3}, "completion", r"a number \(3\)"),
        ({"prompt": [{"role": "x", "content": "a"}], "completion": "b"}, "prompt", "unknown role"),
    ],
)
def test_errors_name_file_row_and_column(plain, jsonl, row, column, problem):
    path = jsonl([{"prompt": "a", "completion": "b"}] * 16 + [row])
    with pytest.raises(BadInput, match=problem) as error:
        load(Demonstrations, plain, path)
    assert error.value.where == f"{path}, row 17, column {column!r}"


def test_errors_name_the_column_as_it_is_in_the_file(plain, jsonl):
    path = jsonl([{"question": "a", "answer": 51.0}])
    with pytest.raises(BadInput) as error:
        load(Demonstrations, plain, path)
    assert error.value.where == f"{path}, row 1, column 'answer'"


def test_a_row_without_the_prompt_that_others_have_is_an_error(plain, jsonl):
    path = jsonl([PAIRS[0], {"chosen": "a b", "rejected": "a c"}])
    with pytest.raises(BadInput, match="missing in this row") as error:
        load(Preferences, plain, path)
    assert error.value.where == f"{path}, row 2, column 'prompt'"


def test_what_the_template_refuses_is_located(llama, jsonl):
    rows = [{"prompt": [{"role": "system", "content": "s"}], "completion": "x"}]
    with pytest.raises(BadInput, match="chat template refuses") as error:
        load(Demonstrations, llama, path := jsonl(rows))
    assert error.value.where == f"{path}, row 1"


def test_rows_are_counted_in_their_own_file(plain, jsonl, tmp_path):
    jsonl(PAIRS, "a.jsonl")
    jsonl([*PAIRS[:2], {"prompt": "a", "chosen": "x"}], "b.jsonl")
    with pytest.raises(BadInput) as error:
        load(Preferences, plain, str(tmp_path))
    assert error.value.where == f"{tmp_path}/b.jsonl, row 3, column 'rejected'"


# --- rows left out, truncation


def test_rows_left_out_are_counted_by_reason_with_the_first_five(plain, jsonl):
    equal = {"prompt": "a", "chosen": "x", "rejected": "x"}
    rows = [PAIRS[0], *[equal] * 7, {"prompt": "a", "chosen": "", "rejected": "x"}]
    data = load(Preferences, plain, jsonl(rows))
    assert len(data.train) == 1
    assert data.report.left_out == {
        "chosen equals rejected": [2, 3, 4, 5, 6, 7, 8],
        "chosen is empty": [9],
    }
    assert "7 rows left out: chosen equals rejected (rows 2, 3, 4, 5, 6, ...)" in said(data)
    assert "1 row left out: chosen is empty (row 9)" in said(data)


def test_derived_rows_keep_the_number_of_their_row(plain, jsonl):
    rows = [*PAIRS, *[{"prompt": "a", "chosen": "x", "rejected": ""}] * 9]
    report = load(Feedback, plain, jsonl(rows)).report
    assert sorted(report.left_out["the completion is empty"]) == list(range(9, 18))
    assert "(rows 9, 10, 11, 12, 13, ...)" in "".join(report.reasons())


def test_strict(plain, jsonl):
    path = jsonl([*PAIRS, {"prompt": "a", "chosen": "x", "rejected": ""}])
    with pytest.raises(BadInput, match="unusable row: rejected is empty") as error:
        load(Preferences, plain, path, strict=True)
    assert error.value.where == f"{path}, row 9"
    assert len(load(Preferences, plain, jsonl(PAIRS), strict=True).train) == 8


def test_nothing_left_is_an_error(plain, jsonl):
    path = jsonl([{"prompt": "a", "completion": ""}] * 2)
    with pytest.raises(BadInput, match=r"no usable rows \(2 rows read\)") as error:
        load(Demonstrations, plain, path)
    assert error.value.where == path
    assert error.value.hint == "2 rows left out: the completion is empty (rows 1, 2)"
    path = jsonl([{"prompt": "a", "completion": "x", "label": False}])
    with pytest.raises(BadInput, match=r"no usable rows \(1 row read\)") as error:
        load(Demonstrations, plain, path)
    assert "true label (0 rows from 1)" in error.value.hint


def test_truncations_are_counted_apart(plain, jsonl):
    rows = [
        {"prompt": "p" * 9, "chosen": "c" * 9, "rejected": "r"},
        {"prompt": "p", "chosen": "c" * 9, "rejected": "r" * 9},
        {"prompt": "p", "chosen": "c" * 9, "rejected": "r"},
    ]
    data = load(Preferences, plain, jsonl(rows), max_length=8)
    assert data.report.truncated == {"prompt": 1, "chosen": 3, "rejected": 1}
    assert "truncated to 8 tokens: chosen 3, prompt 1, rejected 1" in said(data)


def test_notes_of_the_codec_are_in_the_report(make_tokenizer, jsonl, user):
    from alignzoo.data.codec import Codec

    codec = Codec(make_tokenizer())
    data = load(Demonstrations, codec, jsonl([{"prompt": [user("a")], "completion": "x"}]))
    assert "no chat template in the tokenizer" in data.report.lines()[-1]


# --- held-out rows


def many(n, prompts=None):
    return [{"prompt": f"p{i % (prompts or n)}", "completion": f"c{i}", "n": i} for i in range(n)]


@pytest.mark.parametrize(
    ("n", "holdout", "expected"), [(9, 5, 0), (10, 5, 1), (50, 3, 3), (50, 9, 5), (50, 0, 0)]
)
def test_how_many_are_held_out(plain, jsonl, n, holdout, expected):
    data = load(Demonstrations, plain, jsonl(many(n)), holdout=holdout)
    assert (len(data.train), len(data.test)) == (n - expected, expected)
    assert (data.report.train, data.report.test) == (n - expected, expected)
    rows = [example.row["n"] for example in data.train + data.test]
    assert sorted(rows) == list(range(n))
    assert [row["n"] for row in data.prompts] == [example.row["n"] for example in data.test]


@pytest.mark.parametrize("seed", range(5))
def test_no_held_out_prompt_is_trained_on(plain, jsonl, seed):
    data = load(Demonstrations, plain, jsonl(many(60, prompts=20)), holdout=6, seed=seed)
    test = {example.row["prompt"] for example in data.test}
    assert len(data.test) == 6 and len(test) == 2
    assert test.isdisjoint(example.row["prompt"] for example in data.train)
    assert [row["prompt"] for row in data.prompts] == list(
        dict.fromkeys(r.row["prompt"] for r in data.test)
    )


def test_groups_that_are_too_large(plain, jsonl):
    data = load(Demonstrations, plain, jsonl(many(20, prompts=2)), holdout=2)
    assert (len(data.train), len(data.test)) == (10, 10)  # at least one prompt is held out
    data = load(Demonstrations, plain, jsonl(many(20, prompts=1)), holdout=2)
    assert (len(data.train), len(data.test)) == (20, 0)  # but never the only one


def test_the_seed_draws_the_held_out_rows(plain, jsonl):
    path = jsonl(many(100))

    def drawn(seed):
        test = load(Demonstrations, plain, path, holdout=10, seed=seed).test
        return [example.row["n"] for example in test]

    assert drawn(0) == drawn(0) != drawn(1)


def test_prompt_form(chatml, plain, jsonl, user, assistant):
    rows = [{"messages": [user(f"q{i}"), assistant("x")], "n": i} for i in range(10)]
    for view in (Demonstrations, Text):
        (row,) = load(view, chatml, jsonl(rows), holdout=1).prompts
        assert row["prompt"] == [user(f"q{row['n']}")]
    texts = [{"text": f"text {i}"} for i in range(10)]
    data = load(Text, plain, jsonl(texts), holdout=1)
    assert len(data.test) == 1 and data.prompts == []


def test_test_files_of_a_folder_are_held_out(plain, jsonl, tmp_path):
    jsonl(many(20), "train.jsonl")
    jsonl(
        [{"prompt": "t", "completion": "x"}] * 3 + [{"prompt": "e", "completion": ""}], "test.jsonl"
    )
    data = load(Demonstrations, plain, str(tmp_path), holdout=4)
    assert (len(data.train), len(data.test), data.report.read) == (20, 3, 20)
    assert [row["prompt"] for row in data.prompts] == ["t"]
    assert f"held out: {tmp_path}/test.jsonl" in said(data)
    assert "of the held-out rows, 1 row left out: the completion is empty (row 4)" in said(data)
    assert len(load(Demonstrations, plain, str(tmp_path), holdout=2).test) == 2


# --- fingerprint


def test_fingerprint_is_of_the_rows_not_of_the_bytes(plain, jsonl, tmp_path):
    rows = [{"prompt": "a", "completion": "ü"}, {"prompt": "b", "completion": "y"}]
    first = load(Demonstrations, plain, jsonl(rows))
    assert re.fullmatch("[0-9a-f]{64}", first.fingerprint)
    swapped = jsonl([dict(reversed(row.items())) for row in rows], "swapped.jsonl")
    assert load(Demonstrations, plain, swapped, seed=3).fingerprint == first.fingerprint
    (tmp_path / "a.csv").write_text("completion,prompt\r\nü,a\r\ny,b\r\n")
    assert load(Text, plain, str(tmp_path / "a.csv")).fingerprint == first.fingerprint
    other = jsonl(rows[::-1], "other.jsonl")
    assert load(Demonstrations, plain, other).fingerprint != first.fingerprint


# --- tasks


class Toy:
    views = ("demonstrations", "preferences")

    def rows(self, view, split):
        rows = {
            "demonstrations": many(30),
            "preferences": [{**pair, "n": i} for i, pair in enumerate(PAIRS)],
        }[view]
        return rows if split == "train" else [{**r, "prompt": f"test {r['prompt']}"} for r in rows]

    def score(self, row, completion):
        return 0.0


def test_a_task_has_its_own_splits(plain):
    data = load(Preferences, plain, task=Toy(), holdout=3)
    assert (len(data.train), len(data.test)) == (8, 3)
    assert [example.row["prompt"] for example in data.test] == ["test p0", "test p1", "test p2"]
    assert [row["prompt"] for row in data.prompts] == ["test p0", "test p1", "test p2"]
    assert data.report.lines()[0] == "task toy: 8 rows read"
    assert load(Preferences, plain, task=Toy(), holdout=0).test == []


def test_views_of_a_task_are_derived_too(plain):
    data = load(Feedback, plain, task=Toy(), holdout=4)
    assert (len(data.train), len(data.test)) == (16, 4)
    assert "feedback derived from preferences" in said(data)


def test_with_data_nothing_of_the_task_is_used(plain, jsonl):
    data = load(Preferences, plain, jsonl(many_pairs := PAIRS * 2), task=object(), holdout=9)
    assert len(data.train) + len(data.test) == len(many_pairs)


def test_errors_of_a_task(plain):
    class Small(Toy):
        name = "small"
        views = ("demonstrations",)

    with pytest.raises(BadInput, match="task 'small' has no preferences") as error:
        load(Preferences, plain, task=Small())
    assert error.value.hint == "it has: demonstrations"

    class Broken(Small):
        def rows(self, view, split):
            return [{"prompt": "a", "completion": 3}]

    with pytest.raises(BadInput) as error:
        load(Demonstrations, plain, task=Broken())
    assert error.value.where == "task small, demonstrations, train, row 1, column 'completion'"
    with pytest.raises(ValueError, match="a task or data"):
        load(Demonstrations, plain)

"""Solutions in steps: where each step ends in the tokens, and the labels that stand there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.batch import collate
from alignzoo.data import Prompts, Steps, load_data, split_steps, step_ends
from alignzoo.data.codec import Codec
from alignzoo.data.values import BadValue
from alignzoo.errors import BadInput

EOS, START, END = 257, 258, 259
ROW = {"prompt": "a", "completions": ["xy", "z"], "labels": [True, False]}


def b(text: str) -> list[int]:
    return list(text.encode())


def test_a_solution_is_its_text_and_its_labels_stand_where_steps_end(plain):
    example, reason, truncated = Steps.encode(ROW, plain, 100)
    assert (reason, truncated) == (None, ())
    assert (example.prompt, example.completions) == (b("a"), [[*b("xy\nz"), EOS]])
    # "xy" is complete with the line break after it, "z" with the EOS.
    assert example.masks == [[False, False, True, False, True]]
    assert example.columns == {"labels": [[False, False, True, False, False]]}


def test_messages_and_another_separator(chatml, user):
    view = Steps.separated_by(" ки ")
    example = view.encode({**ROW, "prompt": [user("a")]}, chatml, 100).example
    ids = example.completions[0]
    assert ids == [*b("xy ки z"), END]
    assert [i for i, kept in enumerate(example.masks[0]) if kept] == [len(b("xy ки ")) - 1, 9]
    assert view.name == "steps" and Steps.separator == "\n"


def test_a_batch_keeps_labels_of_tokens_in_their_places(plain):
    more = {"prompt": "b", "completions": ["1", "22", "3"], "labels": [0, 1, 1]}
    examples = [Steps.encode(row, plain, 100).example for row in (ROW, more)]
    batch = collate(examples)
    assert batch["labels"].shape == batch.tokens.shape == (2, 7)
    assert batch["labels"][batch.mask].tolist() == [True, False, False, True, True]
    alone = batch.select([0])
    assert alone["labels"].shape == alone.tokens.shape == (1, 5)
    assert alone["labels"][alone.mask].tolist() == [True, False]


def test_steps_that_do_not_fit_are_dropped_and_counted(plain):
    row = {"prompt": "ab", "completions": ["cd", "ef", "gh"], "labels": [True, False, True]}
    assert Steps.encode(row, plain, 11).truncated == ()
    example, _, truncated = Steps.encode(row, plain, 9)
    assert truncated == ("steps",)
    assert example.completions == [b("cd\nef\n")]
    assert example.masks == [[False, False, True, False, False, True]]
    assert Steps.encode(row, plain, 7).truncated == ("steps", "steps")
    assert Steps.encode({**row, "prompt": "a" * 20}, plain, 8).truncated == (
        "prompt",
        "steps",
        "steps",
    )
    assert Steps.encode(row, plain, 4).reason == "no step fits"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"completions": [], "labels": []}, "no steps"),
        ({"completions": ["a", " \n"]}, "a step is empty"),
        ({"prompt": ""}, "the prompt is empty"),
    ],
)
def test_unusable_rows(plain, change, reason):
    assert Steps.encode({**ROW, **change}, plain, 100).reason == reason


@pytest.mark.parametrize(
    ("change", "column", "problem"),
    [
        ({"labels": True}, "labels", r"expected a list of labels, got a boolean \(true\)"),
        ({"labels": None}, "labels", "the value is missing"),
        ({"labels": [True]}, "labels", "1 label for 2 steps"),
        ({"completions": ["x"]}, "labels", r"2 labels for 1 step\n"),
        ({"labels": [True, "so"]}, "labels", 'label 2: expected true or false .*, got text ."so".'),
        ({"labels": [True, None]}, "labels", "label 2 is missing in this row"),
        ({"labels": [1, -1]}, "labels", r"label 2: expected .* got a number \(-1\)"),
        ({"completions": "x\ny"}, "completions", "expected a list of steps, got text"),
        ({"completions": ["x", 3]}, "completions", r"step 2: expected text, got a number \(3\)"),
        ({"completions": ["x", None]}, "completions", "step 2 is missing"),
    ],
)
def test_wrong_values_name_their_column(plain, change, column, problem):
    with pytest.raises(BadValue, match=problem) as error:
        Steps.encode({**ROW, **change}, plain, 100)
    assert error.value.column == column


def test_from_a_file_with_its_row_named(plain, jsonl):
    def load(rows, view=Steps):
        return load_data(
            view, plain, data=jsonl(rows), max_length=6, strict=False, seed=0, holdout=2
        )

    rows = [{**ROW, "prompt": chr(97 + n)} for n in range(20)]
    data = load([*rows, {**ROW, "prompt": "p" * 9, "completions": ["12", "3456"]}])
    assert len(data.test) == 2
    assert "truncated to 6 tokens: prompt 1, steps 1" in data.report.lines()
    assert load(rows, Prompts).train[0].prompt
    with pytest.raises(BadInput, match="1 label for 2 steps") as error:
        load([*rows, {**ROW, "labels": [True]}])
    assert "row 21, column 'labels'" in error.value.where.replace("line", "row")


def test_steps_in_a_text_are_what_holds_words():
    assert split_steps("a\n\nb\n", "\n") == ["a", "b"]
    assert split_steps(" \n", "\n") == []


def test_templates_that_drop_white_space(llama, user):
    row = {"prompt": [user("q")], "completions": [" x ", "y \n"], "labels": [1, 0]}
    example = Steps.encode(row, llama, 100).example
    assert example.completions == [[*b(" x \ny"), EOS]]
    assert [i for i, kept in enumerate(example.masks[0]) if kept] == [3, 5]


words = st.text("ab \n¿é\U0001f600", min_size=1, max_size=6).filter(str.strip)
clean = st.text("abé\U0001f600", min_size=1, max_size=6)


@given(st.lists(words, min_size=1, max_size=5), st.sampled_from(["\n", "\n\n", " ", "#"]))
def test_every_step_ends_at_or_behind_its_last_letter(plain, steps, separator):
    text = separator.join(steps)
    ids = plain.completion("q", text)
    ends = step_ends(plain, ids, steps, separator)
    assert ends == sorted(set(ends)) and ends[-1] == len(ids) - 1
    at = 0
    for step, end in zip(steps, ends, strict=True):
        at += len(step.encode())
        assert at - len(step) + len(step.rstrip()) <= end + 1
        at += len(separator.encode())
        assert end < at or end == len(ids) - 1


@given(st.lists(clean, min_size=1, max_size=5))
def test_what_was_trained_on_is_what_is_found_in_a_text(plain, steps):
    row = {"prompt": "q", "completions": steps, "labels": [True] * len(steps)}
    example = Steps.encode(row, plain, 200).example
    ids = example.completions[0]
    found = step_ends(plain, ids, split_steps(plain.decode(ids), "\n"), "\n")
    assert found == [i for i, kept in enumerate(example.masks[0]) if kept]


def test_a_token_that_spans_the_separator(gpt2: Codec):
    """Where a tokenizer writes '.' and line breaks as one, the step ends in that token."""
    steps = ["It is so.", "\nTherefore it is so.", "Done"]
    ids = gpt2.completion("q", "\n".join(steps))
    ends = step_ends(gpt2, ids, steps, "\n")
    assert "\n" in gpt2.decode([ids[ends[0]]])
    assert gpt2.decode(ids[: ends[1] + 1]).rstrip("\n").endswith("Therefore it is so.")
    assert ids[ends[2]] == gpt2.eos

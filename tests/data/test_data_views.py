"""One row to one example: columns, masks, truncation, unusable rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.batch import collate
from alignzoo.data.codec import Codec
from alignzoo.data.values import BadValue
from alignzoo.data.views import (
    VIEWS,
    Demonstrations,
    Dialogues,
    Feedback,
    Preferences,
    Prompts,
    Text,
    WholeDemonstrations,
)

BOS, EOS, START, END = 256, 257, 258, 259


def b(text: str) -> list[int]:
    return list(text.encode())


def test_names():
    assert list(VIEWS) == ["text", "demonstrations", "preferences", "feedback", "steps", "prompts"]


def test_demonstration_in_its_spellings(chatml, user, assistant):
    prompt = [START, *b("user\na"), END, *b("\n"), START, *b("assistant\n")]
    answer = [assistant("x")]
    for row in (
        {"messages": [user("a"), assistant("x")]},
        {"messages": [user("a"), assistant("x"), user("thanks")]},
        {"prompt": [user("a")], "completion": answer},
        {"prompt": [user("a")], "completion": "x"},
        {"prompt": "a", "completion": answer},
        {"prompt": "a", "messages": [user("a"), assistant("x")], "completion": None},
    ):
        example, reason, truncated = Demonstrations.encode(row, chatml, 100)
        assert (example.prompt, example.completions) == (prompt, [[*b("x"), END]])
        assert (reason, truncated, example.masks) == (None, (), None)
        assert example.row["prompt"] == [user("a")] and example.row["completion"] == answer


def test_only_the_last_answer_is_trained_on(chatml, user, assistant):
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    whole = Demonstrations.encode({"messages": turns}, chatml, 100).example
    assert whole.completions == [[*b("d"), END]]
    split = {"prompt": turns[:1], "completion": turns[1:]}
    assert Demonstrations.encode(split, chatml, 100).example.prompt == whole.prompt


def test_every_answer_of_a_dialogue(chatml, user, assistant):
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    between = [*b("\n"), START, *b("user\nc"), END, *b("\n"), START, *b("assistant\n")]
    for row in ({"messages": turns}, {"prompt": turns[:3], "completion": "d"}):
        example = Dialogues.encode(row, chatml, 100).example
        assert example.prompt == [START, *b("user\na"), END, *b("\n"), START, *b("assistant\n")]
        assert example.completions == [[*b("b"), END, *between, *b("d"), END]]
        assert example.masks == [[True] * 2 + [False] * len(between) + [True] * 2]
    cut = Dialogues.encode({"messages": turns}, chatml, 20)
    assert cut.example.prompt + cut.example.completions[0] == (
        example.prompt[-10:] + example.completions[0][:10]
    )
    assert cut.example.masks == [example.masks[0][:10]] and cut.truncated == (
        "prompt",
        "completion",
    )


def test_dialogues_are_demonstrations_where_there_is_one_answer(chatml, plain, user, assistant):
    greeted = [assistant("hi"), user("a"), assistant("b")]
    for codec, row in (
        (chatml, {"prompt": [user("a")], "completion": "b"}),
        (plain, {"prompt": "a", "completion": "b"}),
        (chatml, {"messages": greeted}),
    ):
        one, many = (v.encode(row, codec, 100).example for v in (Demonstrations, Dialogues))
        assert (many.prompt, many.completions) == (one.prompt, one.completions)
        assert collate([many]).mask.all()


def test_a_template_that_rewrites_answers_leaves_the_last_one(make_tokenizer, user, assistant):
    forgets = (
        "{% for m in messages %}{% if m.role == 'user' or loop.last %}{{ m.content }}"
        "{% endif %}<|im_end|>{% endfor %}"
    )
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    example = Dialogues.encode({"messages": turns}, Codec(make_tokenizer(forgets)), 100).example
    assert example.completions == [[*b("d"), END]] and example.masks is None


def test_whole_demonstrations_learn_the_prompt(plain):
    row = {"prompt": "abc", "completion": "x"}
    example = WholeDemonstrations.encode(row, plain, 100).example
    assert (example.prompt, example.completions) == (b("a"), [[*b("bcx"), EOS]])


def test_a_margin_is_a_number(plain):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    for value, number in ((2, 2.0), ("0.5", 0.5)):
        assert Preferences.canonical({**row, "margin": value})["margin"] == number
    for value in (None, float("nan")):
        assert "margin" not in Preferences.canonical({**row, "margin": value})
    for value in ("wide", [1], "inf"):
        with pytest.raises(BadValue, match="expected a number"):
            Preferences.canonical({**row, "margin": value})


def test_how_sure_a_pair_is_is_a_probability(plain):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    for value, number in ((1, 1.0), ("0.75", 0.75), (0, 0.0)):
        found = Preferences.canonical({**row, "chosen_probability": value})
        assert found["chosen_probability"] == number
    assert "chosen_probability" not in Preferences.canonical({**row, "chosen_probability": ""})
    for value in (1.5, -0.1):
        with pytest.raises(BadValue, match="expected a probability from 0 to 1"):
            Preferences.canonical({**row, "chosen_probability": value})


def test_the_mask_does_not_ask_what_a_token_is(plain):
    # An EOS in the prompt, and one in the middle of the completion: neither changes the mask.
    example = Demonstrations.encode({"prompt": "a</s>", "completion": "x</s>y"}, plain, 100).example
    batch = collate([example], pad=EOS)
    assert batch.prompts.tolist() == [[*b("a"), EOS]]
    assert batch.tokens.tolist() == [[*b("x"), EOS, *b("y"), EOS]]
    assert batch.mask.tolist() == [[True] * 4]


def test_text(plain, with_bos, chatml, user, assistant):
    assert Text.encode({"text": "abc"}, with_bos, 100).example.prompt == [BOS]
    example = Text.encode({"text": "abc"}, plain, 100).example
    assert (example.prompt, example.completions) == (b("a"), [[*b("bc"), EOS]])
    encoded = Text.encode({"text": "abcdef"}, plain, 4)
    assert encoded.example.completions == [b("bcd")] and encoded.truncated == ("text",)
    example = Text.encode({"messages": [user("a"), assistant("x")]}, chatml, 100).example
    assert example.completions[0][-2:] == [*b("x"), END]
    assert Text.encode({"text": " \n"}, plain, 9).reason == "the text is empty"
    assert Text.encode({"messages": []}, chatml, 9).reason == "the text is empty"
    assert Text.encode({"text": "abc"}, with_bos, 1).reason == "nothing of the text fits"


def test_pair_in_its_spellings(chatml, user, assistant):
    x, y = [assistant("x")], [assistant("y")]
    for row in (
        {"chosen": [user("a"), *x], "rejected": [user("a"), *y]},
        {"prompt": [user("a")], "chosen": x, "rejected": y},
        {"prompt": [user("a")], "chosen": "x", "rejected": "y"},
        {"prompt": "a", "chosen": x, "rejected": y},
        {"prompt": "a", "chosen": [user("a"), *x], "rejected": [user("a"), *y]},  # UltraFeedback
    ):
        example = Preferences.encode(row, chatml, 100).example
        assert example.completions == [[*b("x"), END], [*b("y"), END]]
        assert example.row["prompt"] == [user("a")]
        assert (example.row["chosen"], example.row["rejected"]) == (x, y)
        assert Preferences.canonical(example.row) == example.row


def test_implicit_prompt_of_text(plain):
    row = {"chosen": "\n\nHuman: a\n\nAssistant: I do", "rejected": "\n\nHuman: a\n\nAssistant: I"}
    example = Preferences.encode(row, plain, 100).example
    assert example.prompt == b("\n\nHuman: a\n\nAssistant:")
    assert example.completions == [[*b(" I do"), EOS], [*b(" I"), EOS]]


def test_feedback(plain):
    for value, label in [(True, True), (0, False), (1.0, True), ("False", False), ("1", True)]:
        row = {"prompt": "a", "completion": "x", "label": value}
        example = Feedback.encode(row, plain, 100).example
        assert example.columns == {"label": [label]} and example.row["label"] is label
        assert collate([example])["label"].tolist() == [label]


def test_prompts_keep_their_columns(chatml, user):
    row = {"prompt": [user("a")], "a": 3, "answer": None}
    example = Prompts.encode(row, chatml, 100).example
    assert example.prompt == chatml.prompt([user("a")])
    assert example.completions == [] and example.row == row


# --- truncation: prompts lose their start, completions their end


def test_a_long_prompt_loses_its_start_but_not_its_bos(with_bos):
    encoded = Demonstrations.encode({"prompt": "0123456789", "completion": "xy"}, with_bos, 8)
    assert encoded.example.prompt == [BOS, *b("6789")]
    assert encoded.example.completions == [[*b("xy"), EOS]]
    assert encoded.truncated == ("prompt",)
    encoded = Prompts.encode({"prompt": "0123456789"}, with_bos, 4)
    assert encoded.example.prompt == [BOS, *b("789")] and encoded.truncated == ("prompt",)


def test_a_long_completion_loses_its_end_and_its_eos(plain):
    encoded = Demonstrations.encode({"prompt": "ab", "completion": "0123456789"}, plain, 8)
    assert encoded.example.prompt == b("ab")
    assert encoded.example.completions == [b("012345")]
    assert encoded.truncated == ("completion",)
    # Exactly fitting is not truncated; one less loses the EOS, and says so.
    assert Demonstrations.encode({"prompt": "ab", "completion": "01234"}, plain, 8).truncated == ()
    encoded = Demonstrations.encode({"prompt": "ab", "completion": "012345"}, plain, 8)
    assert encoded.example.completions == [b("012345")] and encoded.truncated == ("completion",)


def test_both_long_share_the_room(plain):
    row = {"prompt": "abcdefghij", "completion": "0123456789"}
    encoded = Demonstrations.encode(row, plain, 8)
    assert (encoded.example.prompt, encoded.example.completions) == (b("ghij"), [b("0123")])
    assert encoded.truncated == ("prompt", "completion")


def test_both_sides_of_a_pair_share_one_truncated_prompt(plain):
    row = {"prompt": "abcdefghij", "chosen": "0123456789", "rejected": "z"}
    encoded = Preferences.encode(row, plain, 8)
    assert encoded.example.prompt == b("ghij")
    assert encoded.example.completions == [b("0123"), [*b("z"), EOS]]
    assert encoded.truncated == ("prompt", "chosen")
    swapped = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    assert Preferences.encode(swapped, plain, 8).truncated == ("prompt", "rejected")


@given(
    st.text("ab", min_size=1, max_size=30),
    st.text("cd", min_size=1, max_size=30),
    st.text("ef", min_size=1, max_size=30),
    st.integers(2, 40),
)
def test_nothing_exceeds_the_limit_and_what_is_cut_is_said(with_bos, prompt, chosen, rejected, n):
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    example, _, truncated = Preferences.encode(row, with_bos, n)
    assert len(example.prompt) + max(map(len, example.completions)) <= n
    assert example.prompt[0] == BOS
    assert ("prompt" in truncated) == (len(example.prompt) < len(prompt) + 1)
    for name, ids in zip(("chosen", "rejected"), example.completions, strict=True):
        assert ids and (name in truncated) == (ids[-1] != EOS) == (len(ids) <= len(row[name]))


# --- unusable rows


@pytest.mark.parametrize(
    ("view", "row", "reason"),
    [
        (Demonstrations, {"prompt": "a", "completion": ""}, "the completion is empty"),
        (Demonstrations, {"prompt": "a", "completion": " \n"}, "the completion is empty"),
        (Demonstrations, {"prompt": "", "completion": "x"}, "the prompt is empty"),
        (Demonstrations, {"messages": [{"role": "user", "content": "a"}]}, "no message is the"),
        (Demonstrations, {"messages": [{"role": "assistant", "content": "a"}]}, "the prompt is"),
        (Demonstrations, {"prompt": [], "completion": []}, "completion holds no messages"),
        (Preferences, {"prompt": "a", "chosen": "x", "rejected": "x"}, "chosen equals rejected"),
        (Preferences, {"chosen": "a b", "rejected": "a b"}, "chosen equals rejected"),
        (Preferences, {"prompt": "a", "chosen": "", "rejected": "x"}, "chosen is empty"),
        (Preferences, {"prompt": "a", "chosen": "x", "rejected": ""}, "rejected is empty"),
        (
            Preferences,
            {"prompt": "a", "chosen": "0123456789x", "rejected": "0123456789y"},
            "chosen equals rejected after truncation",
        ),
        (Feedback, {"prompt": "a", "completion": "", "label": 1}, "the completion is empty"),
        (Prompts, {"prompt": ""}, "the prompt is empty"),
        (Prompts, {"prompt": []}, "the prompt is empty"),
    ],
)
def test_unusable_rows(plain, view, row, reason):
    example, said, _ = view.encode(row, plain, 8)
    assert example is None and said.startswith(reason)


def test_pairs_that_part_before_their_last_answers(plain, user, assistant):
    row = {
        "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
        "rejected": [user("a"), assistant("x"), user("c"), assistant("y")],
    }
    assert Preferences.encode(row, plain, 99).reason.endswith("differ before their last answers")


def test_an_empty_prompt_is_fine_where_there_is_a_bos(with_bos):
    example = Demonstrations.encode({"prompt": "", "completion": "x"}, with_bos, 8).example
    assert (example.prompt, example.completions) == ([BOS], [[*b("x"), EOS]])


def test_no_room_for_the_completion(with_bos):
    row = {"prompt": "a", "completion": "x"}
    assert Demonstrations.encode(row, with_bos, 1).reason == "nothing of the completion fits"


# --- wrong values


U, X = {"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}


@pytest.mark.parametrize(
    ("view", "row", "column", "problem"),
    [
        (Demonstrations, {"prompt": "a"}, "completion", "the value is missing in this row"),
        (Demonstrations, {"prompt": None, "completion": "x"}, "prompt", "missing in this row"),
        (Demonstrations, {"prompt": "a", "completion": float("nan")}, "completion", "missing"),
        (Demonstrations, {"prompt": "a", "completion": 51.0}, "completion", r"a number \(51.0\)"),
        (Demonstrations, {"prompt": {"a": 1}, "completion": "x"}, "prompt", "an object"),
        (Demonstrations, {"prompt": "a", "completion": [U]}, "completion", "is the user's, not"),
        (Demonstrations, {"messages": "a"}, "messages", "expected a list of messages, got text"),
        (Demonstrations, {"messages": [U, "x"]}, "messages", 'message 2 is text ."x".'),
        (Demonstrations, {"messages": [U, {"role": "bot", "content": "x"}]}, "messages",
         "unknown role 'bot' in message 2"),
        (Demonstrations, {"messages": [U, {"role": "assistant"}]}, "messages",
         "the content of message 2 is null"),
        (Demonstrations, {"messages": [{"content": "a"}]}, "messages", "the role of message 1"),
        (Demonstrations, {"prompt": "a\ud800", "completion": "x"}, "prompt", "character 2 is half"),
        (Text, {"text": 3}, "text", r"a number \(3\)"),
        (Text, {}, "text", "missing"),
        (Preferences, {"chosen": "a", "rejected": [X]}, "rejected", "one of chosen and rejected"),
        (Preferences, {"chosen": "a"}, "rejected", "missing"),
        (Feedback, {"prompt": "a", "completion": "x"}, "label", "missing"),
        (Feedback, {"prompt": "a", "completion": "x", "label": "good"}, "label",
         'expected true or false .*, got text ."good".'),
        (Feedback, {"prompt": "a", "completion": "x", "label": 2}, "label", r"a number \(2\)"),
        (Feedback, {"prompt": "a", "completion": "x", "label": []}, "label", "a list"),
        (Prompts, {"prompt": 1}, "prompt", "expected text or a list of messages"),
    ],
)  # fmt: skip
def test_wrong_values_name_their_column(plain, view, row, column, problem):
    with pytest.raises(BadValue, match=problem) as error:
        view.encode(row, plain, 8)
    assert error.value.column == column

"""Where the prompt of a pair ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.data.dialogue import common_messages, common_prompt

A = "\n\nAssistant:"


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (f"\n\nHuman: hi{A}", " I'm well", " I'm ill"),  # a shared first word stays
        (f"\n\nHuman: hi{A} yo\n\nHuman: so?{A}", " a", " b"),  # the last turn counts
        (f"\n\nHuman: hi{A}", " yo\n\nHuman: x", " yo\n\nHuman: y"),
        (f"\n\nHuman: hi{A}", "", " b"),
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "Well a", "Well b"),
        ("[INST] hi [/INST]", " Well a", " Well b"),
        ("### Instruction:\nhi\n\n### Response:", "\nThe a", "\nThe b"),
        ("Q: hi\nA:", " no", " nope"),
        ("The answer is", " four", " five"),  # no marker: back to a white space
        ("One", " two", " two three"),  # neither is empty
        ("Word", " a", "\nb"),
        ("", "four", "five"),
        ("", "x", ""),
    ],
)
def test_implicit_prompt_of_text(prompt, chosen, rejected):
    assert common_prompt(prompt + chosen, prompt + rejected) == len(prompt)
    assert common_prompt(prompt + rejected, prompt + chosen) == len(prompt)


@given(st.text(alphabet="ab \n"), st.text(alphabet="ab \n"))
def test_without_a_marker_no_word_is_split(one, other):
    end = common_prompt(one, other)
    assert one[:end] == other[:end]
    assert end == 0 or (one[end].isspace() and other[end].isspace())


def test_implicit_prompt_of_messages(user, assistant):
    start = [user("a"), assistant("b"), user("c")]
    assert common_messages([*start, assistant("x")], [*start, assistant("y")]) == 3
    # Equal dialogues, or one that is the start of the other: the last message is the answer.
    assert common_messages([*start, assistant("x")], [*start, assistant("x")]) == 3
    assert common_messages(start[:2], [*start, assistant("y")]) == 1
    assert common_messages([], start) == 0

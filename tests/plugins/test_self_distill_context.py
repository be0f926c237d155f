"""What a teacher that has seen more is asked."""

from __future__ import annotations

import pytest

from alignzoo_zoo.self_distill.context import privileged_prompt, text_of


def test_texts_stand_where_the_template_says():
    template = "{prompt} (it is {privilege})"
    assert privileged_prompt("1 + 1?", "2", template) == "1 + 1? (it is 2)"
    # Braces in the texts are text.
    assert privileged_prompt("{privilege}", "{prompt}", template) == "{privilege} (it is {prompt})"


def test_the_last_message_has_the_privileged_text():
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    found = privileged_prompt(prompt, "2", "{prompt} {privilege}")
    assert found == [prompt[0], {"role": "user", "content": "1 + 1? 2"}]
    assert prompt[1]["content"] == "1 + 1?"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), (" ", ""), (None, ""), (7, "7"),
        ([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}], "a\nb"),
    ],
)  # fmt: skip
def test_a_column_as_text(value, text):
    assert text_of(value) == text

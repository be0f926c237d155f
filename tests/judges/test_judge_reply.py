"""Parsing a server's reply: options of several tokens, text, and tokens used."""

from __future__ import annotations

import math

import pytest
from judge_stub import text

from alignzoo_judges import Question
from alignzoo_judges.rating import RATINGS
from alignzoo_judges.reply import max_answer_tokens, parse_answer, parse_usage

RATING = tuple(map(str, RATINGS))


def reply(*places: dict[str, float]) -> dict:
    """Build a reply from the probabilities at each position; the most likely token was written."""
    content, said = [], ""
    for place in places:
        written = max(place, key=lambda token: place[token])
        tops = [{"token": token, "logprob": math.log(p)} for token, p in place.items()]
        content.append(
            {"token": written, "logprob": math.log(place[written]), "top_logprobs": tops}
        )
        said += written
    return {"choices": [{"message": {"content": said}, "logprobs": {"content": content}}]}


def read(options: tuple[str, ...], *places: dict[str, float]) -> dict[str, float]:
    """Return the options with a probability above 0."""
    found = parse_answer(reply(*places), Question([], options))
    return {option: p for option, p in zip(options, found, strict=True) if p}


def test_10_as_one_token():
    # 0.5 of 0.5 + 0.2 + 0.1: "1" means 1 if "10" is a token of its own.
    found = read(RATING, {"10": 0.5, "1": 0.2, "8": 0.1, "x": 0.2})
    assert found == pytest.approx({"10": 0.625, "1": 0.25, "8": 0.125})


def test_10_as_two_tokens():
    # P("1") = 0.6, and then 0.75 "0", 0.2 the end, 0.05 a digit that is no rating:
    # 10: 0.45, 1: 0.12, 8: 0.3, over their sum 0.87.
    for end in ("<|im_end|>", "\n", ".", "", " "):
        found = read(RATING, {"1": 0.6, "8": 0.3}, {"0": 0.75, end: 0.2, "5": 0.05})
        assert found == pytest.approx({"10": 0.45 / 0.87, "1": 0.12 / 0.87, "8": 0.3 / 0.87})


def test_1_followed_by_the_end():
    assert read(RATING, {"1": 0.9, "8": 0.1}, {"\n": 0.8, "0": 0.2}) == pytest.approx(
        {"1": 0.72, "10": 0.18, "8": 0.1}
    )
    # The server returns no token for the end, so 1 is all that was written.
    assert read(RATING, {"1": 0.9, "8": 0.1}) == pytest.approx({"1": 0.9, "8": 0.1})


def test_the_mass_of_an_unwritten_1_is_left_out_as_it_may_begin_10():
    assert read(RATING, {"9": 0.5, "1": 0.3, "8": 0.2}, {"\n": 1.0}) == pytest.approx(
        {"9": 5 / 7, "8": 2 / 7}
    )


def test_a_space_as_a_token_of_its_own_is_skipped():
    found = read(RATING, {" ": 0.9, "8": 0.1}, {"1": 0.8, "7": 0.2}, {"0": 1.0})
    assert found == pytest.approx({"10": 0.72, "7": 0.18, "8": 0.1})
    assert max_answer_tokens(RATING) == 3


def test_options_with_a_common_beginning_are_decided_by_the_rest():
    options = ("Response A", "Response B")
    found = read(options, {"Response": 0.9, "I": 0.1}, {" A": 0.5, " B": 0.25, " C": 0.25})
    assert found == pytest.approx({"Response A": 2 / 3, "Response B": 1 / 3})
    assert read(("Yes", "No"), {"Y": 0.6, "N": 0.3, "?": 0.1}, {"es": 1.0}) == pytest.approx(
        {"Yes": 2 / 3, "No": 1 / 3}
    )


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ("10", "10"), ("10.", "10"), ("10/10", "10"), (" 1", "1"), ("1\n", "1"), ("1, as", "1"),
        ("100", None), ("1.5", None), ("15", None), ("0", None), ("ten", None), ("", None),
    ],
)  # fmt: skip
def test_without_logprobs_the_text_is_the_answer(said, option):
    found = parse_answer(text(said), Question([], RATING))
    if option is None:
        assert all(map(math.isnan, found))
    else:
        assert found == [float(option == each) for each in RATING]


def test_logprobs_without_any_option_fall_back_to_the_text():
    wrong = reply({"x": 0.9, "y": 0.1})
    wrong["choices"][0]["message"]["content"] = "10"
    assert parse_answer(wrong, Question([], RATING))[-1] == 1.0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 2}}, (7, 2)),
        ({"usage": {"prompt_tokens": 7}}, (7, 0)),
        ({"usage": None}, (0, 0)),
        ({"usage": {"prompt_tokens": "many"}}, (0, 0)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 2}}, (0, 2)),
        ({}, (0, 0)),
        ([], (0, 0)),
    ],
)
def test_usage_is_what_the_server_reports(said, expected):
    assert parse_usage(said) == expected

"""Rows as token ids, kept on disk: the same again, from the disk, and nothing that is stale."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest

from alignzoo.data import (
    Codec,
    Demonstrations,
    Dialogues,
    Feedback,
    Preferences,
    Prompts,
    Steps,
    Text,
    WholeDemonstrations,
    load_data,
    token_cache,
)

SETTINGS = {"max_length": 60, "strict": False, "seed": 0, "holdout": 3}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "FEWEST_ROWS", 1)
    return tmp_path / "cache" / "tokens"


def load(view, codec, path, **changes):
    data = load_data(view, codec, data=path, **{**SETTINGS, **changes})
    report = asdict(data.report)
    return data.train, data.test, data.fingerprint, data.prompts, report


def dialogue(n: int) -> list[dict]:
    turns = [
        ("user", f"question {n}?"),
        ("assistant", "hm"),
        ("user", "and"),
        ("assistant", "é" * n),
    ]
    return [{"role": role, "content": text} for role, text in turns]


DIALOGUES = [{"messages": dialogue(n)} for n in range(1, 20)]
PAIRS = [
    *({"prompt": f"p{n}", "chosen": f" good {n}", "rejected": f" b{'a' * n}d"} for n in range(20)),
    {"prompt": "p", "chosen": "", "rejected": "x"},
    {"prompt": "p", "chosen": " ends</s>", "rejected": "x", "margin": 2},
    {"prompt": "p" * 80, "chosen": " cut", "rejected": " cut too"},
]
STEPS = [
    {"prompt": f"p{n}", "completions": ["one", "two" * n], "labels": [True, n % 2 == 0]}
    for n in range(20)
]
TABLES = {
    "text": (Text, [{"text": f"words {n} {'more ' * n}"} for n in range(20)]),
    "demonstrations": (Demonstrations, DIALOGUES),
    "dialogues": (Dialogues, DIALOGUES),
    "whole": (WholeDemonstrations, DIALOGUES),
    "preferences": (Preferences, PAIRS),
    "feedback from pairs": (Feedback, PAIRS),
    "steps": (Steps, STEPS),
    "other steps": (Steps.separated_by("\n\n"), STEPS),
    "prompts": (Prompts, PAIRS),
}


@pytest.fixture
def refuse(monkeypatch):
    """From here on nothing can be tokenized."""

    def start():
        def fail(*_args):
            raise AssertionError("a text is tokenized")

        monkeypatch.setattr(Codec, "_ids", fail)

    return start


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_read_again_as_they_were(name, chatml, jsonl, refuse):
    view, rows = TABLES[name]
    path = jsonl(rows)
    first = load(view, chatml, path)
    refuse()
    assert load(view, chatml, path) == first
    assert first[0]


def test_a_note_on_the_tokenizer_comes_with_the_rows_that_need_it(make_tokenizer, jsonl, refuse):
    pairs, talks = jsonl(PAIRS, "pairs.jsonl"), jsonl(DIALOGUES, "talks.jsonl")
    first = load(Demonstrations, Codec(make_tokenizer(bos=False)), talks)
    assert "no chat template" in str(first[-1]["notes"])
    codec, again = (Codec(make_tokenizer(bos=False)) for _ in range(2))
    load(Preferences, codec, pairs)
    assert codec.notes == []
    refuse()
    assert load(Demonstrations, again, talks) == first


def with_end(make_tokenizer, templates, number):
    tokenizer = make_tokenizer(templates["chatml"], bos=False)
    tokenizer.generation_stop_ids = (number,)
    return Codec(tokenizer)


@pytest.mark.parametrize(
    "change",
    ["a row", "the length", "the view", "the separator", "the template", "a stop id", "the day"],
)
def test_what_the_ids_depend_on_is_a_part_of_the_key(
    change, chatml, make_tokenizer, templates, monkeypatch
):
    path = token_cache.cache_path
    before = path(Steps, chatml, 60, STEPS)
    assert before == path(Steps, Codec(make_tokenizer(templates["chatml"], bos=False)), 60, STEPS)
    other = templates["chatml"] + "{# strftime_now #}"
    dated = Codec(make_tokenizer(other, bos=False))
    if change == "the day":
        before = path(Steps, dated, 60, STEPS)
        monkeypatch.setattr(token_cache.time, "strftime", lambda form: "2001-01-01")
    after = {
        "a row": lambda: path(Steps, chatml, 60, [*STEPS[:-1], {**STEPS[-1], "prompt": "other"}]),
        "the length": lambda: path(Steps, chatml, 61, STEPS),
        "the view": lambda: path(Demonstrations, chatml, 60, STEPS),
        "the separator": lambda: path(Steps.separated_by(" "), chatml, 60, STEPS),
        "the template": lambda: path(Steps, dated, 60, STEPS),
        "a stop id": lambda: path(Steps, with_end(make_tokenizer, templates, 7), 60, STEPS),
        "the day": lambda: path(Steps, dated, 60, STEPS),
    }[change]()
    assert None not in (before, after) and before != after


def test_a_view_of_a_plugin_and_a_few_rows_are_not_kept(chatml, monkeypatch):
    class Own(Steps):
        """Another way to read steps"""

    assert token_cache.cache_path(Own, chatml, 60, STEPS) is None
    monkeypatch.setattr(token_cache, "FEWEST_ROWS", len(STEPS) + 1)
    assert token_cache.cache_path(Steps, chatml, 60, STEPS) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder"])
def test_a_damaged_file_is_made_again(damage, chatml, jsonl, cache):
    path = jsonl(PAIRS)
    first = load(Preferences, chatml, path)
    (file,) = cache.iterdir()
    data = file.read_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes({"cut": data[:-9], "flipped": bytes(flipped), "empty": b""}[damage])
    again = load(Preferences, chatml, path)
    note = again[-1]["notes"].pop(0)
    assert again == first and note == f"{file} is damaged; its rows are tokenized again"
    assert damage == "a folder" or file.read_bytes() == data


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(chatml, jsonl, cache):
    cache.parent.write_text("a file")
    path = jsonl(PAIRS)
    assert load(Preferences, chatml, path) == load(Preferences, chatml, path)


def test_what_was_not_used_for_the_longest_time_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "CACHE_BYTES", 250)
    for age, name in enumerate(["new", "used", "old", "oldest"]):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(b"x" * 100)
        os.utime(file, (1000 - age, 1000 - age))
    token_cache.delete_oldest(tmp_path)
    assert sorted(file.stem for file in tmp_path.iterdir()) == ["new", "used"]

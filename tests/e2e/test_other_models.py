"""Another model in a run: one instance, the same vocabulary, the same weights when resumed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import alignzoo_suite
from alignzoo import BadInput


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A copy of zoo-tiny whose tokenizer exchanges two tokens."""
    path = tmp_path / "other"
    shutil.copytree(Path(alignzoo_suite.__path__[0]) / "zoo_tiny", path)
    text = Tokenizer.from_file(str(path / "tokenizer.json")).to_str()
    vocabulary = Tokenizer.from_str(text).get_vocab()
    one, two = sorted(vocabulary, key=vocabulary.get)[300:302]
    # The numbers change places.
    pairs = f'"{one}":{vocabulary[one]}', f'"{two}":{vocabulary[two]}'
    swapped = f'"{one}":{vocabulary[two]}', f'"{two}":{vocabulary[one]}'
    for before, after in zip(pairs, swapped, strict=True):
        assert before in text
        text = text.replace(before, after)
    (path / "tokenizer.json").write_text(text, encoding="utf-8")
    return path


def test_a_model_of_another_vocabulary_is_no_teacher(make_run, other):
    run = make_run("sft", task="sums")
    assert run.load_model(str(other)) is run.load_model(str(other))
    with pytest.raises(BadInput, match="the vocabulary of .*other is not that of zoo-tiny"):
        run.load_model(str(other), same_tokens=True)


def test_other_weights_under_the_same_name_are_refused(make_run):
    run = make_run("sft", task="sums")
    run.record.set_fact("models", {"zoo-tiny": "something else"})
    with pytest.raises(BadInput, match="zoo-tiny: the weights have changed since the run began"):
        run.load_model("zoo-tiny")

"""What a row is known by, how rows make up parts, and files that nobody can trust."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.batch import Example, collate
from alignzoo.files import cache_home
from alignzoo.policy.known import ReferenceCache, completion_key, completion_keys
from alignzoo.training.reference_cache import (
    GROUPS_PER_PART,
    read_part,
    split_into_parts,
    write_part,
)

PAIRS = [Example([1, 2], [[3, 4, 5], [6]]), Example([7], [[8], [9, 10]])]


def test_a_completion_is_its_tokens_and_those_of_its_prompt():
    def key(prompt, completion):
        return completion_key(np.array(prompt), np.array(completion))

    keys = [key([1, 2], [3]), key([1], [2, 3]), key([1, 2], [3, 0]), key([1, 2], [4]), key([], [3])]
    assert len(set(keys)) == len(keys)
    assert keys[0] == key([1, 2], [3])


def test_found_in_whatever_batch_it_comes():
    batch = collate(PAIRS)
    logprobs = torch.tensor([[-1.0, -2, -3], [-4, 0, 0], [-5, 0, 0], [-6, -7, 0]])
    values = {
        key: row[:n]
        for key, row, n in zip(
            completion_keys(batch), logprobs, batch.lengths.tolist(), strict=True
        )
    }
    cache = ReferenceCache(values)
    assert torch.equal(cache.find(batch), logprobs)
    # Other padding, another order, other pad tokens.
    assert torch.equal(cache.find(batch.select([1, 0])), logprobs[[2, 3, 0, 1]])
    assert torch.equal(cache.find(batch.select([1])), logprobs[2:, :2])
    for part in collate(PAIRS, pad=9).split(1):
        assert cache.find(part) is not None
    assert cache.find(collate([PAIRS[0], Example([7], [[8, 9]])])) is None


@given(st.integers(1, 1500), st.randoms())
def test_parts_do_not_depend_on_the_order(n, random):
    examples = [Example([i], [[i, 1], [2]]) for i in range(n)]
    shuffled = examples * 2
    random.shuffle(shuffled)
    parts = split_into_parts(examples)
    assert parts == split_into_parts(shuffled)
    assert sorted(e.prompt[0] for part in parts.values() for e in part) == list(range(n))
    assert n / len(parts) < 2 * GROUPS_PER_PART


def test_a_row_that_changes_leaves_the_other_parts_alone():
    examples = [Example([i], [[1], [2]]) for i in range(3000)]
    before = split_into_parts(examples)
    after = split_into_parts([*examples[:100], Example([100], [[1], [3]]), *examples[101:]])
    assert len(before) == 16
    assert len(before.keys() - after.keys()) <= 2


@pytest.fixture
def notes():
    return []


@pytest.fixture
def run(notes):
    return SimpleNamespace(ui=SimpleNamespace(note=notes.append))


VALUES = {bytes([i] * 16): torch.arange(i + 1) - 0.5 for i in range(4)}


def test_written_and_read_back(run, notes, tmp_path):
    path = tmp_path / "deep/er/part.safetensors"
    assert read_part(run, path) is None
    write_part(run, path, VALUES)
    found = read_part(run, path)
    assert found.keys() == VALUES.keys() and notes == []
    assert all(torch.equal(found[key], value) for key, value in VALUES.items())
    assert [p.name for p in path.parent.iterdir()] == ["part.safetensors"]


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_not_read(run, notes, tmp_path, harm):
    path = tmp_path / "part.safetensors"
    write_part(run, path, VALUES)
    data = path.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    path.write_bytes({"cut": data[:-3], "flipped": flipped, "empty": b"", "other": b"no"}[harm])
    assert read_part(run, path) is None
    assert notes == [f"{path} is damaged; its log-probs are computed again"]
    write_part(run, path, VALUES)
    assert read_part(run, path).keys() == VALUES.keys()


def test_a_disk_that_takes_nothing_is_a_note(run, notes, tmp_path):
    (tmp_path / "file").write_text("")
    write_part(run, tmp_path / "file/part.safetensors", VALUES)
    assert len(notes) == 1 and "could not be cached" in notes[0]


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ALIGNZOO_CACHE", raising=False)
    assert cache_home() == tmp_path / "alignzoo"
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "own"))
    assert cache_home() == tmp_path / "own"

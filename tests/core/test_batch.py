"""Batches: shapes, masks from positions, and splits that lose nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignzoo.batch import Batch, Example, collate, concat


def pair_batch() -> Batch:
    return collate(
        [
            Example([1, 2, 3], [[4, 5], [6]], columns={"label": [True, False]}, row={"id": "a"}),
            Example([7], [[8, 9, 10], [11, 12]], columns={"label": [False, True]}, row={"id": "b"}),
        ]
    )


def test_collate_pads_on_the_right_and_masks_by_position():
    batch = pair_batch()
    assert batch.prompts.tolist() == [[1, 2, 3], [7, 0, 0]]
    assert batch.tokens.tolist() == [[4, 5, 0], [6, 0, 0], [8, 9, 10], [11, 12, 0]]
    assert batch.mask.sum(1).tolist() == batch.lengths.tolist() == [2, 1, 3, 2]
    assert batch.group.tolist() == [0, 0, 1, 1]
    assert batch["label"].tolist() == [True, False, False, True]


def test_a_token_that_equals_the_pad_id_still_counts():
    batch = collate([Example([0, 0], [[0, 0, 0], [5]])], pad=0)
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]


def test_positions_that_are_context_only():
    batch = collate([Example([1], [[2, 3, 4]], masks=[[True, False, True]])])
    assert batch.lengths.tolist() == [3]
    assert batch.mask.tolist() == [[True, False, True]]
    assert batch.total(torch.tensor([[1.0, 10.0, 100.0]])).tolist() == [101.0]


def square_batch() -> Batch:
    """N == T == 2, so that `[N]` broadcasts against `[N, T]` without an error of torch's."""
    return collate([Example([1], [[4, 5], [6]])])


@pytest.mark.parametrize("reduce", ["total", "mean", "last"])
@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2), (2, 2, 2)])
def test_what_is_reduced_over_tokens_has_a_value_for_each(reduce, shape):
    batch = square_batch()
    assert getattr(batch, reduce)(torch.ones(2, 2)).shape == (2,)
    with pytest.raises(ValueError, match=r"per token is \[N, T\] = \[2, 2\]"):
        getattr(batch, reduce)(torch.ones(shape))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (2, 2, 1)])
def test_a_column_is_per_completion_or_per_token(shape):
    batch = square_batch()
    batch.columns |= {"good": torch.zeros(2), "good too": torch.zeros(2, 2)}
    batch.select([0])
    batch.columns["bad"] = torch.zeros(shape)
    for use in (
        lambda: batch.split(9),
        lambda: batch.keep(torch.tensor([True, False])),
        lambda: batch.to("cpu"),
        lambda: concat([batch]),
        lambda: replace(batch),
    ):
        with pytest.raises(ValueError, match="column 'bad'"):
            use()


def test_completions_are_without_padding():
    assert pair_batch().completions() == [[4, 5], [6], [8, 9, 10], [11, 12]]


def test_values_are_grouped_by_prompt():
    batch = collate([Example([1], [[2], [3]]), Example([1], []), Example([1], [[4]])])
    assert batch.grouped(["a", "b", "c"]) == [["a", "b"], [], ["c"]]
    with pytest.raises(ValueError, match="shorter"):
        batch.grouped(["a", "b"])


def test_pairs_are_chosen_then_rejected():
    chosen, rejected = pair_batch().pairs(torch.arange(4))
    assert chosen.tolist() == [0, 2]
    assert rejected.tolist() == [1, 3]


def test_pairs_of_something_else_are_refused():
    single = collate([Example([1], [[2]])])
    with pytest.raises(ValueError, match="groups of 2"):
        single.pairs(torch.zeros(1))
    uneven = collate([Example([1], [[2], [3], [4]]), Example([1], [[2]])])
    with pytest.raises(ValueError, match="differ in size"):
        uneven.groups(torch.zeros(4))


def test_select_trims_padding_and_keeps_order():
    batch = pair_batch().select([1])
    assert batch.prompts.tolist() == [[7]]
    assert batch.tokens.tolist() == [[8, 9, 10], [11, 12, 0]]
    assert batch.rows == [{"id": "b"}]
    assert batch["label"].tolist() == [False, True]
    swapped = pair_batch().select([1, 0])
    assert [row["id"] for row in swapped.rows] == ["b", "a"]
    assert swapped.group.tolist() == [0, 0, 1, 1]


def test_columns_per_token_are_trimmed_with_the_tokens():
    batch = pair_batch()
    batch.columns["advantages"] = torch.arange(12.0).reshape(4, 3)
    assert batch.select([0])["advantages"].tolist() == [[0.0, 1.0], [3.0, 4.0]]


examples = st.lists(
    st.builds(
        Example,
        st.lists(st.integers(0, 9), min_size=1, max_size=9),
        st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=50)
@given(examples, st.integers(1, 60))
def test_a_split_holds_every_group_once_and_keeps_the_bound(rows, max_tokens):
    batch = collate(rows)
    parts = batch.split(max_tokens)
    seen = sorted(
        (tuple(p[:n].tolist()), tuple(t[:k].tolist()))
        for part in parts
        for b, (p, n) in enumerate(zip(part.prompts, part.prompt_lengths, strict=True))
        for t, k, g in zip(part.tokens, part.lengths, part.group, strict=True)
        if int(g) == b
    )
    assert seen == sorted((tuple(e.prompt), tuple(c)) for e in rows for c in e.completions)
    for part in parts:
        assert len(part) == 1 or max(part.sizes()) * len(part) <= max_tokens


def test_a_function_of_micro_batches_is_put_together_in_order():
    batch = collate([Example([1], [[4], [5, 6]]), Example([1] * 9, [[7, 8, 9], [3]])])
    widths = []

    def twice(micro):
        widths.append(micro.tokens.shape[1])
        return 2.0 * micro.tokens

    assert batch.piecewise(twice, 1).tolist() == (2.0 * batch.tokens).tolist()
    assert widths == [3, 2]


def test_a_number_per_completion_is_put_together_in_order_too():
    batch = collate([Example([1], [[4], [5, 6]]), Example([1] * 9, [[7, 8, 9], [3]])])
    assert batch.piecewise(lambda micro: micro.lengths, 1).tolist() == [1, 2, 3, 1]


def test_completions_are_kept_with_their_columns_and_groups_without_any_are_gone():
    batch = collate(
        [
            Example([1], [[4], [5, 6]], columns={"n": [0, 1]}, row={"b": 0}),
            Example([2, 2], [[7], [8]], columns={"n": [2, 3]}, row={"b": 1}),
            Example([3], [[9], [3]], columns={"n": [4, 5]}, row={"b": 2}),
        ]
    )
    kept = batch.keep(torch.tensor([False, True, False, False, True, True]))
    assert kept["n"].tolist() == [1, 4, 5]
    assert kept.group.tolist() == [0, 1, 1]
    assert kept.prompts[:, 0].tolist() == [1, 3]
    assert [row["b"] for row in kept.rows] == [0, 2]
    assert [kept.tokens[n, : kept.lengths[n]].tolist() for n in range(3)] == [[5, 6], [9], [3]]
    nothing = batch.keep(torch.zeros(6, dtype=torch.bool))
    assert nothing.piecewise(lambda micro: micro.tokens, 9).shape == (0, 2)


def test_of_a_batch_nothing_may_be_kept():
    batch = pair_batch()
    nothing = batch.keep(torch.zeros(len(batch.tokens), dtype=torch.bool))
    assert len(nothing) == len(nothing.tokens) == len(nothing.rows) == 0
    assert nothing.mask.shape[0] == nothing.group.numel() == 0
    assert {name: len(x) for name, x in nothing.columns.items()} == dict.fromkeys(batch.columns, 0)
    assert nothing.split(10) == [] and len(nothing.select([])) == 0


def test_concatenated_batches_are_those_of_all_their_groups():
    batch = pair_batch()
    batch.columns["per_token"] = torch.arange(batch.tokens.numel()).reshape(batch.tokens.shape)
    parts = [batch.select([0]), batch.select([]), batch.select(range(1, len(batch)))]
    whole = concat(parts)
    for name, x in vars(batch).items():
        if isinstance(x, torch.Tensor) and name not in ("tokens", "prompts"):
            assert torch.equal(getattr(whole, name), x), name
    assert whole.rows == batch.rows
    for n, length in enumerate(batch.lengths.tolist()):
        assert torch.equal(whole.tokens[n, :length], batch.tokens[n, :length])
        one, other = whole["per_token"][n, :length], batch["per_token"][n, :length]
        assert torch.equal(one, other)

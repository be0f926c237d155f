"""Every row once per epoch, whatever the sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignzoo.data.order import Order

SIZES = st.integers(1, 40)


@given(SIZES, SIZES, st.integers(0, 3))
def test_every_epoch_is_a_permutation(n, batch_size, seed):
    order = Order(n, batch_size, seed)
    steps = -(-3 * n // batch_size)
    batches = [order.batch(step) for step in range(steps)]
    assert all(len(batch) == batch_size for batch in batches)
    stream = [row for batch in batches for row in batch]
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(SIZES, SIZES, st.integers(0, 50))
def test_a_step_needs_no_history(n, batch_size, step):
    used = Order(n, batch_size, 0)
    for earlier in range(step):
        used.batch(earlier)
    assert Order(n, batch_size, 0).batch(step) == used.batch(step)


def test_seeds_and_epochs_differ_and_the_order_never_changes():
    order = Order(50, 50, 0)
    assert order.batch(0) != order.batch(1) != Order(50, 50, 1).batch(0)
    # Written down: a run that was begun by an earlier version must resume in the same order.
    assert Order(6, 4, 0).batch(0) == PINNED


PINNED = [3, 0, 4, 1]


def test_an_order_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="needs rows"):
        Order(0, 4, 0)

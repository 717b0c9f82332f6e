"""The order of the examples: a function of seed and epoch, complete, whatever the number of processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations.support.process import Rank
from hero_plugin.integrations.training.batching import EpochOrder, length_sorted
from hero_plugin.integrations.training.distributed import BatchShard
from hero_plugin.integrations.training.optim import linear_decay

sizes, seeds, epochs = st.integers(1, 60), st.integers(0, 2**40), st.integers(0, 100)


@given(sizes, st.integers(1, 20), seeds, epochs)
def test_every_example_comes_once_and_batches_are_as_many_as_promised(size, batch_size, seed, epoch):
    order = EpochOrder(size, batch_size, seed)
    batches = order.batches(epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(size))
    assert len(batches) == len(order)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert EpochOrder(size, batch_size, seed).batches(epoch) == batches


@given(sizes, st.integers(1, 9), st.integers(0, 2))
def test_processes_share_a_batch_each_row_once(size, world, following_rows):
    shares = [BatchShard.of(size, Rank(index, world), following_rows) for index in range(world)]
    own = [share.rows[: share.count] for share in shares]
    assert [row for rows in own for row in rows] == list(range(size))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    for share in shares:
        assert share.total == size
        assert share.counts == tuple(map(len, own))
        assert len(share.rows) >= 1
        if world > 1 and share.count:
            behind = [(share.rows[share.count - 1] + place) % size for place in range(1, following_rows + 1)]
            assert list(share.rows[share.count :]) == behind


def test_epochs_and_seeds_differ():
    order = EpochOrder(50, 50, 0)
    assert order.batches(0) != order.batches(1)
    assert order.batches(1) != EpochOrder(50, 50, 1).batches(0)


@given(st.lists(st.integers(1, 128), max_size=40), st.integers(1, 9))
def test_sorted_batches_go_from_long_to_short_and_lose_nothing(lengths, batch_size):
    flat = [index for batch in length_sorted(lengths, batch_size) for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"batch_size": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        EpochOrder(**{"size": 4, "batch_size": 2, "seed": 0, **wrong})


def test_the_learning_rate_falls_on_a_line_to_zero_after_its_warmup():
    assert [linear_decay(step, 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [linear_decay(step, 6, warmup=2) for step in range(7)] == [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]

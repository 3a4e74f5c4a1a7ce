"""The endless stream of samples: order, ranks, resume."""

from __future__ import annotations

from itertools import islice

import pytest

from mst_pretrain.data.sampler import ResumableSampler

Pair = tuple[int, int]


def sampler(
    size: int, rank: int = 0, world_size: int = 1, shuffle: bool = True, seed: int = 3
) -> ResumableSampler:
    made = ResumableSampler(range(size), shuffle=shuffle, seed=seed)
    made.rank, made.world_size = rank, world_size
    return made


def take(made: ResumableSampler, count: int) -> list[Pair]:
    return list(islice(iter(made), count))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 7, 20])
def test_each_epoch_holds_every_sample_once(size: int, shuffle: bool) -> None:
    """Images would be seen twice or never; epochs would share one order."""
    stream = take(sampler(size, shuffle=shuffle), 3 * size)
    orders = []
    for epoch in range(3):
        part = stream[epoch * size : (epoch + 1) * size]
        assert [e for e, _ in part] == [epoch] * size
        orders.append([index for _, index in part])
        assert sorted(orders[-1]) == list(range(size))
    assert (orders == [list(range(size))] * 3) == (not shuffle or size == 1)
    if shuffle and size > 1:
        assert orders[0] != orders[1] != orders[2]


def test_order_depends_on_the_seed() -> None:
    """Two runs with different seeds would see the same order, or one run two."""
    assert take(sampler(20, seed=3), 40) == take(sampler(20, seed=3), 40)
    assert take(sampler(20, seed=3), 20) != take(sampler(20, seed=4), 20)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_together_are_one_rank_with_a_larger_batch(ranks: int) -> None:
    """Processes would train on overlapping samples, or on others than one process with the same global batch."""
    size, batch, steps = 7, 2, 10
    streams = [take(sampler(size, rank, ranks), batch * steps) for rank in range(ranks)]
    single = take(sampler(size), ranks * batch * steps)
    for step in range(steps):
        together = [pair for stream in streams for pair in stream[step * batch : (step + 1) * batch]]
        assert sorted(together) == sorted(single[step * ranks * batch : (step + 1) * ranks * batch])
    assert [streams[p % ranks][p // ranks] for p in range(len(single))] == single


@pytest.mark.parametrize("consumed", [0, 5, 7, 16])
def test_a_stream_is_entered_anywhere(consumed: int) -> None:
    """A resumed run would repeat or skip samples inside an epoch, or other processes would see others."""
    whole = take(sampler(7), 30)
    second = sampler(7)
    second.position = consumed
    assert take(second, 30 - consumed) == whole[consumed:]
    on_two = []
    for rank in range(2):
        made = sampler(7, rank, 2)
        made.position = consumed
        on_two.append(take(made, 5))
    assert [pair for pairs in zip(*on_two, strict=True) for pair in pairs] == whole[consumed : consumed + 10]

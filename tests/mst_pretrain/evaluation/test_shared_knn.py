"""k-NN whose training features lie in several processes, here threads that exchange their neighbours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from mst_pretrain.evaluation import shared_knn as module
from mst_pretrain.evaluation.knn import knn_predict
from mst_pretrain.evaluation.shared_knn import shared_knn

Ranks = Callable[..., list[dict[int, Tensor]]]


@pytest.fixture
def in_ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Call :func:`shared_knn` in this many ranks and return what each has predicted."""
    local = threading.local()

    def call(
        world: int, train: Tensor, labels: Tensor, test: Tensor, ks: list[int]
    ) -> list[dict[int, Tensor]]:
        shown: dict[int, Tensor] = {}
        barrier = threading.Barrier(world)

        def beside(part: Tensor) -> Tensor:
            shown[local.rank] = part
            barrier.wait()
            found = torch.cat([shown[rank] for rank in range(world)], 1)
            barrier.wait()
            return found

        def one(rank: int) -> dict[int, Tensor]:
            local.rank = rank
            try:
                return shared_knn(train[rank::world], labels, test, ks, 0.07)
            except BaseException:
                barrier.abort()
                raise

        monkeypatch.setattr(module, "world_size", lambda: world)
        monkeypatch.setattr(module, "rank", lambda: local.rank)
        monkeypatch.setattr(module, "_beside", beside)
        with ThreadPoolExecutor(world) as pool:
            return list(pool.map(one, range(world)))

    return call


@pytest.mark.parametrize("world", [2, 3, 7])
@pytest.mark.parametrize("chunk", [4, 1024])
def test_every_number_of_processes_finds_the_same(
    in_ranks: Ranks, monkeypatch: pytest.MonkeyPatch, world: int, chunk: int
) -> None:
    """A neighbour of another process would be lost, or be given the label of another image."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(world)
    labels = torch.randint(9, (200,), generator=generator)
    train = torch.randn(9, 6, generator=generator)[labels] + torch.randn(200, 6, generator=generator)
    train[100:120], labels[100:120] = 4 * train[:20], labels[:20].flip(0)  # equally near, of other classes
    test = torch.randn(23, 6, generator=generator)
    expected = knn_predict(train, labels, test, [1, 5, 60, 200])
    assert len({tuple(predicted.tolist()) for predicted in expected.values()}) > 2
    for got in in_ranks(world, train, labels, test, [1, 5, 60, 200]):
        assert {k: value.tolist() for k, value in got.items()} == {k: v.tolist() for k, v in expected.items()}


def test_a_process_without_training_images(in_ranks: Ranks) -> None:
    """With fewer images than processes the vote would wait for neighbours that nobody has."""
    train, labels = torch.eye(3), torch.tensor([2, 0, 1])
    for got in in_ranks(5, train, labels, train, [1, 3]):
        assert got[1].tolist() == [2, 0, 1]


def test_an_impossible_k_is_refused_in_several_processes(in_ranks: Ranks) -> None:
    """Neighbours that do not exist would vote for the class of the last image."""
    with pytest.raises(ValueError, match="between 1 and the 5 training images"):
        in_ranks(2, torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), torch.randn(2, 3), [6])

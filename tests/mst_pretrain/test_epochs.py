"""Which image is seen when: folders and shards, any number of workers and ranks."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from mst_pretrain.data.sampler import ResumableSampler
from mst_pretrain.data.sources import ImageSource, open_source

PHOTOS, BATCH = 4999, 32
SHARDS = (1200, 3, 900, 1500, 1, 995, 400)  # uneven, 4,999 in all


class Seen(Dataset):
    """(epoch, the photo's own number, read from its bytes)."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, int]:
        epoch, index = item
        return epoch, int(self.source.read(index).split(b"number ")[1][:4])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,999 files and the same in 7 shards; only their bytes matter here, so they are no whole JPEGs."""
    root = tmp_path_factory.mktemp("many")
    (root / "folder").mkdir()
    contents = [f"number {index:04d}".encode() for index in range(PHOTOS)]
    for index, content in enumerate(contents):
        (root / "folder" / f"{index:04d}.jpg").write_bytes(content)
    start = 0
    assert sum(SHARDS) == PHOTOS
    for number, size in enumerate(SHARDS):
        with tarfile.open(root / f"train-{number}.tar", "w") as tar:
            for index in range(start, start + size):
                member = tarfile.TarInfo(f"{index:04d}.jpg")
                member.size = len(contents[index])
                tar.addfile(member, io.BytesIO(contents[index]))
        start += size
    return root


def stream(spec: str, workers: int, ranks: int, samples: int) -> list[tuple[int, int]]:
    """The first samples that all ranks see together, in the order of the sampler's stream."""
    seen = []
    for rank in range(ranks):
        data = Seen(open_source(spec))
        sampler = ResumableSampler(data, seed=5)
        sampler.rank, sampler.world_size = rank, ranks
        mine: list[tuple[int, int]] = []
        for epochs, numbers in DataLoader(data, BATCH, sampler=sampler, num_workers=workers):
            mine += zip(epochs.tolist(), numbers.tolist(), strict=True)
            if len(mine) * ranks >= samples:
                break
        seen.append(mine)
    turns = chain.from_iterable(zip_longest(*seen))
    return [item for item in turns if item is not None][:samples]


def test_every_photo_once_per_epoch(photos: Path) -> None:
    """Photos would be lost or repeated by shards, workers or ranks, or every epoch have one order."""
    reference: list[tuple[int, int]] = []
    lines = ["source  workers  ranks  epoch 1  epoch 2  same order"]
    for name, spec in (("folder", "folder"), ("shards", "train-{0..6}.tar")):
        for workers in (0, 1, 3):
            for ranks in (1, 2):
                got = stream(str(photos / spec), workers, ranks, 2 * PHOTOS)
                reference = reference or got
                assert got == reference, (name, workers, ranks)
                first, second = ([number for epoch, number in got if epoch == e] for e in (0, 1))
                assert Counter(first) == Counter(second) == Counter(range(PHOTOS))
                equal = sum(one == other for one, other in zip(first, second, strict=True))
                assert equal < 20  # one is expected by chance
                lines.append(
                    f"{name}  {workers:7}  {ranks:5}  {len(set(first)):7}  {len(set(second)):7}  {equal:10}"
                )
    print("\n" + "\n".join(lines))


def test_the_last_incomplete_batch_is_filled_from_the_next_epoch(photos: Path) -> None:
    """The last photos of an epoch would be dropped, or a batch be smaller than the others."""
    got = stream(str(photos / "folder"), 0, 1, PHOTOS + BATCH)
    batches = [got[start : start + BATCH] for start in range(0, len(got) - BATCH + 1, BATCH)]
    assert all(len(batch) == BATCH for batch in batches)
    mixed = [batch for batch in batches if len({epoch for epoch, _ in batch}) == 2]
    assert len(mixed) == 1 and [epoch for epoch, _ in mixed[0]].count(0) == PHOTOS % BATCH

"""What a run sees in two epochs, by photo: files or shards, any number of workers, one or two ranks."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mst_pretrain.data.decode import decode_rgb
from mst_pretrain.data.sampler import ResumableSampler
from mst_pretrain.data.sources import open_source
from tests.forked import Forked, outputs_of

PHOTOS, BATCH, BITS, CELL = 1249, 64, 16, 8
SHARDS = (1, 37, 100, 213, 248, 250, 400)  # uneven, one of them a single photo
Seen = list[tuple[int, int]]  # (epoch, photo)


class PhotoNumbers(Dataset):
    """The number that is painted on each photo: what was really read, whatever the index says."""

    def __init__(self, spec: str) -> None:
        self.source = open_source(spec)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, int]:
        epoch, index = item
        pixels = np.asarray(decode_rgb(self.source.read(index), self.source.name(index)))[..., 0]
        bits = pixels[CELL // 2 :: CELL, CELL // 2 :: CELL].ravel() > 127
        return epoch, int(np.packbits(bits).view(">u2")[0])


def photo(number: int) -> bytes:
    """32 x 32 JPEG, its number as 4 x 4 black or white cells of a JPEG block each."""
    bits = np.unpackbits(np.array([number], ">u2").view(np.uint8)).reshape(4, 4) * np.uint8(255)
    buffer = io.BytesIO()
    Image.fromarray(bits.repeat(CELL, 0).repeat(CELL, 1)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same 1,249 photos as a folder and in seven shards, in another order there."""
    root = tmp_path_factory.mktemp("photos")
    (root / "folder").mkdir()
    assert sum(SHARDS) == PHOTOS and PHOTOS < 2**BITS
    photos = {number: photo(number) for number in range(PHOTOS)}
    for number, data in photos.items():
        (root / "folder" / f"{number}.jpg").write_bytes(data)
    order = iter(np.random.default_rng(0).permutation(PHOTOS).tolist())
    for shard, count in enumerate(SHARDS):
        with tarfile.open(root / f"s-{shard}.tar", "w") as tar:
            for number in (next(order) for _ in range(count)):
                member = tarfile.TarInfo(f"{number}.jpg")
                member.size = len(photos[number])
                tar.addfile(member, io.BytesIO(photos[number]))
    return {"folder": str(root / "folder"), "7 shards": f"{root}/s-*.tar", "root": str(root)}


@pytest.fixture(autouse=True)
def cache(specs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MST_CACHE", f"{specs['root']}/cache")


def two_epochs(data: PhotoNumbers, sampler: ResumableSampler, workers: int) -> Seen:
    """What one rank sees, until the last sample of the second epoch is among it."""
    loader = DataLoader(data, batch_size=BATCH, sampler=sampler, num_workers=workers)
    seen: Seen = []
    for epochs, numbers in loader:
        seen += zip(epochs.tolist(), numbers.tolist(), strict=True)
        if seen[-1][0] > 1:
            return seen
    raise AssertionError("the stream ended")


def rows_of(streams: list[Seen]) -> list[list[int]]:
    """Photos of each epoch, ranks taking turns as in training."""
    together = [pair for pairs in zip(*streams, strict=False) for pair in pairs]
    return [[number for epoch, number in together if epoch == wanted] for wanted in (0, 1)]


def assert_whole(streams: list[Seen]) -> None:
    first, second = rows_of(streams)
    everything = Counter(range(PHOTOS))
    assert Counter(first) == everything and Counter(second) == everything
    assert first != second and first != sorted(first)


def show(source: str, workers: int, ranks: str, streams: list[Seen]) -> None:
    """One row of the table that ``pytest -s`` prints."""
    counts = [Counter(number for stream in streams for epoch, number in stream if epoch == e) for e in (0, 1)]
    first, second = rows_of(streams)
    line = [f"{source:<8} {workers:>7}  {ranks:<13}"]
    for count in counts:
        missing, twice = PHOTOS - len(count), sum(count.values()) - len(count)
        line.append(f"{sum(count.values()):>6} {len(count):>8} {missing:>7} {twice:>8}")
    moved = sum(a != b for a, b in zip(first, second, strict=True))
    print("  ".join(line), f"{moved:>11} of {len(first)}")


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
def test_every_photo_once_an_epoch(specs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos would be lost or repeated at shard, worker or rank borders, or every epoch have one order."""
    print(
        "\nsource   workers  ranks          epoch 1: seen, distinct, missing, repeated; epoch 2: the same; moved"
    )
    orders = set()
    for source in ("folder", "7 shards"):
        data = PhotoNumbers(specs[source])
        assert len(data) == PHOTOS
        for ranks in (1, 2):
            for workers in (0, 1, 3):
                streams = []
                for rank in range(ranks):
                    monkeypatch.setattr(
                        "mst_pretrain.data.sampler.get_dist_info",
                        lambda rank=rank, ranks=ranks: (rank, ranks),
                    )
                    streams.append(two_epochs(data, ResumableSampler(data, seed=3), workers))
                show(source, workers, str(ranks), streams)
                assert_whole(streams)
                if ranks == 1:  # 1249 = 19 * 64 + 33: the epoch's last batch is filled from the next epoch
                    assert [epoch for epoch, _ in streams[0]][19 * BATCH : 20 * BATCH] == [0] * 33 + [1] * 31
                orders.add((source, *rows_of(streams)[0]))
    assert len(orders) == 2  # of a source, whatever the workers and ranks


RANK = """
import json, sys
import torch.distributed as dist
sys.path.insert(0, sys.argv[1])
from test_epochs import PhotoNumbers, ResumableSampler, two_epochs
spec, rendezvous, rank, out = sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=2)
data = PhotoNumbers(spec)
sampler = ResumableSampler(data)  # the seed is drawn and shared
assert (sampler.rank, sampler.world_size) == (int(rank), 2)
with open(out, "w") as file:
    json.dump(two_epochs(data, sampler, workers=3), file)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_real_processes_share_the_photos(specs: dict[str, str], tmp_path: Path) -> None:
    """Processes would not agree on a seed, and see some photos twice and others never."""
    worker = tmp_path / "worker.py"
    worker.write_text(RANK)
    given = (str(Path(__file__).parent), specs["7 shards"], str(tmp_path / "rendezvous"))
    outputs_of([Forked(str(worker), *given, rank, str(tmp_path / f"{rank}.json")) for rank in ("0", "1")])
    streams = [
        [tuple(pair) for pair in json.loads((tmp_path / f"{rank}.json").read_text())] for rank in range(2)
    ]
    print()
    show("7 shards", 3, "2 processes", streams)
    assert_whole(streams)

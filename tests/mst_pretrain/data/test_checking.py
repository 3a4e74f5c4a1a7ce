"""Every image is looked at before the first step: once, in one process, and again only after a change.

This file is its own worker: ``python test_checking.py FOLDER RANK`` is one of two processes.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.utils.data import DataLoader

from mst_pretrain.data import files
from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.data.sampler import ResumableSampler
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.launch import check_pretraining
from mst_pretrain.training.loop import PretrainLoop
from mst_pretrain.training.runner import build_runner
from tests.forked import outputs_of, two_workers

MakeConfig = Callable[..., Config]
FIND = files.find_encoded_fault


def photos(folder: Path, count: int = 8) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return sorted(folder.iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.fixture
def looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of all files that a check reads, in a cache of its own."""
    sizes: list[int] = []

    def find(read: Callable[[int, int], bytes], size: int) -> str:
        sizes.append(size)
        return FIND(read, size)

    monkeypatch.setattr(files, "find_encoded_fault", find)
    monkeypatch.setenv("MST_CACHE", str(tmp_path / "cache"))
    yield sizes


def take(looked_at: list[int]) -> int:
    count = len(looked_at)
    looked_at.clear()
    return count


def test_only_new_and_changed_files_are_read_again(tmp_path: Path, looked_at: list[int]) -> None:
    """Every start on a million files would read each of them, or a file damaged later would not be found."""
    paths = photos(tmp_path / "images")
    (tmp_path / "list.txt").write_text("".join(f"images/{path.name}\n" for path in paths[:3]))
    for spec, count in (("images", 8), ("list.txt", 3)):
        open_source(tmp_path / spec).check()
        assert take(looked_at) == count
        open_source(tmp_path / spec).check()
        assert take(looked_at) == 0
    os.utime(paths[0], ns=(1, 1))  # another time
    paths[1].write_bytes(paths[1].read_bytes() + b"\0")  # another size
    photos(tmp_path / "more", 1)[0].rename(tmp_path / "images/new.jpg")
    open_source(tmp_path / "images").check()
    assert take(looked_at) == 3
    truncate(paths[2])
    for _ in range(2):  # what is broken is not remembered, what is whole is
        with pytest.raises(UserError, match=r"^1 of 9 images cannot be used: .*2\.jpg \(truncated JPEG"):
            open_source(tmp_path / "images").check()
        assert take(looked_at) == 1
    paths[3].unlink()
    os.symlink("nowhere", paths[3])
    for _ in range(2):
        with pytest.raises(UserError, match=r"^2 of 9 .*2\.jpg \(trunc.*3\.jpg \(No such file"):
            open_source(tmp_path / "images").check()


@pytest.mark.parametrize("damage", ["cut", "text", "other type", "folder in its place", "cache is a file"])
def test_a_cache_that_cannot_be_used_costs_only_time(
    tmp_path: Path, looked_at: list[int], damage: str
) -> None:
    """A full or read-only home, or a file cut by a full disk, would stop every run."""
    photos(tmp_path / "images")
    open_source(tmp_path / "images").check()
    assert take(looked_at) == 8
    (kept,) = (tmp_path / "cache").rglob("*.npy")
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:20])
    elif damage == "text":
        kept.write_text("no array")
    elif damage == "other type":
        np.save(kept, np.zeros(8))
    elif damage == "folder in its place":
        kept.unlink()
        (kept / "x").mkdir(parents=True)
    else:
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").write_text("")
    open_source(tmp_path / "images").check()
    assert take(looked_at) == 8


def test_a_run_looks_once_and_a_resumed_one_not_at_all(
    toy_config: MakeConfig, tmp_path: Path, looked_at: list[int]
) -> None:
    """Every start and resume of a run on a million files would begin with reading all of them."""
    photos(tmp_path / "images")
    first = toy_config(data_root=str(tmp_path / "images"), train_cfg__max_iters=1)
    build_runner(first).train()
    assert take(looked_at) == 8
    build_runner(toy_config(data_root=str(tmp_path / "images"), train_cfg__max_iters=1)).train()
    assert take(looked_at) == 0
    shutil.rmtree(tmp_path / "cache")
    latest = str(Path(first.work_dir, "latest.pth"))
    again = toy_config(
        data_root=str(tmp_path / "images"), train_cfg__max_iters=2, resume=True, load_from=latest
    )
    runner = build_runner(again)
    runner.train()
    assert take(looked_at) == 0 and runner.train_loop.iter == 2
    unchecked = toy_config(
        data_root=str(tmp_path / "images"), train_cfg__max_iters=1, train_dataloader__dataset__check=False
    )
    build_runner(unchecked).train()
    assert take(looked_at) == 0


def test_a_truncated_image_stops_the_run_before_its_first_step(
    toy_config: MakeConfig, tmp_path: Path, looked_at: list[int]
) -> None:
    """A half-copied photograph would stop the run hours later, or only after the initial weights were written."""
    truncate(photos(tmp_path / "images")[5])
    cfg = toy_config(data_root=str(tmp_path / "images"), train_cfg__max_iters=1)
    with pytest.raises(UserError, match=r"^1 of 8 images cannot be used: .*5\.jpg \(truncated JPEG: no end"):
        build_runner(cfg).train()
    assert not list(Path(cfg.work_dir).rglob("*.pth"))


def test_a_folder_is_not_listed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the data root before anything is built would list a million files that are listed again later."""
    for folder in ("a", "b", "c"):
        photos(tmp_path / "images" / folder, 1)
    scanned: list[str] = []
    scandir = os.scandir

    def counted(path: Any) -> Any:
        scanned.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    dataset = {"type": "UnlabelledImages", "data_root": str(tmp_path / "images")}
    check_pretraining(Config({"train_dataloader": {"dataset": dataset}}))
    assert len(scanned) == 2 and scanned[1].rstrip("/").endswith("a")


@pytest.mark.parametrize("block", [1, 3])
def test_threads_keep_the_order_and_stop_early(block: int) -> None:
    """Results would belong to other files, a million of them fill the memory, or an interruption wait for them all."""
    begun: list[int] = []

    def square(number: int) -> int:
        begun.append(number)
        time.sleep(0.001 * (number % 3))
        return number * number

    assert list(files.in_threads(square, range(50), 4, block)) == [number * number for number in range(50)]
    begun.clear()
    results = files.in_threads(square, range(10_000), 2, block)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()
    assert len(begun) <= (files.AHEAD * 2 + 5) * block


def work(folder: Path, rank: int) -> None:
    """One of two processes whose collectives end after two seconds, on a check that takes four."""
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=timedelta(seconds=2)
    )
    sizes: list[int] = []

    def find(read: Callable[[int, int], bytes], size: int) -> str:
        sizes.append(size)
        time.sleep(4 if len(sizes) == 1 else 0)
        return FIND(read, size)

    files.find_encoded_fault = find
    said = ""
    try:
        data = UnlabelledImages(str(folder / "images"), dict(global_crops=[dict(size=8)], local_count=0))
        loader = DataLoader(data, batch_size=1, sampler=ResumableSampler(data, seed=0))
        runner: Any = SimpleNamespace(_resume=False, _load_from=None, model=None)
        PretrainLoop(runner, loader, max_iters=1)
        torch.distributed.barrier()
    except UserError as error:
        said = str(error)
    (folder / f"{rank}.txt").write_text(f"{len(sizes)}\n{said}", errors="surrogateescape")


@pytest.mark.parametrize("broken", [False, True])
def test_the_first_of_two_processes_looks_and_the_other_waits(tmp_path: Path, broken: bool) -> None:
    """Eight processes would read every file eight times; those that wait would time out, or go on without a word."""
    paths = photos(tmp_path / "images")
    if broken:
        truncate(paths[5])
        paths[5].rename(paths[5].with_name(os.fsdecode(b"5\xe9.jpg")))  # a name that is not UTF-8
    outputs_of(two_workers(__file__, tmp_path))
    first, second = (
        (tmp_path / f"{rank}.txt").read_text(errors="surrogateescape").split("\n", 1) for rank in range(2)
    )
    assert (first[0], second[0]) == ("8", "0")
    assert first[1] == second[1] and ("1 of 8 images cannot be used" in first[1]) == broken


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))

"""Start-up and memory of pretraining on very many files, and on the same images in tar shards.

Makes FOLDER/images, hard links to 100 photographs in 1000 class folders, and FOLDER/shards with the same images in 147
tar files, and measures of each

- the seconds from the start of tools/train.py to its first step: at the first start (empty cache), at the second, and
  at a resume,
- the proportional set size of each of 2 x 8 data workers, forked by two loading processes, after 200 and after 2,000
  draws of each. A page that n processes share counts for one n-th in each of them.

Prints one JSON line of each. FOLDER is kept and used again where it has as many files. It measures the toolkit that
``import mst_pretrain`` finds, so PYTHONPATH chooses another checkout:

    python benchmarks/many_files.py /tmp/many
    python benchmarks/many_files.py /tmp/many --sources shards
    PYTHONPATH=OTHER_CHECKOUT python benchmarks/many_files.py /tmp/many
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import mst_pretrain
from mst_pretrain.data.decode import decode_rgb
from mst_pretrain.data.sampler import ResumableSampler
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError, run_cli

ROOT = Path(mst_pretrain.__file__).resolve().parents[1]
PHOTOS, CLASSES = 100, 1000
SHARDS = 147  # as usual for ImageNet
LOADERS, WORKERS = 2, 8
DRAWS = (200, 2000)  # of each worker
TINY = [
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=2",
    "model.head.prototypes=32",
    "model.head.hidden_dim=32",
]


class Decoded(Dataset):
    """Sizes of the images of a source: what a worker does before it cuts crops."""

    def __init__(self, folder: str) -> None:
        self.source = open_source(folder)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> int:
        _, index = item
        return decode_rgb(self.source.read(index), self.source.name(index)).width


def make_folder(folder: Path, files: int, photos: Path | None) -> Path:
    """``folder/images`` with this many files in class folders; one that is there and has as many is used again."""
    images, made = folder / "images", folder / "files.json"
    if made.is_file() and json.loads(made.read_text()) == files:
        return images
    if folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is not empty and not of this benchmark with {files} files. Give another folder."
        )
    originals = folder / "originals"
    originals.mkdir(parents=True)
    found = sorted(photos.rglob("*.jp*g"))[:PHOTOS] if photos else []
    if photos and len(found) < PHOTOS:
        raise UserError(f"{photos} holds {len(found)} JPEG files; {PHOTOS} are needed.")
    for number in range(PHOTOS):
        target = originals / f"{number}.jpg"
        if found:
            shutil.copyfile(found[number], target)
        else:
            pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(target)
    for number in range(CLASSES):
        (images / f"n{number:08}").mkdir(parents=True)
    for number in range(files):
        name = f"n{number % CLASSES:08}"
        os.link(originals / f"{number % PHOTOS}.jpg", images / name / f"{name}_{number}.JPEG")
    made.write_text(json.dumps(files))
    return images


def make_shards(folder: Path, files: int) -> Path:
    """``folder/shards``: the images of :func:`make_folder` in tar files; those that are there are used again."""
    shards, made = folder / "shards", folder / "shards.json"
    if made.is_file() and json.loads(made.read_text()) == files:
        return shards
    shutil.rmtree(shards, ignore_errors=True)
    shards.mkdir()
    photos = [(folder / "originals" / f"{number}.jpg").read_bytes() for number in range(PHOTOS)]
    for shard in range(SHARDS):
        with open(shards / f"many-{shard:06}.tar", "wb") as stream:
            for number in range(shard, files, SHARDS):
                photo = photos[number % PHOTOS]
                member = tarfile.TarInfo(f"n{number % CLASSES:08}/{number}.jpg")
                member.size = len(photo)
                stream.write(
                    member.tobuf(tarfile.USTAR_FORMAT) + photo + bytes(-len(photo) % tarfile.BLOCKSIZE)
                )
            stream.write(bytes(2 * tarfile.BLOCKSIZE))
    made.write_text(json.dumps(files))
    return shards


def seconds_to_first_step(images: Path, work: Path, steps: int, *arguments: str) -> float:
    """From the start of tools/train.py to the line of its first step."""
    config = ROOT / "configs/quickstart/pretrain.py"
    options = [f"data_root={images}", f"train_cfg.max_iters={steps}", *TINY]
    command = [
        sys.executable,
        "-u",
        str(ROOT / "tools/train.py"),
        str(config),
        "--work-dir",
        str(work / "run"),
    ]
    environment = {**os.environ, "MST_CACHE": str(work / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    seconds, said = None, []
    start = time.monotonic()
    with subprocess.Popen(
        [*command, *arguments, "--cfg-options", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if seconds is None and f"Step {steps}: input" in line:
                seconds = time.monotonic() - start
    if process.returncode or seconds is None:
        raise UserError(f"tools/train.py ended with {process.returncode}:\n{''.join(said[-20:])}")
    return seconds


def load(folder: str) -> None:
    """One loading process: draws, says who its workers are, and waits for a line to go on."""
    data = Decoded(folder)
    loader = DataLoader(
        data,
        batch_size=1,
        sampler=ResumableSampler(data, seed=0),
        num_workers=WORKERS,
        multiprocessing_context="fork",
    )
    batches: Any = iter(loader)
    drawn = 0
    for draws in DRAWS:
        for _ in islice(batches, (draws - drawn) * WORKERS):
            pass
        drawn = draws
        print(json.dumps([os.getpid(), *(worker.pid for worker in batches._workers)]), flush=True)
        sys.stdin.readline()


def proportional_set_size(process: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def workers_memory(images: Path) -> dict[str, Any]:
    """By number of draws: the size of each worker, their mean, and that of each loading process, in MiB."""
    command = [sys.executable, __file__, str(images), "--load"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    loaders: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(LOADERS)]
    found: dict[str, Any] = {}
    try:
        for draws in DRAWS:
            processes = [json.loads(loader.stdout.readline()) for loader in loaders]
            workers = [round(proportional_set_size(pid), 1) for pids in processes for pid in pids[1:]]
            found[str(draws)] = {
                "workers": workers,
                "mean": round(statistics.mean(workers), 1),
                "loaders": [round(proportional_set_size(pids[0]), 1) for pids in processes],
            }
            for loader in loaders:
                loader.stdin.write("\n")
                loader.stdin.flush()
        for loader in loaders:
            loader.wait(timeout=60)
    finally:
        for loader in loaders:
            loader.kill()  # after an error
    return found


def main(argv: list[str] | None = None) -> None:
    """Folder and shards; one JSON line of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="made, or used again")
    parser.add_argument("--files", type=int, default=1_280_000)
    parser.add_argument("--photos", type=Path, help=f"folder with {PHOTOS} JPEG files (default: drawn ones)")
    parser.add_argument("--sources", nargs="+", choices=("files", "shards"), default=["files", "shards"])
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.load:
        load(str(args.folder))
        return
    made = {"files": make_folder(args.folder, args.files, args.photos)}
    if "shards" in args.sources:
        made["shards"] = make_shards(args.folder, args.files)
    for source in args.sources:
        result = {
            "toolkit": str(ROOT),
            "source": source,
            "images": args.files,
            **measure(made[source], args.folder),
        }
        print(json.dumps(result), flush=True)


def measure(images: Path, folder: Path) -> dict[str, Any]:
    """Three starts and two loading processes."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    seconds = {
        "first": seconds_to_first_step(images, work, 1),
        "second": seconds_to_first_step(images, work, 1),
        "resume": seconds_to_first_step(images, work, 2, "--resume"),
    }
    return {
        "seconds_to_first_step": {name: round(value, 1) for name, value in seconds.items()},
        "proportional_set_size_mib": workers_memory(images),
    }


if __name__ == "__main__":
    run_cli(main)

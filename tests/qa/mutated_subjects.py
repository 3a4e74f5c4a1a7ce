"""The files of ``mutated_files.py``: small whole ones, and how our commands read each kind."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from mmengine.logging import HistoryBuffer
from mutated_files import Subject
from PIL import Image

from mst_pretrain.checkpoints.conversion import convert_checkpoint
from mst_pretrain.checkpoints.inspection import inspect_checkpoint
from mst_pretrain.checkpoints.storage import load_checkpoint, save_safetensors
from mst_pretrain.data.decode import decode_rgb
from mst_pretrain.data.shards import ShardSource
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UnusableImage

MODEL = "vit_small_patch16_224"
FORMATS = {
    "run.pth": "PyTorch's format, with checksums",
    "dino.pth": "PyTorch's before 1.6, without checksums",
    "vit.safetensors": ".safetensors, without checksums",
}
SHAPE: dict[str, Any] = dict(img_size=32, embed_dim=32, depth=2, num_heads=2)


def checkpoints(folder: Path) -> Subject:
    """A file of a pretraining, DINO's layout in torch's older format, and a ``.safetensors`` file, of one small ViT.

    Read as mst inspect_checkpoint and mst convert_checkpoint do.
    """
    torch.manual_seed(0)
    state = {
        k: torch.randn_like(v)
        for k, v in timm.create_model(MODEL, num_classes=0, **SHAPE).state_dict().items()
    }
    named = {
        f"{role}.backbone.{key}": value for role in ("student", "teacher") for key, value in state.items()
    }
    history = HistoryBuffer(np.arange(20.0), np.ones(20, np.int64))
    run = {
        "state_dict": named,
        "meta": {"iter": 20, "epoch": 1, "seed": 0, "experiment_name": "run"},
        "message_hub": {"log_scalars": {"train/loss": history}, "runtime_info": {"iter": 20}},
        "optimizer": {
            "state": {0: {"exp_avg": torch.zeros(32)}},
            "param_groups": [{"lr": 1e-3, "params": [0]}],
        },
    }
    torch.save(run, folder / "run.pth")
    dino = {"teacher": {f"backbone.{key}": value for key, value in state.items()}, "epoch": 3}
    torch.save(dino, folder / "dino.pth", _use_new_zipfile_serialization=False)
    save_safetensors(state, folder / "vit.safetensors", {"source": "test"})
    whole = [(path, path.read_bytes()) for path in sorted(folder.glob("*.*")) if path.is_file()]
    weights = {key: value.numpy().tobytes() for key, value in state.items()}

    def read(path: Path) -> str:
        new = folder / "new.safetensors"
        inspect_checkpoint(path)
        try:
            convert_checkpoint(path, new, model=MODEL, model_args=SHAPE)
            written = load_checkpoint(new)["state_dict"]
        finally:
            new.unlink(missing_ok=True)
        same = {key: value.numpy().tobytes() for key, value in written.items()} == weights
        return f"read, {'all weights equal' if same else 'another weight'} ({FORMATS[path.name]})"

    return Subject("checkpoints", whole, read)


def encoded(number: int, kind: str) -> bytes:
    """A small picture as a file."""
    pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def shards(folder: Path) -> Subject:
    """A shard of eight labelled pictures, in the three forms of tar; every picture is decoded."""
    whole = []
    for name, form in (
        ("u.tar", tarfile.USTAR_FORMAT),
        ("g.tar", tarfile.GNU_FORMAT),
        ("p.tar", tarfile.PAX_FORMAT),
    ):
        with tarfile.open(folder / name, "w", format=form) as tar:
            for number in range(8):
                kind = ("JPEG", "PNG", "WEBP", "BMP")[number % 4]
                deep = "x" * 120 if number == 7 else "a"  # a name that needs an extended header
                for suffix, content in (
                    (kind.lower(), encoded(number, kind)),
                    ("cls", str(number % 3).encode()),
                ):
                    member = tarfile.TarInfo(f"{deep}/{number:03}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        whole.append((folder / name, (folder / name).read_bytes()))

    def content(source: Any) -> list[tuple[str, int, bytes]]:
        members = (source.name(index).rpartition("/")[2] for index in range(len(source)))
        pixels = (
            decode_rgb(source.read(index), source.name(index)).tobytes() for index in range(len(source))
        )
        return sorted(zip(members, source.labels.tolist(), pixels, strict=True))

    expected = content(open_source(folder / "u.tar", labelled=True))

    def read(path: Path) -> str:
        with contextlib.redirect_stdout(io.StringIO()):
            source = ShardSource([path], labelled=True)
        source.check()
        try:
            found = content(source)
        except UnusableImage:
            return "read; a picture is named as undecodable when it is drawn"
        if found == expected:
            return "read, all pictures and labels equal"
        same = [one[1:] for one in found] == [one[1:] for one in expected]
        return "read, another name (no checksum)" if same else "read, another picture or label (no checksum)"

    return Subject("shards", whole, lambda path: _uncached(folder, path, read))


def _uncached(folder: Path, path: Path, read: Any) -> str:
    """Read, and remove the kept index, which belongs to the whole command and not to a file."""
    try:
        return str(read(path))
    finally:
        for kept in (folder / "cache" / "indices").glob("*"):
            kept.unlink()


def coco(folder: Path) -> Subject:
    """A COCO file of twelve pictures, read as mst finetune and tools/train.py read it before a training."""
    from mst_toolkit.layouts import recognise
    from mst_transfer.data.coco_rules import check_coco
    from mst_transfer.data.detection import CocoDetection
    from mst_transfer.data.used_objects import check_objects
    from tests.promises.coco_set import ANNOTATION_FILE, CLASSES, FILTER, IMAGE_FOLDER, clean_coco

    clean_coco(folder)
    path = folder / ANNOTATION_FILE

    def objects(_: Path) -> Counter[str]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = recognise(folder, "detection")
            check_coco(folder, ANNOTATION_FILE, IMAGE_FOLDER, found.classes, masks=True)
            dataset = CocoDetection(
                metainfo={"classes": found.classes},
                data_root=str(folder),
                ann_file=ANNOTATION_FILE,
                data_prefix={"img": IMAGE_FOLDER},
                filter_cfg=FILTER,
                pipeline=[],
            )
            check_objects(dataset, "train", trains=True)
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        return Counter(f"{Path(i['img_path']).name} {i['instances']} {found.classes}" for i in infos)

    whole, expected = path.read_bytes(), objects(path)
    assert len(expected) == 12 and set(CLASSES) == {"box", "disc"}

    def read(changed: Path) -> str:
        same = objects(changed) == expected
        return "read, all objects equal" if same else "read, another number or name (no checksum)"

    return Subject("coco", [(path, whole)], read)

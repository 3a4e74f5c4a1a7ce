"""A file is blamed for what its readers raise on damaged files, and for nothing else."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from mst_pretrain.checkpoints.storage import load_checkpoint, save_safetensors
from mst_pretrain.data.decode import decode_rgb, orientation_of, to_rgb
from mst_pretrain.data.files import find_encoded_fault
from mst_pretrain.data.hub import HubSource
from mst_pretrain.runtime.errors import UserError

KINDS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Of the program or the machine, never of a file
OTHERS = [MemoryError("no memory"), RecursionError("too deep"), KeyError("palette")]


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Truncated, or with some bytes replaced, most of them near the head."""
    content = bytearray(whole)
    if rng.random() < 0.3:
        return bytes(content[: rng.randrange(1, len(content))])
    for _ in range(rng.choice([1, 2, 8])):
        content[rng.randrange(len(content) if rng.random() < 0.4 else min(len(content), 200))] = (
            rng.randrange(256)
        )
    return bytes(content)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_are_named(kind: str) -> None:
    """One broken image of a million would end a run in a traceback of Pillow's that does not name it."""
    rng, whole = random.Random(1), encoded(kind)
    refused = 0
    for _ in range(150):
        content = damaged(whole, rng)
        try:
            assert decode_rgb(content, "a.img").mode == "RGB"
        except UserError as error:
            assert str(error).startswith("a.img cannot be decoded (") and "BytesIO" not in str(error)
            refused += 1
    assert refused >= 20


@pytest.mark.parametrize("error", OTHERS, ids=repr)
@pytest.mark.parametrize("place", [(ImageFile.ImageFile, "load"), (Image.Image, "convert")])
def test_other_errors_while_decoding_pass(
    monkeypatch: pytest.MonkeyPatch, error: Exception, place: tuple[Any, str]
) -> None:
    """A good image would be removed from a data set because the machine had no memory left, or for a defect."""
    content = encoded("GIF")
    monkeypatch.setattr(*place, failing(error))
    with pytest.raises(type(error)):
        decode_rgb(content, "a.gif")
    with pytest.raises(type(error)):
        find_encoded_fault(lambda offset, length: content[offset : offset + length], len(content))


def test_only_errors_of_the_exif_block_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without memory for the turned image a photograph would be trained on as it lies, in silence."""
    content = encoded("JPEG")
    image = Image.open(io.BytesIO(content))
    for broken in (ValueError("bad tag"), SyntaxError("not a TIFF file"), TypeError("not bytes")):
        monkeypatch.setattr(ImageOps, "exif_transpose", failing(broken))
        monkeypatch.setattr(Image.Image, "getexif", failing(broken))
        assert (to_rgb(content).size, orientation_of(image)) == ((31, 24), 1)
    monkeypatch.setattr(ImageOps, "exif_transpose", failing(MemoryError()))
    monkeypatch.setattr(Image.Image, "getexif", failing(MemoryError()))
    with pytest.raises(MemoryError):
        to_rgb(content)
    with pytest.raises(MemoryError):
        orientation_of(image)


def test_grey_tiff_without_its_interpretation_is_read() -> None:
    """A damaged tag that only says which end of the scale is white would end in a KeyError of ours."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 3), 257 * 7, np.uint16)).save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    entry = content.index((262).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    content[entry : entry + 2] = (65000).to_bytes(2, "little")
    assert np.asarray(decode_rgb(bytes(content), "a.tif")).tolist() == [[[7, 7, 7]] * 3] * 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["new.pth", "old.pth", "plain.pth", "a.safetensors"])
def test_damaged_checkpoints_are_named(tmp_path: Path, name: str) -> None:
    """A half-copied checkpoint would end in a traceback of the unpickler."""
    path, state = tmp_path / name, {f"w{i}": torch.randn(4, 5) for i in range(3)}
    if name == "a.safetensors":
        save_safetensors(state, path)
    elif name == "plain.pth":
        path.write_bytes(pickle.dumps({"a": [1.5, 2], "b": {"x": "y"}}, 2))
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=name == "new.pth")
    rng, whole, refused = random.Random(2), path.read_bytes(), 0
    for _ in range(200):
        path.write_bytes(damaged(whole, rng))
        try:
            load_checkpoint(path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
        except RuntimeError as error:  # a size that no machine has
            assert "allocate memory" in str(error)
    assert refused >= 50


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        ZeroDivisionError(),
    ],
    ids=repr,
)
def test_other_errors_while_loading_a_checkpoint_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A good checkpoint would be called truncated, and an older one used, because the machine had no memory left."""
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    monkeypatch.setattr(torch, "load", failing(error))
    with pytest.raises(type(error)):
        load_checkpoint(tmp_path / "a.pth")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of two images, as ``save_to_disk`` writes it."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    rows = {"image": [{"bytes": encoded("PNG"), "path": None}] * 2}
    made = datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image()}))
    made.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b"{}"),
        ("state.json", b"[]"),
        ("state.json", b"\xff"),
        ("dataset_info.json", b"x"),
        ("data-00000-of-00001.arrow", b"ARROW1"),
    ],
)
def test_damaged_data_sets_are_named(saved: Path, file: str, content: bytes) -> None:
    """A half-copied data set would end in a traceback of pyarrow's or of the JSON reader."""
    (saved / file).write_bytes(content)
    with pytest.raises(UserError, match=r"saved cannot be loaded \(.+\)\. Check the name"):
        HubSource(f"hf:{saved}")


@pytest.mark.parametrize("generating", [False, True])
def test_a_data_set_is_not_blamed_for_the_machine(
    saved: Path, monkeypatch: pytest.MonkeyPatch, generating: bool
) -> None:
    """A user would search for a typing error in a name although the machine had no memory left."""
    import datasets

    error: Exception = MemoryError()
    if generating:  # as datasets wraps whatever its builders meet
        error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
        error.__cause__ = MemoryError()
    monkeypatch.setattr(datasets, "load_from_disk", failing(error))
    with pytest.raises(type(error)) as caught:
        HubSource(f"hf:{saved}")
    assert not isinstance(caught.value, UserError)

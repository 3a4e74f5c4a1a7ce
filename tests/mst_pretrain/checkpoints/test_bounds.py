"""Checkpoints that ask too much of their reader: each is refused by one message, within a second."""

from __future__ import annotations

import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mst_pretrain.checkpoints.architecture import Architecture
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import UserError

WEIGHTS = torch.arange(1000.0)


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def flipped(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[content.find(WEIGHTS.numpy().tobytes()) + 400] ^= 64
    path.write_bytes(content)
    return path


def inflating(path: Path) -> Path:
    """A small file that unpacks to 64 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(1 << 26))
    return path


def of_tar(path: Path) -> Path:
    """PyTorch would unpack it to the disk, whatever is in it."""
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def endless() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["again"] = content
    return content


def doubling() -> dict[str, Any]:
    content: dict[str, Any] = {"w": torch.ones(1)}
    for _ in range(40):
        content = {"left": content, "right": content}
    return content


def deep() -> list[Any]:
    content: list[Any] = []
    for _ in range(200):
        content = [content]
    return content


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a flipped bit of a weight": (
        lambda p: flipped(saved({"w": WEIGHTS}, p)),
        r"data/0 in it does not fit its checksum",
    ),
    "an archive that inflates": (inflating, r"would unpack to 67,108,868, as no file"),
    "a tar archive": (of_tar, r"is a tar archive of files \(storages, \.\.\.\)"),
    "a dictionary in itself": (lambda p: saved(endless(), p), r"more than 100 levels"),
    "a trillion entries": (lambda p: saved(doubling(), p), r"more than 2,000,000 entries"),
    "lists in lists": (lambda p: saved({"w": deep()}, p), r"more than 100 levels"),
    "a trillion values": (
        lambda p: saved({"w": torch.zeros(1).expand(10**12)}, p),
        r"tensors of more values than the file has",
    ),
    "a sparse tensor": (
        lambda p: saved({"w": torch.eye(3).to_sparse()}, p),
        r"a tensor without plain values \(torch\.sparse_coo",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_too_much_is_refused(name: str, tmp_path: Path) -> None:
    """A file from the net would fill memory or disk, occupy the reader for ever, or give other weights unnoticed."""
    make, message = HOSTILE[name]
    with pytest.raises(UserError, match=message):
        load_checkpoint(make(tmp_path / "a.pth"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    """Checkpoints of those who switched the checksums off to save time would be called damaged."""
    torch.serialization.set_crc32_options(False)
    try:
        path = saved({"w": WEIGHTS}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_checkpoint(path)["w"], WEIGHTS)
    assert torch.equal(load_checkpoint(flipped(path))["w"][:100], WEIGHTS[:100])


def test_a_request_beyond_the_file_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged size would end in PyTorch's traceback about memory."""
    path = saved({"w": WEIGHTS}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    wanted = (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes. Error code 12"
    )

    def load(*_: Any, **__: Any) -> None:
        raise RuntimeError(wanted)

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(
        UserError, match=r"asks for more memory than there is, and has [\d,]+ bytes: it is damaged"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("length", [2**63 - 1, 2**64 - 1, 100_000_001])
def test_an_absurd_header_is_not_read(length: int, tmp_path: Path) -> None:
    """The length in eight damaged bytes would be taken as a size of memory."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"a": {}}')
    with pytest.raises(
        UserError, match=rf"header has {length:,} bytes; safetensors reads 100,000,000 at most"
    ):
        load_checkpoint(path)


def test_a_deep_header_is_refused(tmp_path: Path) -> None:
    """The explanation of a file that safetensors refuses would end in a RecursionError."""
    header = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match=r"a\.safetensors is not a file that safetensors reads"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "arguments", [{"depth": 10**9}, {"depths": [2, 10**9]}, {"embed_dim": 10**12}, {"pretrained": True}]
)
def test_no_architecture_of_absurd_size_is_built(arguments: dict[str, Any]) -> None:
    """A file that names a billion blocks would occupy the reader, and one that says pretrained fetch another file."""
    with pytest.raises(UserError, match="is not built with"):
        _ = Architecture("vit_tiny_patch16_224", arguments).model
    assert json.dumps(arguments)


class Flagged:
    """A NumPy type whose flags say that its values are addresses of objects."""

    def __reduce__(self) -> Any:
        return np.dtype, ("f8", False, True), (3, "<", None, None, None, 8, 8, 63)


class Addresses:
    """An array of such a type."""

    def __reduce__(self) -> Any:
        rebuild = np.zeros(1).__reduce__()[0]
        return rebuild, (np.ndarray, (0,), b"b"), (1, (4,), Flagged(), False, b"A" * 32)


def test_flags_of_a_numpy_type_are_not_taken(tmp_path: Path) -> None:
    """The bytes of an array would be followed as addresses when it is freed, though weights_only read the file."""
    found = load_checkpoint(saved({"a": Addresses()}, tmp_path / "a.pth"))["a"]
    assert found.dtype == np.float64 and found.dtype.flags == 0
    assert found.tobytes() == b"A" * 32


def test_numpy_values_come_back_and_go_on(tmp_path: Path) -> None:
    """Loss histories of a resumed run would be lost, or saved in a form that no other reader takes."""
    history = HistoryBuffer(np.arange(3.0), np.arange(3))
    values = {
        "big": np.arange(4, dtype=">i4"),
        "one": np.float32(1.5),
        "f": np.asfortranarray(np.ones((2, 3))),
    }
    path = saved({"history": history, **values}, tmp_path / "a.pth")
    for _ in range(2):  # as written by NumPy, and as written again after reading
        found = load_checkpoint(path)
        assert found["history"].data[0].tolist() == [0, 1, 2] and found["history"].current() == 2
        assert found["big"].tolist() == [0, 1, 2, 3] and found["one"] == np.float32(1.5)
        assert found["f"].shape == (2, 3)
        assert b"numpy_values" not in pickle.dumps(found["big"], 2)
        saved(found, path)


@pytest.mark.parametrize("kind", ["object", "V8", "M8[s]", "S3"])
def test_other_numpy_types_are_refused(kind: str, tmp_path: Path) -> None:
    """A type that can hold objects would bring NumPy's own reader of pickles back in."""
    path = saved({"a": np.zeros(2, kind)}, tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"a\.pth (is whole, but holds what is not read|holds more than weights)"
    ):
        load_checkpoint(path)

"""Files that are no checkpoint of weights, or are cut: each must be called what it is."""

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from tests.promises.checkpoint_edits import Make, changed, raw, saved
from tests.promises.verdicts import CheckpointMutator, State


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the projection of [B, 4] as [B, 4]."""
        return self.proj(images)


def _model(state: State) -> nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    model.load_state_dict(state)
    return model


def _torchscript(state_a: State, state_b: State, path: Path) -> Path:
    file = path.with_suffix(".pt")
    torch.jit.save(torch.jit.trace(_Small(), torch.zeros(1, 4)), str(file))
    return file


def _npz(state_a: State, state_b: State, path: Path) -> Path:
    file = path.with_suffix(".npz")
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in state_a.items()}
    np.savez(file, **arrays)
    return file


def _plain_pickle(state_a: State, state_b: State, path: Path) -> Path:
    file = path.with_suffix(".pkl")
    file.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in state_a.items()}))
    return file


def _zipped(state_a: State, state_b: State, path: Path) -> Path:
    inner = saved(lambda a, b: dict(a))(state_a, state_b, path)
    file = path.with_suffix(".zip")
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(inner, "weights/model.pth")
    inner.unlink()
    return file


def _safetensors(state_a: State, state_b: State, path: Path) -> Path:
    file = path.with_suffix(".safetensors")
    file.write_bytes(save(dict(state_a)))
    return file


def _shards(state_a: State, state_b: State, path: Path) -> Path:
    """Writes the list of shards without the shards, as a download of one file leaves it."""
    file = path.with_suffix(".safetensors.index.json")
    weight_map = dict.fromkeys(state_a, "model-00001-of-00002.safetensors")
    file.write_text(json.dumps({"metadata": {"total_size": 22_000_000}, "weight_map": weight_map}))
    return file


def _distributed(state_a: State, state_b: State, path: Path) -> Path:
    """Makes a folder that looks like torch.distributed.checkpoint's."""
    path.mkdir()
    (path / ".metadata").write_bytes(b"\x80\x04N.")
    (path / "__0_0.distcp").write_bytes(bytes(64))
    return path


def _empty_folder(state_a: State, state_b: State, path: Path) -> Path:
    path.mkdir()
    return path


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


_PTH: Make = saved(lambda a, b: dict(a))
_LEGACY: Make = saved(lambda a, b: dict(a), legacy=True)
_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 22883\n"
_PAGE = b"<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title></head></html>\n"
_ONNX = b'\x08\x08\x12\x07pytorch\x1a\x052.6.0:\xc2\x01\n\x1a\n\x05input\x12\x06output\x1a\x01y"\x04Relu'
_GGUF = b"GGUF\x03\x00\x00\x00" + bytes(64)
_JSON = b'{"error": "Repository not found", "status": 404}'

OTHER_FILES = (
    CheckpointMutator(
        "torchscript", "refused", "A traced program for deployment.", _torchscript, says=("torchscript",)
    ),
    CheckpointMutator(
        "npz", "refused", "NumPy's archive, as Google's ViTs come in.", _npz, says=("npz", "numpy")
    ),
    CheckpointMutator("onnx", "refused", "An exported graph.", raw(_ONNX, ".onnx"), says=("onnx",)),
    CheckpointMutator("gguf", "refused", "A format of llama.cpp.", raw(_GGUF, ".gguf"), says=("gguf",)),
    CheckpointMutator(
        "pickled-module",
        "refused",
        "torch.save(model): the file holds code; the message says to save model.state_dict().",
        saved(lambda a, b: _model(a)),
        says=("state_dict", "module", "VisionTransformer"),
    ),
    CheckpointMutator(
        "pickled-module-in-a-dictionary",
        "refused",
        "Ultralytics' way: the object model holds code.",
        saved(lambda a, b: {"model": _model(a), "epoch": 3}),
        says=("state_dict", "module", "VisionTransformer"),
    ),
    CheckpointMutator(
        "path-in-hyper-parameters",
        "refused",
        "Lightning saved a path object; the message names it and --trusted.",
        saved(
            lambda a, b: {"state_dict": dict(a), "hyper_parameters": {"data": PosixPath("/data")}}, ".ckpt"
        ),
        says=("path",),
    ),
    CheckpointMutator(
        "plain-pickle",
        "refused",
        "Python's pickle of arrays is not a file of torch.save.",
        _plain_pickle,
        says=("pickle",),
    ),
    CheckpointMutator(
        "zip-around-a-checkpoint",
        "refused",
        "A download in an archive: unpack it first.",
        _zipped,
        says=("zip", "archive"),
    ),
    CheckpointMutator(
        "gzip-around-a-checkpoint",
        "refused",
        "A download in gzip: unpack it first.",
        changed(_PTH, gzip.compress),
        says=("gzip",),
    ),
    CheckpointMutator(
        "web-page",
        "refused",
        "Google Drive answered with a page.",
        raw(_PAGE),
        says=("html", "web page", "page"),
    ),
    CheckpointMutator(
        "lfs-pointer",
        "refused",
        "A clone without Git LFS: the remedy is git lfs pull.",
        raw(_LFS, ".safetensors"),
        says=("lfs",),
    ),
    CheckpointMutator(
        "error-as-json",
        "refused",
        "A hub answered with an error.",
        raw(_JSON, ".safetensors"),
        says=("json",),
    ),
    CheckpointMutator(
        "picture", "refused", "The wrong file was chosen.", raw(_picture()), says=("png", "image", "picture")
    ),
    CheckpointMutator(
        "shard-list",
        "refused",
        "The list of shards is not the weights: give the folder that holds them.",
        _shards,
        says=("shard", "index"),
    ),
    CheckpointMutator(
        "distributed-folder",
        "refused",
        "torch.distributed.checkpoint writes a folder: its converter makes one file.",
        _distributed,
        says=("distributed", "distcp"),
    ),
    CheckpointMutator(
        "empty-folder", "refused", "A folder without weights.", _empty_folder, says=("folder", "directory")
    ),
    CheckpointMutator(
        "zero-bytes", "refused", "A disk was full.", raw(b""), says=("empty", "0 bytes"), cut=True
    ),
    CheckpointMutator(
        "cut-in-half",
        "refused",
        "A copy was interrupted.",
        changed(_PTH, lambda d: d[: len(d) // 2]),
        says=("cut", "truncated", "incomplete", "whole"),
        cut=True,
    ),
    CheckpointMutator(
        "cut-at-the-end",
        "refused",
        "The last bytes are missing.",
        changed(_PTH, lambda d: d[:-20]),
        says=("cut", "truncated", "incomplete", "whole"),
        cut=True,
    ),
    CheckpointMutator(
        "cut-older-format",
        "refused",
        "An older file whose copy was interrupted.",
        changed(_LEGACY, lambda d: d[: len(d) // 2]),
        says=("cut", "truncated", "incomplete", "whole"),
        cut=True,
    ),
    CheckpointMutator(
        "cut-safetensors",
        "refused",
        "A copy was interrupted.",
        changed(_safetensors, lambda d: d[: len(d) // 2]),
        says=("cut", "truncated", "incomplete", "whole"),
        cut=True,
    ),
    CheckpointMutator(
        "cut-safetensors-header",
        "refused",
        "A copy was interrupted in the first kilobyte.",
        changed(_safetensors, lambda d: d[:500]),
        says=("cut", "truncated", "incomplete", "whole"),
        cut=True,
    ),
)

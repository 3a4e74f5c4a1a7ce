"""Files that are no checkpoint of a ViT or Swin, as people have them: each is called what it is."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from mst_pretrain.checkpoints import read_backbone
from mst_pretrain.checkpoints.inspection import inspect_checkpoint, is_healthy
from mst_pretrain.checkpoints.storage import load_checkpoint, save_safetensors
from mst_pretrain.runtime.errors import UserError
from tests.mst_pretrain.checkpoints.conftest import SMALL

VIT = SMALL["vit-tiny-test"]
State = dict[str, Tensor]
QKV = "blocks.0.attn.qkv.weight"
CUT = r"is (truncated|damaged) .*copy it again"


class Net(nn.Module):
    """A network that somebody pickled as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.model = timm.create_model(VIT["model"], num_classes=0, **VIT["model_args"])

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def state() -> State:
    return Net().model.state_dict()


def torch_bytes(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def safetensors_bytes(folder: Path) -> bytes:
    save_safetensors(state(), folder / "s.safetensors")
    return (folder / "s.safetensors").read_bytes()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"12345678")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model/checkpoint.pth"), io.BytesIO())
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"Transformer/encoder_norm/bias": np.ones(3)})
    return stream.getvalue()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


def script() -> bytes:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), stream)
    return stream.getvalue()


def flipped(content: bytes) -> bytes:
    """One byte of the pickle's place in the archive is another."""
    place = content.index(b"data.pkl") + 40
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


HTML = '<!DOCTYPE html>\n<html lang="de"><title>Anmelden für Zürich</title>'
FILES: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "cut in the middle": ("a.pth", lambda _: torch_bytes(state())[:90000], CUT),
    "cut by one byte": ("a.pth", lambda _: torch_bytes(state())[:-1], CUT),
    "cut to its first bytes": ("a.pth", lambda _: torch_bytes(state())[:3], CUT),
    "a byte is another": ("a.pth", lambda _: flipped(torch_bytes(state())), CUT),
    "old format, cut": (
        "a.pth",
        lambda _: torch_bytes(state(), _use_new_zipfile_serialization=False)[:3000],
        CUT,
    ),
    "safetensors, cut": ("a.safetensors", lambda f: safetensors_bytes(f)[:-5], CUT),
    "safetensors, cut in its header": ("a.safetensors", lambda f: safetensors_bytes(f)[:50], CUT),
    "safetensors under another name, cut": ("a.pth", lambda f: safetensors_bytes(f)[:-5], CUT),
    "TorchScript": ("a.pt", lambda _: script(), r"is a TorchScript archive.*--trusted"),
    "npz": ("a.npz", lambda _: npz(), r"archive of NumPy \(\.npz\).*timm\.create_model"),
    "npz named .pth": ("a.pth", lambda _: npz(), r"archive of NumPy \(\.npz\)"),
    "npy": ("a.npy", lambda _: npy(), r"one array of NumPy"),
    "Keras": ("a.keras", lambda _: zipped("config.json", "model.weights.h5"), r"Keras or TensorFlow"),
    "HDF5": ("a.h5", lambda _: b"\x89HDF\r\n\x1a\n" + bytes(64), r"an HDF5 file.*from_tf"),
    "SavedModel": ("a.pb", lambda _: b"\x08\x01\x12\x80\x10" + bytes(64), r"TensorFlow's SavedModel"),
    "TensorFlow's index": (
        "a.index",
        lambda _: bytes(64) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
        r"part of a TensorFlow checkpoint",
    ),
    "TensorFlow's data": ("a.ckpt.data-00000-of-00001", lambda _: bytes(64), r"part of a TensorFlow"),
    "Flax": ("flax_model.msgpack", lambda _: b"\x81\xa6params\x80", r"a file of Flax"),
    "ONNX": ("a.onnx", lambda _: b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x80", r"an ONNX model"),
    "GGUF": ("a.gguf", lambda _: b"GGUF\x03\x00\x00\x00" + bytes(64), r"a GGUF file"),
    "tar": (
        "a.pth.tar",
        lambda _: tarred(),
        r"a tar archive of files \(model/checkpoint\.pth, \.\.\.\).*Unpack",
    ),
    "zip": (
        "a.pth",
        lambda _: zipped("README", "w.pth"),
        r"a zip archive of 2 files \(README, w\.pth\).*Unpack",
    ),
    "gzip": ("a.pth", lambda _: gzip.compress(torch_bytes(state())), r"compressed with gzip\. Unpack"),
    "HTML": ("a.pth", lambda _: HTML.encode(), r"is a web page.*Download the file itself"),
    "HTML with a BOM": ("a.pth", lambda _: b"\xef\xbb\xbf" + HTML.encode(), r"is a web page"),
    "an answer in XML": ("a.safetensors", lambda _: b"<?xml version='1.0'?><Error>", r"is a web page"),
    "Git LFS": ("a.pth", lambda _: b"version https://git-lfs.github.com/spec/v1\noid", r"git lfs pull"),
    "an index of shards": (
        "a.json",
        lambda _: b'{"metadata": {}, "weight_map": {}}',
        r"several files.*\.index\.json",
    ),
    "JSON": ("a.json", lambda _: b'{"model": 3}', r"a JSON file"),
    "a picture": ("a.pth", lambda _: b"\xff\xd8\xff\xe0\x00\x10JFIF", r"a JPEG image"),
    "a plain pickle": (
        "a.pkl",
        lambda _: pickle.dumps({"model": {"w": np.ones(3).tolist()}}, protocol=4),
        r"plain pickle of Python",
    ),
    "a pickle protocol of today": (
        "a.pth",
        lambda _: torch_bytes({"w": torch.ones(2), "long": b"x" * 300}, pickle_protocol=5),
        r"is whole, but holds what is not read here.*--trusted",
    ),
    "nothing known": ("a.pth", lambda _: b"\x00\x01\x02\x03" * 20, r"it begins with b'\\x00"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_another_kind_are_called_what_they_are(kind: str, tmp_path: Path) -> None:
    """Somebody would copy a whole file again and again, or look for a fault in a file that was never a checkpoint."""
    name, make, message = FILES[kind]
    (tmp_path / name).write_bytes(make(tmp_path))
    with pytest.raises(UserError, match=message) as stopped:
        read_backbone(tmp_path / name, **VIT)
    assert str(stopped.value).startswith(str(tmp_path / name)) and len(str(stopped.value)) < 600
    assert message == CUT or "copy it again" not in str(stopped.value).lower()


def test_safetensors_are_read_under_any_name(tmp_path: Path) -> None:
    """A whole file would be called damaged for its name."""
    (tmp_path / "a.bin").write_bytes(safetensors_bytes(tmp_path))
    (tmp_path / "b.safetensors").write_bytes(torch_bytes(state()))
    assert set(read_backbone(tmp_path / "a.bin", **VIT).state) == set(state())
    assert set(read_backbone(tmp_path / "b.safetensors", **VIT).state) == set(state())


@pytest.mark.parametrize("kind", ["module", "in a dictionary", "script"])
def test_advice_for_pickled_modules_leads_to_their_weights(kind: str, tmp_path: Path) -> None:
    """--trusted, which the refusal names, would end in another refusal."""
    net, path = Net().eval(), tmp_path / "a.pt"
    if kind == "script":
        torch.jit.trace(net, torch.ones(1, 3, 64, 64)).save(path)
    else:
        torch.save(net if kind == "module" else {"epoch": 3, "model": net}, path)
    with pytest.raises(UserError, match=r"convert_checkpoint\.py .* --trusted"):
        read_backbone(path, **VIT)
    found = read_backbone(path, trusted=True, **VIT).state
    assert all(torch.equal(found[name], value) for name, value in net.model.state_dict().items())


def test_a_trusted_file_of_a_missing_class_names_it(tmp_path: Path) -> None:
    """A file of another version of a package would be called truncated."""
    content = torch_bytes(Net()).replace(b"test_other_files", b"test_other_filez")
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be opened.*test_other_filez.*Install the package"):
        load_checkpoint(tmp_path / "a.pth", trusted=True)


def renamed(change: Callable[[str], str]) -> Any:
    return {change(name): value for name, value in state().items()}


def spoiled(name: str, value: Any) -> Any:
    return state() | {name: value}


def swin(**more: Tensor) -> Any:
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=0,
        embed_dim=8,
        depths=(2, 2),
        num_heads=(1, 2),
        img_size=56,
    )
    return model.state_dict() | more


CONTENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "BEIT": (
        lambda: renamed(lambda n: n.replace("attn.qkv.bias", "attn.q_bias")),
        "holds a BEIT or EVA, another network than a ViT",
    ),
    "BEIT without positions": (
        lambda: (
            {k: v for k, v in state().items() if k != "pos_embed"}
            | {"blocks.1.attn.relative_position_bias_table": torch.ones(732, 3)}
        ),
        "holds a BEIT or EVA",
    ),
    "Swin V2": (
        lambda: swin(**{"layers.0.blocks.0.attn.cpb_mlp.0.weight": torch.ones(2, 2)}),
        "holds a Swin V2",
    ),
    "Swin V2's scale": (
        lambda: swin(**{"layers.0.blocks.0.attn.logit_scale": torch.ones(3, 1, 1)}),
        "holds a Swin V2",
    ),
    "LoRA alone": (
        lambda: {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 48)},
        r"adapters of LoRA.*merge_and_unload",
    ),
    "LoRA in its base": (
        lambda: spoiled("blocks.0.mlp.fc1.lora_B.default.weight", torch.ones(4, 4)),
        r"adapters of LoRA.*merge_and_unload",
    ),
    "LoRA around every layer": (
        lambda: (
            renamed(lambda n: n.replace("qkv.", "qkv.base_layer."))
            | {"blocks.0.attn.qkv.lora_A.w": torch.ones(2)}
        ),
        "adapters of LoRA",
    ),
    "an optimizer": (
        lambda: torch.optim.AdamW(Net().parameters()).state_dict(),
        "state of an optimizer, without weights",
    ),
    "an optimizer after a step": (
        lambda: {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}},
        "state of an optimizer, without weights",
    ),
    "an optimizer by names": (
        lambda: {"optim": {"state": {QKV: {"exp_avg": torch.ones(3)}}}},
        "state of an optimizer, without weights",
    ),
    "a ResNet": (lambda: {"layer1.0.conv1.weight": torch.ones(2)}, "found: layer1.*It holds a ResNet"),
    "a CLIP": (lambda: {"visual.transformer.resblocks.0.w": torch.ones(2)}, "It holds a CLIP"),
    "FSDP's flat weights": (
        lambda: {"_fsdp_wrapped_module._flat_param": torch.ones(9)},
        "flattened weights of FSDP",
    ),
    "ZeRO-3": (
        lambda: {"module": {name: torch.zeros(0) for name in state()}},
        r"30 weights without any value \(first: cls_token\).*zero_to_fp32\.py",
    ),
    "ZeRO-3, one weight": (
        lambda: spoiled("pos_embed", torch.zeros(0)),
        r"1 weights without any value \(first: pos_embed\)",
    ),
    "no storage": (
        lambda: spoiled("norm.bias", torch.ones(48, device="meta")),
        r"1 weights on the meta device \(first: norm\.bias\): shapes without values",
    ),
    "numpy": (
        lambda: spoiled(QKV, np.ones((144, 48), np.float32)),
        r"blocks\.0\.attn\.qkv\.weight is a ndarray",
    ),
    "a list": (lambda: spoiled("pos_embed", [0.0, 1.0]), r"not tensors \(first: pos_embed is a list"),
    "nothing": (lambda: {"model": spoiled("norm.bias", None)}, r"norm\.bias is a NoneType"),
    "text": (lambda: spoiled("cls_token", "zeros"), r"cls_token is a str"),
    "one number": (lambda: spoiled("norm.weight", 1.0), r"norm\.weight is a float"),
    "whole numbers": (
        lambda: spoiled("pos_embed", torch.ones(1, 17, 48, dtype=torch.int64)),
        r"type torch\.int64",
    ),
    "truth values": (lambda: spoiled("norm.bias", torch.ones(48) > 0), r"type torch\.bool"),
    "bitsandbytes in 8 bit": (
        lambda: (
            spoiled(QKV, torch.ones(144, 48, dtype=torch.int8)) | {"blocks.0.attn.qkv.SCB": torch.ones(144)}
        ),
        "quantized weights",
    ),
    "4 bit in another shape": (
        lambda: spoiled(QKV, torch.ones(3456, 1, dtype=torch.uint8)),
        r"type torch\.uint8.*quantized",
    ),
    "quantized by PyTorch": (
        lambda: spoiled(QKV, torch.quantize_per_tensor(torch.ones(144, 48), 0.1, 0, torch.qint8)),
        r"type torch\.qint8.*quantized",
    ),
    "one dimension": (lambda: spoiled("pos_embed", torch.ones(17 * 48)), r"another shape \(first: pos_embed"),
    "no dimension": (lambda: spoiled("patch_embed.proj.weight", torch.tensor(1.0)), "another shape"),
    "NaN": (lambda: spoiled("norm.bias", torch.full((48,), torch.nan)), r"not finite in 1 weights"),
    "minus infinity in half precision": (
        lambda: spoiled(QKV, torch.full((144, 48), -torch.inf, dtype=torch.float16)),
        r"not finite in 1 weights \(first: blocks\.0\.attn\.qkv\.weight",
    ),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_contents_that_cannot_be_used_are_named(content: str, tmp_path: Path) -> None:
    """A whole file would be called cut, end in a traceback, or be loaded as something that it is not."""
    make, message = CONTENTS[content]
    torch.save(make(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message) as stopped:
        read_backbone(tmp_path / "a.pth", **(VIT if "Swin" not in content else {}))
    assert "copy it again" not in str(stopped.value).lower() and "was cut" not in str(stopped.value)
    if not re.search("holds|another shape", str(stopped.value)):  # a backbone that no model could have
        assert not is_healthy(inspect_checkpoint(tmp_path / "a.pth"))


FOLDERS = {
    "model.safetensors.index.json": r"config\.json is not there",
    "other.index.json": r"several files.*\.index\.json",
    "adapter_model.safetensors": "adapters of LoRA",
    "zero_to_fp32.py": r"DeepSpeed.*zero_to_fp32\.py",
    ".metadata": r"torch\.distributed\.checkpoint.*dcp_to_torch",
    "saved_model.pb": "TensorFlow's SavedModel",
    "latest.pth": r"latest\.pth",  # the only one: it is read, and is empty
    "notes.txt": "is a folder without model.safetensors",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_several_files_say_how_to_join_them(name: str, tmp_path: Path) -> None:
    """The folder that a training left would be called one without weights."""
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=FOLDERS[name]):
        read_backbone(tmp_path)


def test_one_of_several_files_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    """A shard would be called a cut file, or another architecture's."""
    save_safetensors(state(), tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(UserError, match=r"only part 2 of a checkpoint in several files\. Give their folder"):
        read_backbone(tmp_path / "model-00002-of-00003.safetensors", **VIT)
    save_safetensors(state(), tmp_path / "model-00001-of-00001.safetensors")
    assert read_backbone(tmp_path / "model-00001-of-00001.safetensors", **VIT).state


def test_a_header_that_promises_more_is_a_cut_file(tmp_path: Path) -> None:
    """A damaged length would be read as a size of memory."""
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**50) + b'{"a": {}}')
    with pytest.raises(UserError, match=r"says that its header has 1,125,899,906,842,624 bytes"):
        load_checkpoint(tmp_path / "a.safetensors")

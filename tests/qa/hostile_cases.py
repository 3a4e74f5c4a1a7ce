"""The files of ``hostile_files.py``: how each is made, and what the converter should say."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from hostile_workshop import MODEL, Arguments, Case, Malicious, State, Workshop, yacs

from mst_pretrain.checkpoints.storage import save_safetensors


def hostile(shop: Workshop) -> Arguments:
    return [shop.pth({"state_dict": shop.state, "meta": Malicious(shop.marker)})]


def bare_pickle(protocol: int) -> Callable[[Workshop], Arguments]:
    """Without torch's zip archive around it."""
    return lambda shop: [shop.raw(pickle.dumps(Malicious(shop.marker), protocol), "source.pth")]


def hostile_folder(shop: Workshop) -> Arguments:
    folder = hugging_face(shop, config=True, weights=False)
    torch.save({"x": Malicious(shop.marker)}, folder / "pytorch_model.bin")
    return [folder]


def hugging_face(shop: Workshop, config: bool, weights: bool = True) -> Path:
    """A folder with transformers' names as far as these cases need them."""
    folder = shop.folder / "hf"
    folder.mkdir()
    if config:
        (folder / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 192}))
    if weights:
        save_safetensors(split(shop.state), folder / "model.safetensors")
    return folder


def split(state: State) -> State:
    """Query, key and value apart, by transformers' names; other keys as they stand."""
    converted = {}
    for key, value in state.items():
        if ".attn.qkv." in key:
            block, kind = key.split(".")[1], key.rsplit(".", 1)[1]
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                converted[f"encoder.layer.{block}.attention.attention.{part}.{kind}"] = piece.clone()
        else:
            converted[key] = value
    return converted


def query_alone(shop: Workshop) -> Arguments:
    state = split(shop.state)
    alone = "encoder.layer.0.attention.attention."
    return [shop.tensors(shop.without(f"{alone}key", f"{alone}value", state=state))]


def cut(name: str, share: float = 0.5) -> Callable[[Workshop], Arguments]:
    """The start of a file."""

    def make(shop: Workshop) -> Arguments:
        good = shop.pth(shop.state, name) if name.endswith(".pth") else shop.tensors(shop.state, name)
        whole = good.read_bytes()
        good.write_bytes(whole[: int(share * len(whole))])
        return [good]

    return make


def half(shop: Workshop) -> Arguments:
    """Half precision; what the features are compared with is the same rounded weights in float32."""
    shop.state = {key: value.half() for key, value in shop.state.items()}
    return [shop.pth({"state_dict": shop.state})]


def heads(shop: Workshop) -> Arguments:
    more = {
        "head.weight": torch.randn(10, 192),
        "head.bias": torch.randn(10),
        "fc_norm.weight": torch.ones(192),
    }
    return [shop.pth({"model": {**shop.state, **more, "head_dist.weight": torch.randn(10, 192)}, "epoch": 3})]


def not_a_number(shop: Workshop) -> Arguments:
    broken = shop.state["blocks.5.mlp.fc1.weight"].clone()
    broken[7, 3] = float("nan")
    return [shop.tensors({**shop.state, "blocks.5.mlp.fc1.weight": broken})]


def moby(shop: Workshop) -> Arguments:
    other = {key: value + 1 for key, value in shop.state.items()}
    model = {**shop.prefixed("encoder."), **{f"encoder_k.{key}": value for key, value in other.items()}}
    with yacs() as node:
        config = node({"MODEL": {"TYPE": "moby", "DROP": 0.0}, "AUG": {"MEAN": [0.5], "CROPS": (2, 1)}})
        return [shop.pth({"model": model, "epoch": 299, "config": config})]


def swin_without(*starts: str) -> Callable[[Workshop], Arguments]:
    """A Swin-T that lacks something."""

    def make(shop: Workshop) -> Arguments:
        state = Workshop.weights("swin_tiny_patch4_window7_224")
        return [shop.tensors(shop.without(*starts, state=state))]

    return make


def vit_without(*starts: str, extra: tuple[str, ...] = ()) -> Callable[[Workshop], Arguments]:
    """The ViT that lacks something."""
    return lambda shop: [shop.tensors(shop.without(*starts)), *extra]


def other_vit(*extra: str, **arguments: Any) -> Callable[[Workshop], Arguments]:
    """A ViT of timm with other arguments."""
    return lambda shop: [shop.tensors(Workshop.weights(**arguments)), *extra]


def named(prefix: str) -> Callable[[Workshop], Arguments]:
    """The good weights below a prefix."""
    return lambda shop: [shop.pth({"state_dict": shop.prefixed(prefix)})]


def below_a_file(shop: Workshop) -> Arguments:
    return [shop.tensors(shop.state), shop.raw(b"", "a_file") / "new.safetensors"]


def read_only(shop: Workshop) -> Arguments:
    """A folder in which nobody may write; for root, who may everywhere, one of the kernel's."""
    folder = shop.folder / "read_only"
    folder.mkdir(mode=0o555)
    kernel = Path("/proc/self/fdinfo")
    return [shop.tensors(shop.state), (kernel if os.geteuid() == 0 else folder) / "new.safetensors"]


def student(*extra: str) -> Callable[[Workshop], Arguments]:
    """DINO's file without the teacher."""
    return lambda shop: [shop.pth({"student": shop.prefixed("module.backbone."), "epoch": 3}), *extra]


PROCESS: dict[str, Any] = dict(process=True)
GIVEN: dict[str, Any] = dict(names_destination=True)
INCOMPLETE = r"does not fit a whole vit_tiny_patch16_224: 12 weights missing \(first: blocks\.{}\."
THIS_MODEL = ("--model", MODEL)
CODE = r"holds more than weights \(the object \S*system\).*nothing was loaded in another way.*--trusted"
NO_ROOM = r"error: .*new\.\w+"
CASES = (
    Case("a pickle that runs code", hostile, CODE, **PROCESS),
    Case("a bare pickle that runs code", bare_pickle(2), CODE),
    Case(
        "a bare pickle of protocol 4 that runs code",
        bare_pickle(4),
        "is a plain pickle of Python",
    ),
    Case("a Hugging Face folder whose pickle runs code", hostile_folder, CODE),
    Case("a truncated .pth", cut("source.pth"), "is truncated.*copy it again", **PROCESS),
    Case("a truncated .safetensors", cut("source.safetensors"), "is truncated.*copy it again"),
    Case("a .safetensors cut in its header", cut("source.safetensors", 1e-4), "is truncated"),
    Case("an empty .pth", lambda shop: [shop.raw(b"", "source.pth")], "is empty: copy it again"),
    Case("an empty .safetensors", lambda shop: [shop.raw(b"", "source.safetensors")], "is empty: copy it"),
    Case(
        "text named .pth",
        lambda shop: [shop.raw(b"Not found\n", "source.pth")],
        "is not a checkpoint: it is a text file",
    ),
    Case(
        "a Git LFS pointer named .pth",
        lambda shop: [shop.raw(b"version https://git-lfs.github.com/spec/v1\n", "source.pth")],
        "is a pointer of Git LFS",
    ),
    Case(
        "an HTML page named .safetensors",
        lambda shop: [shop.raw(b"<!DOCTYPE html><html><body>Sign in</body></html>", "source.safetensors")],
        "is a web page, not a checkpoint",
    ),
    Case("a .pth without tensors", lambda shop: [shop.pth({"epoch": 3})], "holds no tensors"),
    Case("a .pth of a list", lambda shop: [shop.pth([torch.ones(2)])], "holds a list, not a checkpoint"),
    Case("no such file", lambda shop: [shop.folder / "none.pth"], "checkpoint not found"),
    Case("a folder", lambda shop: [shop.folder], r"config\.json is not there|is a folder without"),
    Case(
        "a Hugging Face folder without config.json",
        lambda shop: [hugging_face(shop, config=False)],
        r"config\.json is not there",
    ),
    Case(
        "a ResNet",
        lambda shop: [shop.pth(timm.create_model("resnet18", num_classes=0).state_dict())],
        "holds no ViT or Swin backbone of a known dialect",
    ),
    Case(
        "a ViT with LayerScale",
        other_vit(init_values=0.1),
        "24 weights that it has no place for.*another architecture",
    ),
    Case("a deeper ViT", other_vit(depth=13), "does not say which model it is"),
    Case(
        "a deeper ViT, --model names another",
        other_vit(*THIS_MODEL, depth=13),
        r"12 weights that it has no place for \(first: blocks\.12\.",
    ),
    Case("a ViT whose first block is missing", vit_without("blocks.0."), INCOMPLETE.format(0)),
    Case("a ViT whose middle block is missing", vit_without("blocks.6."), INCOMPLETE.format(6)),
    Case("a ViT whose last block is missing", vit_without("blocks.11."), "does not say which model it is"),
    Case(
        "a ViT whose last block is missing, --model names it",
        vit_without("blocks.11.", extra=THIS_MODEL),
        INCOMPLETE.format(11),
    ),
    Case("a ViT without a norm", vit_without("norm."), "2 weights missing"),
    Case("a Swin-T whose first block is missing", swin_without("layers.0.blocks.0."), r"13 weights missing"),
    Case("a Swin-T whose middle block is missing", swin_without("layers.2.blocks.3."), r"13 weights missing"),
    Case(
        "a Swin-T whose last block of a stage is missing",
        swin_without("layers.2.blocks.5."),
        "missing|does not say which model|no known|another architecture",
    ),
    Case("a Swin-T whose last block is missing", swin_without("layers.3.blocks.1."), "missing|does not say"),
    Case("a Swin-T whose last stage is missing", swin_without("layers.3."), "missing|does not say|another"),
    Case("query without key and value", query_alone, "is incomplete.*only query is there"),
    Case("NaN weights", not_a_number, r"not finite in 1 weights \(first: blocks\.5\.mlp\.fc1\.weight"),
    Case("student only", student(), "holds a student only, no teacher.*--which student"),
    Case("student only, --which student", student("--which", "student")),
    Case(
        "two backbones without a role",
        lambda shop: [shop.pth({"state_dict": {**shop.prefixed("a."), **shop.prefixed("b.")}})],
        r"holds 2 networks.*--prefix",
    ),
    Case(
        "wrong --from",
        lambda shop: [shop.tensors(shop.state), "--from", "esvit"],
        "is not of format 'esvit'.*Leave out --from",
    ),
    Case(
        "unknown --from",
        lambda shop: [shop.tensors(shop.state), "--from", "keras"],
        "invalid choice: 'keras'",
    ),
    Case(
        "destination with a wrong suffix",
        lambda shop: [shop.tensors(shop.state), shop.folder / "new.bin"],
        r"new\.bin: a file for timm ends in",
        **GIVEN,
    ),
    Case("destination below a file", below_a_file, r"error: .*a_file", **GIVEN),
    Case(
        "destination in a folder that cannot be written", read_only, r"error: .*(fdinfo|read_only)", **GIVEN
    ),
    Case("a disk that is full, .safetensors", lambda shop: [shop.tensors(shop.state)], NO_ROOM, room=10**6),
    Case(
        "a disk that is full, .pth",
        lambda shop: [shop.tensors(shop.state), shop.folder / "new.pth"],
        NO_ROOM,
        names_destination=True,
        room=10**6,
    ),
    Case("prefix twice", named("backbone.backbone.")),
    Case("module. before the keys", named("module.")),
    Case("_orig_mod. before the keys", named("_orig_mod."), **PROCESS),
    Case("_orig_mod.module.backbone. before the keys", named("_orig_mod.module.backbone.")),
    Case("fp16", half),
    Case("extra heads", heads),
    Case("MoBY's yacs CfgNode", moby),
    Case("the good file", lambda shop: [shop.tensors(shop.state)]),
)

"""Ten ways to wrap one network, each converted, evaluated by k-NN and started from; and what is said of ten others.

    python tests/qa/wrapped_checkpoints.py

The network is a DINOv2 with registers of random weights and small width. Every row must give the k-NN accuracy of
the bare file, and start MST's student from its weights. Exit code 1 where one does not, or where an impossible file is
read.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.evaluation.knn_evaluation import evaluate_knn
from mst_pretrain.evaluation.trunk import load_trunk
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError, run_cli

MODEL = "vit_small_patch14_reg4_dinov2"
ARGUMENTS: dict[str, Any] = dict(embed_dim=32, depth=2, num_heads=2, img_size=56)
WRAPPERS = (
    *("module.", "_orig_mod.", "module._orig_mod.", "Lightning", "Lightning, compiled"),
    *("EMA", "EMA alone", "half", "bfloat16", "shards"),
)
PREFIXES = {"EMA": "state_dict_ema."}  # two networks: which is meant must be said


def wrapped(name: str, state: dict[str, Tensor], folder: Path) -> Path:
    """A file as trainers and libraries wrap it.

    Args:
        name: One of :data:`WRAPPERS`.
        state: The bare weights.
        folder: Where it is written.
    """
    path = folder / "a.pth"

    def named(prefix: str) -> dict[str, Tensor]:
        return {prefix + key: value for key, value in state.items()}

    contents: dict[str, Any] = {
        "module.": named("module."),
        "_orig_mod.": named("_orig_mod."),
        "module._orig_mod.": {"state_dict": named("module._orig_mod.")},
        "Lightning": {"state_dict": named("model."), "epoch": 3, "pytorch-lightning_version": "2.5.0"},
        "Lightning, compiled": {"state_dict": named("model._orig_mod."), "global_step": 9},
        "EMA": {"state_dict": {k: v + 1 for k, v in state.items()}, "state_dict_ema": state},
        "EMA alone": {"model_ema": state},
        "half": {"model": {key: value.half() for key, value in state.items()}},
        "bfloat16": {key: value.bfloat16() for key, value in state.items()},
    }
    if name != "shards":
        torch.save(contents[name], path)
        return path
    keys = sorted(state)
    places = {}
    for part, names in ((1, keys[::2]), (2, keys[1::2])):
        file = f"model-0000{part}-of-00002.safetensors"
        save_file({key: state[key].contiguous() for key in names}, folder / file)
        places |= dict.fromkeys(names, file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def impossible(state: dict[str, Tensor], folder: Path) -> dict[str, Path]:
    """Files that cannot be read as this network, by what they are."""
    some = next(iter(state))
    contents: dict[str, Any] = {
        "another depth": {k: v for k, v in state.items() if not k.startswith("blocks.1.")},
        "another width": timm.create_model(
            MODEL, num_classes=0, **ARGUMENTS | {"embed_dim": 64}
        ).state_dict(),
        "another patch": timm.create_model(
            MODEL, num_classes=0, **ARGUMENTS | {"patch_size": 7}
        ).state_dict(),
        "other registers": {k: v[:, :2] if k == "reg_token" else v for k, v in state.items()},
        "an unknown network": timm.create_model("resnet18", num_classes=0).state_dict(),
        "LoRA": {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.zeros(2, 32)},
        "quantized": {k: (v * 99).to(torch.int8) for k, v in state.items()},
        "ZeRO-3": {k: torch.empty(0) for k in state},
        "not finite": {**state, some: torch.full_like(state[some], torch.nan)},
    }
    files = {}
    for number, (what, content) in enumerate(contents.items()):
        files[what] = folder / f"impossible_{number}.pth"
        torch.save(content, files[what])
    index = folder / "lost.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(state, "model-00001-of-00002.safetensors")}))
    return {**files, "shards that are not there": index}


def photos(folder: Path) -> Path:
    """Two classes of six drawn photos each."""
    draw = np.random.default_rng(0)
    for label in ("bright", "dark"):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            pixels = draw.integers(0, 256, (64, 80, 3), dtype=np.uint8) // (1 if label == "bright" else 3)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def knn(checkpoint: Path, prefix: str | None, images: Path) -> float:
    """Accuracy in per cent of ``tools/eval_knn.py``, k = 3."""
    import argparse

    out = checkpoint.with_name("knn.json")
    options = dict(train=str(images), val=str(images), k=[3], save=None, out=str(out), seed=0, workers=0)
    shape = dict(resize=56, crop=56, batch_size=12, dtype="float32")
    backbone = dict(checkpoint=str(checkpoint), prefix=prefix, model=MODEL, model_args=ARGUMENTS)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate_knn(argparse.Namespace(**options, **shape, **backbone))
    return float(json.loads(out.read_text())["knn_3"])


def started(checkpoint: Path) -> Tensor:
    """A weight of the student of an MST pretraining that starts from the file."""
    head = dict(prototypes=16, hidden_dim=16, bottleneck_dim=8)
    model: Any = MST(backbone=dict(name=MODEL, **ARGUMENTS), head=head, init_from=str(checkpoint))
    return model.student.backbone.blocks[1].attn.qkv.weight.detach()


def main() -> int:
    """Print a line per wrapper and per impossible file; 1 where one is not as it should be."""
    good = True
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=0, **ARGUMENTS)
    state = {name: value + 0.1 * torch.randn_like(value) for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = photos(folder / "photos")
        torch.save(state, folder / "bare.pth")
        expected = knn(folder / "bare.pth", None, images)
        print(f"the bare file: k-NN {expected:g} %")
        for name in WRAPPERS:
            place = folder / name.replace(" ", "_")
            place.mkdir()
            path, prefix = wrapped(name, state, place), PREFIXES.get(name)
            new = place / "new.safetensors"
            backbone = convert_checkpoint(path, new, prefix=prefix, model=MODEL, model_args=ARGUMENTS)
            off = max(float((backbone.state[key] - value).abs().max()) for key, value in state.items())
            score = knn(path, prefix, images)
            weight = started(new if prefix else path)
            same = torch.allclose(weight, state["blocks.1.attn.qkv.weight"], atol=1e-2)
            fine = off <= (0 if name not in ("half", "bfloat16") else 1e-2) and same
            fine &= score == expected or name in ("half", "bfloat16")
            good &= fine
            print(
                f"{'ok  ' if fine else 'FAIL'} {name}: read as {backbone.reading.format}, weights off by {off:.0e}, "
                f"k-NN {score:g} %, MST starts from {'it' if same else 'other weights'}"
            )
        print()
        for what, path in impossible(state, folder).items():
            try:
                read_backbone(path, model=MODEL, model_args=ARGUMENTS)
                load_trunk(str(path), model=MODEL, model_args=ARGUMENTS)
                good, said = False, "FAIL: it was read"
            except UserError as error:
                said = str(error).replace(str(folder), "FOLDER")
            print(f"{what}: {said}")
    print("all as they should be" if good else "NOT all as they should be", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    run_cli(main)

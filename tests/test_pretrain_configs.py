"""The shipped pretraining configs hold the recipe: what they build, compared with a table of literals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DATASETS, HOOKS, MODELS
from PIL import Image
from timm.layers import DropPath
from timm.models.swin_transformer import SwinTransformer
from torch import nn

import mst_pretrain  # noqa: F401  registers what the configs name
from mst_pretrain.data.multicrop import CropRecipe
from mst_pretrain.runtime.config import load_config
from mst_pretrain.training.optim import MSTOptimWrapperConstructor

CONFIGS = Path(__file__).parents[1] / "configs"
TAG = re.compile(r"\[(paper|summary|ours|code: [^]]+)\]")
NUMBER = re.compile(r"(norm_last_layer|mode)=|=[(-]?[\d.]")
ENGINEERING = re.compile(
    r"\b(num_workers|interval|max_keep_ckpts|opencv_num_threads|seed)="
)  # no part of the method
PRETRAINING = [
    "_base_/mst_pretrain.py",
    *(str(p.relative_to(CONFIGS)) for p in sorted(CONFIGS.glob("pretrain/*.py"))),
]
ABLATIONS = sorted(path.name for path in CONFIGS.glob("ablation/*.py"))

COLOURS: dict[str, Any] = {
    "ratio": (3 / 4, 4 / 3),
    "flip": 0.5,
    "jitter": (0.4, 0.4, 0.2, 0.1),
    "jitter_probability": 0.8,
    "grey_probability": 0.2,
    "blur_sigma": (0.1, 2.0),
}
GLOBAL: dict[str, Any] = {"size": 224, "scale": (0.4, 1.0), **COLOURS}
RECIPE: dict[str, Any] = {
    # the method
    "masking": {"mode": "attention", "num": 8, "prob": 0.5, "unmasked_image_probability": 0.0},
    "mask_local": False,
    "lambda_ce": 1.0,
    "lambda_rec": 1.0,
    "decoder kernels": {"first": (1, 1), "deconvolutions": {((2, 2), (2, 2))}, "last": (3, 3)},
    "decoder output": 3,
    # the head
    "hidden": 2048,
    "bottleneck": 256,
    "prototypes": 65536,
    "activations": [nn.GELU, nn.GELU],
    "last layer's bias": None,
    "norms of the head": 0,
    # the loss
    "student_temperature": 0.1,
    "center_momentum": 0.9,
    # drop path
    "student's drop path": 0.1,
    "teacher's drop path": 0.0,
    # the optimizer and its schedules
    "optimizer": "AdamW",
    "betas": (0.9, 0.999),
    "clip_grad_per_tensor": 3.0,
    "clip_grad": None,
    "accumulate": 1,
    "max_iters": None,
    "schedule": {
        "base_lr": 5e-4,
        "base_batch": 256,
        "final_lr": 1e-6,
        "warmup_epochs": 10,
        "weight_decay": (0.04, 0.4),
        "momentum": (0.996, 1.0),
        "freeze_last_layer_epochs": 1,
    },
    # the crops
    "global crops": [
        CropRecipe(**GLOBAL, blur_probability=1.0, solarize_probability=0.0),
        CropRecipe(**GLOBAL, blur_probability=0.1, solarize_probability=0.2),
    ],
    "local crop": CropRecipe(
        size=96, scale=(0.05, 0.4), **COLOURS, blur_probability=0.5, solarize_probability=0.0
    ),
    "local crops": 8,
    "mean": pytest.approx([0.485, 0.456, 0.406]),
    "std": pytest.approx([0.229, 0.224, 0.225]),
}
DEIT_S = {"trunk": ("VisionTransformer", 384, [12], 6, 16), "decoder's deconvolutions": 4}
SWIN_T = {"trunk": ("SwinTransformer", 768, [2, 2, 6, 2], (3, 6, 12, 24), 4), "decoder's deconvolutions": 5}
VIT_TI = {"trunk": ("VisionTransformer", 192, [12], 3, 16), "decoder's deconvolutions": 4}
VIT_B = {"trunk": ("VisionTransformer", 768, [12], 12, 16), "decoder's deconvolutions": 4}
SWIN_B = {
    "trunk": ("SwinTransformer", 1024, [2, 2, 18, 2], (4, 8, 16, 32), 4),
    "decoder's deconvolutions": 5,
}
EPOCHS_300 = {"batch": 1024, "epochs": 300, "teacher_temperature": (0.04, 0.07), "temperature epochs": 30}
EPOCHS_100 = {"batch": 512, "epochs": 100, "teacher_temperature": (0.04, 0.04), "temperature epochs": 0}
SHIPPED: dict[str, dict[str, Any]] = {
    "mst_deit-s_8xb128-300e_in1k": DEIT_S | EPOCHS_300 | {"lengths of prototypes train": True},
    "mst_deit-s_8xb64-100e_in1k": DEIT_S | EPOCHS_100 | {"lengths of prototypes train": False},
    "mst_swin-t_8xb128-300e_in1k": SWIN_T | EPOCHS_300 | {"lengths of prototypes train": True},
    "mst_swin-t_8xb64-100e_in1k": SWIN_T | EPOCHS_100 | {"lengths of prototypes train": False},
    "mst_vit-ti_8xb128-300e_in1k": VIT_TI | EPOCHS_300 | {"lengths of prototypes train": True},
    "mst_vit-b_8xb128-300e_in1k": VIT_B | EPOCHS_300 | {"lengths of prototypes train": False},
    "mst_swin-b_8xb128-300e_in1k": SWIN_B | EPOCHS_300 | {"lengths of prototypes train": True},
}


def trunk_of(backbone: Any) -> tuple[Any, ...]:
    """Kind, feature width, blocks, heads and patch size of a trunk."""
    kind, width, patch = type(backbone).__name__, backbone.num_features, backbone.patch_embed.patch_size[0]
    if isinstance(backbone, SwinTransformer):
        stages = [stage.blocks for stage in backbone.layers]
        heads = tuple(blocks[0].attn.num_heads for blocks in stages)
        return kind, width, [len(blocks) for blocks in stages], heads, patch
    return kind, width, [len(backbone.blocks)], backbone.blocks[0].attn.num_heads, patch


def drop_path(backbone: nn.Module) -> float:
    """The largest rate, the last block's."""
    return max(
        (module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)), default=0.0
    )


def of_model(cfg: Any) -> dict[str, Any]:
    """What the built model has; its weights are not drawn."""
    with torch.device("meta"):
        model: Any = MODELS.build(cfg.model)
    normalisation: Any = MODELS.build(cfg.model.data_preprocessor)
    head, layers = model.student.head, model.decoder.layers
    linears = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    (hidden,) = {linears[0].out_features, linears[1].in_features, linears[1].out_features}
    deconvolutions = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    return {
        "trunk": trunk_of(model.student.backbone),
        "student's drop path": pytest.approx(drop_path(model.student.backbone)),
        "teacher's drop path": drop_path(model.teacher.backbone),
        "hidden": hidden,
        "bottleneck": linears[2].out_features,
        "prototypes": head.last_layer.out_features,
        "activations": [type(layer) for layer in head.mlp if not isinstance(layer, nn.Linear)],
        "norms of the head": sum("Norm" in type(layer).__name__ for layer in head.mlp),
        "last layer's bias": head.last_layer.bias,
        "lengths of prototypes train": head.last_layer.parametrizations.weight.original0.requires_grad,
        "student_temperature": model.distillation.student_temperature,
        "center_momentum": model.distillation.center_momentum,
        "masking": model.masking,
        "mask_local": model.mask_local,
        "lambda_ce": model.lambda_ce,
        "lambda_rec": model.lambda_rec,
        "decoder kernels": {
            "first": layers[0].kernel_size,
            "deconvolutions": {(layer.kernel_size, layer.stride) for layer in deconvolutions},
            "last": layers[-1].kernel_size,
        },
        "decoder's deconvolutions": len(deconvolutions),
        "decoder output": layers[-1].out_channels,
        "mean": normalisation.mean.flatten().tolist(),
        "std": normalisation.std.flatten().tolist(),
    }


def of_training(cfg: Any) -> dict[str, Any]:
    """What the built optimizer and schedule hook have."""
    wrapper: Any = MSTOptimWrapperConstructor(cfg.optim_wrapper)(nn.Linear(2, 2))
    schedule = vars(HOOKS.build(cfg.default_hooks.schedule))
    return {
        "optimizer": type(wrapper.optimizer).__name__,
        "betas": wrapper.optimizer.defaults["betas"],
        "clip_grad_per_tensor": wrapper.clip_grad_per_tensor,
        "clip_grad": wrapper.clip_grad_kwargs or None,
        "schedule": {key: schedule[key] for key in RECIPE["schedule"]},
        "teacher_temperature": schedule["teacher_temperature"],
        "temperature epochs": schedule["teacher_temperature_epochs"],
        "epochs": cfg.train_cfg.max_epochs,
        "max_iters": cfg.train_cfg.max_iters,
        "accumulate": cfg.train_cfg.accumulate,
    }


def of_crops(cfg: Any, folder: Path) -> dict[str, Any]:
    """What the built data set cuts and draws."""
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    crops = DATASETS.build({**cfg.train_dataloader.dataset, "data_root": str(folder)}).crops
    return {
        "global crops": crops.global_crops,
        "local crop": crops.local_crop,
        "local crops": crops.local_count,
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_builds_the_recipe(name: str, tmp_path: Path) -> None:
    """A value of the published recipe would have changed, or a default in the code would, and nobody would see it."""
    cfg = load_config(CONFIGS / "pretrain" / f"{name}.py")
    processes = int(name.split("_")[2].split("xb")[0])  # 8xb128: 8 processes of 128 images
    got = of_model(cfg) | of_training(cfg) | of_crops(cfg, tmp_path)
    assert got | {"batch": processes * cfg.train_dataloader.batch_size} == RECIPE | SHIPPED[name]


def untagged(source: str) -> list[str]:
    """Lines with a value of the method and no tag; ``# all [...]`` behind a bracket covers what is in it."""
    found, covered = [], 10**6  # indentation of the bracket that covers the line
    for line in source.splitlines():
        indentation = len(line) - len(line.lstrip())
        if indentation <= covered:
            covered = indentation if "# all [" in line else 10**6
            value = NUMBER.search(line) and not line.startswith("#") and not ENGINEERING.search(line)
            found += [line] if value and not TAG.search(line) else []
    return found


@pytest.mark.parametrize("name", PRETRAINING)
def test_values_of_pretraining_name_their_source(name: str) -> None:
    """A reader could not tell the literature's values from ours."""
    source = (CONFIGS / name).read_text()
    assert "All [ours]" in source.partition("_base_ =")[0] or untagged(source) == []


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_names_the_source_of_its_difference(name: str) -> None:
    """A reader could not tell the literature's arms from ours."""
    assert TAG.search((CONFIGS / "ablation" / name).read_text().splitlines()[0])

"""Do converted DINOv2, DINOv3, MAE, DeiT and Swin compute the same? Families x formats x {in, out}, one table.

    python tests/qa/family_matrix.py [--families F ...]

Beside ``conversion_matrix.py``, whose formats are those of a plain ViT and Swin. References are the installed timm and
transformers with random weights, at the size of the published networks. A cell is the largest deviation
|a - b|.max() / |b|.max() of the last tokens. *huggingface*, in: transformers writes a folder and we read it; out: we
write one and transformers reads it. *own*, in: a file with the names and layout of the project's code, read by us and
by timm's reader of that format; out: we write one and timm reads it. *timm*, in: timm's names, without metadata; out:
``timm.create_model(checkpoint_path=...)``. Exit code 1 when a cell is above 1e-5.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.verify import (
    deviation,
    huggingface_deviation,
    image_for,
    timm_deviation,
    trunk_of,
)
from mst_pretrain.runtime.errors import run_cli

LIMIT = 1e-5
# timm's name, and transformers' class, configuration and what differs from its defaults
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "DINOv2": (
        "vit_small_patch14_dinov2",
        "Dinov2Model",
        "Dinov2Config",
        dict(image_size=518, patch_size=14),
    ),
    "DINOv2, registers": (
        "vit_small_patch14_reg4_dinov2",
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        dict(image_size=518, patch_size=14, num_register_tokens=4),
    ),
    "DINOv3": ("vit_small_patch16_dinov3", "DINOv3ViTModel", "DINOv3ViTConfig", dict(num_register_tokens=4)),
    "DINOv3, biases": (
        "vit_small_patch16_dinov3_qkvb",
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        dict(num_register_tokens=4),
    ),
    "distilled DeiT": ("deit_small_distilled_patch16_224", "DeiTModel", "DeiTConfig", {}),
    "MAE ViT-B": ("vit_base_patch16_224", "ViTMAEModel", "ViTMAEConfig", dict(mask_ratio=0.0)),
    "MAE ViT-L": ("vit_large_patch16_224", "ViTMAEModel", "ViTMAEConfig", dict(mask_ratio=0.0)),
    "Swin-S": ("swin_small_patch4_window7_224", "SwinModel", "SwinConfig", dict(depths=[2, 2, 18, 2])),
    "Swin-B": (
        "swin_base_patch4_window7_224",
        "SwinModel",
        "SwinConfig",
        dict(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]),
    ),
}
OWN = {"DINOv2": "dinov2", "DINOv2, registers": "dinov2", "DINOv3": "dinov3", "DINOv3, biases": "dinov3"}


def randomise(module: nn.Module) -> Any:
    """Every parameter drawn; those near one stay near it."""
    generator = torch.Generator().manual_seed(1)
    for name, value in module.named_parameters():
        near_one = value.dim() == 1 and not name.endswith("bias")
        spread = 0.2 if value.dim() == 1 else 1 / max(value[0].numel(), 1) ** 0.5
        value.data = spread * torch.randn(value.shape, generator=generator) + float(near_one)
    return module.eval()


def tokens(model: Any, images: Tensor, family: str) -> Tensor:
    """transformers' last tokens; MAE, which shuffles its patches by noise, in their order."""
    extra: dict[str, Tensor] = {}
    if family.startswith("MAE"):
        extra["noise"] = torch.arange(float(images.shape[2] // 16 * (images.shape[3] // 16)))[None]
    return model(images, **extra).last_hidden_state


def transformers_in(family: str, folder: Path) -> float:
    """transformers' folder, read by us."""
    name, kind, config, options = FAMILIES[family]
    with torch.device("meta"):
        shape: Any = timm.create_model(name, num_classes=0)
    if not name.startswith("swin"):
        block = shape.blocks[0]
        options = {
            **options,
            "hidden_size": shape.embed_dim,
            "num_hidden_layers": len(shape.blocks),
            "num_attention_heads": block.attn.num_heads,
        }
        options |= {} if family.startswith("DINOv2") else {"intermediate_size": 4 * shape.embed_dim}
    theirs = getattr(transformers, kind)(getattr(transformers, config)(**options))
    randomise(theirs)
    if family == "DINOv3":
        for block in theirs.model.layer:
            block.attention.q_proj.bias.data.zero_()
            block.attention.v_proj.bias.data.zero_()
    theirs.save_pretrained(folder / "theirs")
    backbone = read_backbone(folder / "theirs")
    images = image_for(backbone)
    found = trunk_of(backbone).forward_features(images)
    found = found.flatten(1, 2) if found.ndim == 4 else found
    return deviation(found, tokens(theirs, images, family))


def network(family: str, folder: Path) -> tuple[Any, Path]:
    """timm's network of random weights, and its bare file without metadata."""
    model = randomise(timm.create_model(FAMILIES[family][0], num_classes=0))
    save_file(model.state_dict(), folder / "timm.safetensors")
    return model, folder / "timm.safetensors"


def timms(family: str, state: dict[str, Tensor]) -> Any:
    """timm's network of a file in the project's own format."""
    model: Any = timm.create_model(FAMILIES[family][0], num_classes=0).eval()
    library: Any = eva if "DINOv3" in family else vision_transformer
    model.load_state_dict(library.checkpoint_filter_fn(dict(state), model))
    return model


@torch.no_grad()
def row(family: str, folder: Path) -> dict[str, float]:
    """Deviations by format and direction."""
    model, bare = network(family, folder)
    cells = {"huggingface in": transformers_in(family, folder)}
    backbone = convert_checkpoint(bare, folder / "hf", "huggingface")
    cells["huggingface out"] = huggingface_deviation(backbone, folder / "hf")
    images = image_for(backbone)
    expected = model.forward_features(images)
    cells["timm in"] = deviation(trunk_of(read_backbone(bare)).forward_features(images), expected)
    backbone = convert_checkpoint(bare, folder / "out.safetensors")
    cells["timm out"] = timm_deviation(backbone, folder / "out.safetensors")
    if family in OWN:
        convert_checkpoint(bare, folder / "own.pth", OWN[family])
        own = torch.load(folder / "own.pth", weights_only=True)
        cells["own out"] = deviation(timms(family, own).forward_features(images), expected)
        for name in (
            "pos_embed",
            "cls_token",
        ):  # a position of [CLS] that is not zero, as in the project's file
            if name in own:
                own[name] = own[name] + 0.1 * torch.randn_like(own[name])
        torch.save(own, folder / "own.pth")
        ours = trunk_of(read_backbone(folder / "own.pth"))
        cells["own in"] = deviation(
            ours.forward_features(images), timms(family, own).forward_features(images)
        )
    return cells


COLUMNS = ("timm in", "timm out", "huggingface in", "huggingface out", "own in", "own out")


def main(argv: list[str] | None = None) -> int:
    """Print a row per family; 1 when a cell is above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="F")
    args = parser.parse_args(argv)
    print(f"| family | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    worst = 0.0
    for family in args.families:
        with tempfile.TemporaryDirectory() as folder:
            cells = row(family, Path(folder))
        worst = max(worst, *cells.values())
        shown = (f"{cells[column]:.1e}" if column in cells else "-" for column in COLUMNS)
        print(f"| {family} | {' | '.join(shown)} |", flush=True)
    good = worst <= LIMIT
    print(f"largest {worst:.1e}, {'all' if good else 'NOT all'} within {LIMIT:g}", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    run_cli(main)

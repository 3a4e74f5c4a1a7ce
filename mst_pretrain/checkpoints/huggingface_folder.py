"""A Hugging Face folder: config.json, model.safetensors, preprocessor_config.json and a card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.statistics import IMAGENET_MEAN, IMAGENET_STD
from ..runtime.atomic import remove_stale, temporary_name
from ..runtime.errors import UserError
from .architecture import Architecture
from .storage import save_safetensors
from .vit_families import DINOV2, DINOV3, DISTILLED, ROPE_BASE, SWIN, VIT

CROP_SHARE = 224 / 256  # of the resized short side, as DINO's evaluation crops [code: DINO]
MODELS = {
    VIT: ("ViTModel", "vit"),
    DISTILLED: ("DeiTModel", "deit"),
    DINOV2: ("Dinov2Model", "dinov2"),
    DINOV3: ("DINOv3ViTModel", "dinov3_vit"),
    SWIN: ("SwinModel", "swin"),
}
BICUBIC = 3  # PIL's number


def check_folder(folder: Path) -> None:
    """Refuse all but a new or empty folder."""
    if folder.suffix in (".safetensors", ".pth", ".bin"):
        raise UserError(
            f"{folder}: the Hugging Face format is a folder. Give a name without {folder.suffix}."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already. Give another name, or remove it first.")


def model_config(architecture: Architecture, norm_eps: float) -> dict[str, Any]:
    """``config.json`` of transformers' model of that family."""
    model = architecture.model
    height, width = architecture.image_size
    common: dict[str, Any] = dict(
        hidden_act="gelu",
        image_size=height if height == width else [height, width],
        patch_size=architecture.patch_size,
        num_channels=3,
        qkv_bias=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=norm_eps,
        torch_dtype="float32",
    )
    name, common["model_type"] = model_class(architecture)
    common["architectures"] = [name]
    if architecture.is_swin:
        blocks = [layer.blocks[0] for layer in model.layers]
        return common | dict(
            embed_dim=model.embed_dim,
            depths=[len(layer.blocks) for layer in model.layers],
            num_heads=[block.attn.num_heads for block in blocks],
            window_size=architecture.window,
            mlp_ratio=blocks[0].mlp.fc1.out_features / model.embed_dim,
            use_absolute_embeddings=False,
            drop_path_rate=0.0,
        )
    hidden, registers = model.blocks[0].mlp.fc1.out_features, model.reg_token
    common |= dict(
        hidden_size=model.embed_dim,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=model.blocks[0].attn.num_heads,
    )
    if registers is not None:
        common["num_register_tokens"] = registers.shape[1]
    if architecture.kind == DINOV2:
        return common | dict(mlp_ratio=hidden // model.embed_dim, use_swiglu_ffn=False)
    if architecture.kind == DINOV3:
        common |= dict(query_bias=True, key_bias=False, value_bias=True, use_gated_mlp=False)
        common |= dict(rope_theta=ROPE_BASE)
    return common | dict(intermediate_size=hidden)


def model_class(architecture: Architecture) -> tuple[str, str]:
    """transformers' class, and its ``model_type``."""
    if architecture.kind == DINOV2 and architecture.model.reg_token is not None:
        return "Dinov2WithRegistersModel", "dinov2_with_registers"
    return MODELS[architecture.kind]


def has_pooler(architecture: Architecture) -> bool:
    """Whether transformers' model would add a layer that no backbone's file has."""
    return architecture.kind not in (DINOV2, DINOV3)


def preprocessor_config(architecture: Architecture) -> dict[str, Any]:
    """Resize the short side, crop the centre, normalise, as our evaluation tools do [code: DINO].

    Where the margins are odd, transformers' crop lies one pixel beside torchvision's.
    """
    height, width = architecture.image_size
    return dict(
        image_processor_type="BitImageProcessor",
        do_convert_rgb=True,
        do_resize=True,
        size={"shortest_edge": round(max(height, width) / CROP_SHARE)},
        resample=BICUBIC,
        do_center_crop=True,
        crop_size={"height": height, "width": width},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )


def card(architecture: Architecture, metadata: Mapping[str, str], name: str) -> str:
    """README.md: what the weights are, how to load them, what they do not do."""
    kind, pooling = (
        model_class(architecture)[0],
        ", add_pooling_layer=False" if has_pooler(architecture) else "",
    )
    rows = "\n".join(f"| {key} | {value} |" for key, value in metadata.items() if key != "format")
    feature = (
        "`last_hidden_state.mean(1)`, the mean of the last stage's tokens"
        if architecture.is_swin
        else "`last_hidden_state[:, 0]`, the [CLS] token"
    )
    rule = (
        "\nAs in the original Swin, a stage whose map fits one window does not shift. transformers decides this anew "
        "for every image and keeps it: build the model again before another size.\n"
        if architecture.is_swin
        else ""
    )
    return f"""---
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [self-supervised-learning, vision]
---

# {name}

A backbone without a classifier, written by the MST toolkit. No figures were measured for this card.

```python
from transformers import AutoImageProcessor, {kind}

processor = AutoImageProcessor.from_pretrained("{name}")
model = {kind}.from_pretrained("{name}"{pooling}).eval()
tokens = model(**processor(images=photo, return_tensors="pt")).last_hidden_state
```

The image's feature is {feature}.
{rule}
| what | value |
|---|---|
{rows}

The licence of the weights is that of their origin.
"""


def write_folder(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    norm_eps: float,
    metadata: dict[str, str],
    folder: Path,
) -> list[Path]:
    """Write everything into a temporary folder beside it and rename that: the folder is there whole or not at all.

    Args:
        state: Hugging Face's names.
        architecture: The model, whose LayerNorms have ``norm_eps``.
        metadata: Of the ``.safetensors`` file and the card.
        folder: New or empty.

    Raises:
        UserError: Something is there, or it cannot be written.
    """
    check_folder(folder)
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = temporary_name(folder)
        part.mkdir()
        remove_stale(part, folder)
        configs = (model_config(architecture, norm_eps), preprocessor_config(architecture))
        for name, content in zip(("config.json", "preprocessor_config.json"), configs, strict=True):
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (part / "README.md").write_text(card(architecture, metadata, folder.name), encoding="utf-8")
        save_safetensors(state, part / "model.safetensors", metadata)
        if folder.exists():
            folder.rmdir()  # empty
        part.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}). Give a folder in a place that allows writing and "
            "has space."
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)  # after an error
    return sorted(folder.iterdir())

"""A folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads, and the hub takes as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..data.statistics import IMAGENET_MEAN, IMAGENET_STD
from ..runtime.atomic import remove_stale, temporary_name
from ..runtime.errors import UserError
from .architecture import Architecture
from .backbone import Backbone
from .conversion import describe
from .huggingface_folder import CROP_SHARE
from .reading import CONFIG
from .storage import save_safetensors
from .timm_keys import ORIGINAL_SWIN

WEIGHTS, CARD = "model.safetensors", "README.md"
FILES = {CONFIG, WEIGHTS, CARD}


def timm_config(architecture: Architecture) -> dict[str, Any]:
    """``config.json`` [code: timm's ``models/_hub.py``]: timm's name, other arguments, how images are prepared.

    There is no classifier; ``num_classes=N`` of ``timm.create_model`` makes a new one.
    """
    height, width = architecture.image_size
    return dict(
        architecture=architecture.name,
        num_classes=0,
        num_features=architecture.model.num_features,
        model_args=architecture.arguments,
        pretrained_cfg=dict(
            tag="mst",
            custom_load=False,
            input_size=[3, height, width],
            fixed_input_size=not architecture.is_swin,
            interpolation="bicubic",
            crop_pct=CROP_SHARE,
            crop_mode="center",
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
            num_classes=0,
            pool_size=None,
            first_conv="patch_embed.proj",
            classifier="head.fc" if architecture.is_swin else "head",
        ),
    )


def refuse_others(folder: Path) -> None:
    """Raise a UserError where a folder holds anything but what an earlier call has written, or is a file."""
    if folder.suffix in (".safetensors", ".pth", ".onnx"):
        raise UserError(f"{folder}: a folder is written. Give a name without {folder.suffix}.")
    if folder.exists() and (not folder.is_dir() or {entry.name for entry in folder.iterdir()} - FILES):
        raise UserError(
            f"{folder} exists already and holds other files. Give another name, or remove it first."
        )


def write_timm_folder(backbone: Backbone, folder: Path, card: str) -> Path:
    """Write config, weights and card into a temporary folder and put it in the place of ``folder``.

    Args:
        backbone: Whole, from :func:`read_backbone`.
        folder: New, empty, or of an earlier call.
        card: Text of README.md.

    Raises:
        UserError: Something else is there, or it cannot be written.
    """
    refuse_others(folder)
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = temporary_name(folder)
        part.mkdir()
        remove_stale(part, folder)
        config = json.dumps(timm_config(backbone.architecture), indent=2)
        (part / CONFIG).write_text(config + "\n", encoding="utf-8")
        (part / CARD).write_text(card, encoding="utf-8")
        # timm before 1.0.31 takes every Swin without a classifier for the original's layout; later ones tell them apart
        swin = backbone.architecture.is_swin
        state = ORIGINAL_SWIN.from_timm(backbone.state) if swin else backbone.state
        save_safetensors(state, part / WEIGHTS, describe(backbone))
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}). Give a folder in a place that allows writing."
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)  # after an error
    return folder

"""Weights of one family in a model of the other, and the configs that both families have."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from mst_pretrain.checkpoints.loading import load_backbone
from mst_pretrain.checkpoints.storage import save_safetensors
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError

ROOT = Path(__file__).parents[3]
MODELS = {
    "ViT": ("vit_tiny_patch16_224", dict(img_size=32, embed_dim=32, depth=2, num_heads=2)),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        dict(img_size=56, embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=7),
    ),
}


@pytest.mark.parametrize(("given", "wanted"), [("ViT", "Swin"), ("Swin", "ViT")])
def test_the_other_family_is_named(tmp_path: Path, given: str, wanted: str) -> None:
    """The message would list hundreds of weights, and leave out that the file is of another architecture."""
    source, target = (
        timm.create_model(name, num_classes=0, **kwargs) for name, kwargs in (MODELS[given], MODELS[wanted])
    )
    path = tmp_path / "start.safetensors"
    save_safetensors(dict(source.state_dict()), path)
    with pytest.raises(
        UserError, match=rf"start.safetensors is a {given}, but .* is a {wanted}: nothing was loaded"
    ):
        load_backbone(target, path)
    assert load_backbone(source, path).startswith("all ")


@pytest.mark.parametrize(
    ("swin", "vit"),
    [
        ("coco/mask_rcnn_own-data", "coco/mask_rcnn_own-data_deit-s"),
        ("cityscapes/upernet_own-data", "cityscapes/upernet_own-data_deit-s"),
        ("pretrain/mst_swin-t_small-data", "pretrain/mst_deit-s_small-data"),
    ],
)
def test_own_data_have_configs_of_both_families(swin: str, vit: str) -> None:
    """Somebody who has pretrained one family would find no config to go on with."""
    names = []
    for config in (swin, vit):
        backbone = load_config(ROOT / f"configs/{config}.py").model.backbone
        names.append(backbone.get("model") or backbone.get("name"))
    assert names == ["swin_tiny_patch4_window7_224", "vit_small_patch16_224"]

"""The timm models that the MM backbones take give timm's features at their native size; look-alikes are refused."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block
from torch import nn

from mst_pretrain.runtime.errors import UserError
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer

SMALL: dict[str, Any] = dict(embed_dim=24, depth=2, num_heads=3, img_size=64, patch_size=16)
SWIN: dict[str, Any] = dict(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2))
PLAIN, TINY = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
pytestmark = pytest.mark.usefixtures("one_thread")


def randomize(module: nn.Module) -> nn.Module:
    """Every parameter drawn, so that none is 0 or 1 by chance."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        scale, shift = 0.3, float("norm" in name and name.endswith("weight"))
        parameter.data = scale * torch.randn(parameter.shape, generator=generator) + shift
    return module.eval()


def image_of(model: Any) -> torch.Tensor:
    return torch.randn(1, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "given"),
    [
        (PLAIN, {}),
        (PLAIN, {"img_size": (64, 96)}),
        (PLAIN, {"no_embed_class": True}),
        (PLAIN, {"reg_tokens": 2, "no_embed_class": True}),
        (PLAIN, {"pos_embed": "none"}),
        (PLAIN, {"pre_norm": True}),
        (PLAIN, {"init_values": 0.3}),
        (PLAIN, {"qk_norm": True}),
        (PLAIN, {"class_token": False, "global_pool": ""}),
        (PLAIN, {"global_pool": "avg"}),
        (PLAIN, {"final_norm": False}),
        ("deit3_small_patch16_224", {}),
        ("flexivit_small", {}),
        ("vit_base_patch16_clip_quickgelu_224", {}),
        ("vit_small_patch14_reg4_dinov2", {}),
        ("vit_giant_patch14_dinov2", {}),
        ("vit_base_patch16_siglip_gap_224", {}),
        ("vit_base_patch16_siglip_224", {}),
        ("deit_small_distilled_patch16_224", {}),
        ("vit_small_patch16_dinov3", {}),
        ("vit_small_patch16_dinov3_qkvb", {"img_size": (64, 96)}),
        ("vit_huge_plus_patch16_dinov3", {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("window", [None, 6])
def test_allowed_vits_give_timms_features(name: str, given: dict[str, Any], window: int | None) -> None:
    """A detector would start from other features than timm's; a window over the whole map must change nothing."""
    native: Any = randomize(timm.create_model(name, num_classes=0, **SMALL | given))
    backbone = MSTVisionTransformer(
        name, SMALL | given, out_indices=(1,), pyramid=False, window_size=window, global_blocks=window and ()
    ).eval()
    weights = native.state_dict()
    backbone.trunk.load_state_dict({key: weights[key] for key in backbone.trunk.state_dict()})
    images = image_of(native)
    (found,) = backbone(images)
    expected = native.forward_features(images)[:, native.num_prefix_tokens :]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "given"),
    [
        (TINY, {}),
        (TINY, {"img_size": (224, 448)}),
        (TINY, {"window_size": 4, "img_size": 128}),
        (TINY, {"head_dim": 6}),
        ("swin_s3_tiny_224", {}),
        ("swin_base_patch4_window12_384", {}),
    ],
    ids=str,
)
def test_allowed_swins_give_timms_features(name: str, given: dict[str, Any]) -> None:
    """A detector would start from other features than those of timm's Swin that always shifts."""
    native: Any = randomize(timm.create_model(name, num_classes=0, always_partition=True, **SWIN | given))
    backbone = MSTSwin(name, SWIN | given, out_indices=(3,)).eval()
    weights = native.state_dict()
    backbone.trunk.load_state_dict({key: weights[key] for key in backbone.trunk.state_dict()})
    backbone.norm3.load_state_dict(native.norm.state_dict())
    images = image_of(native)
    (found,) = backbone(images)
    expected = native.forward_features(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class SubBlock(Block):
    """Whose forward pass may be another."""


@pytest.mark.parametrize(
    ("model", "given", "match"),
    [
        ("eva02_tiny_patch14_224", {}, "pos_embed in its Eva"),
        ("vit_small_patch16_rope_224", {}, "'vit_small_patch16_rope_224' has"),
        ("vit_small_patch16_dinov3", {"rope_type": "cat"}, "RotaryEmbeddingCat"),
        ("vit_small_patch16_dinov3", {"use_rot_pos_emb": False}, "no rotary positions"),
        ("vit_small_patch16_dinov3", {"attn_type": "rope"}, "AttentionRope"),
        ("beit_base_patch16_224", {}, "'beit_base_patch16_224' is"),
        ("vit_relpos_small_patch16_224", {}, "'vit_relpos_small_patch16_224' is"),
        ("vit_tiny_r_s16_p8_224", {}, "HybridEmbed"),
        ("vit_small_patch16_18x2_224", {}, "ParallelThingsBlock"),
        ("vit_base_patch16_rpn_224", {}, "ResPostBlock"),
        (TINY, {}, "not a plain ViT"),
        ("resnet18", {}, "not a plain ViT"),
        ("vit_tinny", {}, "no model 'vit_tinny'"),
        (PLAIN, {"patch_size": (16, 8)}, r"patches of \(16, 8\)"),
        (None, {"block_fn": SubBlock}, "SubBlock"),
        (None, {"patch_drop_rate": 0.5}, "patch_drop"),
    ],
)
def test_look_alikes_of_vits_are_refused(model: str | None, given: dict[str, Any], match: str) -> None:
    """Every key would match and the features be up to a third off timm's, or the error be a traceback."""
    with torch.device("meta"), pytest.raises(UserError, match=match):
        MSTVisionTransformer(model, given)


@pytest.mark.parametrize(
    ("model", "given", "match"),
    [
        ("swinv2_tiny_window8_256", {}, "swinv2_tiny_window8_256"),
        ("swinv2_cr_tiny_224", {}, "swinv2_cr_tiny_224"),
        (PLAIN, {}, "not a Swin"),
        ("swin_tinny", {}, "no model 'swin_tinny'"),
        (TINY, {"window_size": (7, 14)}, "window"),
    ],
)
def test_look_alikes_of_swins_are_refused(model: str, given: dict[str, Any], match: str) -> None:
    """Swin v2's attention by cosines would be loaded and left to another formula, every key matched."""
    with torch.device("meta"), pytest.raises(UserError, match=match):
        MSTSwin(model, given)

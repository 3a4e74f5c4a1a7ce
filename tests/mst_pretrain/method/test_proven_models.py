"""The timm models that pretraining takes give timm's features and attention; look-alikes are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mst_pretrain.checkpoints.architecture import Architecture
from mst_pretrain.method.backbones import build_trunk, forward_trunk
from mst_pretrain.runtime.errors import InvalidValue, UserError

Randomize = Callable[[nn.Module, int], nn.Module]
SMALL: dict[str, Any] = dict(embed_dim=24, depth=2, num_heads=3, img_size=64, patch_size=16)
SWIN: dict[str, Any] = dict(embed_dim=8, depths=(1, 1, 2, 2), num_heads=(1, 1, 2, 2))
PLAIN, TINY = "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
VITS: list[tuple[str, dict[str, Any]]] = [
    (PLAIN, {}),
    (PLAIN, {"img_size": (64, 96)}),
    (PLAIN, {"patch_size": 8}),
    (PLAIN, {"no_embed_class": True}),
    (PLAIN, {"reg_tokens": 2}),
    (PLAIN, {"reg_tokens": 2, "no_embed_class": True}),
    (PLAIN, {"pos_embed": "none"}),
    (PLAIN, {"pre_norm": True}),
    (PLAIN, {"embed_norm_layer": nn.LayerNorm}),
    (PLAIN, {"init_values": 0.3}),
    (PLAIN, {"qk_norm": True}),
    (PLAIN, {"scale_attn_norm": True, "scale_mlp_norm": True}),
    (PLAIN, {"qkv_bias": False}),
    (PLAIN, {"mlp_ratio": 2.0, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}),
    ("deit_tiny_patch16_224", {}),
    ("deit3_small_patch16_224", {}),
    ("flexivit_small", {}),
    ("vit_base_patch16_224_miil", {}),
    ("vit_base_patch16_clip_224", {}),
    ("vit_base_patch16_clip_quickgelu_224", {}),
    ("vit_base_patch16_plus_240", {}),
    ("vit_small_patch14_dinov2", {}),
    ("vit_small_patch14_reg4_dinov2", {}),
    ("vit_giant_patch14_dinov2", {}),
    ("deit_small_distilled_patch16_224", {}),
    ("vit_small_patch16_dinov3", {}),
    ("vit_small_patch16_dinov3_qkvb", {"img_size": (64, 96)}),
]
SWINS: list[tuple[str, dict[str, Any]]] = [
    (TINY, {}),
    (TINY, {"img_size": 256}),
    (TINY, {"img_size": (256, 512)}),
    (TINY, {"img_size": 96}),
    (TINY, {"window_size": 4, "img_size": 128}),
    (TINY, {"patch_size": 2, "img_size": 112}),
    (TINY, {"head_dim": 6}),
    (TINY, {"qkv_bias": False}),
    (TINY, {"depths": (1, 2), "num_heads": (1, 2), "img_size": 56}),
    ("swin_s3_tiny_224", {}),
    ("swin_base_patch4_window12_384", {}),
]


def softmax_of(attention: Any, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What ``run`` returns and the softmax of the layer with fused attention off, [., heads, queries, keys]."""
    seen: list[Tensor] = []
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda module, given, result: seen.append(result))
    return run(), seen[0]


@torch.no_grad()
@pytest.mark.parametrize(("name", "given"), VITS + SWINS, ids=str)
def test_allowed_models_give_timms_features(randomize: Randomize, name: str, given: dict[str, Any]) -> None:
    """Features or masks would be those of another network than the one whose weights are exported."""
    swin = name.startswith("swin")
    arguments = (SWIN if swin else SMALL) | given
    native: Any = timm.create_model(name, num_classes=0, **arguments)
    randomize(native, 1).eval()
    trunk = build_trunk(name, **arguments).eval()
    trunk.load_state_dict(native.state_dict())
    size = native.patch_embed.img_size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    found = forward_trunk(trunk, images, with_attention=True)
    last = (native.layers[-1] if swin else native).blocks[-1]
    expected, softmax = softmax_of(last.attn, lambda: native.forward_features(images))
    height, width = found.grid.shape[2:]
    patches = expected.flatten(1, 2) if swin else expected[:, native.num_prefix_tokens :]
    pooled = patches.mean(1) if swin else expected[:, 0]
    close: dict[str, Any] = dict(rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.grid.flatten(2).transpose(1, 2), patches, **close)
    torch.testing.assert_close(found.pooled, pooled, **close)
    assert found.attention is not None
    if not swin:
        received = softmax[:, :, 0, native.num_prefix_tokens :].mean(1)
    elif softmax.shape[0] == 2 and softmax.shape[-1] == height * width:  # one window is the whole map
        received = softmax.mean((1, 2))
    else:
        return
    torch.testing.assert_close(found.attention, received.view(2, height, width), **close)


def test_one_window_is_compared() -> None:
    """Swin's map would be compared with timm's softmax nowhere, should the sizes above change."""
    grids = [build_trunk(name, **SWIN | given).layers[-1].blocks[-1] for name, given in SWINS]
    assert sum(block.input_resolution == block.window_size for block in grids) >= 6


LOOK_ALIKES: list[tuple[str, dict[str, Any], str]] = [
    ("eva02_tiny_patch14_224", {}, "pos_embed in its Eva"),
    ("vit_small_patch16_dinov3", {"rope_type": "cat"}, "RotaryEmbeddingCat"),
    ("beit_base_patch16_224", {}, "beit"),
    ("vit_relpos_small_patch16_224", {}, "vit_relpos"),
    ("vit_tiny_r_s16_p8_224", {}, "HybridEmbed"),
    ("vit_small_patch16_18x2_224", {}, "ParallelThingsBlock"),
    ("vit_base_patch16_xp_224", {}, "ParallelScalingBlock"),
    ("vit_base_patch16_rpn_224", {"class_token": True, "global_pool": "token"}, "ResPostBlock"),
    ("swinv2_tiny_window8_256", {}, "swinv2"),
    ("swinv2_cr_tiny_224", {}, "swinv2_cr"),
    (PLAIN, {"patch_drop_rate": 0.5}, "patch_drop"),
    (PLAIN, {"patch_size": (16, 8)}, r"patches of \(16, 8\)"),
]


@pytest.mark.parametrize(("name", "given", "match"), LOOK_ALIKES)
def test_look_alikes_are_refused(name: str, given: dict[str, Any], match: str) -> None:
    """Every key would match, and the features be up to a third off timm's; a conversion would pass them on."""
    with torch.device("meta"):
        with pytest.raises(UserError, match=f"'{name}'.*{match}|{match}.*plain ViT"):
            build_trunk(name, **given)
        with pytest.raises(UserError, match=match):
            _ = Architecture(name, given).model


@pytest.mark.parametrize(
    ("name", "given", "match"),
    [
        (PLAIN, {"global_pool": "avg"}, "global_pool"),
        (PLAIN, {"final_norm": False}, "final_norm"),
        ("eva_large_patch14_196", {}, "normalise"),
        ("vit_base_patch16_gap_224", {}, r"\[CLS\]"),
        ("vit_base_patch16_siglip_224", {}, r"\[CLS\]"),
    ],
)
def test_models_without_normed_class_token_are_refused(name: str, given: dict[str, Any], match: str) -> None:
    """The head would be given tokens of any size, or a patch instead of [CLS]."""
    with torch.device("meta"), pytest.raises(UserError, match=match):
        build_trunk(name, **given)


def test_unknown_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature that a later timm adds to its plain ViT would be left out of the forward pass in silence."""
    build = VisionTransformer.__init__

    def with_rope(self: Any, *given: Any, **options: Any) -> None:
        build(self, *given, **options)
        self.rope = nn.Linear(1, 1)

    monkeypatch.setattr(VisionTransformer, "__init__", with_rope)
    with pytest.raises(UserError, match="rope in its VisionTransformer"):
        build_trunk(PLAIN, **SMALL)


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ValueError("no such size"), InvalidValue),
        (AssertionError("no such size"), InvalidValue),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "a damaged file"), UnicodeDecodeError),
    ],
)
def test_only_refused_arguments_are_called_values_of_the_config(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, seen: type[Exception]
) -> None:
    """An error about a file would tell the user to correct a value of the config."""

    def create_model(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(seen) as caught:
        build_trunk(PLAIN)
    assert type(caught.value) is seen

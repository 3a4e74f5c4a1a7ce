"""Every family beside timm's own network, values and gradients, at four kinds of size; positions by three rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from mst_pretrain.method.vit_tokens import resize_positions
from mst_pretrain.runtime.errors import InvalidValue, UserError
from mst_transfer.backbones import MSTVisionTransformer
from mst_transfer.backbones.windows import windowed_attention

sys.path.insert(0, str(Path(__file__).parents[2] / "qa"))
sys.path.insert(0, str(Path(__file__).parents[2] / "mst_pretrain/checkpoints"))
from foreign.forward import patch_positions
from parity_table import CASES, LIMIT, SIZES, measure, randomise

SMALL: dict[str, Any] = dict(embed_dim=24, depth=2, num_heads=3, img_size=64)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_families_are_timms(case: Any) -> None:
    """A comparison of starts would compare something else than the published networks, or train it otherwise."""
    found = measure(case, small=True)
    assert tuple(found) == SIZES
    assert max(max(pair) for pair in found.values()) <= LIMIT, found


@pytest.mark.parametrize(("rule", "project"), [("mmseg", "mae"), ("dino", "dino")])
@pytest.mark.parametrize("grid", [(6, 6), (3, 5), (4, 4), (2, 9)])
def test_positions_are_the_projects(rule: str, project: str, grid: tuple[int, int]) -> None:
    """Features away from the native size would be those of no published network."""
    positions = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
    found = resize_positions(positions, grid, (4, 4), 1, rule)
    assert torch.equal(found[:, :1], positions[:, :1])
    torch.testing.assert_close(found[:, 1:], patch_positions(project, positions[:, 1:], grid))


def test_the_rules_differ() -> None:
    """The tests of the rules would pass with one rule under three names."""
    positions = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    resized = [resize_positions(positions, (3, 5), (4, 4), 0, rule) for rule in ("mmseg", "timm", "dino")]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert float((resized[first] - resized[second]).abs().max()) > 0.01
    with pytest.raises(InvalidValue, match="mmseg, timm or dino, got 'bicubic'"):
        resize_positions(positions, (3, 5), (4, 4), 0, "bicubic")


@torch.no_grad()
@pytest.mark.parametrize("rule", ["mmseg", "timm", "dino"])
def test_the_backbone_resizes_by_its_rule(rule: str) -> None:
    """The option would be read and change nothing."""
    torch.manual_seed(0)
    backbone = MSTVisionTransformer(
        "vit_tiny_patch16_224", SMALL, out_indices=(1,), pyramid=False, positions=rule
    ).eval()
    randomise(backbone)
    images = torch.randn(1, 3, 80, 112, generator=torch.Generator().manual_seed(1))
    (found,) = backbone(images)
    backbone.trunk.pos_embed.data = resize_positions(backbone.trunk.pos_embed.data, (5, 7), (4, 4), 1, rule)
    backbone.trunk.patch_embed.grid_size = (5, 7)
    assert torch.equal(found, backbone(images)[0])


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7)])
def test_rotation_inside_windows(height: int, width: int) -> None:
    """A DINOv3 in windows would rotate by other places than a global block; the masks hide other windows."""
    model: Any = timm.create_model(
        "vit_small_patch16_dinov3", num_classes=0, embed_dim=24, depth=1, num_heads=3
    )
    randomise(model)
    attn, window, prefix = model.blocks[0].attn, 2, 5
    rope = model.rope.get_embed(shape=[height, width])
    x = torch.randn(2, prefix + height * width, 24, generator=torch.Generator().manual_seed(0))
    found = windowed_attention(attn, x, height, width, window, rope)
    place = [(row // window, column // window) for row in range(height) for column in range(width)]
    homes = sorted(set(place))
    special = torch.zeros(2, prefix, 24)
    for home in homes:
        inside = torch.tensor([other == home for other in place])
        sees = torch.cat([torch.ones(prefix, dtype=torch.bool), inside])
        expected: Tensor = attn(x, rope=rope, attn_mask=sees.expand(1, 1, len(sees), -1))
        torch.testing.assert_close(found[:, prefix:][:, inside], expected[:, prefix:][:, inside])
        special += expected[:, :prefix] * inside.sum() / len(place)
    torch.testing.assert_close(found[:, :prefix], special)


def test_a_file_of_another_rule_is_refused(tmp_path: Path) -> None:
    """Weights of DINO would be read with mmseg's positions, every key matched."""
    trunk: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    path = tmp_path / "dino.safetensors"
    said = {"architecture": "vit_tiny_patch16_224", "positions": "dino"}
    save_file(trunk.state_dict(), path, metadata=said)
    init = dict(type="Pretrained", checkpoint=str(path))
    options: dict[str, Any] = dict(
        model="vit_tiny_patch16_224", model_args=SMALL, out_indices=(1,), pyramid=False
    )
    with pytest.raises(UserError, match=r"'dino'.*'mmseg'.*positions='dino'.*--positions mmseg"):
        MSTVisionTransformer(**options, init_cfg=init).init_weights()
    backbone = MSTVisionTransformer(**options, init_cfg=init, positions="dino")
    backbone.init_weights()
    assert torch.equal(backbone.trunk.pos_embed, trunk.pos_embed)

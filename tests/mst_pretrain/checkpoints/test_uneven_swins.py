"""Swins built for images that are not square: exact where timm's rule is the original's, refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
import timm
import torch

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.verify import deviation, trunk_of
from mst_pretrain.method.backbones import build_trunk
from mst_pretrain.runtime.errors import UserError

File = Callable[[str, str], tuple[Path, Any]]
TINY = "swin_tiny_patch4_window7_224"
SHAPE: dict[str, Any] = dict(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 2))
SIZES = [(96, 96), (96, 224), (200, 480), (224, 224), (224, 256), (256, 448), (448, 224), (480, 256)]


@torch.no_grad()
def test_the_original_does_not_shift_along_one_side(foreign_file: File) -> None:
    """The refusal would be without a reason, or the way out that its message names not lead to exact features."""
    path, saved = foreign_file("swin", "swin-tiny-test")
    backbone = read_backbone(path)
    images = torch.randn(1, 3, 224, 448, generator=torch.Generator().manual_seed(0))
    expected = foreign.features("swin", "swin-tiny-test", saved, images, "model")
    any_size = trunk_of(backbone, strict_img_size=False).forward_features(images).flatten(1, 2)
    assert deviation(any_size, expected) < 1e-5
    uneven = trunk_of(backbone, img_size=(224, 448))
    assert uneven.layers[3].blocks[1].shift_size == (0, 3)
    assert deviation(uneven.forward_features(images).flatten(1, 2), expected) > 0.01


@pytest.mark.parametrize("size", [(224, 448), (256, 224), (96, 160)])
def test_conversion_for_an_uneven_size_is_refused(
    size: tuple[int, int], foreign_file: File, tmp_path: Path
) -> None:
    """A file would be written whose features in its own model differ from the original's by 3 %, all keys matched."""
    path, _ = foreign_file("swin", "swin-tiny-test")
    target = tmp_path / "b.safetensors"
    with pytest.raises(UserError, match=r"stage [34] is a map of .* Leave img_size \(--img-size\) out"):
        convert_checkpoint(path, target, image_size=size)
    assert not target.exists()
    wide = convert_checkpoint(path, target, image_size=(448, 256))
    assert wide.architecture.arguments["img_size"] == (448, 256) and target.exists()


def original_rule(height: int, width: int, window: int = 7) -> tuple[int, int]:
    """Window and shift of every second block, by the smaller side [code: Swin]."""
    smaller = min(height, width)
    return (smaller, 0) if smaller <= window else (window, window // 2)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_that_is_built_has_the_originals_rule(height: int, width: int) -> None:
    """Pretraining at such a size would train another network than the original, or a harmless size be refused."""
    with torch.device("meta"):
        plain: Any = timm.create_model(TINY, img_size=(height, width), **SHAPE)
    expected, found, maps = [], [], []
    for number, stage in enumerate(plain.layers):
        side = [-(-pixels // 4 // 2**number) for pixels in (height, width)]
        window, shift = original_rule(*side)
        maps.append(side)
        expected.append(((window, window), (shift, shift)))
        found.append((stage.blocks[1].window_size, stage.blocks[1].shift_size))
    assert [list(stage.blocks[1].input_resolution) for stage in plain.layers] == maps
    arguments = {**SHAPE, "img_size": (height, width)}
    with torch.device("meta"):
        if found == expected:
            trunk = build_trunk(TINY, **arguments)
            assert [stage.blocks[1].shift_size for stage in trunk.layers] == [shift for _, shift in expected]
            return
        number = next(i for i in range(4) if found[i] != expected[i]) + 1
        with pytest.raises(UserError, match=rf"stage {number} is a map of {maps[number - 1][0]} x"):
            build_trunk(TINY, **arguments)

"""Files for mmdet and mmseg, read by their own backbones; and their backbones' files, read by us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from torch import nn

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.verify import deviation
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer
from mst_transfer.backbones.native import native_backbone, native_deviation

TOLERANCE = 1e-5
SWIN: dict[str, Any] = {}
VIT: dict[str, Any] = dict(
    model="vit_small_patch16_224", model_args=dict(img_size=64, embed_dim=48, depth=2, num_heads=3)
)


@pytest.mark.parametrize(
    ("library", "format", "architecture", "given", "sizes"),
    [
        ("mmdet", "moby", "swin-tiny-test", SWIN, [(224, 224), (97, 131)]),
        ("mmseg", "moby", "swin-tiny-test", SWIN, [(224, 224), (97, 131)]),
        ("mmseg", "dino", "vit-tiny-test", VIT, [(64, 64), (96, 80)]),
    ],
)
def test_their_own_backbones_load_what_we_write(
    library: str, format: str, architecture: str, given: Any, sizes: list[tuple[int, int]], tmp_path: Path
) -> None:
    """mmdet and mmseg ignore a key that does not match: their backbone would train from scratch."""
    torch.save(foreign.checkpoint(format, architecture, 0), tmp_path / "a.pth")
    backbone = convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.pth", library, **given)
    for size in sizes:
        assert native_deviation(backbone, tmp_path / "b.pth", library, size) < TOLERANCE, size
    spoiled = torch.load(tmp_path / "b.pth", weights_only=True)
    key = next(key for key in spoiled["state_dict"] if key.endswith("ffn.layers.1.weight"))
    spoiled["state_dict"][key].zero_()
    torch.save(spoiled, tmp_path / "c.pth")
    assert native_deviation(backbone, tmp_path / "c.pth", library) > 100 * TOLERANCE


@pytest.mark.parametrize(("library", "given", "kind"), [("mmdet", SWIN, "swin"), ("mmseg", VIT, "vit")])
@pytest.mark.parametrize("wrapped", [False, True])
def test_we_load_what_their_backbones_hold(
    library: str, given: Any, kind: str, wrapped: bool, tmp_path: Path
) -> None:
    """A backbone trained in mmdet or mmseg, alone or inside a detector, would be refused or scrambled."""
    format, architecture = ("moby", "swin-tiny-test") if kind == "swin" else ("dino", "vit-tiny-test")
    torch.save(foreign.checkpoint(format, architecture, 0), tmp_path / "a.pth")
    backbone = convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.pth", library, **given)
    native = native_backbone(backbone.architecture, library, tmp_path / "b.pth")
    generator = torch.Generator().manual_seed(5)
    for parameter in native.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2, generator=generator)
    before = "backbone." if wrapped else ""
    state = {f"{before}{key}": value for key, value in native.state_dict().items()}
    neck = {"neck.convs.0.weight": torch.ones(2)} if wrapped else {}
    torch.save({"state_dict": state | neck}, tmp_path / "c.pth")
    allowed = [r"norm\."] if kind == "swin" else []  # mmdet's has output norms only
    found = read_backbone(tmp_path / "c.pth", allow_missing=allowed, **given)
    assert found.reading.prefix == before
    images = torch.randn(1, 3, 64, 64, generator=generator)
    if kind == "swin":
        assert any(name.startswith("norm3.weight") for name in found.left)
        own: Any = MSTSwin(found.architecture.name, found.architecture.arguments)
        for index in range(4):
            getattr(own, f"norm{index}").load_state_dict(getattr(native, f"norm{index}").state_dict())
    else:
        own = MSTVisionTransformer(
            found.architecture.name, found.architecture.arguments, out_indices=(1,), pyramid=False
        )
    own.trunk.load_state_dict({key: v for key, v in found.state.items() if key in own.trunk.state_dict()})
    with torch.no_grad():
        pairs = zip(own.eval()(images), native(images), strict=True)
        assert max(deviation(a, b) for a, b in pairs) < TOLERANCE

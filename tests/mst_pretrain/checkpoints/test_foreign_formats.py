"""Other projects' files through the converter: the features are what those projects compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
import timm
import torch
from torch import Tensor

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.architecture import Architecture
from mst_pretrain.checkpoints.timm_keys import (
    HF_SWIN,
    HF_VIT,
    MM_SWIN,
    MM_VIT,
    ORIGINAL_SWIN,
    TIMM_SWIN,
    TIMM_VIT,
    VIT,
    Dialect,
)
from mst_pretrain.checkpoints.verify import deviation, trunk_of
from mst_pretrain.runtime.errors import UserError
from tests.mst_pretrain.checkpoints.conftest import SMALL

TOLERANCE = 1e-5
File = Callable[[str, str], tuple[Path, Any]]
PAIRS = [
    (format, architecture, role)
    for format in foreign.FORMATS
    for architecture in SMALL
    if foreign.exists(format, architecture)
    for role in foreign.ROLES[format]
]
NAMES = {
    "dino-backbone": "timm",
    "mae-encoder": "timm",
    "ibot-teacher": "ibot",
}  # these are files of timm's keys
NO_TOKEN = ["cls_token", r"norm\."]  # what detectron2's networks do not have


def arguments(format: str, architecture: str, role: str) -> dict[str, Any]:
    """How such a file is read."""
    which = role if len(foreign.ROLES[format]) > 1 else None
    return {
        "which": which,
        "allow_missing": NO_TOKEN if format == "detectron2" else (),
        **SMALL[architecture],
    }


def tokens(backbone: Any, images: Tensor) -> Tensor:
    """[B, N, C] of timm's model."""
    any_size = {"strict_img_size": False} if backbone.architecture.is_swin else {}
    with torch.no_grad():
        found = trunk_of(backbone, **any_size).forward_features(images)
    return found if found.ndim == 3 else found.flatten(1, 2)


@pytest.mark.parametrize(("format", "architecture", "role"), PAIRS)
def test_features_are_the_projects(format: str, architecture: str, role: str, foreign_file: File) -> None:
    """A comparison row would start from scrambled weights, or from the other network of the file."""
    path, saved = foreign_file(format, architecture)
    backbone = read_backbone(path, **arguments(format, architecture, role))
    assert backbone.reading.format == NAMES.get(format, format)
    sizes = [(64, 64)] if "vit" in architecture else [(224, 224), (224, 448)]
    for height, width in sizes:
        images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(width))
        if format == "detectron2":
            compare_detectron2(architecture, backbone, saved, images)
            continue
        expected = foreign.features(format, architecture, saved, images, role)
        assert deviation(tokens(backbone, images), expected) < TOLERANCE


def compare_detectron2(architecture: str, backbone: Any, saved: Any, images: Tensor) -> None:
    """Its ViT has no [CLS] and no last norm, its Swin always shifts: compared with timm's blocks run by its rule."""
    if "swin" in architecture:
        trunk = trunk_of(backbone, always_partition=True, strict_img_size=False)
        x, found = trunk.patch_embed(images), []
        for layer in trunk.layers:
            x = layer(x)
            found.append(x.permute(0, 3, 1, 2))
        expected = foreign.swin_stages("detectron2", architecture, saved, images, "model")
        assert max(deviation(a.detach(), b) for a, b in zip(found, expected, strict=True)) < TOLERANCE
        return
    trunk = trunk_of(backbone)
    x = trunk.patch_embed(images) + trunk.pos_embed[:, 1:]
    for block in trunk.blocks:
        x = block(x)
    expected = foreign.features("detectron2", architecture, saved, images, "model")
    assert deviation(x.detach(), expected) < TOLERANCE


@pytest.mark.parametrize("format", foreign.FORMATS)
def test_default_network_is_the_published(format: str, foreign_file: File) -> None:
    """The row "MoBY" would be another network than the one whose figures MoBY's authors published."""
    for architecture in SMALL:
        if foreign.exists(format, architecture):
            path, _ = foreign_file(format, architecture)
            given = arguments(format, architecture, foreign.EVALUATED[format])
            default = read_backbone(path, **{**given, "which": None})
            named = read_backbone(path, **given)
            assert default.reading.prefix == named.reading.prefix
            assert all(torch.equal(default.state[key], named.state[key]) for key in named.state)


@pytest.mark.parametrize("format", ["dino", "ibot", "esvit", "moby", "mae", "detectron2", "swin"])
def test_named_format_is_the_recognised(format: str, foreign_file: File) -> None:
    """--from would read another network than auto, or refuse the project's own file; of another project it must."""
    for architecture in SMALL:
        if not foreign.exists(format, architecture):
            continue
        path, _ = foreign_file(format, architecture)
        given = arguments(format, architecture, foreign.EVALUATED[format])
        found = read_backbone(path, source_format=format, **given)
        assert found.reading.prefix == read_backbone(path, **given).reading.prefix
        for other in {"huggingface", "mmseg", "moby", "mst"} - {format}:
            with pytest.raises(UserError, match=rf"is not of format '{other}'.*Leave out --from"):
                read_backbone(path, source_format=other, **given)


def test_released_backbones_are_read_under_their_projects_name(foreign_file: File) -> None:
    """The comparison rows' commands (--from dino, --from ibot) would refuse the files they name."""
    for format, name in (("dino-backbone", "dino"), ("ibot-teacher", "ibot"), ("mae-encoder", "mae")):
        path, _ = foreign_file(format, "vit-tiny-test")
        assert read_backbone(path, source_format=name, **SMALL["vit-tiny-test"]).reading.prefix == ""


@pytest.mark.parametrize("architecture", ["deit-s", "swin-t"])
@pytest.mark.parametrize("format", foreign.FORMATS)
def test_published_sizes_are_recognised(format: str, architecture: str, tmp_path: Path) -> None:
    """A published file would need --model, or be taken for another size."""
    if not foreign.exists(format, architecture):
        return
    torch.save(foreign.checkpoint(format, architecture, seed=0), tmp_path / "a.pth")
    allowed = NO_TOKEN if format == "detectron2" else ()
    backbone = read_backbone(tmp_path / "a.pth", allow_missing=allowed)
    names = {"deit-s": "vit_small_patch16_224", "swin-t": "swin_tiny_patch4_window7_224"}
    assert backbone.architecture == Architecture(names[architecture])
    assert len(backbone.missing) == (0 if format != "detectron2" else 3 if architecture == "deit-s" else 2)


# every tensor


def small_model(family: str) -> tuple[Any, int]:
    """timm's model with every weight drawn, and its image size."""
    if family == VIT:
        options: dict[str, Any] = dict(img_size=32, embed_dim=12, depth=2, num_heads=2)
        model = timm.create_model("vit_small_patch16_224", num_classes=0, **options)
    else:
        options = dict(img_size=56, embed_dim=8, depths=(2, 1), num_heads=(1, 2))
        model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            matrix = parameter.ndim > 1 and not name.endswith(("bias_table", "pos_embed", "cls_token"))
            parameter.copy_(noise / parameter[0].numel() ** 0.5 if matrix else noise)
    return model.eval(), options["img_size"]


@pytest.mark.parametrize(
    "dialect",
    (TIMM_VIT, MM_VIT, HF_VIT, TIMM_SWIN, ORIGINAL_SWIN, MM_SWIN, HF_SWIN),
    ids=lambda dialect: dialect.name,
)
def test_every_source_tensor_counts(dialect: Dialect) -> None:
    """A tensor of a file could be lost, doubled or taken for another, and nobody would see it."""
    model, side = small_model(dialect.family)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    theirs = dialect.from_timm(state)
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model.forward_features(images)
        for key, value in theirs.items():
            for spoiled in (torch.zeros_like(value), value.flatten().flip(0).view_as(value)):
                converted, unknown = dialect.to_timm({**theirs, key: spoiled})
                changed = [name for name in state if not torch.equal(converted[name], state[name])]
                assert len(changed) == 1 and not unknown, key
                model.load_state_dict({changed[0]: converted[changed[0]]}, strict=False)
                # the bias of all keys is one number per query in the softmax, which takes no notice
                assert key.endswith("key.bias") or deviation(model.forward_features(images), whole) > 1e-4, (
                    key
                )
                model.load_state_dict({changed[0]: state[changed[0]]}, strict=False)


@pytest.mark.parametrize("to", ["timm", "mmdet", "mmseg", "detectron2", "huggingface"])
@pytest.mark.parametrize("architecture", ["deit-s", "swin-t"])
def test_files_there_and_back_are_bit_equal(
    to: str, architecture: str, tmp_path: Path, foreign_file: File
) -> None:
    """What somebody exported could not be brought back: a key, a prefix or a container would be lost."""
    if (to, architecture) == ("mmdet", "deit-s"):
        return
    format = "dino" if architecture == "deit-s" else "moby"
    ours = convert_checkpoint(foreign_file(format, architecture)[0], tmp_path / "ours.safetensors")
    there = tmp_path / ("there" if to == "huggingface" else "there.pth")
    convert_checkpoint(tmp_path / "ours.safetensors", there, to)
    back = convert_checkpoint(there, tmp_path / "back.safetensors")
    assert back.reading.format in (to, "mmdet", "timm")
    assert set(back.state) == set(ours.state) and not back.missing
    assert all(torch.equal(back.state[key], ours.state[key]) for key in ours.state)


def test_detectron2_file_has_detectron2s_keys(tmp_path: Path) -> None:
    """detectron2 logs a key that does not match and trains from scratch."""
    torch.save(foreign.checkpoint("moby", "swin-t", seed=0), tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.pth", "detectron2")
    written = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    expected = {
        key: shape
        for key, shape in foreign.manifest("detectron2", "swin-t", "model").items()
        if key.startswith("backbone.bottom_up.") and ".norm" not in key.removeprefix("backbone.bottom_up")[:5]
    }
    extra = {key: tuple(value.shape) for key, value in written.items() if key not in expected}
    assert {key: tuple(written[key].shape) for key in expected} == expected
    assert set(extra) == {"backbone.bottom_up.norm.weight", "backbone.bottom_up.norm.bias"}
    theirs = foreign.checkpoint("detectron2", "swin-t", seed=0)["model"]
    indices = [key for key in written if key.endswith("relative_position_index")]
    assert len(indices) == 12 and all(torch.equal(written[key], theirs[key]) for key in indices)

"""Features of the last blocks, and the backbone they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.reading import weight_file
from mst_pretrain.evaluation.features import block_features, check_size, feature_columns
from mst_pretrain.evaluation.trunk import load_trunk
from mst_pretrain.method.backbones import build_trunk, forward_trunk
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.errors import UserError
from tests.mst_pretrain.checkpoints.conftest import SMALL, written_for

VIT: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=16, depth=5, num_heads=2)
Randomize = Callable[[nn.Module, int], nn.Module]


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    """From the formula, float64."""
    x = x.double()
    spread = ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (spread + norm.eps).sqrt() * norm.weight + norm.bias


def block_outputs(trunk: Any, blocks: list[Any], images: Tensor) -> list[Tensor]:
    """What each block puts out in the trunk's own forward."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in blocks]
    with torch.no_grad():
        trunk.forward_features(images)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("size", [32, 48])
def test_vit_features_are_dinos(randomize: Randomize, size: int) -> None:
    """The probe would read other blocks, another order, unnormalised tokens, or [CLS] among the patches' mean."""
    trunk: Any = randomize(build_trunk("vit_tiny_patch16_224", **VIT), 1).eval()
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    normed = [layer_norm(x, trunk.norm) for x in block_outputs(trunk, list(trunk.blocks), images)]
    expected = torch.cat([x[:, 0] for x in normed[-4:]] + [normed[-1][:, 1:].mean(1)], 1)
    with torch.no_grad():
        got = block_features(trunk, images, 4, avgpool=True)
        taps = trunk.get_intermediate_layers(images, n=4, norm=True, return_prefix_tokens=True)
        assert torch.equal(
            block_features(trunk, images, 4), torch.cat([prefix[:, 0] for _, prefix in taps], 1)
        )
        torch.testing.assert_close(block_features(trunk, images), forward_trunk(trunk, images).pooled)
    assert got.shape == (3, 5 * 16) and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
    columns = feature_columns(trunk)
    assert columns == {
        "last1": (48, 64),
        "last4": (0, 64),
        "last1+avgpool": (48, 80),
        "last4+avgpool": (0, 80),
    }
    with torch.no_grad():
        start, stop = columns["last1+avgpool"]
        torch.testing.assert_close(got[:, start:stop], block_features(trunk, images, 1, avgpool=True))


def test_swin_features_are_esvits(randomize: Randomize) -> None:
    """Swin-T's 2304 columns would be other blocks, or the norm would miss the last stage or meet an earlier one."""
    trunk: Any = randomize(build_trunk("swin_tiny_patch4_window7_224"), 2).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages = [list(layer.blocks) for layer in trunk.layers]
    third = [x.double() for x in block_outputs(trunk, stages[2][-2:], images)]
    fourth = [layer_norm(x, trunk.norm) for x in block_outputs(trunk, stages[3], images)]
    expected = torch.cat([x.flatten(1, 2).mean(1) for x in third + fourth], 1)
    with torch.no_grad():
        got = block_features(trunk, images, 4)
        torch.testing.assert_close(block_features(trunk, images), forward_trunk(trunk, images).pooled)
    assert got.shape == (1, 2304)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
    assert feature_columns(trunk) == {"last1": (1536, 2304), "last4": (0, 2304)}
    with pytest.raises(ValueError, match="avgpool"):
        block_features(trunk, images, 1, avgpool=True)


def test_sizes_that_cut_or_pad_are_refused() -> None:
    """A crop larger than the image would get a black border, one between patches a traceback."""
    trunk = build_trunk("vit_tiny_patch16_224", **VIT)
    check_size(trunk, 40, 32)
    for resize, crop, word in ((32, 40, "black"), (60, 36, "patch size 8")):
        with pytest.raises(UserError, match=word):
            check_size(trunk, resize, crop)


def own_checkpoint(path: Path, trunk: nn.Module, other: nn.Module, **meta: str) -> Path:
    """As tools/pretrain.sh leaves it: teacher ``trunk``, student ``other``."""
    state = {f"teacher.backbone.{key}": value for key, value in trunk.state_dict().items()}
    state |= {f"student.backbone.{key}": value for key, value in other.state_dict().items()}
    torch.save({"state_dict": {**state, "teacher.head.x": torch.ones(1)}, "meta": meta}, path)
    return path


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def test_model_is_read_from_our_checkpoint(tmp_path: Path, randomize: Randomize) -> None:
    """The teacher would not be found, the student taken for it, or a wrong number of heads guessed from shapes."""
    teacher, student = (randomize(build_trunk("vit_tiny_patch16_224", **VIT), seed) for seed in (1, 2))
    path = own_checkpoint(tmp_path / "a.pth", teacher, student, **teacher.architecture)
    trunk, origin = load_trunk(str(path))
    assert same_weights(trunk, teacher) and not trunk.training
    assert (origin.model, origin.model_args, origin.prefix) == (
        "vit_tiny_patch16_224",
        VIT,
        "teacher.backbone.",
    )
    assert trunk.blocks[0].attn.num_heads == 2 and origin.sha256 is not None and len(origin.sha256) == 64
    assert same_weights(load_trunk(str(path), "student.backbone.")[0], student)


@pytest.mark.parametrize("how", ["evaluation", "evaluation of a named prefix", "init_from"])
def test_a_checkpoint_is_read_once(
    tmp_path: Path, randomize: Randomize, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A file of some gigabytes on a shared disk would be read and unpickled again for every question about it."""
    teacher, student = (randomize(build_trunk("vit_tiny_patch16_224", **VIT), seed) for seed in (1, 2))
    path = own_checkpoint(tmp_path / "a.pth", teacher, student)
    read: list[Path] = []
    load = torch.load

    def counted(file: Any, *given: Any, **options: Any) -> Any:
        read.append(Path(file.name))
        return load(file, *given, **options)

    monkeypatch.setattr(torch, "load", counted)
    if how == "init_from":
        head = dict(prototypes=4, hidden_dim=4, bottleneck_dim=4)
        trunk = MST({"name": "vit_tiny_patch16_224", **VIT}, head, init_from=str(path)).student.backbone
    else:
        prefix = "teacher.backbone." if "prefix" in how else None
        trunk, _ = load_trunk(str(path), prefix, "vit_tiny_patch16_224", VIT)
    assert read == [path]
    assert same_weights(trunk, teacher)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"patch_size": 8, "img_size": 64}),
        ("swin_tiny_patch4_window7_224", {}),
    ],
)
def test_model_is_guessed_from_timms_file(
    tmp_path: Path, randomize: Randomize, name: str, options: dict[str, int]
) -> None:
    """A file of timm, its classifier with it, would need arguments that its shapes already tell."""
    model = randomize(timm.create_model(name, num_classes=5, **options), 3)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "t.safetensors"
    )
    trunk, origin = load_trunk(str(tmp_path / "t.safetensors"))
    assert (origin.model, origin.model_args, origin.prefix) == (name, options, "")
    assert same_weights(trunk, model)


FOREIGN = [
    ("dino", "vit-tiny-test", None),
    ("ibot", "vit-tiny-test", None),
    ("mae", "vit-tiny-test", None),
    ("moby", "swin-tiny-test", None),
    ("esvit", "swin-tiny-test", None),
    ("dino", "vit-tiny-test", "huggingface"),
    ("moby", "swin-tiny-test", "huggingface"),
    ("moby", "swin-tiny-test", "mmdet"),
    ("dino", "vit-tiny-test", "mmseg"),
]


@pytest.mark.parametrize(("format", "architecture", "library"), FOREIGN)
def test_anybodys_file_is_evaluated_as_its_conversion(
    format: str, architecture: str, library: str | None, tmp_path: Path
) -> None:
    """A published file would have to be converted first, or its figures be those of scrambled weights."""
    given, source = SMALL[architecture], written_for(library, format, architecture, tmp_path)
    said = {} if library == "huggingface" else given  # its config.json tells the model
    convert_checkpoint(source, tmp_path / "timm.safetensors", **said)
    shape = read_backbone(tmp_path / "timm.safetensors").architecture
    model: Any = timm.create_model(
        shape.name,
        num_classes=0,
        checkpoint_path=str(tmp_path / "timm.safetensors"),
        **shape.arguments,
    ).eval()
    trunk, origin = load_trunk(str(source), **said)
    images = torch.randn(2, 3, *shape.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = model.forward_features(images)
        expected = tokens.mean((1, 2)) if shape.is_swin else tokens[:, 0]
        assert torch.equal(block_features(trunk, images), expected)
    assert (origin.model, origin.model_args) == (shape.name, shape.arguments)
    assert origin.checkpoint == str(source) and origin.sha256 == file_sha256(weight_file(source))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Weights of a deeper, another or an unknown network would be loaded in part, and random ones evaluated."""
    deep = build_trunk("vit_tiny_patch16_224", **VIT)
    path = str(own_checkpoint(tmp_path / "deep.pth", deep, deep))
    shallow = {**VIT, "depth": 3}
    with pytest.raises(UserError, match="another architecture"):
        load_trunk(path, model="vit_tiny_patch16_224", model_args=shallow)
    with pytest.raises(UserError, match="number of heads"):
        load_trunk(path)
    with pytest.raises(UserError, match="cannot be built"):
        load_trunk(path, model="vit_tiny_patch16_224", model_args={"embed_dim": 15, "num_heads": 2})
    torch.save({"layer1.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth holds no ViT or Swin backbone.*layer1"):
        load_trunk(str(tmp_path / "x.pth"))


def test_random_weights_are_a_control_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A forgotten --checkpoint would look like a result, or the control would change from run to run."""
    first, origin = load_trunk(None, model="vit_tiny_patch16_224", model_args=VIT, seed=3)
    second, _ = load_trunk("none", model="vit_tiny_patch16_224", model_args=VIT, seed=3)
    other, _ = load_trunk("none", model="vit_tiny_patch16_224", model_args=VIT, seed=4)
    assert same_weights(first, second) and not same_weights(first, other)
    assert "random weights, seed 3" in capsys.readouterr().err
    assert (origin.checkpoint, origin.sha256, origin.prefix, origin.init_seed) == ("none", None, None, 3)

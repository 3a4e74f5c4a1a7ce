"""DINOv2, DINOv3, MAE and the distilled DeiT: in and out of the formats of their libraries, by equal features."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.inspection import inspect_checkpoint
from mst_pretrain.checkpoints.loading import load_backbone
from mst_pretrain.checkpoints.verify import deviation, huggingface_deviation, image_for, trunk_of
from mst_pretrain.runtime.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / "qa"))
from wrapped_checkpoints import WRAPPERS, wrapped

SHAPE: dict[str, Any] = dict(embed_dim=32, depth=2, num_heads=2)
HF_SHAPE: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
HF: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dinov2": ("Dinov2Model", "Dinov2Config", dict(image_size=56, patch_size=14)),
    "dinov2 with registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        dict(image_size=56, patch_size=14, num_register_tokens=4),
    ),
    "dinov3": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        dict(image_size=224, patch_size=16, intermediate_size=128, num_register_tokens=4),
    ),
    "deit": ("DeiTModel", "DeiTConfig", dict(image_size=64, patch_size=16, intermediate_size=128)),
    "mae": (
        "ViTMAEModel",
        "ViTMAEConfig",
        dict(image_size=64, patch_size=16, intermediate_size=128, mask_ratio=0.0),
    ),
}
TIMM = {
    "dinov2": ("vit_small_patch14_dinov2", {**SHAPE, "img_size": 56}),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", {**SHAPE, "img_size": 56}),
    "dinov3": ("vit_small_patch16_dinov3_qkvb", SHAPE),
    "dinov3 without biases": ("vit_small_patch16_dinov3", SHAPE),
    "deit": ("deit_small_distilled_patch16_224", {**SHAPE, "img_size": 64}),
}


def randomise(module: nn.Module) -> nn.Module:
    """Every parameter drawn; the mask tokens, which no feature reads, too."""
    generator = torch.Generator().manual_seed(1)
    for name, value in module.named_parameters():
        near_one = value.dim() == 1 and not name.endswith("bias")
        value.data = 0.2 * torch.randn(value.shape, generator=generator) + float(near_one)
    return module.eval()


def network(family: str) -> Any:
    name, arguments = TIMM[family]
    return randomise(timm.create_model(name, num_classes=0, **arguments))


def given(family: str) -> dict[str, Any]:
    """What a user says of a network that is not a published one."""
    name, arguments = TIMM[family]
    return dict(model=name, model_args=arguments)


@pytest.mark.parametrize("family", HF)
def test_transformers_folders_are_read(family: str, tmp_path: Path) -> None:
    """A published DINOv2, DINOv3, DeiT or MAE would be refused, or give other features than its own library."""
    kind, config, shape = HF[family]
    theirs: Any = getattr(transformers, kind)(getattr(transformers, config)(**HF_SHAPE, **shape))
    randomise(theirs)
    theirs.save_pretrained(tmp_path / "hf")
    backbone = convert_checkpoint(tmp_path / "hf", tmp_path / "timm.safetensors")
    images = image_for(backbone)
    with torch.no_grad():
        # MAE shuffles its patches by this noise
        extra = {"noise": torch.arange(16.0)[None]} if family == "mae" else {}
        expected = theirs(images, **extra).last_hidden_state
        found: Tensor = trunk_of(backbone).forward_features(images)
    assert deviation(found, expected) < 1e-5
    again = read_backbone(tmp_path / "timm.safetensors")
    assert again.architecture == backbone.architecture
    assert all(torch.equal(again.state[name], value) for name, value in backbone.state.items())


@pytest.mark.parametrize("family", TIMM)
def test_transformers_folders_are_written(family: str, tmp_path: Path) -> None:
    """Somebody would fine-tune other features in transformers than those that were evaluated here."""
    save_file(network(family).state_dict(), tmp_path / "a.safetensors")
    backbone = convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "hf", "huggingface", **given(family))
    assert huggingface_deviation(backbone, tmp_path / "hf") < 1e-5
    back = read_backbone(tmp_path / "hf")
    assert {n: tuple(v.shape) for n, v in back.state.items()} == {
        n: tuple(v.shape) for n, v in backbone.state.items()
    }
    assert all(torch.equal(back.state[name], value) for name, value in backbone.state.items())


def official(family: str) -> dict[str, Tensor]:
    """A file as DINOv2's or DINOv3's own code saves it: names and layout from its source, values drawn."""
    patch = 14 if "dinov2" in family else 16
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, 32), "mask_token": (1, 32)}
    if "dinov2" in family:
        shapes["pos_embed"] = (1, 17, 32)
    if "registers" in family or "dinov3" in family:
        shapes["storage_tokens" if "dinov3" in family else "register_tokens"] = (1, 4, 32)
    shapes |= {"patch_embed.proj.weight": (32, 3, patch, patch), "patch_embed.proj.bias": (32,)}
    for block in range(2):
        parts = {"norm1": (32,), "norm2": (32,), "attn.qkv": (96, 32), "attn.proj": (32, 32)}
        parts |= {"mlp.fc1": (128, 32), "mlp.fc2": (32, 128)}
        for name, shape in parts.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{block}.ls{part}.gamma": (32,) for part in (1, 2)}
    shapes |= {"norm.weight": (32,), "norm.bias": (32,)}
    generator = torch.Generator().manual_seed(2)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if "dinov3" in family:
        state["rope_embed.periods"] = torch.ones(4)
        for block in range(2):
            mask = torch.ones(96)
            mask[32:64] = 0  # keys have no bias
            state[f"blocks.{block}.attn.qkv.bias_mask"] = mask
            if "without" in family:
                state[f"blocks.{block}.attn.qkv.bias"] = torch.zeros(96)
    return state


OWN = ("dinov2", "dinov2 with registers", "dinov3", "dinov3 without biases")


def timms_reading(family: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that timm itself takes from a file of the project's own format."""
    model, library = network(family), eva if "dinov3" in family else vision_transformer
    filter_fn: Callable[..., dict[str, Tensor]] = library.checkpoint_filter_fn
    model.load_state_dict(filter_fn(dict(state), model))
    return model.state_dict()


@pytest.mark.parametrize("family", OWN)
def test_own_formats_are_read_as_timm_reads_them(family: str, tmp_path: Path) -> None:
    """A backbone downloaded from its authors would start from other weights than the same one from timm's hub."""
    state = official(family)
    torch.save(state, tmp_path / "own.pth")
    backbone = read_backbone(tmp_path / "own.pth", **given(family))
    assert backbone.reading.format == family.split()[0]
    expected = timms_reading(family, state)
    assert set(backbone.state) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(backbone.state[name], value, msg=name)


@pytest.mark.parametrize("family", OWN)
def test_own_formats_are_written(family: str, tmp_path: Path) -> None:
    """The file would lack an entry that the project's own strict loader wants, or be another network in it."""
    ours = network(family)
    save_file(ours.state_dict(), tmp_path / "a.safetensors")
    convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "own.pth", family.split()[0], **given(family))
    written = torch.load(tmp_path / "own.pth", weights_only=True)
    assert set(written) == set(official(family))
    for name, value in timms_reading(family, written).items():
        torch.testing.assert_close(value, ours.state_dict()[name], msg=name)


def test_biases_of_keys_are_refused(tmp_path: Path) -> None:
    """A network with biases that timm's has no place for would lose them."""
    state = {name: value for name, value in official("dinov3").items() if "bias_mask" not in name}
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(UserError, match="values for the keys"):
        read_backbone(tmp_path / "own.pth", **given("dinov3"))


PUBLISHED = [
    *("vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2", "vit_large_patch14_reg4_dinov2"),
    *("vit_small_patch16_dinov3", "vit_base_patch16_dinov3_qkvb", "vit_large_patch16_dinov3"),
    *("deit_small_distilled_patch16_224", "deit_base_distilled_patch16_384"),
    *("vit_base_patch16_224", "vit_large_patch16_224", "swin_small_patch4_window7_224"),
    *("swin_base_patch4_window7_224", "swin_base_patch4_window12_384", "swin_large_patch4_window7_224"),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_told_by_their_shapes(name: str) -> None:
    """A downloaded file would need --model and --model-args, or be taken for another network."""
    from mst_pretrain.checkpoints.architecture import Architecture, architecture_of

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    found = architecture_of({}, model.state_dict(), "a.pth")
    assert found.shapes() == Architecture(name).shapes()
    assert found.kind == Architecture(name).kind


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("family", ["dinov2 with registers", "dinov3"])
def test_wrappers_are_taken_off(family: str, wrapper: str, tmp_path: Path) -> None:
    """A file that a trainer wrote would be refused, or the weights beside the averaged ones be taken."""
    ours = network(family)
    path = wrapped(wrapper, ours.state_dict(), tmp_path)
    prefix = {"prefix": "state_dict_ema."} if wrapper == "EMA" else {}
    backbone = read_backbone(path, **given(family), **prefix)
    tolerance = {"half": 1e-3, "bfloat16": 1e-2}.get(wrapper, 0.0)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(backbone.state[name], value, rtol=tolerance, atol=tolerance)
    assert [entry["format"] for entry in inspect_checkpoint(path)["backbones"]].count(family.split()[0]) >= 1


def test_shards_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    """A download that stopped would start half of a network from noise."""
    path = wrapped("shards", network("dinov3").state_dict(), tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"names 2 files, and 1 are not there \(first: model-00002"):
        read_backbone(path, **given("dinov3"))
    path.write_text(json.dumps({"weight_map": {"norm.weight": "../model-00001-of-00002.safetensors"}}))
    with pytest.raises(UserError, match="does not name a file beside it"):
        read_backbone(path, **given("dinov3"))


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "depth": ("vit_small_patch14_dinov2", {"depth": 3}, "depth 2.* depth 3"),
    "width": ("vit_small_patch14_dinov2", {"embed_dim": 64}, "width 32.* width 64"),
    "patch": ("vit_small_patch14_dinov2", {"patch_size": 8}, "patch 14.* patch 8"),
    "registers": ("vit_small_patch14_reg4_dinov2", {}, "0 registers.* 4 registers"),
    "family": ("vit_small_patch16_224", {}, "DINOv2 of .* ViT of"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_was_found_and_expected_is_named(what: str, tmp_path: Path) -> None:
    """A list of names of weights would be all that says which of two networks the file is of."""
    name, other, message = OTHERS[what]
    save_file(network("dinov2").state_dict(), tmp_path / "a.safetensors")
    target = timm.create_model(name, num_classes=0, **{**SHAPE, "img_size": 56, **other})
    with pytest.raises(UserError, match=rf"{message}.*mst finetune TASK DATA --init") as stopped:
        load_backbone(target, tmp_path / "a.safetensors")
    assert str(stopped.value).count("\n") < 4


def test_another_window_is_named(tmp_path: Path) -> None:
    """A Swin of window 12 would be told apart from one of window 7 by shapes of tables alone."""
    shape = dict(embed_dim=16, depths=(2, 2), num_heads=(1, 2))
    name = "swin_tiny_patch4_window7_224"
    save_file(timm.create_model(name, num_classes=0, **shape).state_dict(), tmp_path / "a.safetensors")
    target = timm.create_model(name, num_classes=0, window_size=4, **shape)
    with pytest.raises(UserError, match=r"depths 2, 2, window 7.*window 4"):
        load_backbone(target, tmp_path / "a.safetensors")


def test_formats_without_such_a_network_refuse(tmp_path: Path) -> None:
    """mmseg would be given a file whose LayerScale it ignores."""
    save_file(network("dinov2").state_dict(), tmp_path / "a.safetensors")
    for to, message in (("mmseg", "MSTVisionTransformer"), ("dinov3", "that network alone")):
        with pytest.raises(UserError, match=rf"is a DINOv2\. --to {to}: .*{message}"):
            convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.pth", to, **given("dinov2"))

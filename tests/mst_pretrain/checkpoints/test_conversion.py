"""What a conversion refuses, reports, resizes and writes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import foreign
import pytest
import safetensors
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mst_pretrain.checkpoints import convert_checkpoint, read_backbone
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.checkpoints.verify import deviation, huggingface_deviation, timm_deviation, trunk_of
from mst_pretrain.evaluation.features import evaluation_transform
from mst_pretrain.evaluation.trunk import load_trunk
from mst_pretrain.runtime.errors import UserError
from tests.mst_pretrain.checkpoints.conftest import SMALL

VIT = SMALL["vit-tiny-test"]
File = Callable[[str, str], tuple[Path, Any]]


def vit_state(seed: int = 0) -> dict[str, Tensor]:
    """timm's keys of the small ViT."""
    return dict(foreign.checkpoint("dino-backbone", "vit-tiny-test", seed))


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


# what is refused


@pytest.mark.parametrize("block", [0, 1])
def test_a_missing_block_is_refused_and_nothing_written(block: int, tmp_path: Path) -> None:
    """A network of which a part is random would be trained, and no message would say so."""
    state = {key: value for key, value in vit_state().items() if not key.startswith(f"blocks.{block}.")}
    path = saved(state, tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=rf"a\.pth does not fit a whole .*12 weights missing \(first: blocks\.{block}\."
    ):
        convert_checkpoint(path, tmp_path / "b.safetensors", **VIT)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("cut", [r"layers\.2\.blocks\.5\.", r"layers\.2\.blocks\.[45]\.", r"layers\.3\."])
def test_a_swin_that_lost_its_end_is_refused(cut: str, tmp_path: Path) -> None:
    """Depths are read from the keys: a Swin without its last blocks would be a whole Swin of another depth."""
    state = foreign.backbone("swin", "swin-t", foreign.checkpoint("swin", "swin-t", 0), "model")
    path = saved({"model": {k: v for k, v in state.items() if not re.match(cut, k)}}, tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"another depth than the published ones|no place for|does not fit a whole"
    ):
        convert_checkpoint(path, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_epsilon_of_the_norms_is_carried_over(tmp_path: Path) -> None:
    """iBOT's and EsViT's Swins compute with another epsilon than timm's: small embeddings give other features."""
    esvit = foreign.checkpoint("esvit", "swin-tiny-test", 0)
    for name in ("weight", "bias"):
        esvit["teacher"][f"patch_embed.proj.{name}"] *= 0.03
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = foreign.features("esvit", "swin-tiny-test", esvit, images, "teacher")
    backbone = convert_checkpoint(saved(esvit, tmp_path / "a.pth"), tmp_path / "b.safetensors")
    assert backbone.norm_eps == 1e-6 and "norm epsilon: 1e-06 in the source, 1e-05 in timm's" in str(backbone)
    again = read_backbone(tmp_path / "b.safetensors")
    assert again.norm_eps == 1e-6
    assert deviation(trunk_of(again).forward_features(images).detach().flatten(1, 2), expected) < 1e-5
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "swin", "huggingface")
    assert huggingface_deviation(backbone, tmp_path / "swin") < 1e-5  # with timm's: transformers has no other


def test_epsilon_of_a_hugging_face_vit_is_carried_over(tmp_path: Path) -> None:
    """transformers' ViTs have an epsilon of 1e-12 unless set: features of small embeddings would be others."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=64
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 0.0, 0.001 if name.startswith("embeddings.") else 0.3)
    model.save_pretrained(tmp_path / "a")
    backbone = convert_checkpoint(tmp_path / "a", tmp_path / "b.safetensors")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images).last_hidden_state
        again = read_backbone(tmp_path / "b.safetensors")
        assert backbone.norm_eps == again.norm_eps == 1e-12
        assert deviation(trunk_of(again).forward_features(images), expected) < 1e-5
        convert_checkpoint(tmp_path / "b.safetensors", tmp_path / "c", "huggingface")
        returned = transformers.ViTModel.from_pretrained(tmp_path / "c", add_pooling_layer=False).eval()
        assert deviation(returned(images).last_hidden_state, expected) < 1e-6


def test_missing_weights_must_be_named(tmp_path: Path) -> None:
    """Naming one missing weight would let others pass, or the report would not say what lacks."""
    state = {key: value for key, value in vit_state().items() if not key.startswith("norm.")}
    path = saved(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"1 weights missing \(first: norm\.bias\)"):
        read_backbone(path, allow_missing=[r"norm\.weight"], **VIT)
    backbone = convert_checkpoint(path, tmp_path / "b.safetensors", allow_missing=[r"norm\."], **VIT)
    assert backbone.missing == ["norm.weight (48,)", "norm.bias (48,)"] and "missing: 2 (norm.weight" in str(
        backbone
    )
    assert "norm.weight" in load_checkpoint(tmp_path / "b.safetensors")["meta"]["missing"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"blocks.0.ls1.gamma": torch.ones(48)},
            r"1 weights that it has no place for.*blocks\.0\.ls1\.gamma",
        ),
        (
            lambda s: s | {"blocks.2.norm1.weight": torch.ones(48)},
            r"weights that it has no place for.*blocks\.2",
        ),
        (
            lambda s: s | {"norm.bias": torch.ones(47)},
            r"weights of another shape \(first: norm\.bias \(47,\) for \(48,\)",
        ),
        (
            lambda s: s | {"norm.bias": torch.full((48,), float("nan"))},
            r"not finite in 1 weights \(first: norm\.bias\)",
        ),
        (lambda s: s | {"cls_token": torch.full((1, 1, 48), float("inf"))}, r"not finite.*cls_token"),
        (lambda s: {"conv1.weight": torch.ones(1)}, r"no ViT or Swin backbone.*found: conv1"),
        (lambda s: {"epoch": 3}, r"holds no tensors \(found: epoch\)"),
        (
            lambda s: {f"{p}.{k}": v for p in ("a", "b") for k, v in s.items()},
            r"holds 2 networks.*'a\.'.*'b\.'.*--prefix",
        ),
        (
            lambda s: {"state_dict": s, "state_dict_ema": s},
            r"holds 2 networks.*''.*'state_dict_ema\.'.*--prefix.*--which teacher",
        ),
        (
            lambda s: {f"student.backbone.{k}": v for k, v in s.items()},
            r"holds a student only.*--prefix student\.backbone\..*--which student",
        ),
    ],
)
def test_refusals(change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    """Another network's weights would be written as this one's, or a guess made between two."""
    path = saved(change(vit_state()), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        convert_checkpoint(path, tmp_path / "b.safetensors", **VIT)
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"reg_token": (1, 4, 48)}, "register tokens"),
        ({"register_tokens": (1, 4, 48)}, "register tokens"),
        ({"blocks.0.ls1.gamma": (48,)}, "LayerScale"),
        ({"blocks.0.gamma_1": (48,)}, "LayerScale"),
        ({"blocks.0.mlp.w12.weight": (64, 48)}, "SwiGLU"),
        ({"blocks.0.mlp.fc1_g.weight": (64, 48)}, "SwiGLU"),
        ({"rope_embed.periods": (8,)}, "rotary positions"),
        ({"blocks.0.attn.q_norm.weight": (16,)}, "norms of query and key"),
        ({"blocks.0.attn.rel_pos_h": (15, 16)}, "relative positions"),
        ({"norm_pre.weight": (48,)}, "a norm before its blocks"),
        ({"pos_embed": (1, 64, 48)}, r"no position of its \[CLS\] token"),
        (
            {"reg_token": (1, 4, 48), "blocks.0.ls1.gamma": (48,), "pos_embed": (1, 64, 48)},
            "register tokens and LayerScale",
        ),
    ],
)
def test_another_vit_is_named_before_a_model_is_asked_for(
    weights: dict[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    """Somebody would be sent to look for a model name with which the file could not be converted either."""
    state = vit_state() | {name: torch.ones(shape) for name, shape in weights.items()}
    path = saved(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth holds a ViT with {said}, which is not read as a plain one"):
        convert_checkpoint(path, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="Give --model and --model-args"):
        convert_checkpoint(saved(vit_state(), path), tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "name", ["reg_token", "dist_token", "absolute_pos_embed", "norm_pre.weight", "unknown"]
)
def test_nothing_that_may_enter_the_features_is_left_out(name: str, tmp_path: Path) -> None:
    """Registers, absolute positions or another token would be dropped: every key matches and the features differ."""
    path = saved({"model": vit_state() | {name: torch.ones(1, 1, 48)}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"no place for \(first: {name}\).*--ignore"):
        read_backbone(path, **VIT)
    assert read_backbone(path, ignore=[name], **VIT).left.keys() == {name}


def test_formats_that_read_differently_are_not_guessed(tmp_path: Path) -> None:
    """A network would get another project's epsilon, or another of the file's two networks."""
    path = tmp_path / "a.pth"
    teacher = foreign.checkpoint("esvit", "swin-tiny-test", 0)["teacher"]
    plain = {key: value for key, value in teacher.items() if "head" not in key}
    torch.save({"teacher": plain, "student": plain}, path)
    assert read_backbone(path).reading.format == "dino" and read_backbone(path).norm_eps == 1e-5
    encoder = {f"encoder.{key}": value for key, value in vit_state().items()} | {
        "decoder.weight": torch.ones(2)
    }
    torch.save({"model": encoder}, path)
    found = read_backbone(path, **VIT)
    assert found.reading.role is None and found.reading.format == "timm ViT"
    both = foreign.checkpoint("ibot", "swin-tiny-test", 0)
    both["teacher"]["projector.weight"] = torch.ones(2)
    torch.save(both, path)
    assert read_backbone(path).reading.format == "ibot"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.to(torch.int8), r"of type torch\.int8"),
        (lambda v: v.to(torch.complex64), r"of type torch\.complex64"),
        (lambda v: v.to_sparse(), r"torch\.sparse_coo"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    """Quantised weights would be copied as they are and compute something else."""
    state = vit_state()
    state["norm.bias"] = change(state["norm.bias"])
    with pytest.raises(UserError, match=message):
        read_backbone(saved(state, tmp_path / "a.pth"), **VIT)


def test_arguments_that_no_file_can_express_are_refused(tmp_path: Path, foreign_file: File) -> None:
    """Another activation given by hand would be exported as GELU, or pass by a config that says otherwise."""
    path, _ = foreign_file("dino", "vit-tiny-test")
    with pytest.raises(UserError, match="'act_layer' of the model is in no weight"):
        convert_checkpoint(
            path,
            tmp_path / "hf",
            "huggingface",
            model=VIT["model"],
            model_args=VIT["model_args"] | {"act_layer": "relu"},
        )
    convert_checkpoint(path, tmp_path / "hf", "huggingface", **VIT)
    config = json.loads((tmp_path / "hf/config.json").read_text())
    for change, message in (
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"hidden_size": "wide"}, "makes no sense"),
        ({"image_size": []}, "makes no sense"),
    ):
        (tmp_path / "hf/config.json").write_text(json.dumps(config | change))
        with pytest.raises(UserError, match=message):
            read_backbone(tmp_path / "hf", **VIT)
    (tmp_path / "hf/config.json").write_text("[]")
    with pytest.raises(UserError, match="it holds a list"):
        read_backbone(tmp_path / "hf")


def test_views_and_shared_weights_are_written_as_themselves(tmp_path: Path) -> None:
    """A file would hold a whole storage behind a view, or tied weights would end in a traceback."""
    state = {key: torch.cat([value, value])[: len(value)] for key, value in vit_state().items()}
    state["blocks.1.norm1.bias"] = state["blocks.0.norm1.bias"] = state["norm.bias"]
    path = saved(state, tmp_path / "a.pth")
    for name in ("b.safetensors", "b.pth"):
        convert_checkpoint(path, tmp_path / name, **VIT)
        assert (tmp_path / name).stat().st_size < 0.7 * path.stat().st_size
        again = read_backbone(tmp_path / name, **VIT).state
        assert all(torch.equal(again[key], state[key]) for key in state)


def test_a_checkpoint_is_not_replaced_by_its_backbone(tmp_path: Path, foreign_file: File) -> None:
    """The optimizer's state would be gone with one wrong argument."""
    saved(foreign.checkpoint("dino", "vit-tiny-test", 0), tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    with pytest.raises(UserError, match="is the source itself"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.pth", **VIT)
    assert (tmp_path / "a.pth").read_bytes() == before


@pytest.mark.parametrize("size", [(7,), (0,), (64, 40)])
def test_image_sizes_must_be_whole_patches(size: tuple[int, ...], tmp_path: Path) -> None:
    """Positions of an empty grid, or of one that nobody asked for, would be written."""
    with pytest.raises(UserError, match=r"--img-size .*: give multiples of the patch, 16"):
        read_backbone(saved(vit_state(), tmp_path / "a.pth"), image_size=size, **VIT)


def test_one_network_is_neither_teacher_nor_student(tmp_path: Path) -> None:
    """Somebody who asks for a file's teacher would get its only network under that name."""
    path = saved(vit_state(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"does not say whether.*Leave out --which"):
        read_backbone(path, which="teacher", **VIT)


def test_averaged_weights_of_timms_training_are_chosen(tmp_path: Path) -> None:
    """--which teacher would take the trained weights instead of their average."""
    path = saved({"state_dict": vit_state(1), "state_dict_ema": vit_state(2)}, tmp_path / "a.pth")
    for which, seed in (("student", 1), ("teacher", 2)):
        found = read_backbone(path, which=which, **VIT).state
        assert torch.equal(found["cls_token"], vit_state(seed)["cls_token"]), which


def test_query_without_key_is_refused(tmp_path: Path) -> None:
    """A third of an attention would be taken from elsewhere, or a traceback shown."""
    saved(foreign.checkpoint("dino", "vit-tiny-test", 0), tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "hf", "huggingface", **VIT)
    state = load_checkpoint(tmp_path / "hf/model.safetensors")["state_dict"]
    del state["encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(UserError, match=r"blocks\.1\.attn\.qkv\.weight needs query, key, value; only"):
        read_backbone(saved(state, tmp_path / "b.pth"), **VIT)


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("timm", "b.bin", r"b\.bin: a file for timm ends in \.safetensors or \.pth"),
        ("mmdet", "b.safetensors", r"a file for mmdet ends in \.pth"),
        ("mmdet", "b.pth", "mmdet has no ViT backbone.*MSTVisionTransformer"),
        ("huggingface", "b.safetensors", "is a folder"),
        ("huggingface", ".", "exists already"),
        ("tensorflow", "b", "'tensorflow' is not a"),
    ],
)
def test_destinations_are_checked(to: str, name: str, message: str, tmp_path: Path) -> None:
    """A file would be written that its library cannot open, or over somebody's folder."""
    path = saved(vit_state(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        convert_checkpoint(path, tmp_path / name, to, **VIT)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_unusual_sizes_need_the_model(tmp_path: Path) -> None:
    """A ViT's number of heads would be guessed: every key matches and the features are wrong."""
    path = saved(vit_state(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"number of heads.*--model"):
        read_backbone(path)
    with pytest.raises(UserError, match=r"timm has no model 'vit_smal'"):
        read_backbone(path, model="vit_smal")
    with pytest.raises(UserError, match=r"cannot be built with --model-args.*heads"):
        read_backbone(path, model="vit_small_patch16_224", model_args={"heads": 3})


# how a file may be dressed up


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module.backbone.backbone.", "encoder.", "model.net.", "module._orig_mod."],
)
def test_wrappers_and_unknown_prefixes(prefix: str, tmp_path: Path) -> None:
    """A file saved from DDP or torch.compile, or with a prefix twice, would be refused or half read."""
    state = vit_state()
    others = {"head.weight": torch.ones(3), "epoch": 3}
    path = saved(
        {"state_dict": {f"{prefix}{key}": value for key, value in state.items()} | others}, tmp_path / "a.pth"
    )
    backbone = read_backbone(path, **VIT)
    assert backbone.reading.prefix == prefix.replace("_orig_mod.", "")
    assert read_backbone(path, prefix=prefix, **VIT).reading == backbone.reading
    assert all(torch.equal(backbone.state[key], state[key]) for key in state) and set(backbone.state) == set(
        state
    )


def test_half_precision_is_widened(tmp_path: Path) -> None:
    """A library would load half-precision weights as they are and compute in them."""
    state = {key: value.half() for key, value in vit_state().items()}
    convert_checkpoint(saved(state, tmp_path / "a.pth"), tmp_path / "b.safetensors", **VIT)
    written = load_checkpoint(tmp_path / "b.safetensors")["state_dict"]
    assert all(torch.equal(written[key], state[key].float()) for key in state)
    assert all(value.dtype == torch.float32 for value in written.values())


def test_heads_are_reported(tmp_path: Path) -> None:
    """Somebody would think that the classifier came along."""
    state = vit_state() | {"head.weight": torch.ones(5, 48), "head.bias": torch.ones(5)}
    backbone = convert_checkpoint(saved(state, tmp_path / "a.pth"), tmp_path / "b.safetensors", **VIT)
    assert "unexpected: 2 (head.bias (5,); head.weight (5, 48))" in str(backbone)
    assert "head.weight" not in load_checkpoint(tmp_path / "b.safetensors")["state_dict"]


def test_settings_of_yacs_are_read_without_yacs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The released MoBY and Swin files, which hold their configuration, would be refused; or its code would run."""
    module = ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.__dict__["__immutable__"] = True

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    moby = foreign.checkpoint("moby", "swin-tiny-test", 0)
    torch.save({**moby, "config": CfgNode({"MODEL": CfgNode({"TYPE": "moby"})})}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    loaded = load_checkpoint(tmp_path / "a.pth")["config"]
    assert loaded == {"MODEL": {"TYPE": "moby"}} and type(loaded).__module__ == "collections"
    assert read_backbone(tmp_path / "a.pth").reading.format == "moby"


class Marker:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_runs_only_in_a_trusted_file(tmp_path: Path) -> None:
    """Opening a stranger's checkpoint would run its code; or a file of one's own could not be opened at all."""
    path = saved({"model": vit_state(), "args": Marker(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds more than weights \(the object pathlib\S+\).*--trusted"):
        convert_checkpoint(path, tmp_path / "b.safetensors", **VIT)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "b.safetensors").exists()
    convert_checkpoint(path, tmp_path / "b.safetensors", trusted=True, **VIT)
    assert (tmp_path / "ran").exists() and (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_text_is_no_checkpoint(content: bytes, name: str, tmp_path: Path) -> None:
    """A web page saved under a checkpoint's name would be called dangerous, or end in a traceback."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is (a web page|a pointer of Git LFS), not"):
        read_backbone(tmp_path / name)


# resizing


def test_positions_are_resized_only_when_asked(tmp_path: Path) -> None:
    """Positions would be resized without a word, transposed, or by another rule than timm's."""
    path = saved(vit_state(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"pos_embed \(1, 17, 48\) for \(1, 37, 48\)"):
        read_backbone(path, model=VIT["model"], model_args={**VIT["model_args"], "img_size": 96})
    backbone = convert_checkpoint(path, tmp_path / "b.safetensors", image_size=(96, 64), **VIT)
    old = vit_state()["pos_embed"]
    grid = old[:, 1:].view(1, 4, 4, 48).permute(0, 3, 1, 2)
    new = F.interpolate(grid, (6, 4), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(backbone.state["pos_embed"], torch.cat([old[:, :1], new], 1))
    assert backbone.resized == ["pos_embed (1, 17, 48) -> (1, 25, 48)"]
    assert timm_deviation(backbone, tmp_path / "b.safetensors") == 0
    assert backbone.architecture.image_size == (96, 64)
    with pytest.raises(UserError, match="--window resizes a Swin's"):
        read_backbone(path, window_size=12, **VIT)


@pytest.mark.parametrize("name", ["flexivit_small", "vit_base_patch16_gap_224"])
def test_positions_without_a_class_token_are_refused(name: str, tmp_path: Path) -> None:
    """mmseg would take the first patch's position for that of [CLS] and stretch the others over the grid."""
    arguments = dict(img_size=64, patch_size=16, embed_dim=48, depth=1, num_heads=3)
    state = timm.create_model(name, num_classes=0, **arguments).state_dict()
    path = saved({key: value for key, value in state.items() if ".ls" not in key}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"{name} has no position of its \[CLS\] token"):
        convert_checkpoint(path, tmp_path / "b.pth", "mmseg", model=name, model_args=arguments)
    assert not (tmp_path / "b.pth").exists()


def test_bias_tables_are_resized_only_when_asked(tmp_path: Path, foreign_file: File) -> None:
    """A Swin of another window would get tables of the old one, or interpolated by another rule than Swin's."""
    path, _ = foreign_file("moby", "swin-tiny-test")
    with pytest.raises(UserError, match=r"has other bias tables.*--window 12 --img-size 384"):
        convert_checkpoint(path, tmp_path / "b.safetensors", window_size=12)
    backbone = convert_checkpoint(path, tmp_path / "b.safetensors", window_size=12, image_size=(384,))
    own = read_backbone(path).state
    tables = [key for key in own if key.endswith("bias_table")]
    assert len(backbone.resized) == len(tables) == 8
    for key in tables:
        old = own[key].T.reshape(1, -1, 13, 13)
        new = F.interpolate(old, (23, 23), mode="bicubic", align_corners=False).flatten(2)[0].T
        torch.testing.assert_close(backbone.state[key], new)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=0,
        checkpoint_path=str(tmp_path / "b.safetensors"),
        **backbone.architecture.arguments,
    )
    assert model(torch.zeros(1, 3, 384, 384)).shape == (1, 192)
    again = read_backbone(tmp_path / "b.safetensors")
    assert again.architecture == backbone.architecture
    assert timm_deviation(backbone, tmp_path / "b.safetensors") == 0
    convert_checkpoint(tmp_path / "b.safetensors", tmp_path / "c.pth")
    plain = load_checkpoint(tmp_path / "c.pth")
    torch.save(plain["state_dict"], tmp_path / "d.pth")  # nothing but weights: the tables tell the size
    assert read_backbone(tmp_path / "d.pth").architecture.arguments["window_size"] == 12


# what is written


def test_metadata_says_what_a_file_is(tmp_path: Path, foreign_file: File) -> None:
    """Months later nobody would know method, network, epoch or origin of an exported file."""
    path, _ = foreign_file("dino", "vit-tiny-test")
    convert_checkpoint(path, tmp_path / "b.safetensors", **VIT)
    with safetensors.safe_open(tmp_path / "b.safetensors", "pt") as file:
        metadata = file.metadata()
    expected = {
        "method": "dino",
        "architecture": VIT["model"],
        "network": "teacher",
        "epoch": "300",
        "format": "pt",
    }
    assert {key: metadata[key] for key in expected} == expected
    assert json.loads(metadata["model_args"]) == VIT["model_args"]
    assert len(metadata["source_sha256"]) == 64 and metadata["toolkit"].startswith("mst-toolkit ")
    convert_checkpoint(tmp_path / "b.safetensors", tmp_path / "c.safetensors")
    again = load_checkpoint(tmp_path / "c.safetensors")["meta"]
    assert {key: again[key] for key in expected} == expected


def test_evaluation_reads_the_model_from_an_export(tmp_path: Path, foreign_file: File) -> None:
    """A converted file of an unusual size would need --model in every evaluation."""
    path, _ = foreign_file("dino", "vit-tiny-test")
    convert_checkpoint(path, tmp_path / "b.safetensors", **VIT)
    _, origin = load_trunk(str(tmp_path / "b.safetensors"))
    assert (origin.model, origin.model_args) == (VIT["model"], VIT["model_args"])


@pytest.mark.parametrize(("format", "architecture"), [("dino", "vit-tiny-test"), ("esvit", "swin-tiny-test")])
def test_hugging_face_loads_every_weight(
    format: str, architecture: str, tmp_path: Path, foreign_file: File
) -> None:
    """transformers warns of missing weights and goes on with random ones."""
    import transformers

    path, _ = foreign_file(format, architecture)
    backbone = convert_checkpoint(path, tmp_path / "hf", "huggingface", **SMALL[architecture])
    kind = transformers.ViTModel if "vit" in architecture else transformers.SwinModel
    _, info = kind.from_pretrained(tmp_path / "hf", add_pooling_layer=False, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert huggingface_deviation(backbone, tmp_path / "hf") < 1e-5
    assert {file.name for file in (tmp_path / "hf").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    again = read_backbone(tmp_path / "hf")
    assert again.architecture.model.state_dict().keys() == backbone.state.keys()
    assert all(torch.equal(again.state[key], backbone.state[key]) for key in backbone.state)
    assert [f.name for f in tmp_path.iterdir()] == ["hf"]


def test_hugging_face_models_are_read(tmp_path: Path) -> None:
    """Weights written by transformers itself, pooler and classifier included, would be refused or misread."""
    import transformers

    torch.manual_seed(0)
    vit_config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=64,
        num_labels=5,
    )
    swin_config = transformers.SwinConfig(embed_dim=24, depths=[2, 2], num_heads=[1, 2], num_labels=5)
    for name, model, sides in (
        ("vit", transformers.ViTForImageClassification(vit_config), [(64, 64)]),
        ("swin", transformers.SwinForImageClassification(swin_config), [(224, 224), (224, 448)]),
    ):
        for parameter in model.parameters():
            nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
        model.save_pretrained(tmp_path / name)
        backbone = convert_checkpoint(tmp_path / name, tmp_path / f"{name}.safetensors", allow_missing=[])
        assert backbone.reading.prefix == f"{name}." and backbone.reading.format == "huggingface"
        any_size = {"strict_img_size": False} if name == "swin" else {}
        trunk = timm.create_model(
            backbone.architecture.name,
            num_classes=0,
            checkpoint_path=str(tmp_path / f"{name}.safetensors"),
            **backbone.architecture.arguments,
            **any_size,
        ).eval()
        for height, width in sides:
            images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(width))
            body = getattr(type(model).from_pretrained(tmp_path / name), name).eval()
            with torch.no_grad():
                found = trunk.forward_features(images)
                expected = body(images).last_hidden_state
            assert deviation(found if name == "vit" else found.flatten(1, 2), expected) < 1e-5


def test_hugging_face_networks_with_other_blocks_are_refused(tmp_path: Path, foreign_file: File) -> None:
    """Another activation has no weights: every key would match and the features be wrong."""
    path, _ = foreign_file("dino", "vit-tiny-test")
    convert_checkpoint(path, tmp_path / "hf", "huggingface", **VIT)
    config = json.loads((tmp_path / "hf/config.json").read_text())
    (tmp_path / "hf/config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(UserError, match=r"\{'hidden_act': 'relu'\}"):
        read_backbone(tmp_path / "hf")
    (tmp_path / "hf/config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is not there"):
        read_backbone(tmp_path / "hf")


def test_hugging_face_sees_the_pixels_that_our_evaluation_sees(tmp_path: Path, foreign_file: File) -> None:
    """Features of the exported model would differ on photographs: another resize, crop or normalisation."""
    import transformers

    torch.save(foreign.checkpoint("dino", "deit-s", 0), tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "hf", "huggingface")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    noise = torch.randint(0, 256, (40, 60, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    photo = Image.fromarray(noise.numpy()).resize((500, 333), Image.Resampling.BICUBIC)
    expected = evaluation_transform()(photo)
    found = processor(images=photo, return_tensors="pt")["pixel_values"][0]
    assert found.shape == expected.shape == (3, 224, 224)
    assert float((found - expected).abs().max()) < 2.5 / 255 / 0.225  # both round to 8 bits on the way


def test_an_interrupted_export_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-written Hugging Face folder would be taken for a whole one."""
    path = saved(vit_state(), tmp_path / "a.pth")

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mst_pretrain.checkpoints.huggingface_folder.save_safetensors", stop)
        with pytest.raises(KeyboardInterrupt):
            convert_checkpoint(path, tmp_path / "hf", "huggingface", **VIT)
    assert not (tmp_path / "hf").exists()
    convert_checkpoint(path, tmp_path / "hf", "huggingface", **VIT)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pth", "hf"]

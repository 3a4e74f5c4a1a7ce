"""Starting from a pretrained backbone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from mst_pretrain.checkpoints import read_backbone
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError

Randomize = Callable[[nn.Module, int], nn.Module]
VIT = dict(name="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8)


@pytest.fixture
def backbone(randomize: Randomize) -> nn.Module:
    """A timm model with its classifier, every weight drawn."""
    options = {key: value for key, value in VIT.items() if key != "name"}
    return randomize(timm.create_model("vit_tiny_patch16_224", num_classes=5, **options), 3)


def save(backbone: nn.Module, kind: str, path: Path) -> Path:
    """The file formats in the field, by their keys."""
    state = backbone.state_dict()
    other = {key: value + 1 for key, value in state.items()}
    if kind == "timm":
        safetensors.torch.save_file(state, path)
    elif kind == "dino backbone":
        torch.save(state, path)
    elif kind == "dino training":
        both = {
            name: {f"module.backbone.{key}": value for key, value in weights.items()}
            for name, weights in (("student", other), ("teacher", state))
        }
        torch.save({**both, "epoch": 3, "args": argparse.Namespace(arch="vit_small", lr=5e-4)}, path)
    else:
        ours = {f"student.backbone.{key}": value for key, value in other.items()}
        ours |= {f"teacher.backbone.{key}": value for key, value in state.items()}
        torch.save({"state_dict": ours}, path)
    return path


@pytest.mark.parametrize("kind", ["timm", "dino backbone", "dino training", "mst"])
def test_both_networks_start_from_the_backbone(kind: str, backbone: nn.Module, tmp_path: Path) -> None:
    """Training would start from random weights, from the student's, or with a teacher unlike its student."""
    path = save(backbone, kind, tmp_path / ("w.safetensors" if kind == "timm" else "w.pth"))
    model = MST({**VIT, "drop_path_rate": 0.1}, HEAD, init_from=str(path))
    expected = {key: value for key, value in backbone.state_dict().items() if not key.startswith("head.")}
    for network in (model.student, model.teacher):
        got = network.backbone.state_dict()
        assert set(got) == set(expected)
        assert all(torch.equal(got[key], expected[key]) for key in got)
    pairs = zip(model.student.head.parameters(), model.teacher.head.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("format", ["moby", "esvit"])
def test_another_layout_is_converted(format: str, tmp_path: Path) -> None:
    """A Swin of MoBY or EsViT would be refused, or its mergings start a stage too early."""
    torch.save(foreign.checkpoint(format, "swin-tiny-test", seed=1), tmp_path / "w.pth")
    expected = read_backbone(tmp_path / "w.pth")
    shape = {"name": expected.architecture.name, **expected.architecture.arguments}
    got = MST(shape, HEAD, init_from=str(tmp_path / "w.pth")).teacher.backbone.state_dict()
    assert set(got) == set(expected.state)
    assert all(torch.equal(got[key], value) for key, value in expected.state.items())


def test_it_says_what_is_new(backbone: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user would take the new head for a pretrained one, or not see that every key matched."""
    path = save(backbone, "dino backbone", tmp_path / "w.pth")
    MST(VIT, HEAD, init_from=str(path))
    said = capsys.readouterr().out + capsys.readouterr().err
    assert "keys matched" in said and "projection head, mask token and decoder are new" in said


def test_unclear_files_are_refused(backbone: nn.Module, tmp_path: Path) -> None:
    """Weights of the wrong network, or none, would be taken without a word."""
    two: dict[str, Any] = {
        f"{name}.{key}": value for name in ("a", "b") for key, value in backbone.state_dict().items()
    }
    torch.save(two, tmp_path / "two.pth")
    torch.save({"weight": torch.ones(2)}, tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"two\.pth holds 2 networks.*'a\.'.*'b\.'"):
        MST(VIT, HEAD, init_from=str(tmp_path / "two.pth"))
    with pytest.raises(UserError, match=r"none\.pth holds no ViT or Swin backbone.*found: weight"):
        MST(VIT, HEAD, init_from=str(tmp_path / "none.pth"))
    state = {key: value for key, value in backbone.state_dict().items() if not key.startswith("blocks.1.")}
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(UserError, match=r"cut\.pth.*12 weights missing"):
        MST(VIT, HEAD, init_from=str(tmp_path / "cut.pth"))


def test_a_deeper_backbone_is_refused(backbone: nn.Module, tmp_path: Path) -> None:
    """The first two blocks of a network of another depth would be taken for a whole one."""
    deeper = backbone.state_dict()
    deeper |= {
        key.replace("blocks.1", "blocks.2"): value for key, value in deeper.items() if "blocks.1" in key
    }
    torch.save(deeper, tmp_path / "deep.pth")
    with pytest.raises(
        UserError, match=r"deep\.pth does not fit .*12 weights that it has no place for.*blocks\.2"
    ):
        MST(VIT, HEAD, init_from=str(tmp_path / "deep.pth"))


def test_positions_without_a_class_token_are_refused(backbone: nn.Module, tmp_path: Path) -> None:
    """DeiT III's positions have no entry for [CLS]: resizing them would end in PyTorch's words about a shape."""
    state = backbone.state_dict()
    state["pos_embed"] = state["pos_embed"][:, 1:]
    torch.save(state, tmp_path / "deit3.pth")
    with pytest.raises(
        UserError, match=r"deit3\.pth does not fit.*pos_embed \(1, 16, 16\) for \(1, 17, 16\)"
    ):
        MST(VIT, HEAD, init_from=str(tmp_path / "deit3.pth"))

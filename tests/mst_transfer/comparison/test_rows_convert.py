"""The comparison rows' conversion commands, as they stand in the messages, on files made as their authors make them."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch

from mst_pretrain.checkpoints.architecture import Architecture
from mst_transfer.backbones import MSTSwin, MSTVisionTransformer
from mst_transfer.comparison.rows import INITIALISATIONS

ROOT = Path(__file__).parents[3]
PUBLISHED = [key for key, init in INITIALISATIONS.items() if "convert_checkpoint" in init.command]


def published_file(row: str, architecture: str) -> tuple[Any, Any]:
    """What the row's authors offer, and the backbone's weights in it, by their names."""
    vit = architecture == "deit-s"
    formats = {
        ("supervised", True): "dino-backbone",  # DeiT's: timm's keys below 'model', with a classifier
        ("supervised", False): "swin",
        ("dino", True): "dino-backbone",
        ("dino", False): "esvit",  # EsViT's run without its region task
        ("ibot", True): "ibot-teacher",
        ("ibot", False): "ibot-teacher",
    }
    format = formats.get((row, vit), row)
    saved = foreign.checkpoint(format, architecture, seed=4)
    expected = foreign.backbone(format, architecture, saved, foreign.EVALUATED[format])
    if row == "supervised" and vit:
        saved = {"model": saved | {"head.weight": torch.ones(1000, 384), "head.bias": torch.ones(1000)}}
    if row == "dino" and not vit:
        for role in ("student", "teacher"):
            saved[role] = {key: value for key, value in saved[role].items() if "head_dense" not in key}
    return saved, expected


@pytest.mark.parametrize(("row", "architecture"), PUBLISHED)
def test_command_makes_the_rows_weights(
    row: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that a missing file's message gives would be refused, or take another network of the file."""
    init = INITIALISATIONS[row, architecture]
    python, script, source, target, *options = shlex.split(init.command)
    assert (python, script, target) == ("python", "tools/convert_checkpoint.py", init.checkpoint)
    saved, expected = published_file(row, architecture)
    monkeypatch.chdir(tmp_path)
    Path(source).parent.mkdir()
    torch.save(saved, source)
    spec = importlib.util.spec_from_file_location("convert_checkpoint", ROOT / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([source, target, *options])
    kind = MSTVisionTransformer if architecture == "deit-s" else MSTSwin
    backbone = kind(init_cfg=init.init_cfg)
    backbone.init_weights()
    trunk = backbone.trunk.state_dict()
    assert set(trunk) <= set(Architecture(NAMES[architecture]).shapes())
    for mine, theirs in (
        ("patch_embed.proj.weight", "patch_embed.proj.weight"),
        ("layers.3.downsample.reduction.weight", "layers.2.downsample.reduction.weight"),
        ("layers.2.blocks.5.mlp.fc1.bias", "layers.2.blocks.5.mlp.fc1.bias"),
        ("blocks.11.attn.qkv.bias", "blocks.11.attn.qkv.bias"),
        ("pos_embed", "pos_embed"),
    ):
        assert (mine in trunk) == (theirs in expected)
        assert mine not in trunk or torch.equal(trunk[mine], expected[theirs]), mine


NAMES = {"deit-s": "vit_small_patch16_224", "swin-t": "swin_tiny_patch4_window7_224"}

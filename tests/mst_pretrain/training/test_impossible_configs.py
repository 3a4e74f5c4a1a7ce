"""Values that cannot work end in one message that names the config or the key, before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mst_pretrain.data.multicrop import MultiCrop
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.launch import run

MakeConfig = Callable[..., Config]
CROPS = "train_dataloader__dataset__crops"
SWIN = dict(
    name="swin_tiny_patch4_window7_224",
    img_size=64,
    window_size=2,
    embed_dim=8,
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 2, 2),
)
HEAD = dict(prototypes=8, hidden_dim=8, bottleneck_dim=4)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model__masking__mode", "attn", "FILE: masking mode 'attn'.*attention"),
        ("model__masking__prob", 1.5, "FILE: prob .*1.5"),
        ("model__masking__num", 0, "FILE: num .*0"),
        ("model__masking__unmasked_image_probability", -1, "FILE: unmasked_image_probability .*-1"),
        ("model__head__norm", "layer", "FILE: head norm 'layer'.*syncbn"),
        ("model__distillation__student_temperature", 0, "FILE: student_temperature .*0"),
        ("model__distillation__center_momentum", 2, "FILE: center_momentum .*2"),
        ("model__compile", "inducto", "FILE: compile backend 'inducto'.*inductor"),
        ("model__lambda_rec", -1, "FILE: .*lambda_rec must not be negative.*-1"),
        ("default_hooks__schedule__teacher_temperature", (0.04, 0), "FILE: teacher_temperature .*0"),
        ("optim_wrapper__clip_grad_per_tensor", -1, "FILE: clip_grad_per_tensor .*-1"),
        ("optim_wrapper__clip_grad_per_tensor", 0, "FILE: clip_grad_per_tensor .*0"),
        ("optim_wrapper__type", "MSTAmpOptimWrapper", "MSTAmpOptimWrapper needs a GPU"),
        ("randomness__seed", -1, r"FILE: randomness\.seed is -1.*from 0 to 4294967295"),
        ("randomness__seed", 2**32, r"FILE: randomness\.seed is 4294967296"),
        ("model__backbone__num_heads", 3, "FILE: vit_.*: .*divisible"),
        ("optim_wrapper__optimizer__lr", -1.0, "FILE: Invalid learning rate: -1.0"),
        ("train_dataloader__batch_size", 0, "FILE: batch_size .*0"),
        (
            "train_dataloader__batch_size",
            2.5,
            r"FILE: train_dataloader\.batch_size is 2\.5, which is not a whole number",
        ),
        (
            "train_dataloader__num_workers",
            1.5,
            r"FILE: train_dataloader\.num_workers is 1\.5, .*whole number",
        ),
        ("randomness__seed", "1", r"FILE: randomness\.seed is '1'. Give a whole number"),
        ("resume", "yes", r"FILE: resume is 'yes', which is not True or False"),
        (
            "custom_hooks",
            [dict(type="EMAHook", momentum="0.1")],
            r"FILE: custom_hooks\.0\.momentum is '0\.1', which is not a number",
        ),
        ("train_dataloader__num_workers", "1", r"FILE: train_dataloader\.num_workers is '1'"),
        (
            "model__head__prototypes",
            8.0,
            r"FILE: model\.head\.prototypes is 8\.0, which is not a whole number",
        ),
        ("model__backbone__depth", "2", r"FILE: model\.backbone\.depth is '2', which is not a whole number"),
        ("model__masking__num", "2", r"FILE: model\.masking\.num is '2', which is not a whole number"),
        ("model__masking__prob", "1", r"FILE: model\.masking\.prob is '1', which is not a number"),
        ("model__lambda_rec", "1", r"FILE: model\.lambda_rec is '1', which is not a number"),
        ("train_cfg__max_epochs", "3", r"FILE: train_cfg\.max_epochs is '3', which is not a number or None"),
        (
            "default_hooks__schedule__warmup_epochs",
            "1",
            r"FILE: default_hooks\.schedule\.warmup_epochs is '1'",
        ),
        ("optim_wrapper__optimizer__lr", "1e-3", r"optim_wrapper\.optimizer\.lr is '1e-3', .*not a number"),
        ("default_hooks__schedule__base_lr", "1e-3", r"FILE: default_hooks\.schedule\.base_lr is '1e-3'"),
        (
            "default_hooks__schedule__weight_decay",
            0.04,
            r"weight_decay is 0\.04, .*not a list of a number, a number",
        ),
        ("default_hooks__schedule__momentum", (0.9, 1.0, 1.0), r"schedule\.momentum is \(0\.9, 1\.0, 1\.0\)"),
        ("default_hooks__logger__interval", 2.5, r"default_hooks\.logger\.interval is 2\.5, .*whole number"),
        (f"{CROPS}__local_count", -1, "FILE: local_count .*-1"),
        (f"{CROPS}__local_crop__size", 0, "FILE: .*size .*0"),
        (f"{CROPS}__local_crop__size", 20, r"crops\.local_crop: size 20 .*multiple of 8"),
    ],
)
def test_impossible_value_is_one_message_before_training(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, words: str
) -> None:
    """A user would read a traceback, maybe after the first step, or train uphill without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = toy_config(**{key: value})
    cfg.launcher = "none"
    with pytest.raises(UserError, match=words.replace("FILE", re.escape(str(cfg.filename)))):
        run(cfg, methodcaller("train"))
    assert not list(Path(cfg.work_dir).glob("*.pth"))


def test_error_of_a_training_step_keeps_its_traceback(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of the program would be shown as a wrong value of the config."""

    def defect(*_: Any) -> None:
        raise ValueError("shapes differ")

    monkeypatch.setattr("mst_pretrain.method.mst.restoration_loss", defect)
    cfg = toy_config()
    cfg.launcher = "none"
    with pytest.raises(ValueError, match="shapes differ"):
        run(cfg, methodcaller("train"))


@pytest.mark.parametrize(
    ("options", "size", "local_size", "refused"),
    [
        ({}, 80, 20, ""),  # its stages pad what does not divide
        ({}, 80, 22, "local_crop: size 22 .*multiple of 4"),
        ({"decoder": {"width": 4}}, 80, 20, "global_crops: size 80 .*multiple of 32"),
        ({"masking": {"mode": "random"}}, 80, 20, "global_crops: size 80 .*multiple of 32"),
        ({"masking": {"mode": "random"}, "mask_local": True}, 64, 48, "local_crop: size 48 .*multiple of 32"),
        ({"masking": {"mode": "random"}}, 64, 48, ""),
    ],
)
def test_crops_are_refused_where_a_step_would_fail(
    options: dict[str, Any], size: int, local_size: int, refused: str
) -> None:
    """Crop sizes that work would be refused, or those that do not pass."""
    model = MST(SWIN, HEAD, **options)
    crops = MultiCrop([{"size": size}, {"size": size}], {"size": local_size}, 1)
    views = torch.zeros(2, 1, 3, size, size), torch.zeros(1, 1, 3, local_size, local_size)
    if not refused:
        crops.check(*model.crop_units)
        model.loss(*views, torch.tensor([1]))
        return
    with pytest.raises(UserError, match=refused):
        crops.check(*model.crop_units)
    with pytest.raises((ValueError, AssertionError)):
        model.loss(*views, torch.tensor([1]))


def test_one_crop_is_refused() -> None:
    """The student would have nothing to match."""
    with pytest.raises(UserError, match="one crop"):
        MultiCrop([{"size": 32}], {"size": 32}, 0).check(1, 1)

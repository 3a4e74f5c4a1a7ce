"""Files of several networks: one rule for the converter, the evaluations, a config and --init-from."""

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
from mst_pretrain.checkpoints.inspection import inspect_checkpoint, report
from mst_pretrain.checkpoints.loading import load_backbone
from mst_pretrain.evaluation.trunk import load_trunk
from mst_pretrain.runtime.errors import UserError
from tests.mst_pretrain.checkpoints.conftest import SMALL

VIT = SMALL["vit-tiny-test"]
State = dict[str, Tensor]


def network(seed: int) -> State:
    """timm's names."""
    return dict(foreign.checkpoint("dino-backbone", "vit-tiny-test", seed))


def below(prefix: str, seed: int) -> State:
    return {f"{prefix}{name}": value for name, value in network(seed).items()}


def inside(wrapper: str, seed: int) -> State:
    """A wrapper around every block and every attention."""
    return {
        name.replace(".attn.", f".attn.{wrapper}.").replace("blocks.0.", f"blocks.0.{wrapper}."): value
        for name, value in network(seed).items()
    }


def module() -> Any:
    return timm.create_model(VIT["model"], num_classes=0, **VIT["model_args"])


def read_everywhere(path: Path, prefix: str | None = None) -> list[State]:
    """By the converter, an evaluation, and what a config and --init-from call."""
    convert_checkpoint(path, path.with_name("new.safetensors"), prefix=prefix, **VIT)
    converted = read_backbone(path.with_name("new.safetensors")).state
    trunk, target = load_trunk(str(path), prefix, VIT["model"], VIT["model_args"])[0], module()
    load_backbone(target, path, prefix)
    return [converted, trunk.state_dict(), target.state_dict()]


# Each: the file of networks 1 and 2, and the prefix of network 2
ASKED: dict[str, tuple[Callable[[], Any], str]] = {
    "ema.module": (lambda: {"model": network(1), "ema": {"module": network(2), "decay": 0.9}}, "ema.module."),
    "ema.model.module": (
        lambda: {"model": {"module": network(1)}, "ema": {"model": {"module": network(2)}}},
        "ema.model.module.",
    ),
    "ema_state_dict": (
        lambda: {
            "state_dict": network(1),
            "ema_state_dict": below("module.", 2) | {"steps": torch.tensor(3)},
        },
        "ema_state_dict.module.",
    ),
    "model_ema": (lambda: {"model": network(1), "model_ema": network(2)}, "model_ema."),
    "lightly": (
        lambda: {"state_dict": below("student_backbone.vit.", 1) | below("teacher_backbone.vit.", 2)},
        "teacher_backbone.vit.",
    ),
    "solo-learn": (
        lambda: {"state_dict": below("backbone.", 1) | below("momentum_backbone.", 2)},
        "momentum_backbone.",
    ),
    "BYOL": (
        lambda: below("online_network.encoder.", 1) | below("target_network.encoder.", 2),
        "target_network.encoder.",
    ),
    "Lightning's average": (
        lambda: {"state_dict": below("model.", 1), "current_model_state": below("model.", 2)},
        "current_model_state.model.",
    ),
    "two dictionaries without a saying name": (
        lambda: {"state_dict": network(1), "model": network(2)},
        "model.",
    ),
    "deep": (
        lambda: {"trainer": {"models": {"a": network(1), "b": {"net": network(2)}}}},
        "trainer.models.b.net.",
    ),
    "compiled and not": (lambda: network(1) | below("_orig_mod.", 2), "_orig_mod."),
    "DINO's pair and an average": (
        lambda: {"teacher": network(1), "student": network(3), "ema": {"module": network(2)}},
        "ema.module.",
    ),
}


@pytest.mark.parametrize("file", ASKED)
def test_the_choice_is_asked_for(file: str, tmp_path: Path) -> None:
    """One of two networks would be trained or scored without a word, or each tool would take another one."""
    make, prefix = ASKED[file]
    path = tmp_path / "a.pth"
    torch.save(make(), path)
    for read in (lambda: read_backbone(path, **VIT), lambda: load_backbone(module(), path)):
        with pytest.raises(
            UserError, match=r"a\.pth holds [23] networks.*--prefix.*init_cfg.*--init-from"
        ) as said:
            read()
        assert f"'{prefix}'" in str(said.value)
    for state in read_everywhere(path, prefix):
        assert all(torch.equal(state[name], value) for name, value in network(2).items())


PAIR = below("module.base_encoder.", 2) | below("module.momentum_encoder.", 1)
TAKEN: dict[str, Callable[[], Any]] = {
    "MoCo v3": lambda: {"state_dict": PAIR | {"module.predictor.0.weight": torch.ones(2)}, "optimizer": {}},
    "MoCo v3 from one process": lambda: {
        "state_dict": below("base_encoder.", 2) | below("momentum_encoder.", 1)
    },
    "DINO": lambda: {"student": below("module.backbone.", 1), "teacher": below("backbone.", 2)},
    "one in a dictionary in a dictionary": lambda: {"checkpoint": {"model": {"module": network(2)}}},
    "one beside other tensors": lambda: {
        "model": network(2),
        "criterion": {"weight": torch.ones(2)},
        "best": torch.tensor(0.5),
        "ema": {"decay": torch.tensor(0.9)},
    },
    "one beside an optimizer by names": lambda: {
        "model": network(2),
        "optimizer": {"state": {name: {"exp_avg": value} for name, value in network(1).items()}},
    },
    "torch.compile inside": lambda: {"model": inside("_orig_mod", 2)},
    "FSDP inside": lambda: {
        f"_fsdp_wrapped_module.{name}": value for name, value in inside("_fsdp_wrapped_module", 2).items()
    },
    "activation checkpointing inside": lambda: {"state_dict": inside("_checkpoint_wrapped_module", 2)},
    "FSDP around checkpointing": lambda: inside("_fsdp_wrapped_module._checkpoint_wrapped_module", 2),
    "Lightning Fabric": lambda: {"model": below("_forward_module._orig_mod.", 2)},
    "DDP around torch.compile inside": lambda: {
        f"module.{name}": value for name, value in inside("_orig_mod", 2).items()
    },
}


@pytest.mark.parametrize("file", TAKEN)
def test_one_network_is_the_same_everywhere(file: str, tmp_path: Path) -> None:
    """A file would be refused for its wrappers, or two tools would read two networks of it."""
    torch.save(TAKEN[file](), tmp_path / "a.pth")
    for state in read_everywhere(tmp_path / "a.pth"):
        assert all(torch.equal(state[name], value) for name, value in network(2).items())


def test_the_reason_of_a_choice_is_said(tmp_path: Path) -> None:
    """Nobody would know which network of a pair was loaded."""
    torch.save(TAKEN["MoCo v3"](), tmp_path / "a.pth")
    said = str(read_backbone(tmp_path / "a.pth", **VIT))
    assert "read as mocov3" in said and "of 2 networks the one that its authors evaluate" in said
    assert "network: student" in said
    assert "the student, below 'module.base_encoder.'" in load_backbone(module(), tmp_path / "a.pth")
    teacher = read_backbone(tmp_path / "a.pth", which="teacher", **VIT)
    assert teacher.reading.prefix == "module.momentum_encoder."


def test_only_one_network_is_called_the_only_one(tmp_path: Path) -> None:
    """A user would not look for the second network of a file, whose first is called the only one."""
    networks = {"model": network(1), "ema": {"module": network(2)}}
    torch.save(networks, tmp_path / "two.pth")
    torch.save({"model": network(1)}, tmp_path / "one.pth")
    one, two = (report(inspect_checkpoint(tmp_path / f"{name}.pth")) for name in ("one", "two"))
    assert "backbone, the only network:" in one and "the only network" not in two
    assert "backbone, the one without a prefix:" in two and "backbone, teacher:" in two


def test_heads_that_a_file_says_are_not_overruled(tmp_path: Path) -> None:
    """MoCo v3's ViT-S has 12 heads: in timm's with 6 every weight matches and the features are others."""
    small = timm.create_model("vit_small_patch16_224", num_classes=0, depth=12, img_size=32)
    state = {f"module.base_encoder.{name}": value for name, value in small.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    backbone = convert_checkpoint(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert backbone.architecture.arguments["num_heads"] == 12
    twelve = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=32, num_heads=12)
    for name in ("a.pth", "b.safetensors"):
        assert load_trunk(str(tmp_path / name))[0].blocks[0].attn.num_heads == 12
        with pytest.raises(
            UserError, match=rf"{name} is of a ViT with 12 heads.*this one has 6.*num_heads=12"
        ):
            load_backbone(small, tmp_path / name)
        load_backbone(twelve, tmp_path / name)


@pytest.mark.parametrize(("prefix", "network_below"), [("model.", "''"), ("", "''"), ("other.", "'other.'")])
def test_a_chosen_network_is_not_called_the_only_one(tmp_path: Path, prefix: str, network_below: str) -> None:
    """The name that a user sees in the file would be refused, or its choice be said to be none."""
    torch.save({"model": network(1), "other": network(2)}, tmp_path / "a.pth")
    backbone = read_backbone(tmp_path / "a.pth", prefix=prefix, **VIT)
    assert f"network: the one below {network_below}" in str(backbone)
    wanted = network(2 if prefix == "other." else 1)
    assert all(torch.equal(backbone.state[name], value) for name, value in wanted.items())
    torch.save({"model": network(1)}, tmp_path / "b.pth")
    assert "network: the only one in the file" in str(read_backbone(tmp_path / "b.pth", **VIT))

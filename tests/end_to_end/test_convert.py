"""tools/convert_checkpoint.py and tools/inspect_checkpoint.py as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import foreign
import pytest
import torch

from mst_pretrain.checkpoints.inspection import backbone
from mst_pretrain.checkpoints.reading import CheckpointFile
from mst_pretrain.checkpoints.storage import flat_tensors
from mst_pretrain.checkpoints.timm_keys import anchors
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL_HEAD = dict(prototypes=8, hidden_dim=8, bottleneck_dim=4)
SMALL = ["--model", "vit_small_patch16_224", "--model-args"]
SMALL += [json.dumps(dict(img_size=64, embed_dim=48, depth=2, num_heads=3))]


def tool(name: str) -> ModuleType:
    """A tool as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("to", "name"),
    [("timm", "b.safetensors"), ("timm", "b.pth"), ("mmseg", "b.pth"), ("huggingface", "b")],
)
def test_conversion_is_verified(
    to: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--verify would compare nothing, or the command of the documentation would not work."""
    torch.save(foreign.checkpoint("dino", "vit-tiny-test", 0), tmp_path / "a.pth")
    command = [str(tmp_path / "a.pth"), str(tmp_path / name), "--to", to, "--verify", *SMALL]
    tool("convert_checkpoint").main(command)
    printed = capsys.readouterr().out
    assert "read as dino: timm ViT names below 'teacher.backbone.'" in printed
    assert "matched: 30 of 30 weights" in printed
    deviation = float(printed.split("largest feature deviation ")[1].split()[0])
    assert f"verified with {to}: " in printed and deviation < 1e-5


def test_a_wrong_file_is_not_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong conversion would be called verified."""
    from mst_pretrain.checkpoints.timm_keys import HF_VIT

    torch.save(foreign.checkpoint("dino", "vit-tiny-test", 0), tmp_path / "a.pth")
    module = tool("convert_checkpoint")
    right = type(HF_VIT).from_timm

    def wrong(self: object, state: dict) -> dict:
        converted = right(self, state)  # type: ignore[arg-type]
        key = "encoder.layer.0.attention.attention.value.weight"
        return converted | ({key: converted[key].flip(0)} if key in converted else {})

    monkeypatch.setattr(type(HF_VIT), "from_timm", wrong)
    command = [str(tmp_path / "a.pth"), str(tmp_path / "b"), "--to", "huggingface", "--verify", *SMALL]
    with pytest.raises(UserError, match=r"features in huggingface differ by .*Do not use it"):
        module.main(command)


def test_verification_needs_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transformers --verify would end as if it had compared."""
    module = tool("convert_checkpoint")
    torch.save(foreign.checkpoint("dino", "vit-tiny-test", 0), tmp_path / "a.pth")
    monkeypatch.setattr(
        "mst_pretrain.checkpoints.verify.importlib.util.find_spec",
        lambda name: None if name == "transformers" else importlib.util.find_spec(name),
    )
    for to, name, message in (
        ("huggingface", "b", "not verified: transformers is not installed"),
        ("detectron2", "b.pth", "not verified: no comparison with detectron2"),
    ):
        command = [str(tmp_path / "a.pth"), str(tmp_path / name), "--to", to, "--verify", *SMALL]
        with pytest.raises(UserError, match=message):
            module.main(command)
        assert (tmp_path / name).exists()


def test_inspection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Format, networks, epoch or a NaN of a checkpoint would be told wrongly."""
    saved = foreign.checkpoint("moby", "swin-t", 0)
    torch.save(saved, tmp_path / "a.pth")
    module = tool("inspect_checkpoint")
    assert module.main([str(tmp_path / "a.pth"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(b["network"], b["format"], b["prefix"]) for b in found["backbones"]] == [
        ("student", "moby", "encoder."),
        ("teacher", "moby", "encoder_k."),
    ]
    for entry in found["backbones"]:
        assert entry["architecture"] == "swin_tiny_patch4_window7_224" and not entry["missing"]
        assert (entry["image_size"], entry["patch_size"]) == ([224, 224], 4)
        state = {key.removeprefix(entry["prefix"]): value for key, value in saved["model"].items()}
        weights = foreign.backbone("moby", "swin-t", saved, entry["network"])
        floats = {k: v for k, v in weights.items() if v.is_floating_point() and not k.endswith("attn_mask")}
        assert entry["parameters"] == sum(value.numel() for value in floats.values())
        block = [value for key, value in floats.items() if key.startswith("layers.2.blocks.3.")]
        norm = sum(float(value.double().square().sum()) for value in block) ** 0.5
        assert entry["norms"]["layers.2.blocks.3"] == pytest.approx(norm, rel=1e-12)
        assert list(entry["norms"])[:2] == ["patch_embed", "layers.0.blocks.0"] and state
        assert list(entry["norms"])[-1] == "norm"
    assert found["epoch"] == "299" and found["tensors"] == len(saved["model"])
    assert found["health"] == {"no value": [], "nan": [], "inf": [], "all zero": []}

    saved["model"]["encoder.norm.weight"][3] = float("nan")
    saved["model"]["encoder.layers.0.blocks.0.attn.qkv.weight"].zero_()
    saved["model"]["encoder_k.patch_embed.proj.bias"][0] = float("inf")
    del saved["model"]["encoder_k.layers.1.blocks.1.mlp.fc1.bias"]
    torch.save(saved, tmp_path / "a.pth")
    assert module.main([str(tmp_path / "a.pth")]) == 1
    text = capsys.readouterr().out
    for line in (
        "tensors with nan: 1 (encoder.norm.weight)",
        "tensors with inf: 1 (encoder_k.patch_embed.proj.bias)",
        "tensors with all zero: 1 (encoder.layers.0.blocks.0.attn.qkv.weight)",
        "PROBLEM: 1 weights missing (first: ['layers.1.blocks.1.mlp.fc1.bias'])",
        "not finite",
    ):
        assert line in text, line


def test_inspection_finds_another_architecture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that no model can load, or only with a part of it left out, would be called healthy."""
    saved = foreign.checkpoint("moby", "swin-t", 0)
    weights, module = saved["model"], tool("inspect_checkpoint")
    weights["encoder.layers.2.blocks.3.mlp.fc1.bias"] = torch.ones(5)
    torch.save(saved, tmp_path / "a.pth")
    assert module.main([str(tmp_path / "a.pth"), "--json"]) == 1
    shape = "layers.2.blocks.3.mlp.fc1.bias (5,) for (1536,)"
    student, teacher = json.loads(capsys.readouterr().out)["backbones"]
    assert (student["missing"], student["mismatched"], student["extra"]) == ([], [shape], [])
    assert (teacher["missing"], teacher["mismatched"], teacher["extra"]) == ([], [], [])
    assert module.main([str(tmp_path / "a.pth")]) == 1
    assert f"PROBLEM: 1 weights of another shape (first: ['{shape}'])" in capsys.readouterr().out

    saved = foreign.checkpoint("moby", "swin-t", 0)
    names = ["layers.0.blocks.1.attn.gate", "absolute_pos_embed"]
    saved["model"] |= {f"encoder_k.{name}": torch.ones(3) for name in names}
    torch.save(saved, tmp_path / "a.pth")
    assert module.main([str(tmp_path / "a.pth")]) == 1
    line = f"PROBLEM: 2 weights that it has no place for (first: {names})"
    assert capsys.readouterr().out.count(line) == 1
    saved["model"]["encoder_k.layers.0.blocks.1.attn.logit_scale"] = torch.ones(3)
    torch.save(saved, tmp_path / "a.pth")
    assert module.main([str(tmp_path / "a.pth")]) == 1
    assert capsys.readouterr().out.count("architecture: unknown. ") == 1


def test_inspection_finds_a_block_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with more blocks than the model it says it is would be called healthy."""
    state = MST({"name": "vit_tiny_patch16_224", "depth": 2}, SMALL_HEAD).teacher.backbone.state_dict()
    said = {"architecture": "vit_tiny_patch16_224", "model_args": json.dumps({"depth": 1})}
    torch.save({"state_dict": state, "meta": said}, tmp_path / "a.pth")
    assert tool("inspect_checkpoint").main([str(tmp_path / "a.pth")]) == 1
    assert "PROBLEM: 12 weights that it has no place for (first: ['blocks.1." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        (name, architecture)
        for name in foreign.FORMATS
        for architecture in ("deit-s", "swin-t")
        if foreign.exists(name, architecture) and (name, architecture) != ("detectron2", "deit-s")  # ViTDet
    ],
)
def test_inspection_takes_heads_for_heads(name: str, architecture: str) -> None:
    """The heads, decoders and tables of published files would make them another architecture's."""
    tensors, *_ = flat_tensors(foreign.checkpoint(name, architecture, 0))
    file = CheckpointFile(Path("a.pth"), tensors)
    found = [backbone(file, dialect, prefix) for dialect, prefix in anchors(list(tensors))]
    assert found and all(entry["architecture"] for entry in found)
    assert not any(entry[key] for entry in found for key in ("mismatched", "extra"))


def test_inspection_of_a_fresh_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The project's own initial.pth would be called sick, or two epochs be told for one file."""
    masked = {"masking": {"mode": "random"}, "decoder": {"width": 32}}
    state = MST({"name": "vit_tiny_patch16_224"}, {**SMALL_HEAD, "norm": "bn"}, **masked).state_dict()
    assert {key.split(".")[0] for key in state if key.endswith("running_mean")} >= {"student", "decoder"}
    meta = {"epoch": 0, "iter": 7, "seed": 5}
    run = {"config": {"train_cfg": {"type": "PretrainLoop"}}, "batch": 6, "data": {"images": 14}}
    older = {"meta": meta, "sampler": {"position": 30, "size": 10}, "iteration": 7}
    for told in ({"meta": {**meta, "run": run}}, older):
        torch.save({"state_dict": state, **told}, tmp_path / "initial.pth")
        assert tool("inspect_checkpoint").main([str(tmp_path / "initial.pth")]) == 0
        lines = capsys.readouterr().out.splitlines()
        counts = [line for line in lines if line.startswith(("epoch", "iter"))]
        assert counts == ["epoch: 3", "iteration: 7"] and "seed: 5" in lines


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_inspection_of_broken_values_is_json(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that reads the report would stop at the files it is meant to find."""
    saved = foreign.checkpoint("dino-backbone", "deit-s", 0)
    saved["blocks.1.norm1.weight"][0] = float(value)
    torch.save(saved, tmp_path / "a.pth")
    assert tool("inspect_checkpoint").main([str(tmp_path / "a.pth"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    norms = found["backbones"][0]["norms"]
    assert norms["blocks.1"] is None and norms["blocks.0"] > 0
    assert found["health"][value] == ["blocks.1.norm1.weight"]
    tool("inspect_checkpoint").main([str(tmp_path / "a.pth")])
    bars = [line.count("#") for line in capsys.readouterr().out.splitlines() if line.startswith("  norm")]
    assert max(bars) == 30


def test_inspection_of_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without a known backbone, or of an unusual size, would end in a traceback."""
    module = tool("inspect_checkpoint")
    torch.save({"conv1.weight": torch.ones(2, 3)}, tmp_path / "a.pth")
    assert module.main([str(tmp_path / "a.pth")]) == 0
    assert "no ViT or Swin backbone of a known dialect" in capsys.readouterr().out
    torch.save(foreign.checkpoint("dino-backbone", "vit-tiny-test", 0), tmp_path / "b.pth")
    assert module.main([str(tmp_path / "b.pth")]) == 0
    assert "architecture: unknown. " in capsys.readouterr().out

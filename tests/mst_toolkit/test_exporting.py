"""What is exported loads offline in the library it is for, with equal features; the card says what is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from mst_pretrain.checkpoints.backbone import read_backbone
from mst_pretrain.runtime import extras
from mst_pretrain.runtime.errors import UserError
from mst_toolkit import exporting

VIT: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
SWIN: dict[str, Any] = dict(img_size=64, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4)
MODELS = {"vit_tiny_patch16_224": VIT, "swin_tiny_patch4_window7_224": SWIN}
METRICS = {"main": {"name": "AP", "value": 12.34, "low": 10.0, "high": 14.0, "baseline": 3.0}, "images": 60}


def network(name: str) -> Any:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **MODELS[name])
    for parameter in model.parameters():  # also those that start at zero or one
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def checkpoint(folder: Path, name: str) -> Path:
    """As a pretraining of ours leaves it."""
    state = {
        f"{role}.backbone.{k}": v
        for role in ("teacher", "student")
        for k, v in network(name).state_dict().items()
    }
    meta = {"architecture": name, "model_args": json.dumps(MODELS[name]), "iter": 3, "data": "40 photos"}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "meta": meta}, folder / "last.pth")
    return folder / "last.pth"


def run_folder(folder: Path, name: str = "vit_tiny_patch16_224", **plan: Any) -> Path:
    checkpoint(folder / "checkpoints", name)
    (folder / "plan.json").write_text(json.dumps({"task": "pretrain", **plan}))
    return folder


def images(name: str) -> Tensor:
    side = MODELS[name]["img_size"]
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may reach the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_folder_loads_in_timm(name: str, tmp_path: Path) -> None:
    """timm would build a model of another size, or give other features."""
    folder = exporting.backbone_folder(checkpoint(tmp_path, name), tmp_path / "backbone")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    loaded: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(loaded(images(name)), network(name)(images(name)))
    with_classes: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5).eval()
    assert with_classes(images(name)).shape == (2, 5)
    assert torch.equal(
        with_classes.forward_features(images(name)), network(name).forward_features(images(name))
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_folder_is_read_as_a_start(name: str, tmp_path: Path) -> None:
    """``--init RUN/backbone`` would be refused as a folder of transformers, or build the named model's size."""
    folder = exporting.backbone_folder(checkpoint(tmp_path, name), tmp_path / "backbone")
    backbone = read_backbone(folder)
    assert (backbone.architecture.name, backbone.architecture.arguments) == (name, MODELS[name])
    assert all(torch.equal(value, network(name).state_dict()[key]) for key, value in backbone.state.items())


def test_a_folder_is_written_again_but_nothing_else_is_removed(tmp_path: Path) -> None:
    """A resumed run could not write its backbone, or a user's folder would be emptied."""
    path = checkpoint(tmp_path, "vit_tiny_patch16_224")
    folder = exporting.backbone_folder(path, tmp_path / "backbone")
    exporting.backbone_folder(path, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        exporting.backbone_folder(path, folder)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_transformers_loads_its_folder(name: str, tmp_path: Path) -> None:
    """transformers.AutoModel would find no config, or give other features."""
    transformers = pytest.importorskip("transformers")
    source = checkpoint(tmp_path, name)
    folder = exporting.export(source, tmp_path / "hub", to="huggingface", license="cc-by-4.0")
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    expected = network(name).forward_features(images(name))
    tokens = expected.flatten(1, 2) if name.startswith("swin") else expected
    torch.testing.assert_close(model(images(name)).last_hidden_state, tokens, rtol=1e-4, atol=1e-5)
    assert "\nlicense: cc-by-4.0\n" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("to", "file"), [("mmdet", "a.pth"), ("mmseg", "a.pth"), ("detectron2", "a.pth")])
def test_other_formats_go_through_the_conversion(to: str, file: str, tmp_path: Path) -> None:
    """A format of the converter could not be exported."""
    source = checkpoint(tmp_path, "swin_tiny_patch4_window7_224")
    try:
        written = exporting.export(
            run_folder(tmp_path / "run", "swin_tiny_patch4_window7_224"), tmp_path / file, to
        )
    except UserError:
        with pytest.raises(UserError):
            from mst_pretrain.checkpoints import convert_checkpoint

            convert_checkpoint(source, tmp_path / f"other_{file}", to)
    else:
        assert read_backbone(written).state.keys() == read_backbone(source).state.keys()


def test_the_card_of_a_run(tmp_path: Path) -> None:
    """The card would hide what was measured, guess a licence, or leave out the recipe."""
    decisions = [{"key": "steps", "value": 1200, "why": "40 images"}]
    run = run_folder(
        tmp_path / "photos_vit",
        decisions=decisions,
        data={"layout": "photos", "root": "/x/photos", "train": 40},
    )
    text = (exporting.export(run, tmp_path / "a") / "README.md").read_text()
    assert (
        "**Measured.** Not measured." in text
        and "steps = 1200" in text
        and "photos, photos (40 train)" in text
    )
    assert "No licence was chosen" in text and "\nlicense:" not in text and "/x/" not in text
    (run / "metrics.json").write_text(json.dumps(METRICS))
    text = (exporting.export(run, tmp_path / "b", license="MIT") / "README.md").read_text()
    assert "AP 12.3 % (95 % interval 10.0 to 14.0); trivial baseline 3.0 %, 60 images." in text
    assert "\nlicense: mit\n" in text


def test_a_fine_tuned_backbone_is_exported_whole_or_its_start_is_named(tmp_path: Path) -> None:
    """A part of a backbone would be published, or a whole one refused."""
    name = "vit_tiny_patch16_224"
    run = run_folder(tmp_path / "run", task="detection", start={"path": "runs/photos"})
    state = {f"backbone.trunk.{k}": v for k, v in network(name).state_dict().items()}
    content: dict[str, Any] = {"state_dict": {**state, "bbox_head.fc.weight": torch.ones(2, 2)}}
    content["meta"] = {"architecture": name, "model_args": json.dumps(VIT)}
    torch.save(content, run / "checkpoints/last.pth")
    exporting.export(run, tmp_path / "whole")
    assert (tmp_path / "whole/model.safetensors").is_file()
    del content["state_dict"]["backbone.trunk.norm.weight"]
    torch.save(content, run / "checkpoints/last.pth")
    with pytest.raises(UserError, match="mst export runs/photos DIR"):
        exporting.export(run, tmp_path / "part")
    assert not (tmp_path / "part").exists()


class FakeHub:
    """Stands for huggingface_hub.HfApi."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012
    fails = False

    def create_repo(self, **arguments: Any) -> None:
        if self.fails:
            raise OSError("Cannot reach https://huggingface.co: offline mode is enabled.\nsecond line")
        self.calls.append(("create_repo", arguments))

    def upload_folder(self, **arguments: Any) -> None:
        names = sorted(path.name for path in Path(arguments["folder_path"]).iterdir())
        self.calls.append(("upload_folder", {**arguments, "names": names}))


def test_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder would be published to everybody, without its card, or without a licence."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    source = checkpoint(tmp_path, "vit_tiny_patch16_224")
    with pytest.raises(UserError, match="--license NAME"):
        exporting.export(source, tmp_path / "a", push="me/vit")
    with pytest.raises(UserError, match="--push takes folders"):
        exporting.export(source, tmp_path / "a.pth", to="mmseg", license="mit", push="me/vit")
    assert FakeHub.calls == [] and not (tmp_path / "a").exists()
    exporting.export(source, tmp_path / "a", license="mit", push="me/vit")
    (created, first), (uploaded, second) = FakeHub.calls
    assert created == "create_repo" and first == {"repo_id": "me/vit", "private": True, "exist_ok": True}
    assert uploaded == "upload_folder" and second["names"] == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_an_unreachable_hub_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody offline would read a traceback of the network's library, and not know that the folder is there."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "fails", True)
    with pytest.raises(
        UserError, match=r"was written, but not uploaded .*offline mode is enabled"
    ) as refused:
        exporting.export(
            checkpoint(tmp_path, "vit_tiny_patch16_224"), tmp_path / "a", license="mit", push="me/vit"
        )
    assert "second line" not in str(refused.value) and (tmp_path / "a/config.json").is_file()


@pytest.mark.parametrize("name", MODELS)
def test_onnx_of_a_backbone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """onnxruntime would give other features, or take only as many images as were shown to the exporter."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    written = exporting.export(checkpoint(tmp_path, name), tmp_path / "a.onnx", to="onnx")
    assert "largest deviation of onnxruntime from torch" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    many = images(name).repeat(3, 1, 1, 1)[:5]
    (found,) = session.run(["features"], {"images": many.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(name)(many), rtol=1e-3, atol=1e-4)


def test_onnx_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime there would be a traceback, or a file that nothing was compared with."""
    monkeypatch.setattr(extras, "is_installed", lambda package: package != "onnxruntime")
    with pytest.raises(UserError, match=r"'onnxruntime'.*mst-toolkit\[onnx\]"):
        exporting.export(checkpoint(tmp_path, "vit_tiny_patch16_224"), tmp_path / "a.onnx", to="onnx")


def test_a_detector_is_not_written_as_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone alone would be taken for a detector."""
    monkeypatch.setattr(extras, "is_installed", lambda package: True)
    with pytest.raises(UserError, match="is a detector, which is not written as ONNX"):
        exporting.export(run_folder(tmp_path / "run", task="detection"), tmp_path / "a.onnx", to="onnx")

"""Configs, checkpoints and records that commit 28ae785 wrote, before the packages got rooms, still work.

``former/`` holds two toy runs of six steps: the checkpoints after the third, and the mean and root mean square of every
weight after the last. In the checkpoints only the folder in ``last_ckpt`` was replaced. A pretraining goes on with
other crops since these are drawn before an image is read (CHANGELOG.md): its end is near that of the former commit.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import load_file

from mst_pretrain.checkpoints.storage import load_checkpoint
from tests.forked import Forked

FORMER = Path(__file__).with_name("former")
SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The former runs and their data as the tools find them."""
    folder = tmp_path_factory.mktemp("former") / "runs"
    shutil.copytree(FORMER, folder)
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        for name, values in (("images", pixels), ("labels", (pixels.mean(2) > 127).astype(np.uint8))):
            (folder / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / f"data/{name}/{index}.png")
    return folder


def end(process: Forked) -> None:
    code, output = process.result()
    assert code == 0, output[-3000:]


def summary(path: Path) -> dict[str, list[float]]:
    state: dict[str, Any] = load_checkpoint(path)["state_dict"]
    return {
        key: [float(v.double().mean()), float(v.double().square().mean().sqrt())] for key, v in state.items()
    }


def test_former_runs_are_resumed_tested_and_converted(folder: Path) -> None:
    """A lab that updates the toolkit in the middle of a run would lose the run or its result."""
    expected = json.loads((FORMER / "final.json").read_text())
    runs = {
        name: Forked(
            "train",
            *(f"{name}/{name}.py", "--resume", f"{name}/iter_3.pth", "--work-dir", f"{name}_on"),
            folder=folder,
        )
        for name in ("pretrain", "segment")
    }
    for name, process in runs.items():
        end(process)
        found = summary(folder / f"{name}_on/iter_6.pth")
        assert found.keys() == expected[name].keys()
        for key, values in expected[name].items():
            rtol, atol = (1e-6, 1e-7) if name == "segment" else (1e-3, 1e-5)
            if "running_" in key or key == "distillation.center":  # of what was computed of the crops
                atol = 1e-2
            np.testing.assert_allclose(found[key], values, rtol=rtol, atol=atol, err_msg=key)
    optimizer = load_checkpoint(folder / "pretrain_on/iter_6.pth")["optimizer"]
    assert max(int(state["step"]) for state in optimizer["state"].values()) == 6
    tested = ["segment/segment.py", "segment_on/iter_6.pth", "--work-dir", "tested"]
    test = Forked("test", *tested, folder=folder)
    shape = ["--model", "vit_tiny_patch16_224", "--model-args", json.dumps(SHAPE)]
    converted_to = ["pretrain/iter_3.pth", "backbone.safetensors", *shape]
    convert = Forked("convert_checkpoint", *converted_to, folder=folder)
    end(test)
    end(convert)
    assert 0 < json.loads((folder / "tested/test_metrics.json").read_text())["mIoU"] <= 100
    converted = load_file(folder / "backbone.safetensors")
    state = load_checkpoint(FORMER / "pretrain/iter_3.pth")["state_dict"]
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SHAPE)
    assert converted.keys() == model.state_dict().keys()
    assert all(value.equal(state[f"teacher.backbone.{key}"]) for key, value in converted.items())

"""The wheel, installed beside nothing: tools and configs work in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mst_pretrain.checkpoints.backbone import find_backbone
from mst_toolkit import __version__

ROOT = Path(__file__).parents[2]
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
FOLDERS = ("configs", "tools", "examples", "mst_toolkit", "mst_pretrain", "mst_transfer")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``pip install`` of the wheel puts there; dependencies stay in the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)],
        [
            *pip,
            "install",
            "--no-deps",
            "--no-index",
            "-f",
            str(folder),
            "-t",
            str(folder / "site"),
            "mst-toolkit",
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(source)
    return folder / "site"


def mst(installed: Path, folder: Path, *arguments: str, code: int = 0) -> str:
    """Output of the ``mst`` command, run in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(installed / "bin/mst"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_tool_and_config_is_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Somebody who installed the wheel would have packages without a single config or command."""
    listed = mst(installed, tmp_path, "configs")
    of_clone = {
        str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*/*.py") if "_base_" not in str(path)
    }
    assert {line.strip() for line in listed.splitlines()[1:]} == of_clone
    assert str(installed / "mst_toolkit") in listed
    described = mst(installed, tmp_path, "--help")
    assert (
        "  convert_checkpoint" in described and "  dist_train" in described and "setup_env" not in described
    )
    assert mst(installed, tmp_path, "--version") == f"mst-toolkit {__version__}\n"
    (metadata,) = installed.glob("mst_toolkit-*.dist-info/METADATA")
    assert f"\nVersion: {__version__}\n" in metadata.read_text()
    examples = installed / "mst_toolkit/examples/quickstart"
    assert (examples / "run.py").is_file() and (examples / "shipped/mst_street_vit.safetensors").is_file()
    assert "there is no command 'trian'" in mst(installed, tmp_path, "trian", code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_pretraining_and_export_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """Tools or configs would look for the clone they were built from."""
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(4):
        pixels = generator.integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{index}.png")
    options = ["data_root=photos", "train_cfg.max_epochs=2", "train_dataloader.batch_size=4"]
    command = ("dist_train", "configs/quickstart/pretrain.py", "1")  # the script finds train.py beside itself
    output = mst(installed, tmp_path, *command, "--cfg-options", *options)
    assert "Step 2: input" in output
    mst(installed, tmp_path, "convert_checkpoint", "work_dirs/pretrain/latest.pth", "vit.safetensors")
    sizes = dict(img_size=64, patch_size=8, embed_dim=128, depth=4, num_heads=4, num_classes=0)
    model = timm.create_model("vit_tiny_patch16_224", checkpoint_path=tmp_path / "vit.safetensors", **sizes)
    expected = find_backbone(tmp_path / "work_dirs/pretrain/latest.pth", prefix="teacher.backbone.").state
    assert expected and all(torch.equal(model.state_dict()[name], expected[name]) for name in expected)

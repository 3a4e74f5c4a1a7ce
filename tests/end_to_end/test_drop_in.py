"""mmdet's and mmseg's own configs and their own tools/train.py, with one of our backbones: docs/drop_in.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch

from examples.quickstart import street

ROOT = Path(__file__).parents[2]
TINY = dict(embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
CHANNELS = "[16,32,64,128]"
DETECTION = [
    "train_dataloader.dataset.indices=2",
    "train_dataloader.dataset.pipeline.2.scale=(96,64)",
    "train_dataloader.dataset.filter_cfg=None",
    "train_cfg.max_epochs=1",
    "train_cfg.val_interval=2",
    f"model.neck.in_channels={CHANNELS}",
    "model.neck.out_channels=16",
    *(f"model.rpn_head.{key}=16" for key in ("in_channels", "feat_channels")),
    *(f"model.roi_head.{kind}_roi_extractor.out_channels=16" for kind in ("bbox", "mask")),
    *(f"model.roi_head.bbox_head.{key}=16" for key in ("in_channels", "fc_out_channels")),
    *(f"model.roi_head.mask_head.{key}=16" for key in ("in_channels", "conv_out_channels")),
]
SEGMENTATION = [
    "train_dataloader.dataset.pipeline.2.scale=(128,64)",
    "train_dataloader.dataset.pipeline.3.crop_size=(64,64)",
    "model.data_preprocessor.size=(64,64)",
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=10",
    f"model.decode_head.in_channels={CHANNELS}",
    "model.decode_head.channels=16",
    "model.auxiliary_head.in_channels=64",
    "model.auxiliary_head.channels=16",
    *(f"model.{head}.norm_cfg.type=BN" for head in ("decode_head", "auxiliary_head")),  # SyncBN needs a GPU
]
# framework, config, data set, options, checkpoint, the line of the second iteration
RUNS = [
    (
        *("mmdet", "mask-rcnn_mst-swin-t_mmdet.py", "coco", DETECTION),
        *("epoch_1.pth", r"Epoch\(train\) +\[1\]\[2/2\].* loss: (\S+)"),
    ),
    (
        *("mmseg", "upernet_mst-swin-t_mmseg.py", "cityscapes", SEGMENTATION),
        *("iter_2.pth", r"Iter\(train\) +\[ *2/2\].* loss: (\S+)"),
    ),
]


def folder_of(package: str) -> Path:
    """Where a package's shipped configs and tools are."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / ".mim"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining checkpoint's backbone, of a small Swin."""
    torch.manual_seed(0)
    trunk = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **TINY)
    path = tmp_path_factory.mktemp("pretrained") / "latest.pth"
    state = {
        f"teacher.backbone.{key}": value + 0.1 * torch.randn_like(value)  # no weight as timm initialises it
        for key, value in trunk.state_dict().items()
    }
    torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("package", "config", "kind", "options", "written", "line"), RUNS, ids=["mmdet", "mmseg"]
)
def test_their_config_and_their_tool_train_our_backbone(
    package: str,
    config: str,
    kind: str,
    options: list[str],
    written: str,
    line: str,
    pretrained: Path,
    tmp_path: Path,
) -> None:
    """A user's own config would need our tools, or train a backbone without the pretrained weights."""
    street.generate(tmp_path / "data", seed=3, train=4, val=1, height=64, width=96)
    root = tmp_path / "data" / kind
    options = [
        *options,
        f"train_dataloader.dataset.data_root={root}",
        f"val_dataloader.dataset.data_root={root}",
        *([f"val_evaluator.ann_file={root}/annotations/instances_val2017.json"] if kind == "coco" else []),
        "train_dataloader.batch_size=1" if kind == "coco" else "train_dataloader.batch_size=2",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        f"model.backbone.init_cfg.checkpoint={pretrained}",
        *(f"model.backbone.model_args.{key}={str(value).replace(' ', '')}" for key, value in TINY.items()),
        "default_hooks.logger.interval=1",
    ]
    entry, file = folder_of(package) / "tools/train.py", ROOT / "configs/drop_in" / config
    done = subprocess.run(
        [sys.executable, entry, file, "--work-dir", tmp_path / "run", "--cfg-options", *options],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "MMSEG_CONFIGS": str(folder_of("mmseg") / "configs"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    match = re.search(line, log)
    assert match is not None and 0 < float(match[1]) < 100
    start = torch.load(pretrained)["state_dict"]
    state = torch.load(tmp_path / "run" / written, weights_only=False)["state_dict"]
    names = {key: key.replace("backbone.trunk.", "teacher.backbone.") for key in state if "trunk." in key}
    # every weight comes from the file, but for the trunk's last norm, which has no output
    assert set(start) - set(names.values()) == {"teacher.backbone.norm.weight", "teacher.backbone.norm.bias"}
    for key, name in names.items():  # and moved a little in two steps
        torch.testing.assert_close(state[key], start[name], rtol=0, atol=0.02)
    assert any(not torch.equal(state[key], start[name]) for key, name in names.items())

"""Which trainings and tests are one experiment: options, data, and what a resumed run may not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.comparison.identity import config_sha256, data_of, telling_options
from mst_transfer.comparison.record import RunRecord

ROOT = Path(__file__).parents[3]
COCO = load_config(ROOT / "configs/coco/mask_rcnn_mst.py")
SETR = load_config(ROOT / "configs/cityscapes/setr_pup_mst_deit-s.py")
TRAIN = {"images": 4, "sha256": "7" * 64}
RECORD: dict[str, Any] = {
    "config_sha256": "a" * 64,
    "init": "random",
    "seed": 0,
    "options": {"optim_wrapper.optimizer.lr": 0.1, "batch": 8},
    "batch": 8,
    "data": {"train": TRAIN, "test": None},
}


class Images:
    """A data set of mmseg or mmdet as far as its identity goes."""

    def __init__(self, paths: list[str], ann_file: str = "") -> None:
        self.paths, self.ann_file = paths, ann_file

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"img_path": self.paths[index]}


def test_which_options_make_another_experiment() -> None:
    """Another data folder would be another column, or another learning rate or an averaged model would not."""
    options = {
        "data_root": "/photos",
        "train_dataloader.num_workers": 0,
        "model.backbone.init_cfg.checkpoint": "x.pth",
        "randomness.seed": 3,
        "default_hooks.logger.interval": 1,
        "default_hooks.checkpoint.interval": 9,
        "train_cfg.val_interval": 5,
        "+optim_wrapper.loss_scale": 512.0,
        "optim_wrapper.optimizer.lr": 1e-5,
        "+default_hooks.ema.type": "EMAHook",
        "model.data_preprocessor.size": (128, 256),
    }
    assert telling_options(options, COCO) == {
        "optim_wrapper.loss_scale": 512.0,
        "optim_wrapper.optimizer.lr": 1e-5,
        "default_hooks.ema.type": "EMAHook",
        "model.data_preprocessor.size": [128, 256],
    }


def test_an_early_stop_is_no_option() -> None:
    """A trial run could not be continued, or a shorter schedule would pass as the whole one."""
    assert telling_options({"train_cfg.max_iters": 3}, COCO) == {}
    assert telling_options({"train_cfg.max_iters": 3}, SETR) == {"train_cfg.max_iters": 3}


def test_data_are_known_by_content_not_by_place(tmp_path: Path) -> None:
    """A test on other images would pass as the data set's, or the same images in another folder would not."""
    names = ["b/2.png", "a/1.png", "b/10.png"]
    one = data_of(Images([f"/one/val/{name}" for name in names]))
    assert one["images"] == 3 and one == data_of(Images([f"/other/x/{name}" for name in sorted(names)]))
    assert one["sha256"] != data_of(Images([f"/one/val/{name}" for name in names[:2]]))["sha256"]
    assert data_of(Images(["/one/val/a/1.png"])) == data_of(Images(["/two/1.png"]))
    file = tmp_path / "instances.json"
    file.write_text("{}")
    assert data_of(Images(["/x.png"], str(file))) == {"images": 1, "sha256": file_sha256(file)}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, None),
        ({"options": {"batch": 8}}, "options.optim_wrapper.optimizer.lr: 0.1 -> not set"),
        ({"config_sha256": "b"}, f"config_sha256: {'a' * 64} -> b"),
        ({"init": "dino"}, "init: random -> dino"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"batch": 4}, "batch: 8 -> 4"),
        ({"data": {"train": {**TRAIN, "images": 1}, "test": None}}, "data.train.images: 4 -> 1"),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, change: dict[str, Any], line: str | None) -> None:
    """A checkpoint of version 0.1 trained with two settings would stand in the table as trained with the first."""
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    hook, latest = RunRecord("config.py", {}), str(tmp_path / "latest.pth")
    if line is None:
        assert hook.continued(latest, {}, {**RECORD, "date": "today"}) == RECORD
    else:
        with pytest.raises(UserError) as raised:
            hook.continued(latest, {}, {**RECORD, **change})
        assert f"wrote it:\n  {line}\nGive" in str(raised.value) and "another --work-dir" in str(raised.value)
        assert (
            hook.continued(latest, {"config": {}}, {**RECORD, **change}) == RECORD
        )  # its config was compared


def test_a_checkpoint_of_unknown_origin_is_not_continued(tmp_path: Path) -> None:
    """A copied checkpoint of version 0.1 would be recorded as started from whatever row the command names."""
    hook, latest = RunRecord("config.py", {}), str(tmp_path / "latest.pth")
    with pytest.raises(
        UserError, match=r"neither the checkpoint nor a run\.json beside it .* Put its run\.json back"
    ):
        hook.continued(latest, {}, RECORD)
    assert hook.continued(latest, {"config": {}}, RECORD) == RECORD
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        hook.continued(latest, {}, RECORD)


def test_a_config_of_version_0_1_is_known(tmp_path: Path) -> None:
    """A shipped config would be another experiment since a module that it imports was renamed."""
    now, before = tmp_path / "now.py", tmp_path / "before.py"
    now.write_text(
        'model = dict(backbone=dict())\ncustom_imports = dict(imports=["mst_transfer.training.loops"])'
    )
    before.write_text(now.read_text().replace("mst_transfer.training.loops", "mst_transfer.engine"))
    assert config_sha256(now) == config_sha256(before)
    assert config_sha256(ROOT / "configs/cityscapes/upernet_mst.py").startswith(
        "f9a9e67c"
    )  # of commit 28ae785

"""Which trainings and tests are one experiment: options, data, and what a resumed run may not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import UserError
from mst_transfer.comparison.identity import check_continues, data_of, telling_options

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
    ("change", "message"),
    [
        ({"options": {"batch": 8}}, "optim_wrapper.optimizer.lr is 0.1 there, not set here"),
        (
            {"options": {**RECORD["options"], "optim_wrapper.optimizer.lr": 0.5}},
            "optim_wrapper.optimizer.lr is 0.1 there, 0.5 here",
        ),
        ({"config_sha256": "b" * 64}, "the config's digest is aaaaaaaa there, bbbbbbbb here"),
        ({"init": "dino"}, "the row is random there, dino here"),
        ({"seed": 1}, "the seed is 0 there, 1 here"),
        ({"options": {**RECORD["options"], "batch": 4}, "batch": 4}, "batch is 8 there, 4 here"),
        (
            {"data": {"train": {"images": 1, "sha256": "9" * 64}, "test": None}},
            "the training data is 4 images 77777777 there, 1 images 99999999 here",
        ),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A checkpoint trained with two settings would stand in the table as trained with the first."""
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    with pytest.raises(UserError) as raised:
        check_continues(tmp_path / "latest.pth", {**RECORD, **change})
    text = str(raised.value)
    assert (
        f"{tmp_path / 'run.json'} is of another run: {message}. Give" in text and "another --work-dir" in text
    )


def test_the_same_run_is_continued(tmp_path: Path) -> None:
    """An interrupted run could not be resumed before its processes are counted and its images read, or after."""
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    early = {key: RECORD[key] for key in ("config_sha256", "init", "seed")}
    options = {"optim_wrapper.optimizer.lr": 0.1}
    for now in (RECORD, {**early, "options": options}):
        assert check_continues(tmp_path / "latest.pth", now) == RECORD


def test_a_checkpoint_of_unknown_origin_is_not_continued(tmp_path: Path) -> None:
    """A copied checkpoint would be recorded as started from whatever row the command names."""
    with pytest.raises(UserError, match=r"there is no .*run\.json, so nobody knows .* Put that file back"):
        check_continues(tmp_path / "latest.pth", RECORD)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        check_continues(tmp_path / "latest.pth", RECORD)

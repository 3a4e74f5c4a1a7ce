"""What a resumed run may change and what it may not; the same for pretraining and fine-tuning."""

from __future__ import annotations

from typing import Any

import pytest

from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.resume import check_continues, recorded

CONFIG: dict[str, Any] = {
    "model": {"backbone": {"depth": 12, "init_cfg": None}},
    "train_dataloader": {
        "batch_size": 4,
        "num_workers": 2,
        "dataset": {
            "data_root": "a",
            "ann_file": "a/b",
            "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
            "pipeline": [{"prob": 0.5}],
        },
    },
    "train_cfg": {"type": "CappedEpochLoop", "max_epochs": 3, "max_iters": None, "val_interval": 1},
    "optim_wrapper": {"optimizer": {"lr": 0.1}, "accumulative_counts": 2},
    "default_hooks": {"checkpoint": {"interval": 1}, "watch": {"max_bad_share": 0.1}},
    "randomness": {"seed": 0},
    "data_root": "a",
    "work_dir": "x",
    "env_cfg": {},
    "sync_bn": None,  # as a launcher writes it
}
RUN: dict[str, Any] = {
    "config": CONFIG,
    "batch": 8,
    "per_process": 4,
    "data": {"images": 9, "sha256": "0123456789"},
}


def changed(options: dict[str, Any], run: dict[str, Any] = RUN) -> dict[str, Any]:
    """The run with other values of dotted keys of its config."""

    def copy(node: Any, prefix: str = "") -> Any:
        if isinstance(node, list):
            node = dict(enumerate(node))
            return list(copy(node, prefix).values())
        if not isinstance(node, dict):
            return node
        return {
            key: options.get(f"{prefix}{key}", copy(value, f"{prefix}{key}.")) for key, value in node.items()
        }

    return {**run, "config": copy(run["config"])}


def test_what_changes_no_result_is_ignored() -> None:
    """A run could not go on with other workers, intervals, paths or an earlier end."""
    options = {
        "train_dataloader.num_workers": 0,
        "train_dataloader.dataset.data_root": "elsewhere",
        "train_dataloader.dataset.ann_file": "elsewhere/b",
        "data_root": "elsewhere",
        "train_cfg.max_iters": 5,
        "train_cfg.val_interval": 2,
        "default_hooks.checkpoint": {"interval": 9},
        "default_hooks.watch.max_bad_share": 1.0,
        "work_dir": "y",
        "env_cfg": {"cudnn_benchmark": True},
    }
    now = changed(options)
    assert now["config"] != CONFIG
    check_continues("a.pth", RUN, now)
    check_continues("a.pth", {**RUN, "data": {"images": 9, "sha256": ""}}, now)
    check_continues("a.pth", {}, now)  # a fine-tuning of version 0.1; its run.json tells


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            {"optim_wrapper.optimizer.lr": 0.2, "randomness.seed": 1},
            ["optim_wrapper.optimizer.lr: 0.1 -> 0.2", "randomness.seed: 0 -> 1"],
        ),
        (
            {"train_dataloader.dataset.pipeline.0": {}},
            ["train_dataloader.dataset.pipeline.0.prob: 0.5 -> not set"],
        ),
        (
            {"model.backbone.init_cfg": {"checkpoint": "b"}},
            ["model.backbone.init_cfg: None -> {'checkpoint': 'b'}"],
        ),
        (
            {"train_dataloader.dataset.data_prefix.seg_map_path": "other_labels"},
            ["train_dataloader.dataset.data_prefix.seg_map_path: labels -> other_labels"],
        ),
        (
            {"train_dataloader.dataset.ann_file": "a/c"},
            ["train_dataloader.dataset.ann_file: data/b -> data/c"],
        ),
        ({"train_cfg.max_epochs": 4}, ["train_cfg.max_epochs: 3 -> 4"]),
        ({"sync_bn": "torch"}, ["sync_bn: not set -> torch"]),
        ({"optim_wrapper.accumulative_counts": 1}, ["optim_wrapper.accumulative_counts: 2 -> 1"]),
    ],
)
def test_anything_else_is_listed_and_refused(options: dict[str, Any], lines: list[str]) -> None:
    """A run would end as a mixture of two settings, or its user not know which key to put back."""
    with pytest.raises(UserError) as raised:
        check_continues("a.pth", RUN, changed(options))
    text = str(raised.value)
    assert text.splitlines()[1:-1] == [f"  {line}" for line in lines]
    assert "load_from=a.pth" in text and "--init-from a.pth" in text and "another --work-dir" in text


def test_the_length_of_an_iteration_loop_is_compared() -> None:
    """Its schedules would be stretched in the middle of the run."""
    run = changed({"train_cfg": {"type": "ExactIterLoop", "max_iters": 8}})
    with pytest.raises(UserError, match=r"train_cfg\.max_iters: 8 -> 9"):
        check_continues("a.pth", run, changed({"train_cfg.max_iters": 9}, run))


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"images": 8, "sha256": "9" * 9}, "8 images 99999999"),
        ({"images": 9, "sha256": "9" * 9}, "9 images 99999999"),
    ],
)
def test_other_images_are_refused(data: dict[str, Any], shown: str) -> None:
    """A run would go on at a position that means nothing on these images."""
    with pytest.raises(UserError, match=rf"\n  the training data: 9 images 01234567 -> {shown}"):
        check_continues("a.pth", RUN, {**RUN, "data": data})


def test_other_images_per_step_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on more GPUs would count its steps as fewer images, or its user guess what to type."""
    monkeypatch.setattr("mst_pretrain.training.resume.get_world_size", lambda: 3)
    with pytest.raises(UserError) as raised:
        check_continues("a.pth", RUN, {**RUN, "batch": 24, "per_process": 4})
    message = "with 8 images per step, this run has 24 = 3 (processes) x 4 (batch_size) x 2 (accumulated)"
    assert message in str(raised.value) and str(raised.value).endswith("so that the product is 8.")


def test_checkpoints_of_version_0_1_tell_what_they_can() -> None:
    """A pretraining that began before could be continued on other images, or not at all."""
    old = {
        "meta": {"iter": 3},
        "sampler": {"position": 24, "seed": 0, "size": 9},
        "global_batch": 8,
        "images": "01",
    }
    assert recorded(old) == {"batch": 8, "data": {"images": 9, "sha256": "01"}}
    assert recorded({"meta": {"iter": 3}}) == {} and recorded({"meta": {"run": RUN}}) == RUN

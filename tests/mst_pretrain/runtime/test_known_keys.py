"""Keys and numbers that every class takes, and that change nothing or end a run after its data was read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.known_keys import check_known_keys, check_numbers

CONFIGS = Path(__file__).parents[3] / "configs"
COCO, STREET, PRETRAIN = "coco/mask_rcnn_mst.py", "cityscapes/upernet_mst.py", "quickstart/pretrain.py"
DATASET = "train_dataloader.dataset"


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        (
            COCO,
            f"{DATASET}.filter_cfg.minsize",
            "Known are filter_empty_gt, min_size. Did you mean 'min_size'",
        ),
        (COCO, f"{DATASET}.filter_cfg.filter_empty", "filter_empty_gt"),
        (COCO, f"{DATASET}.data_prefix.image", "Known are img, seg"),
        (COCO, f"{DATASET}.data_prefix.img_path", "Did you mean 'img'"),  # mmseg's
        (COCO, f"{DATASET}.metainfo.CLASSES", "Did you mean 'classes'"),
        (COCO, "val_dataloader.dataset.metainfo.class", "Did you mean 'classes'"),
        (COCO, "test_dataloader.dataset.metainfo.pallete", "Did you mean 'palette'"),
        (STREET, f"{DATASET}.data_prefix.img", "Did you mean 'img_path'"),  # mmdet's
        (STREET, f"{DATASET}.data_prefix.seg_map", "Did you mean 'seg_map_path'"),
        (STREET, f"{DATASET}.filter_cfg.min_size", "It takes none"),
        (PRETRAIN, "env_cfg.cudnn_bench", "Did you mean 'cudnn_benchmark'"),
        (COCO, "env_cfg.mp_cfg.start_method", "Did you mean 'mp_start_method'"),
        (COCO, "randomness.sead", "Did you mean 'seed'"),
        (PRETRAIN, "randomness.determinstic", "Did you mean 'deterministic'"),
    ],
)
def test_key_that_nothing_reads_is_refused(config: str, key: str, words: str) -> None:
    """A run would train on images that a misspelled filter was to leave out, and its config would say that it has."""
    cfg = load_config(CONFIGS / config, {f"+{key}": 64})
    with pytest.raises(UserError, match=rf"nothing reads {key}\. .*{words}"):
        check_known_keys(cfg)


def test_a_data_set_may_tell_more_of_itself() -> None:
    """A config would be refused that names its source or its license."""
    check_known_keys(load_config(CONFIGS / COCO, {f"+{DATASET}.metainfo.license": "CC BY 4.0"}))


def test_parts_of_a_joined_data_set_are_looked_at() -> None:
    """A misspelled key would pass in a data set that repeats or joins others."""
    cfg = load_config(CONFIGS / COCO)
    inner = dict(cfg.train_dataloader.dataset, data_prefix=dict(img_path="a"))
    cfg.train_dataloader.dataset = dict(type="RepeatDataset", times=2, dataset=inner)
    with pytest.raises(UserError, match=r"train_dataloader\.dataset\.dataset\.data_prefix\.img_path"):
        check_known_keys(cfg)


@pytest.mark.parametrize(
    "path",
    sorted(path for path in CONFIGS.rglob("*.py") if not {"drop_in", "_base_"} & set(path.parts)),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_shipped_configs_pass(path: Path) -> None:
    """A config of the repository would be refused."""
    cfg = load_config(path)
    check_known_keys(cfg)
    check_numbers(cfg)


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (COCO, "train_dataloader.batch_size", 0),
        (PRETRAIN, "train_dataloader.batch_size", -2),
        (COCO, "train_dataloader.num_workers", -1),
        (STREET, "val_dataloader.batch_size", 0),
        (STREET, "test_dataloader.num_workers", -4),
        (COCO, "optim_wrapper.optimizer.lr", -1.0),
        (COCO, "optim_wrapper.optimizer.lr", math.inf),
        (STREET, "optim_wrapper.optimizer.lr", math.nan),
        (STREET, "optim_wrapper.optimizer.weight_decay", -0.1),
        (PRETRAIN, "default_hooks.schedule.base_lr", -1e-3),
    ],
)
def test_number_that_no_run_can_use_is_refused(config: str, key: str, value: Any) -> None:
    """Every image of a data set would be read before PyTorch refuses a batch of none, or weights become nan."""
    with pytest.raises(UserError, match=rf"{key} is {value}; it must be at least [01], and finite"):
        check_numbers(load_config(CONFIGS / config, {key: value}))


def test_a_learning_rate_of_0_is_taken() -> None:
    """A dry run that moves nothing would be refused."""
    check_numbers(load_config(CONFIGS / COCO, {"optim_wrapper.optimizer.lr": 0.0}))


def test_a_preprocessor_beside_the_models_own_is_refused() -> None:
    """Other means and deviations would be accepted, written into the saved config, and not used."""
    with pytest.raises(UserError, match=r"the model has its own. Set model\.data_preprocessor\.mean"):
        read_options(CONFIGS / COCO, {"+data_preprocessor.mean": "[0,0,0]"})
    assert read_options(CONFIGS / COCO, {"model.data_preprocessor.mean": "[0,0,0]"})

"""What must hold before a transfer training or test starts: data, weights, number of classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mst_pretrain.config import import_custom_modules
from mst_pretrain.errors import UserError

from .comparison.rows import INIT_CFG, problem_of
from .data import folders, layouts
from .evaluation.settings import check_metrics, classes_of


def check_training(cfg: Config) -> None:
    """Training and validation data, the pretrained weights, the number of classes.

    Raises:
        UserError: One of them is not as the config says; nothing has been written or trained yet.
    """
    import_custom_modules(cfg)
    _check_pretrained(cfg)
    for loader in ("train_dataloader", "val_dataloader"):
        _check_data(cfg, loader)
    check_metrics(cfg, "val")


def check_test(cfg: Config) -> None:
    """Test data, the checkpoint's existence, the number of classes.

    Raises:
        UserError: One of them is not as the config says.
    """
    import_custom_modules(cfg)
    if not Path(cfg.load_from).is_file():
        raise UserError(f"checkpoint {cfg.load_from} does not exist. Give one that tools/train.py wrote.")
    _check_data(cfg, "test_dataloader")


def _check_pretrained(cfg: Config) -> None:
    init = cfg.model.backbone.get("init_cfg")
    if not init or init.get("type") != "Pretrained":
        return
    path = Path(init["checkpoint"])
    if message := problem_of(path):
        another = (
            "" if path.is_file() else f"; or name another file: --cfg-options {INIT_CFG}.checkpoint=FILE"
        )
        raise UserError(f"{message}{another}; or start from random weights: --init random")
    if path.is_file():
        return
    config = f"configs/pretrain/{path.parent.name}.py"
    raise UserError(
        f"pretrained weights not found: {path}. Make them with: bash tools/pretrain.sh {config}; or name "
        "another file: --cfg-options model.backbone.init_cfg.checkpoint=FILE; or start from random weights: "
        "--cfg-options model.backbone.init_cfg=None"
    )


def _check_data(cfg: Config, loader: str) -> None:
    dataset = cfg.get(loader) and cfg[loader].get("dataset")
    if not dataset:
        return
    classes = classes_of(cfg, loader)
    if dataset.type == "CocoDataset":
        layouts.check_coco(dataset.data_root, dataset.ann_file, dataset.data_prefix.img, classes)
    elif dataset.type == "StreetSegmentation":
        layouts.check_cityscapes(dataset.data_root, Path(dataset.data_prefix.img_path).name)
    elif dataset.type == "FolderSegmentation":
        root, prefix = Path(dataset.get("data_root") or ""), dataset.data_prefix
        folders.check_folder_pair(root / prefix.img_path, root / prefix.seg_map_path, len(classes or ()))
    if classes:
        _check_classes(cfg, loader, len(classes))


def _check_classes(cfg: Config, loader: str, count: int) -> None:
    """Every head that has a number of classes has the data's."""
    for key, value in _class_counts(cfg.model, "model"):
        if value != count:
            raise UserError(
                f"{cfg.filename}: {key}={value}, but the data set of {loader} has {count} classes. Set "
                f"--cfg-options {key}={count}, or the data's classes in {loader}.dataset.metainfo.classes."
            )


def _class_counts(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "num_classes":
                yield f"{prefix}.{key}", value
            else:
                yield from _class_counts(value, f"{prefix}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _class_counts(value, f"{prefix}.{index}")

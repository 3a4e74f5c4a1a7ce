"""What must hold before a transfer training or test starts: data, weights, number of classes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.files import first_of
from mst_pretrain.runtime.config import ENDLESS, check_lengths, explain, import_custom_modules
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.imports import quiet_imports
from mst_pretrain.runtime.known_keys import check_known_keys, check_numbers
from mst_pretrain.runtime.value_types import check_value_types

from ..comparison.rows import INIT_CFG, problem_of
from ..data.coco_rules import check_coco
from ..data.image_rules import shared_images
from ..data.missing import need_folder
from ..data.pair_rules import OBJECT_255, Meaning, need_one_meaning, need_two_classes
from ..data.problems import stop_at_first
from ..data.used_objects import check_objects
from ..evaluation.settings import (
    check_metrics,
    classes_of,
    data_sets_of,
    dataset_meta,
    kind_of,
    trained_classes,
)
from .best_score import check_save_best

Names = tuple[str, ...] | None


def check_training(cfg: Config) -> None:
    """Raise a UserError, before anything is written, where data, pretrained weights or classes are not the config's."""
    import_data_sets(cfg)
    check_lengths(cfg, 1)
    if not cfg.get("resume"):  # its weights replace them
        _check_pretrained(cfg)
    (trained_on, train), (scored_on, val) = (
        _check_data(cfg, f"{split}_dataloader") for split in ("train", "val")
    )
    if trained_on and scored_on:
        need_one_meaning(trained_on, scored_on)
    stop_at_first(shared_images(train, val))
    if cfg.get("val_dataloader"):
        trained, scored = (classes_of(cfg, loader) for loader in ("train_dataloader", "val_dataloader"))
        where, remedy = f"{cfg.filename}: val_dataloader.dataset", "Give both the same metainfo.classes."
        _check_names(where, scored, "train_dataloader.dataset", trained, remedy)
    check_metrics(cfg, "val")
    check_save_best(cfg)


def check_test(cfg: Config) -> None:
    """Raise a UserError where the test data, the model's or the checkpoint's classes, or the metrics do not fit."""
    import_data_sets(cfg)
    if not Path(cfg.load_from).exists():
        raise UserError(f"checkpoint {cfg.load_from} does not exist. Give one that tools/train.py wrote.")
    (meaning, _), checkpoint = _check_data(cfg, "test_dataloader"), load_checkpoint(cfg.load_from)
    trained, scored = trained_classes(checkpoint), classes_of(cfg)
    if trained is None and scored:
        print(
            f"warning: {cfg.load_from} does not say which classes it was trained with; taken for those of "
            f"{cfg.filename}: {first_of(scored)}",
            flush=True,
        )
    where = f"{cfg.filename}: test_dataloader.dataset"
    remedy = "Set its metainfo.classes to the checkpoint's, or give a checkpoint of this config."
    _check_names(where, scored, cfg.load_from, trained, remedy)
    if meaning and trained:
        meta = dataset_meta(checkpoint)
        is_object = meta.get("label_map") == OBJECT_255
        reduces = meta.get("reduce_zero_label", meaning.reduces_zero)
        need_one_meaning(meaning, Meaning(f"the training of {cfg.load_from}", True, is_object, reduces))
    check_metrics(cfg)


def import_data_sets(cfg: Config) -> None:
    """Register what the config names, and our data set in the place of mmdet's CocoDataset for this process."""
    import_custom_modules(cfg)
    check_value_types(cfg)
    check_known_keys(cfg)
    check_numbers(cfg)
    if cfg.get("default_scope") == "mmdet":
        with quiet_imports():
            from ..data.detection import use_repaired

        for loader in (f"{split}_dataloader" for split in ("train", "val", "test")):
            if cfg.get(loader) and cfg[loader].get("dataset"):
                for part in data_sets_of(cfg, loader):
                    use_repaired(part)


def _check_names(where: str, names: Names, origin: str, trained: Names, remedy: str) -> None:
    """Label i has one name in training and wherever it is scored; nothing is said where a side has no names."""
    if not names or not trained or names == trained:
        return
    pairs = enumerate(zip_longest(map(repr, names), map(repr, trained), fillvalue="absent"))
    place, (name, wanted) = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    raise UserError(
        f"{where} has classes different from those of {origin}, so results would be counted for wrong ones: label "
        f"{place} is {name} and was trained as {wanted} ({len(names)} and {len(trained)} classes). {remedy}"
    )


def _check_pretrained(cfg: Config) -> None:
    init = cfg.model.backbone.get("init_cfg")
    if not isinstance(init, dict) or init.get("type") != "Pretrained" or "checkpoint" not in init:
        return
    path = Path(init["checkpoint"])
    message, another = problem_of(path), f"or name another file: --cfg-options {INIT_CFG}.checkpoint=FILE; "
    if message:
        another = "" if path.is_file() else another
        raise UserError(f"{message}; {another}or start from random weights: --init random")
    if not path.exists():
        config = f"configs/pretrain/{path.parent.name}.py"
        raise UserError(
            f"pretrained weights not found: {path}. Make them with: bash tools/pretrain.sh {config}; {another}"
            f"or start from random weights: --cfg-options {INIT_CFG}=None"
        )


def _check_data(cfg: Config, loader: str) -> tuple[Meaning | None, list[Path]]:
    """Check the data of one loader; what ids mean in its label maps, if it has some, and the images used."""
    dataset = cfg.get(loader) and cfg[loader].get("dataset")
    if not dataset:
        return None, []
    if loader != "train_dataloader":
        _check_every_image(cfg, loader)
    classes, meaning, images = classes_of(cfg, loader), None, list[Path]()
    split, trains = loader.removesuffix("_dataloader"), loader == "train_dataloader"
    allow_unused = bool(cfg.get("allow_unused"))
    parts = _coco_parts(cfg, loader)
    for part in parts:
        folder = (part.get("data_prefix") or {}).get("img") or ""
        masks, alone = _needs_masks(cfg, loader), len(parts) == 1
        check_coco(part.get("data_root") or "", part.ann_file, folder, classes, masks, alone)
    others = {str(part.type): None for part in data_sets_of(cfg, loader) if part not in parts}
    if cfg.default_scope == "mmdet" and others:
        print(
            f"warning: {cfg.filename}: {loader}.dataset: nothing of the data of {', '.join(others)} was checked or "
            "repaired: only CocoDataset is known",
            flush=True,
        )
    if parts:
        images = check_objects(_built(cfg, loader), split, trains, allow_unused)
    if cfg.default_scope == "mmseg" and classes:
        from ..data.used_labels import check_labels  # imports mmseg

        need_two_classes(f"{cfg.filename}: {loader}.dataset", classes)
        meaning, images = check_labels(_built(cfg, loader), split, trains, allow_unused)
    if classes:
        _check_classes(cfg, loader, len(classes))
    return meaning, images


def _check_every_image(cfg: Config, loader: str) -> None:
    """What is scored is scored once: no sampler without an end, no batch left out.

    Raises:
        UserError: The loader does not give every image.
    """
    own = cfg[loader]
    sampler, batches = own.get("sampler") or {}, own.get("batch_sampler") or {}
    kind = sampler.get("type", "")
    name = getattr(kind, "__name__", str(kind)).rpartition(".")[2]
    if name in ENDLESS:
        raise UserError(
            f"{cfg.filename}: {loader}.sampler is {name}, which never ends. Use dict(type='DefaultSampler', "
            "shuffle=False)."
        )
    for key, value in (
        ("drop_last", own.get("drop_last")),
        ("batch_sampler.drop_last", batches.get("drop_last")),
        ("num_batch_per_epoch", own.get("num_batch_per_epoch")),
    ):
        if value:
            raise UserError(
                f"{cfg.filename}: {loader}.{key} is {value}, so that images would not be scored. Leave it out."
            )


def _coco_parts(cfg: Config, loader: str) -> list[Any]:
    """The configs of those data sets that read COCO files as repaired."""
    if cfg.default_scope != "mmdet":
        return []
    from ..data.detection import CocoDetection  # imports mmdet

    return [part for part in data_sets_of(cfg, loader) if _is_a(kind_of(cfg, part), CocoDetection)]


def _is_a(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _built(cfg: Config, loader: str) -> Any:
    """The data set as the runner will build it."""
    cfg = copy.deepcopy(cfg)
    for part in _coco_parts(cfg, loader):
        part.serialize_data = False  # for which MMEngine needs an image
    own = data_sets_of(cfg, loader)[0]
    for folder in (own.get("data_prefix") or {}).values():
        need_folder(Path(own.get("data_root") or "", folder), f"{loader}.dataset")
    try:
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            return registry.build(cfg[loader].dataset)
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        raise explain(cfg, error) or error from error


def _check_classes(cfg: Config, loader: str, count: int) -> None:
    """Every head that has a number of classes has the data's; a warning where one ignores a class."""
    for key, value in _values(cfg.model, "ignore_index", "model"):
        if isinstance(value, int) and 0 <= value < count and loader == "train_dataloader":
            print(
                f"warning: {cfg.filename}: {key}={value} is the label of a class ({count} classes), of which nothing "
                "is learned. Pixels to ignore are 255.",
                flush=True,
            )
    for key, value in _values(cfg.model, "num_classes", "model"):
        if value != count:
            raise UserError(
                f"{cfg.filename}: {key}={value}, but the data set of {loader} has {count} classes. Set "
                f"--cfg-options {key}={count}, or the data's classes in {loader}.dataset.metainfo.classes."
            )


def _needs_masks(cfg: Config, loader: str) -> bool:
    """The data set's pipeline loads them, or the split's metric compares them."""
    evaluators = cfg.get(loader.replace("_dataloader", "_evaluator"))
    loads = any(value for _, value in _values(cfg[loader], "with_mask", loader))
    return loads or any("segm" in value for _, value in _values(evaluators, "metric", "") if value)


def _values(node: Any, wanted: str, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value of a key in nested dictionaries and lists, with its dotted path."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == wanted:
                yield f"{prefix}.{key}", value
            else:
                yield from _values(value, wanted, f"{prefix}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _values(value, wanted, f"{prefix}.{index}")

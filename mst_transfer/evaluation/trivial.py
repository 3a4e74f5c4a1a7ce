"""The trivial baseline of every table: computed from the training split of a config, once per process."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop, Runner

from mst_pretrain.runtime.errors import UserError

from ..data.pair_rules import IGNORED, LabelRule
from .baselines import FrequentBoxes, PositionPrior, relative_boxes
from .coco_metric import MSTCocoMetric
from .iou_metric import MSTIoUMetric
from .settings import data_sets_of

MAX_MAPS = 1000  # label maps that vote; of more, evenly spaced ones
T = TypeVar("T")

_known: dict[str, Any] = {}  # baselines by the training data's config
# What a data set raises where its files are not there, or are not what the config says.
MISSING = (UserError, OSError, KeyError, ValueError, TypeError, AssertionError)


class TrivialBaselines(Hook):
    """Gives the metrics of a validation or a test their baseline, which they compute when they need it."""

    def before_val(self, runner: Runner) -> None:
        """Of the validation in a training."""
        give_baselines(runner.val_evaluator.metrics, runner.cfg, runner)

    def before_test(self, runner: Runner) -> None:
        """Of a test."""
        give_baselines(runner.test_evaluator.metrics, runner.cfg, runner)


def give_baselines(metrics: Sequence[Any], cfg: Config, runner: Runner | None = None) -> None:
    """Tell our metrics where their baseline comes from.

    Args:
        metrics: Of an evaluator; those of other libraries are left alone.
        cfg: Its ``train_dataloader`` names the training split.
        runner: Where it trains, its data set is used; else the data set is built.
    """
    for metric in metrics:
        if isinstance(metric, MSTCocoMetric):
            metric.frequent = cache(partial(_once, frequent_boxes_of, cfg, runner))
        elif isinstance(metric, MSTIoUMetric):
            metric.prior = cache(partial(_once, position_prior_of, cfg, runner))


def baseline_metrics(metrics: Sequence[Any]) -> dict[str, float]:
    """After an evaluation, the baselines' scores under the names of the metrics' own; empty where there are none."""
    found: dict[str, float] = {}
    for metric in metrics:
        found |= getattr(metric, "baseline_metrics", {})
    return found


def _once(compute: Callable[[Sequence[Any]], T], cfg: Config, runner: Runner | None) -> T | None:
    """The baseline of a config's training split; None, with a printed reason, where that is not there."""
    loader = cfg.get("train_dataloader")
    key = f"{compute.__name__} {json.dumps(loader and loader.get('dataset'), sort_keys=True, default=str)}"
    if key not in _known:
        try:
            _known[key] = compute(list(_training_sets(cfg, runner)))
        except MISSING as error:
            _known[key] = None
            if is_main_process():
                print(
                    f"note: no trivial baseline, since the training data cannot be read: {error}", flush=True
                )
    return _known[key]


def _training_sets(cfg: Config, runner: Runner | None) -> Iterator[Any]:
    """The plain data sets of the training split, without what repeats or joins them."""
    loop = getattr(runner, "_train_loop", None)  # a dictionary until the training begins
    if isinstance(loop, BaseLoop):
        waiting = [loop.dataloader.dataset]
        while waiting:
            dataset = waiting.pop(0)
            inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
            waiting += [part for part in inner if part is not None]
            if inner == [None]:
                yield dataset
        return
    if not cfg.get("train_dataloader"):
        raise UserError(f"{cfg.filename} has no train_dataloader.")
    for part in data_sets_of(cfg, "train_dataloader"):
        plain = copy.deepcopy(dict(part))
        plain |= {"pipeline": [], "serialize_data": False}
        with DATASETS.switch_scope_and_registry(cfg.get("default_scope")) as registry:
            yield registry.build(plain)


def frequent_boxes_of(datasets: Sequence[Any]) -> FrequentBoxes:
    """The most frequent boxes of mmdet's data sets, as they give them to a training."""

    def objects() -> Iterator[tuple[str, Sequence[float], tuple[int, int]]]:
        for dataset in datasets:
            names = dataset.metainfo["classes"]
            for index in range(len(dataset)):
                info = dataset.get_data_info(index)
                for entry in info["instances"]:
                    if not entry.get("ignore_flag"):
                        yield str(names[entry["bbox_label"]]), entry["bbox"], (info["width"], info["height"])

    boxes = relative_boxes(objects())
    if not boxes:
        raise UserError("the training images have no boxes.")
    return FrequentBoxes.of_boxes(boxes)


def position_prior_of(datasets: Sequence[Any]) -> PositionPrior:
    """The position prior of mmseg's data sets; of many label maps, 1,000 vote."""
    classes = len(datasets[0].metainfo["classes"])
    maps: list[tuple[Path, tuple[Any, bool]]] = []
    colors: list[Any] = []
    for dataset in datasets:
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            exchanged = tuple((info.get("label_map") or {}).items())
            maps.append((Path(info["seg_map_path"]), (exchanged, bool(info.get("reduce_zero_label")))))
            colors.append(info.get("colors"))
    chosen = np.linspace(0, len(maps) - 1, min(len(maps), MAX_MAPS)).astype(int)
    lookups = {rule: _lookup(LabelRule(classes, *rule)) for rule in {rule for _, rule in maps}}
    voting = [(maps[i][0], lookups[maps[i][1]]) for i in chosen]
    return PositionPrior.of_maps(voting, classes, [colors[i] for i in chosen])


def _lookup(rule: LabelRule) -> np.ndarray:
    """Label of every value, uint8 [256]; values that no map may hold are ignored."""
    return np.array([rule.labels.get(value, IGNORED) for value in range(256)], np.uint8)

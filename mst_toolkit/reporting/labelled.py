"""Labelled images of a run's data sets as plain arrays, and drawn: the truth, and what a model predicts."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS
from PIL import Image

import mst_transfer.data.datasets
import mst_transfer.data.detection  # noqa: F401, both register data sets
from mst_pretrain.runtime.config import import_custom_modules
from mst_pretrain.runtime.errors import UserError
from mst_transfer.evaluation.settings import data_sets_of
from mst_transfer.prediction.drawing import class_colors, draw_detections
from mst_transfer.prediction.predictions import Detections, Prediction, Segmentation

from .image_ranks import spread

LONG_SIDE = 480  # pixels of a drawing
LEGIBLE_SIDE = 220  # short side in pixels below which a drawing is enlarged
SCORE = 0.3  # below it no detection is drawn
LOOKED_AT = 2000  # images whose classes are looked at for a choice that shows every class
ALPHA = 0.6  # of a label map's colours


@dataclass(frozen=True)
class LabelledImage:
    """One image and its truth.

    Attributes:
        path: The file.
        pixels: RGB uint8 [H, W, 3].
        truth: With scores of 1; ``label_map`` of a segmentation has 255 where it is ignored.
    """

    path: Path
    pixels: np.ndarray
    truth: Prediction


class LabelledSet:
    """The images of one of a config's data sets with their labels, unscaled.

    Args:
        cfg: The run's config.
        loader: ``train_dataloader`` or ``test_dataloader``. Of a set that joins others, the first.

    Attributes:
        classes: Names by label.
        colors: uint8 [C, 3].

    Raises:
        UserError: The config has no such data set, or its files are not there.
    """

    def __init__(self, cfg: Config, loader: str) -> None:
        if not cfg.get(loader):
            raise UserError(f"{cfg.filename} has no {loader}")
        import_custom_modules(cfg)
        importlib.import_module(f"{cfg.default_scope}.utils").register_all_modules(init_default_scope=True)
        settings = copy.deepcopy(data_sets_of(cfg, loader)[0])
        steps = _loading_steps(cfg, settings)
        settings["pipeline"], settings["test_mode"] = [], True
        try:
            self.dataset = DATASETS.build(settings)
        except (OSError, KeyError, AssertionError) as error:
            raise UserError(f"the data of {loader} cannot be read: {error}") from error
        self.load = Compose(steps)
        self.detects = cfg.default_scope == "mmdet"
        meta = self.dataset.metainfo
        self.classes = tuple(map(str, meta["classes"]))
        palette = meta.get("palette")
        told = settings.get("metainfo") or {}
        own = set(getattr(self.dataset, "METAINFO", {}).get("classes", ()))
        # mmseg draws colours at random for names that its data set does not know
        known = ("palette" in told or set(self.classes) <= own) and len(palette or ()) == len(self.classes)
        self.colors = class_colors(len(self.classes), np.asarray(palette, np.uint8) if known else None)

    def __len__(self) -> int:
        return len(self.dataset)

    def paths(self) -> list[Path]:
        """The file of every image."""
        return [Path(self.dataset.get_data_info(place)["img_path"]) for place in range(len(self))]

    def __getitem__(self, place: int) -> LabelledImage:
        loaded = self.load(self.dataset.get_data_info(place))
        path = Path(loaded["img_path"])
        pixels = mmcv.imread(str(path), channel_order="rgb")
        if not self.detects:
            return LabelledImage(path, pixels, Segmentation(path, self.classes, loaded["gt_seg_map"]))
        kept = ~np.asarray(loaded["gt_ignore_flags"], bool)
        boxes = torch.as_tensor(getattr(loaded["gt_bboxes"], "tensor", loaded["gt_bboxes"])).numpy()[kept]
        labels = np.asarray(loaded["gt_bboxes_labels"], np.int64)[kept]
        masks = loaded["gt_masks"].to_ndarray().astype(bool)[kept] if "gt_masks" in loaded else None
        boxes = boxes.reshape(-1, 4).astype(np.float32)
        scores, (height, width) = np.ones(len(boxes), np.float32), pixels.shape[:2]
        found = Detections(path, self.classes, boxes, scores, labels, masks, height, width)
        return LabelledImage(path, pixels, found)

    def legend(self) -> list[tuple[str, str]]:
        """Names and colours of the classes of label maps; none of a detection, whose boxes are named."""
        if self.detects:
            return []
        colors = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in self.colors.tolist()]
        return list(zip(self.classes, colors, strict=True))

    def choose(self, count: int) -> list[int]:
        """Places of images spread over the set; of a detection, every class is among them where that is possible."""
        chosen = spread(len(self), count)
        if not self.detects:
            return chosen
        held = [self._classes_of(place) for place in spread(len(self), LOOKED_AT)]
        looked = dict(zip(spread(len(self), LOOKED_AT), held, strict=True))
        frequency = {label: sum(label in one for one in held) for one in held for label in one}
        shown = set().union(*(looked.get(place, set()) for place in chosen)) if chosen else set()
        for label in sorted(frequency, key=lambda label: (frequency[label], label)):
            if label in shown:
                continue
            place = next(place for place, one in looked.items() if label in one)
            spare = [old for old in chosen if _needless(old, chosen, looked)]
            if not spare:
                break
            chosen = [*(old for old in chosen if old != spare[-1]), place]
            shown = set().union(*(looked.get(old, set()) for old in chosen))
        return sorted(set(chosen))

    def _classes_of(self, place: int) -> set[int]:
        return {one["bbox_label"] for one in self.dataset.get_data_info(place).get("instances", ())}


def _needless(place: int, chosen: Sequence[int], looked: dict[int, set[int]]) -> bool:
    """Whether every class of an image is in another chosen one too."""
    others = set().union(*(looked.get(other, set()) for other in chosen if other != place))
    return looked.get(place, set()) <= others


def draw_truth(one: LabelledImage, colors: np.ndarray) -> Image.Image:
    """An image with its labels."""
    return draw(one.pixels, one.truth, colors, with_scores=False)


def draw(pixels: np.ndarray, found: Prediction, colors: np.ndarray, with_scores: bool = True) -> Image.Image:
    """An image of at most 480 px with detections of a score of at least 0.3, or with a label map over it.

    Args:
        pixels: RGB uint8 [H, W, 3].
        found: Labels or predictions in pixels of the image.
        colors: uint8 [C, 3].
        with_scores: Whether scores stand behind the names.
    """
    factor = min(1.0, LONG_SIDE / max(pixels.shape[:2]))
    height, width = (max(1, round(factor * side)) for side in pixels.shape[:2])
    small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    if isinstance(found, Detections):
        masks = found.masks
        if masks is not None:
            masks = np.array([_nearest(mask.astype(np.uint8), width, height) for mask in masks], bool)
            masks = masks.reshape(-1, height, width)
        shrunk = replace(found, boxes=factor * found.boxes, masks=masks, height=height, width=width)
        return draw_detections(small, shrunk, colors, SCORE, LEGIBLE_SIDE, with_scores)
    label_map = _nearest(found.label_map, width, height)
    known = label_map < len(colors)
    colored = np.where(known[..., None], colors[np.where(known, label_map, 0)], small)
    mixed = (1 - ALPHA) * small + ALPHA * colored
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def _nearest(values: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)


def _loading_steps(cfg: Config, settings: Any) -> list[dict[str, Any]]:
    """The steps of a data set's pipeline that load image and labels; labels also where its test needs none."""
    steps = [dict(step) for step in settings.get("pipeline", ()) if "Load" in _name(step)]
    if not any("Annotations" in _name(step) for step in steps):
        trained = data_sets_of(cfg, "train_dataloader")[0] if cfg.get("train_dataloader") else {}
        steps += [dict(step) for step in trained.get("pipeline", ()) if "Annotations" in _name(step)]
    return steps


def _name(step: Any) -> str:
    kind = step["type"]
    return kind if isinstance(kind, str) else kind.__name__

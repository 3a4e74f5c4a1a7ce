"""What the tools make of a COCO set: the ground truth that mmdet loads, the scores, and what they say."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmcv import imread
from mmdet.datasets.transforms import LoadAnnotations
from pycocotools import mask as masks

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.coco_file import parsing_once
from mst_transfer.data.coco_rules import check_coco
from mst_transfer.data.detection import CocoDetection
from mst_transfer.data.used_objects import check_objects
from mst_transfer.evaluation.coco_metric import category_ids_of
from mst_transfer.evaluation.coco_scores import LIBRARIES, load_ground_truth, score_coco
from tests.promises.coco_set import ANNOTATION_FILE, FILTER, HEIGHT, IMAGE_FOLDER, WIDTH
from tests.promises.verdicts import CocoMutator, Content

Objects = Counter[tuple[Any, ...]]  # box, label, whether to be ignored, and mask, of one image
Truth = dict[str, Objects]  # by the clean set's file names
Scores = dict[tuple[str, str], dict[str, float | None]]  # by library and kind of IoU


@dataclass(frozen=True, repr=False)
class Outcome:
    """What became of a set.

    Attributes:
        said: All that was printed.
        refusal: The message of the error before work, or None; then the others are of what was loaded.
        score_refusal: The message of the error of the evaluation, or None.
        truth: Images with their objects, as mmdet trains them; images without an object are left out.
        images: Number of images in training.
        objects: Number of objects in training that are not to be ignored.
        scores: Of fixed predictions.
    """

    said: str
    refusal: str | None = None
    score_refusal: str | None = None
    truth: Truth | None = None
    images: int = 0
    objects: int = 0
    scores: Scores | None = None


def write_mutated(mutator: CocoMutator, clean: Content, seed: int, root: Path) -> tuple[Content, bytes]:
    """Changes the clean set at `root`; returns the changed content, and the bytes of its file."""
    content = copy.deepcopy(clean)
    changed = mutator.change(content, random.Random(f"{mutator.name} {seed}"))
    data = (
        changed
        if isinstance(changed, bytes)
        else json.dumps(content if changed is None else changed).encode()
    )
    (root / ANNOTATION_FILE).write_bytes(data)
    if mutator.files is not None:
        mutator.files(root)
    return content, data


def outcome_of(mutator: CocoMutator, root: Path, predictions: Callable[..., list[dict[str, Any]]]) -> Outcome:
    """Runs the check, mmdet's data set, the line of what is used, and both evaluators."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), parsing_once():
        score_refusal, scores = None, None
        try:
            scores = _scores(mutator, root, predictions)
        except UserError as error:
            score_refusal = str(error)
        try:
            check_coco(root, ANNOTATION_FILE, IMAGE_FOLDER, mutator.classes, masks=True)
            dataset = _data_set(mutator, root, test_mode=False)
            check_objects(dataset, "train", trains=True)
        except UserError as error:
            return Outcome(said.getvalue(), str(error), score_refusal, scores=scores)
        truth, images, objects = _loaded(mutator, dataset)
    return Outcome(said.getvalue(), None, score_refusal, truth, images, objects, scores)


def _data_set(mutator: CocoMutator, root: Path, test_mode: bool) -> CocoDetection:
    return CocoDetection(
        metainfo={"classes": mutator.classes},
        data_root=str(root),
        ann_file=ANNOTATION_FILE,
        data_prefix={"img": IMAGE_FOLDER},
        filter_cfg=FILTER,
        test_mode=test_mode,
        serialize_data=False,
        pipeline=[],
    )


def _loaded(mutator: CocoMutator, dataset: CocoDetection) -> tuple[Truth, int, int]:
    load = LoadAnnotations(with_bbox=True, with_mask=True, poly2mask=True)
    truth: Truth = {}
    used = 0
    for info in map(dataset.get_data_info, range(len(dataset))):
        name = _clean_name(mutator, dataset, info)
        if mutator.files is not None:
            assert imread(info["img_path"]).shape[:2] == (info["height"], info["width"])
        info["ori_shape"] = (info["height"], info["width"])
        loaded = load(info)
        used += int((~loaded["gt_ignore_flags"]).sum())
        boxes = loaded["gt_bboxes"].tensor.double().round(decimals=3).tolist()
        pixels = [np.ascontiguousarray(mask).tobytes() for mask in loaded["gt_masks"].masks]
        objects = zip(
            map(tuple, boxes),
            loaded["gt_bboxes_labels"].tolist(),
            loaded["gt_ignore_flags"].tolist(),
            pixels,
            strict=True,
        )
        if boxes:
            truth[name] = Counter(objects)
    return truth, len(dataset), used


def _clean_name(mutator: CocoMutator, dataset: CocoDetection, info: dict[str, Any]) -> str:
    return mutator.clean_name(os.path.relpath(info["img_path"], dataset.data_prefix["img"]))


def _scores(mutator: CocoMutator, root: Path, predictions: Callable[..., list[dict[str, Any]]]) -> Scores:
    """Scores of the predictions in both libraries, by the ids that a test's data set has."""
    content = load_ground_truth(root / ANNOTATION_FILE, masks=True)
    category_ids = category_ids_of(content, mutator.classes, root / ANNOTATION_FILE)
    dataset = _data_set(mutator, root, test_mode=True)
    infos = map(dataset.get_data_info, range(len(dataset)))
    image_ids = {_clean_name(mutator, dataset, info): info["img_id"] for info in infos}
    return {
        (library, kind): score_coco(
            content, predictions(image_ids, category_ids, kind), kind, library, category_ids
        ).statistics
        for library in LIBRARIES
        for kind in ("bbox", "segm")
    }


def fixed_predictions(clean: Content) -> Callable[..., list[dict[str, Any]]]:
    """Returns a function of the image ids by clean file name, the category ids by label, and the kind of IoU.

    It gives the predictions of a detector that misses some objects, is a few pixels off, and takes some for the other
    class.
    """
    rng = np.random.default_rng(5)
    names = {image["id"]: image["file_name"] for image in clean["images"]}
    found = []
    for annotation in clean["annotations"]:
        if rng.random() < 0.15:
            continue
        pixels = masks.decode(masks.merge(masks.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)))
        shift = rng.integers(-4, 5, 2).tolist()
        runs = masks.encode(np.asfortranarray(np.roll(pixels, shift, (1, 0))))
        mask = {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}
        x, y, width, height = annotation["bbox"]
        label = annotation["category_id"] - 1 if rng.random() < 0.9 else 2 - annotation["category_id"]
        place = {"bbox": [x + shift[0], y + shift[1], width, height], "segm": mask}
        found.append((names[annotation["image_id"]], label, float(rng.random()), place))

    def predictions(image_ids: dict[str, int], category_ids: list[int], kind: str) -> list[dict[str, Any]]:
        key = {"bbox": "bbox", "segm": "segmentation"}[kind]
        return [
            {
                "image_id": image_ids[name],
                "category_id": category_ids[label],
                "score": score,
                key: place[kind],
            }
            for name, label, score, place in found
            if name in image_ids
        ]

    return predictions

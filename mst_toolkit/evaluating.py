"""Scores of a trained detector or segmentor with intervals over images and a trivial baseline in every row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .image_scores import FILE, DetectionImages, ImageScores, LabelImages, save
from .intervals import RESAMPLES, Bootstrap

if TYPE_CHECKING:
    from mmengine.config import Config

    from mst_transfer.evaluation import MSTCocoMetric, MSTIoUMetric, SegmentationScores

METRICS = "metrics.json"
FEW = 5  # images of a class, below which resampling them says little
SPLITS = ("val", "test")
AP_NAMES = {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75", "AP_small": "mAP_s"}
AP_NAMES |= {"AP_medium": "mAP_m", "AP_large": "mAP_l"}


def evaluate(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    split: str = "val",
    device: str | None = None,
    prints: bool = True,
) -> dict[str, Any]:
    """Score a checkpoint on a split of its config, as tools/test.py does, and write ``metrics.json`` and
    ``per_image.npz`` into ``out``.

    Args:
        config: Config file of a fine-tuning.
        checkpoint: Of a training with it.
        out: A folder, e.g. that of the run.
        split: ``val`` or ``test``.
        device: ``cpu``, ``cuda``, ...; None: a GPU where there is one.
        prints: Print the table.

    Returns:
        What ``metrics.json`` holds; all scores are per cent.

    Raises:
        UserError: The config, the checkpoint or the data cannot be used.
    """
    from mst_pretrain.runtime.atomic import file_sha256, write_json
    from mst_pretrain.runtime.work_dir import writable_folder
    from mst_transfer.comparison.identity import data_of

    start = time.monotonic()
    cfg = _config_of(config, checkpoint, split)
    writable_folder(out, "--out")
    metric, dataset = _scored(cfg, checkpoint, device)
    digest = data_of(dataset)
    names = np.array(_image_names(dataset))
    scores: ImageScores
    if hasattr(metric, "matrices"):
        result, scores, further = _segmentation(metric, names)
    else:
        result, scores, further = _detection(metric)
    result |= {
        "checkpoint": str(checkpoint),
        "sha256": file_sha256(checkpoint),
        "config": str(config),
        "split": split,
        "images": digest["images"],
        "data": digest["sha256"],
        "seconds": round(time.monotonic() - start, 1),
    }
    save(Path(out, FILE), scores, digest["sha256"], further)
    write_json(result, Path(out, METRICS))
    if prints:
        print(f"{class_table(result)}\nwritten: {Path(out, METRICS)}, {Path(out, FILE)}", flush=True)
    return result


def _config_of(config: str | Path, checkpoint: str | Path, split: str) -> Config:
    """The config with the split in the place of its test, and our metrics; checked as a test is."""
    from mst_pretrain.runtime.config import load_config
    from mst_pretrain.runtime.errors import UserError
    from mst_transfer.data.coco_file import parsing_once
    from mst_transfer.evaluation.settings import use_our_metrics
    from mst_transfer.training.checks import check_test, import_data_sets

    if split not in SPLITS:
        raise UserError(f"--split {split} is not one of {', '.join(SPLITS)}.")
    cfg = load_config(config)
    if not cfg.get(f"{split}_dataloader"):
        raise UserError(
            f"{config} has no {split}_dataloader. Give the config of a fine-tuning, or another --split."
        )
    cfg.test_dataloader, cfg.test_evaluator = cfg[f"{split}_dataloader"], cfg[f"{split}_evaluator"]
    if cfg.test_dataloader.get("num_workers") == 0:
        cfg.test_dataloader.persistent_workers = False
    cfg.load_from, cfg.resume = str(checkpoint), False
    use_our_metrics(cfg, None, None)
    with parsing_once():
        import_data_sets(cfg)
        check_test(cfg)
    return cfg


def _scored(cfg: Config, checkpoint: str | Path, device: str | None) -> tuple[Any, Any]:
    """Our metric after the evaluation, and the data set."""
    from mmengine.evaluator import Evaluator
    from mmengine.runner import Runner

    from mst_pretrain.runtime.errors import UserError
    from mst_pretrain.runtime.progress import Progress
    from mst_transfer.data.coco_file import parsing_once
    from mst_transfer.evaluation import MSTCocoMetric, MSTIoUMetric
    from mst_transfer.evaluation.trivial import give_baselines
    from mst_transfer.prediction.predictor import Predictor

    model = Predictor(cfg, checkpoint, device, dtype="float32").model
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    ours = [metric for metric in evaluator.metrics if isinstance(metric, MSTCocoMetric | MSTIoUMetric)]
    if not ours:
        raise UserError(f"{cfg.filename} has no COCO or IoU metric, which alone is scored image by image.")
    for metric in ours:
        metric.prints = False
        if isinstance(metric, MSTCocoMetric):
            metric.keep_found = True
    import torch

    with torch.no_grad(), parsing_once():
        give_baselines(ours, cfg)
        for batch in Progress("evaluating", len(loader)).over(loader):
            evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
        evaluator.evaluate(len(loader.dataset))
    return ours[0], loader.dataset


def _image_names(dataset: Any) -> list[str]:
    """Files of the images in the data set's order, from the folder that all share."""
    import os

    paths = [str(dataset.get_data_info(index)["img_path"]) for index in range(len(dataset))]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(path, root)).as_posix() for path in paths]


def _detection(metric: MSTCocoMetric) -> tuple[dict[str, Any], DetectionImages, dict[str, np.ndarray]]:
    """The result of a detector: box AP is the main score, mask AP stands beside it."""
    from mst_transfer.evaluation.coco_metric import category_ids_of
    from mst_transfer.evaluation.coco_scores import load_ground_truth
    from mst_transfer.evaluation.detection_confusion import detection_confusion
    from mst_transfer.evaluation.matching import match_detections

    classes = (metric.dataset_meta or {}).get("classes")
    content = load_ground_truth(metric.ann_file, "segm" in metric.iou_types, classes)
    ids = category_ids_of(content, classes, metric.ann_file)
    files = {image["id"]: image["file_name"] for image in content["images"]}
    kept: dict[str, DetectionImages] = {}
    for iou_type in metric.iou_types:
        found = match_detections(content, metric.found[iou_type], iou_type, ids)
        arrays = (found.scores, found.image, found.label, found.hit, found.ignored, found.objects)
        names = np.array([files[i] for i in found.image_ids])
        kept[iou_type] = DetectionImages(names, _names_of(content, ids), *arrays)
    main = metric.iou_types[0]
    scores, trivial = metric.scores[main], metric.baseline.get(main)
    bootstrap = Bootstrap(kept[main])
    objects = kept[main].objects
    rows = []
    for index, (name, bounds) in enumerate(
        zip(map(str, kept[main].classes), bootstrap.classes(), strict=True)
    ):
        values = scores.per_class[name]
        rows.append(
            {
                "name": name,
                "images": int((objects[:, index] > 0).sum()),
                "objects": int(objects[:, index].sum()),
                **{key: _percent(values[key]) for key in AP_NAMES},
                "low": bounds["low"],
                "high": bounds["high"],
                "baseline": _percent(trivial.per_class[name]["AP"]) if trivial else None,
                "baseline_AP50": _percent(trivial.per_class[name]["AP50"]) if trivial else None,
                "baseline_AP75": _percent(trivial.per_class[name]["AP75"]) if trivial else None,
            }
        )
    result = {
        "task": "detection",
        "main": _main(f"{_kind(main)} AP", bootstrap, trivial.statistics["mAP"] if trivial else None),
        "scores": {
            f"{_kind(iou_type)} {name}": _percent(metric.scores[iou_type].statistics[key])
            for iou_type in metric.iou_types
            for name, key in AP_NAMES.items()
        },
        "classes": rows,
        "baseline": _baseline_of(metric),
    }
    further = {"confusion": detection_confusion(content, metric.found[main], main, ids)}
    for iou_type in metric.iou_types[1:]:
        value = metric.baseline[iou_type].statistics["mAP"] if iou_type in metric.baseline else None
        result["masks"] = _main(f"{_kind(iou_type)} AP", Bootstrap(kept[iou_type]), value)
        for key in ("scores", "image", "label", "hit", "ignored", "objects"):
            further[f"{iou_type}_{key}"] = getattr(kept[iou_type], key)
    return result, kept[main], further


def _names_of(content: dict[str, Any], ids: list[int]) -> np.ndarray:
    names = {category["id"]: category["name"] for category in content["categories"]}
    return np.array([str(names[i]) for i in ids])


def _kind(iou_type: str) -> str:
    return "box" if iou_type == "bbox" else "mask"


def _baseline_of(metric: MSTCocoMetric) -> dict[str, Any] | None:
    """Name and scores of the most frequent boxes."""
    from mst_transfer.evaluation.baselines import BOXES

    if not metric.baseline:
        return None
    scores = {
        f"{_kind(iou_type)} {name}": _percent(baseline.statistics[key])
        for iou_type, baseline in metric.baseline.items()
        for name, key in AP_NAMES.items()
    }
    return {"name": BOXES, "scores": scores}


def _segmentation(
    metric: MSTIoUMetric, names: np.ndarray
) -> tuple[dict[str, Any], LabelImages, dict[str, np.ndarray]]:
    """The result of a segmentor: mIoU is the main score."""
    from mst_transfer.evaluation.baselines import PRIOR

    assert metric.scores is not None and metric.matrices is not None
    classes = metric.scores.classes
    kept = LabelImages.of_matrices(names, np.array(classes), metric.matrices)
    bootstrap, trivial = Bootstrap(kept), metric.baseline
    pixels = metric.matrices.sum(2)
    rows = []
    for index, (name, bounds) in enumerate(zip(classes, bootstrap.classes(), strict=True)):
        values = metric.scores.per_class[name]
        rows.append(
            {
                "name": name,
                "images": int((pixels[:, index] > 0).sum()),
                "objects": None,
                "pixels": int(pixels[:, index].sum()),
                "IoU": _percent(values["IoU"]),
                "Acc": _percent(values["Acc"]),
                "low": bounds["low"],
                "high": bounds["high"],
                "baseline": _percent(trivial.per_class[name]["IoU"]) if trivial else None,
            }
        )
    result = {
        "task": "segmentation",
        "main": _main("mIoU", bootstrap, trivial.mean_iou if trivial else None),
        "scores": _label_scores(metric.scores),
        "classes": rows,
        "baseline": {"name": PRIOR, "scores": _label_scores(trivial)} if trivial else None,
    }
    return result, kept, {}


def _label_scores(scores: SegmentationScores) -> dict[str, float | None]:
    fractions = {"mIoU": scores.mean_iou, "mAcc": scores.mean_accuracy, "aAcc": scores.pixel_accuracy}
    return {name: _percent(value) for name, value in fractions.items()}


def _main(name: str, bootstrap: Bootstrap, baseline: float | None) -> dict[str, Any]:
    return {"name": name, **bootstrap.main(), "baseline": _percent(baseline)}


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def class_table(result: dict[str, Any]) -> str:
    """What ``metrics.json`` holds, a row per class, in %."""
    detects = result["task"] == "detection"
    columns = (
        ("AP", "AP50", "AP75") if detects else ("IoU",) if result["task"] == "segmentation" else ("Acc",)
    )
    counts = ("images", "objects") if detects else ("images",)
    header = ["class", *counts, *(f"{name} %" for name in columns), "95 % interval", "baseline %"]
    rows = [
        [
            row["name"],
            *(f"{row[name]:,}" for name in counts),
            *(_two(row[name]) for name in columns),
            f"{_two(row['low'])} .. {_two(row['high'])}",
            _two(row["baseline"]),
        ]
        for row in result["classes"]
    ]
    main, scores = result["main"], result["scores"]
    prefix = main["name"].partition(" ")[0]
    means = [_two(scores[f"{prefix} {name}"]) for name in columns] if detects else [_two(main["value"])]
    bounds = f"{_two(main['low'])} .. {_two(main['high'])}"
    last = [main["name"], *([f"{result['images']:,}"] if counts else [])]
    last += [f"{sum(row['objects'] for row in result['classes']):,}"] if detects else []
    from mst_transfer.evaluation.tables import text_table

    text = text_table(header, rows, [*last, *means, bounds, _two(main["baseline"])], METRICS)
    if "masks" in result:
        masks = result["masks"]
        text += (
            f"\n{masks['name']} {_two(masks['value'])} % ({_two(masks['low'])} .. {_two(masks['high'])}), "
        )
        text += f"baseline {_two(masks['baseline'])} %"
    name = result["baseline"]["name"] if result["baseline"] else "none, the training data are not there"
    return f"{text}\nbaseline: {name}\n{interval_line(result)}"


def interval_line(result: dict[str, Any]) -> str:
    """How the intervals were made, and for which classes there are too few images."""
    text = (
        f"interval: percentiles of {RESAMPLES:,} resamples of the images; a class that a resample lacks is left out of "
        "its mean"
    )
    few = [row["name"] for row in result["classes"] if 0 < row["images"] < FEW]
    if not few:
        return text
    more = f" and {len(few) - 3} more" if len(few) > 3 else ""
    return f"{text}\ntoo narrow, of fewer than {FEW} images: {', '.join(few[:3])}{more}"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

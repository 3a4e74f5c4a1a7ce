"""Predictions of many images as files: pictures, official results, and an index that says what is what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv

from mst_pretrain.data.files import list_images
from mst_pretrain.data.suffixes import say_left_out
from mst_pretrain.runtime.atomic import file_sha256, write_json
from mst_pretrain.runtime.environment import environment_info
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.progress import Progress

from ..evaluation.coco_metric import coco_results, plain_instances
from ..evaluation.label_images import save_image, write_label_image
from ..evaluation.settings import label_ids_of
from .coco_ids import category_ids, image_ids, read_ids
from .drawing import class_colors, draw_detections, draw_segmentation
from .predictions import Detections, Prediction
from .predictor import Predictor

INDEX = "predictions.json"


class PredictionFiles:
    """Writes all predictions of a run below a folder; each file is whole or not there.

    ``pictures/`` holds the drawings, ``label_maps/`` the label PNGs. The JSON files come last:
    ``detections.bbox.json`` and ``detections.segm.json`` in COCO's results format, and ``predictions.json``.

    Args:
        predictor: The model.
        out: The folder.
        annotations: COCO JSON with the ids of images and categories, or None.
        score_threshold: Of the drawings; the results hold every detection.
        batch_size: Images of equal shape in one forward pass.

    Raises:
        UserError: The annotations cannot be read.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: str | Path,
        annotations: str | Path | None = None,
        score_threshold: float = 0.3,
        batch_size: int = 1,
    ) -> None:
        self.predictor, self.out, self.score_threshold = predictor, Path(out), score_threshold
        self.batch_size = batch_size
        self.annotations = annotations
        self.content = None if annotations is None else read_ids(annotations)
        self.colors = class_colors(len(predictor.classes), predictor.palette)
        if predictor.detects:
            self.ids = category_ids(predictor.classes, self.content, str(annotations))
        else:
            labels = list(range(len(predictor.classes)))
            self.ids = label_ids_of(predictor.config, predictor.classes) or labels
        self.results: dict[str, dict[int, list[dict[str, Any]]]] = {"bbox": {}}

    def run(self, images: Sequence[tuple[Path, Path]], settings: dict[str, Any]) -> dict[str, Any]:
        """Predict and write; an image that cannot be read is named and left out.

        Args:
            images: Of :func:`find_images`.
            settings: ``checkpoint`` and whatever else belongs into the index.

        Returns:
            The index, as in ``predictions.json``.

        Raises:
            UserError: The annotations lack an image, or not one image could be predicted.
        """
        numbers = image_ids([path for path, _ in images], self.content, str(self.annotations))
        stems = Counter(name.with_suffix("") for _, name in images)
        done: dict[int, dict[str, Any]] = {}
        failed: dict[int, dict[str, str]] = {}
        found = self.predictor.in_batches([path for path, _ in images], self.batch_size)
        for place, prediction in Progress("predicting", len(images)).over(found):
            name, number = images[place][1], numbers[place]
            output = name.with_suffix("") if stems[name.with_suffix("")] == 1 else name
            try:
                if isinstance(prediction, UserError):
                    raise prediction
                told = self._one(images[place][0], prediction, number, output)
                done[place] = {"image_id": number, "file_name": name.as_posix()} | told
            except UserError as error:
                failed[place] = {"file_name": name.as_posix(), "reason": str(error)}
                print(f"left out: {error}", flush=True)
        if not done:
            raise UserError(f"not one of {len(images)} images could be predicted; the reasons stand above.")
        for iou_type, by_image in self.results.items() if self.predictor.detects else ():
            entries = [entry for number in numbers for entry in by_image.get(number, ())]
            write_json(entries, self.out / f"detections.{iou_type}.json", indent=None)
        kind = "categories" if self.predictor.detects else "classes"
        index = {
            **settings,
            "checkpoint_sha256": file_sha256(settings["checkpoint"]),
            **environment_info(self.predictor.device),
            kind: [{"id": i, "name": name} for i, name in zip(self.ids, self.predictor.classes, strict=True)],
            "images": [done[place] for place in sorted(done)],
            "failed": [failed[place] for place in sorted(failed)],
        }
        write_json(index, self.out / INDEX)
        return index

    def _one(self, path: Path, found: Prediction, number: int, output: Path) -> dict[str, Any]:
        """Write one image's files; what the index says of it."""
        image = mmcv.imread(str(path), channel_order="rgb")
        picture = _with_ending(self.out / "pictures" / output, ".png")
        if isinstance(found, Detections):
            arrays = {"bboxes": found.boxes, "scores": found.scores, "labels": found.labels}
            optional = {"masks": found.masks, "mask_scores": found.mask_scores}
            instances = plain_instances(arrays | {k: v for k, v in optional.items() if v is not None})
            for iou_type in ("bbox",) if found.masks is None else ("bbox", "segm"):
                entries = coco_results(number, instances, self.ids, iou_type)
                self.results.setdefault(iou_type, {})[number] = entries
            save_image(draw_detections(image, found, self.colors, self.score_threshold), picture)
            return {"height": found.height, "width": found.width, "detections": len(found.scores)}
        label_map = _with_ending(self.out / "label_maps" / output, ".png")
        write_label_image(found.label_map, label_map, self.ids)
        save_image(draw_segmentation(image, found, self.colors), picture)
        height, width = found.label_map.shape
        return {
            "height": height,
            "width": width,
            "label_map": label_map.relative_to(self.out).as_posix(),
            "shares": found.shares,
        }


def find_images(inputs: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """Every image of the files and folders given, once, and its name: the path below its folder, or the file's.

    Raises:
        UserError: A path does not exist, a folder holds no image, or two images would have one name.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            left_out: Counter[str] = Counter()
            images = list_images(given, left_out)
            say_left_out(str(given), len(images), left_out)
            found |= {path: path.relative_to(given) for path in images}
        elif given.is_file():
            found[given] = Path(given.name)
        else:
            raise UserError(f"{given} does not exist. Give images or folders of images.")
    names: dict[Path, Path] = {}
    for path, name in found.items():
        if name in names:
            raise UserError(
                f"{names[name]} and {path} would both be written as {name}. Give the folder above them, or "
                "predict them one after the other."
            )
        names[name] = path
    return list(found.items())


def _with_ending(path: Path, ending: str) -> Path:
    """``a.b`` and ``.png`` make ``a.b.png``."""
    return path.with_name(path.name + ending)

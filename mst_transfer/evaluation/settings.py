"""A config's test evaluators and tools/test.py's options: brought together, and checked before the first image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from mst_pretrain.data.files import first_of
from mst_pretrain.runtime.config import import_custom_modules
from mst_pretrain.runtime.errors import UserError

from ..data.coco_file import read_coco, read_with_notes
from ..data.coco_rules import category_problems
from ..data.image_lists import ImageList
from ..data.problems import stop_at_first
from .coco_metric import MSTCocoMetric
from .coco_scores import LIBRARIES, load_ground_truth, load_library
from .iou_metric import MSTIoUMetric
from .label_images import cityscapes_label_ids

# mmdet's and mmseg's metrics, the one of ours that takes their place, and what means nothing to it.
OURS = {"CocoMetric": MSTCocoMetric, "FasterCocoMetric": MSTCocoMetric, "IoUMetric": MSTIoUMetric}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "classwise": (True, False),
    "format_only": (False,),
    "backend_args": (None,),
    "iou_metrics": (["mIoU"],),
}


def classes_of(cfg: Config, loader: str = "test_dataloader") -> tuple[str, ...] | None:
    """Class names by label of a data set: the config's, which may be a file of one a line, else its type's.

    Raises:
        UserError: What the config has for a list of names is a text, empty, or has a name twice.
    """
    classes = (data_sets_of(cfg, loader)[0].get("metainfo") or {}).get("classes")
    if isinstance(classes, str) and Path(classes).is_file():  # as MMEngine's data sets read it
        classes = list_from_file(classes)
    if classes is not None:
        _check_list(f"{cfg.filename}: {loader}.dataset.metainfo.classes", classes)
    else:
        classes = getattr(dataset_type(cfg, loader), "METAINFO", {}).get("classes")
    return None if classes is None else tuple(str(name) for name in classes)


def _check_list(where: str, classes: Any) -> None:
    """Class names are a list or tuple of different names.

    Raises:
        UserError: They are not.
    """
    if isinstance(classes, str):
        what = f"the text {classes!r}, not a list, so that each letter would be a class"
        raise UserError(f"{where} is {what}. One class is written with a comma: classes = ({classes!r},)")
    if not isinstance(classes, (list, tuple)) or not classes:
        raise UserError(f"{where} is {classes!r}. Write a list of names: classes = ('car', 'bus').")
    twice = [name for index, name in enumerate(classes) if name in classes[:index]]
    if twice:
        raise UserError(f"{where} has {twice[0]!r} twice. Give every class a name of its own.")


def trained_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names by label that a training wrote into its checkpoint, or None."""
    classes = dataset_meta(checkpoint).get("classes")
    return tuple(str(name) for name in classes) if classes else None


def dataset_meta(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """What MMEngine writes of the training data: class names, perhaps colours; empty where there is nothing."""
    meta = checkpoint.get("meta")
    data = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def dataset_type(cfg: Config, loader: str = "test_dataloader") -> Any:
    """The registered class of a data set, or None."""
    return kind_of(cfg, data_sets_of(cfg, loader)[0])


def kind_of(cfg: Config, part: Any) -> Any:
    """The class that a data set's ``type`` is or names, or None."""
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        return part.type if isinstance(part.type, type) else registry.get(part.type)


def data_sets_of(cfg: Config, loader: str = "test_dataloader") -> list[Any]:
    """The config of a loader's data set; of one that repeats or joins others, those of the others."""
    found, waiting = [], [cfg[loader].dataset]
    while waiting:
        dataset = waiting.pop(0)
        inner = dataset.get("datasets") or ([dataset.dataset] if "dataset" in dataset else [])
        waiting += inner
        if not inner:
            found.append(dataset)
    return found


def label_ids_of(cfg: Config, classes: Sequence[str] | None) -> list[int] | None:
    """What an official label PNG holds by label: Cityscapes' label ids; None for other data, the label itself.

    Args:
        cfg: Its test data set's type says whether the data are Cityscapes'.
        classes: Names by label.

    Raises:
        UserError: A Cityscapes data set with a class that is not Cityscapes'.
    """
    from mmseg.datasets import CityscapesDataset

    kind = dataset_type(cfg)
    if classes is None or not (isinstance(kind, type) and issubclass(kind, CityscapesDataset)):
        return None
    return cityscapes_label_ids(classes)


def image_root_of(cfg: Config) -> str:
    """The folder that a data set's images lie below."""
    dataset = data_sets_of(cfg)[0]
    prefix = dataset.get("data_prefix") or {}
    return str(Path(dataset.get("data_root") or "", prefix.get("img") or prefix.get("img_path") or ""))


def use_our_metrics(cfg: Config, library: str | None, out_dir: str | None) -> None:
    """Exchange mmdet's and mmseg's metrics for ours, in place, and give them the options.

    A metric with a setting that ours has no place for stays as it is; a line says so.

    Args:
        cfg: Its ``test_evaluator`` is a dictionary or a list of them.
        library: ``--coco-library``, or None where it was not given.
        out_dir: ``--out``: official result files; None: none.

    Raises:
        UserError: An option was given that no metric of the config takes.
    """
    import_custom_modules(cfg)  # the type of the data set decides on the labels
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    ours = [_ours(dict(evaluator)) for evaluator in evaluators]
    coco = [evaluator for evaluator in ours if evaluator["type"] == "MSTCocoMetric"]
    iou = [evaluator for evaluator in ours if evaluator["type"] == "MSTIoUMetric"]
    if library is not None and not coco:
        raise UserError(f"--coco-library: {cfg.filename} has no COCO metric that takes it. Leave it out.")
    if out_dir is not None and not coco and not iou:
        raise UserError(
            f"--out: the metrics of {cfg.filename} ({', '.join(e['type'] for e in ours)}) write no result files. Use "
            "MSTCocoMetric or MSTIoUMetric as test_evaluator."
        )
    for evaluator in coco:
        evaluator["library"] = library or evaluator.get("library", LIBRARIES[0])
        evaluator["out_dir"] = out_dir
    for evaluator in iou:
        evaluator["out_dir"] = out_dir
        evaluator.setdefault("label_ids", label_ids_of(cfg, classes_of(cfg)))
        evaluator.setdefault("image_root", image_root_of(cfg))
    cfg.test_evaluator = [ConfigDict(evaluator) for evaluator in ours]


def check_metrics(cfg: Config, split: str = "test") -> None:
    """The COCO library is there, and the annotations can be scored, before an image is trained on or predicted.

    Args:
        cfg: Its ``<split>_evaluator`` is a dictionary or a list of them.
        split: ``val`` or ``test``.

    Raises:
        UserError: Not so.
    """
    evaluators = cfg.get(f"{split}_evaluator") or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        name, path = evaluator["type"].rpartition(".")[2], evaluator.get("ann_file")
        if name == "MSTCocoMetric":
            load_library(evaluator.get("library", LIBRARIES[0]))
        elif not name.endswith("CocoMetric") or not path or not Path(path).is_file():
            continue
        masks = "segm" in evaluator.get("metric", ("bbox", "segm"))
        _check_coco_metric(cfg, split, name, Path(path), masks, evaluator.get("image_list"))


def _check_coco_metric(
    cfg: Config, split: str, metric: str, path: Path, masks: bool, image_list: ImageList
) -> None:
    classes = classes_of(cfg, f"{split}_dataloader")
    stop_at_first(category_problems(path, load_ground_truth(path, masks, classes, image_list), classes))
    _, notes = read_with_notes(path)
    if metric != "MSTCocoMetric" and notes:
        raise UserError(
            f"{path}: {notes[0]} in memory, but {metric} of {split}_evaluator reads the file as it is. Set its type to "
            "MSTCocoMetric, or correct the file."
        )
    parts = data_sets_of(cfg, f"{split}_dataloader")
    if any(part.get("image_list") != image_list for part in parts):
        raise UserError(
            f"{cfg.filename}: {split}_evaluator.image_list is {image_list}, but that of {split}_dataloader.dataset is "
            "different, so that other images would be scored than are predicted. Give both the same list."
        )
    predicted = [Path(part.get("data_root") or "", part.get("ann_file") or "") for part in parts]
    if all(map(Path.is_file, predicted)) and not all(map(path.samefile, predicted)):
        _compare(cfg, split, path, predicted)


def _compare(cfg: Config, split: str, path: Path, predicted: Sequence[Path]) -> None:
    """What is predicted must be the images, and what the line of counts and the labels are of the objects, scored.

    Raises:
        UserError: An image or an object is in the evaluator's file or in those of the data set alone.
    """
    classes = classes_of(cfg, f"{split}_dataloader")
    for what, facts in (("images", _images_of), ("objects", _objects_of)):
        of_metric = Counter(facts(read_coco(path), classes))
        of_data = Counter(chain.from_iterable(facts(read_coco(file), classes) for file in predicted))
        strange = [*(of_data - of_metric), *(of_metric - of_data)]
        if strange:
            raise UserError(
                f"{path} of {split}_evaluator and {first_of(predicted)} of {split}_dataloader have different {what}: "
                f"{len(strange)} are in one of them alone, the first {strange[0]}. Give both one ann_file."
            )


def _images_of(content: dict[str, Any], classes: Any) -> Iterator[tuple[Any, ...]]:
    for image in content["images"]:
        yield image["id"], image["file_name"], image["height"], image["width"]


def _objects_of(content: dict[str, Any], classes: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
    """Image, name of the category, and box of the objects of the classes."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    for annotation in content["annotations"]:
        name = names[annotation["category_id"]]
        if classes is None or name in classes:
            yield annotation["image_id"], name, *annotation["bbox"]


def _ours(evaluator: dict[str, Any]) -> dict[str, Any]:
    ours = OURS.get(evaluator["type"].rpartition(".")[2])
    if ours is None:
        return evaluator
    kept = {
        key: value
        for key, value in evaluator.items()
        if key != "type" and not any(value == neutral for neutral in NEUTRAL.get(key, ()))
    }
    strange = sorted(set(kept) - set(signature(ours).parameters))
    if strange or (ours is MSTCocoMetric and "ann_file" not in kept):
        print(
            f"{evaluator['type']} stays as the config has it ({', '.join(strange) or 'no ann_file'}): no per-class "
            "scores, no result files.",
            flush=True,
        )
        return evaluator
    return {"type": ours.__name__, **kept}

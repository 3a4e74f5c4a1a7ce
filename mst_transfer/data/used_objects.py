"""What a detection data set that mmdet has built uses: its images and objects of how many, and why not the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mst_pretrain.data.files import first_of

from .coco_file import read_coco
from .coco_repair import IMAGES
from .coco_shapes import Content, is_small
from .image_lists import of_images
from .problems import Problem, stop_at_first

CROWDS = "crowds ('iscrowd')"

Reasons = Counter[str]  # why entries are left out, with their number


def check_objects(dataset: Any, split: str, trains: bool, allow_unused: bool = False) -> list[Path]:
    """Print one line of what a built data set uses of its files, and refuse one that uses less than half.

    A training uses what mmdet has loaded and does not ignore. A test scores every object of the classes that is not a
    crowd, whatever mmdet has loaded.

    Args:
        dataset: A data set of mmdet, or of MMEngine around such; parts other than CocoDataset are passed over.
        split: For the line.
        trains: It is trained on.
        allow_unused: To use less than half is not an error.

    Returns:
        The images that it uses.

    Raises:
        UserError: Less than half of the images or of the objects is used; or no object at all, or an image of a test
            not once, which nothing allows.
    """
    from .detection import CocoDetection  # imports mmdet

    parts = [part for part in parts_of(dataset) if isinstance(part, CocoDetection)]
    images: list[Path] = []
    objects, ignored, there, ids = 0, 0, Counter[str](), set[int]()
    left_images, left_objects, trained = Reasons(), Reasons(), set[int]()
    for part in parts:
        content = of_images(read_coco(part.ann_file, IMAGES), part.image_list, part.ann_file)
        infos = {info["img_id"]: info for info in map(part.get_data_info, range(len(part)))}
        ids |= infos.keys()
        images += [Path(info["img_path"]) for info in infos.values()]
        there += Counter(images=len(content["images"]), objects=len(content["annotations"]))
        left_images += Reasons(_why_no_image(part, content, infos.keys()))
        reasons = Reasons(_why_no_object(part, content, infos.keys(), trains))
        used = len(content["annotations"]) - reasons.total()
        if trains:  # what mmdet has loaded decides, the reasons explain it
            instances = [
                one for info in infos.values() for one in info["instances"] if not one["ignore_flag"]
            ]
            trained |= {one["bbox_label"] for one in instances}
            loaded = len(instances)
            reasons["left out by the data set"] += max(0, used - loaded)
            used = loaded
        else:
            ignored += sum(1 for a in content["annotations"] if a.get("ignore") and not a["iscrowd"])
        objects += used
        left_objects += reasons
    if not parts:
        return images
    shares = f"{len(images)} of {there['images']} images and {objects} of {there['objects']} objects are used"
    line = f"{shares}{_why('images', left_images)}{_why('objects', left_objects)}"
    print(f"{split}: {line}", flush=True)
    if not trains and len(parts) == len(parts_of(dataset)):
        stop_at_first(
            _counted_wrong(Path(parts[0].ann_file), there["images"], len(dataset), len(images), len(ids))
        )
    classes = parts[0].metainfo["classes"]
    absent = [name for label, name in enumerate(classes) if trained and label not in trained]
    if absent:
        print(
            f"warning: {split}: no object of {len(absent)} of {len(classes)} classes: {first_of(absent)}",
            flush=True,
        )
    if ignored:
        print(
            f"note: {split}: {ignored} objects marked 'ignore' are scored: evaluators know 'iscrowd' alone",
            flush=True,
        )
    if not objects:
        remedy = "Correct what is said, or the config's classes and filter_cfg."
        stop_at_first([Problem("unused", Path(parts[0].ann_file), line, remedy)])
    if not allow_unused and (2 * len(images) < there["images"] or 2 * objects < there["objects"]):
        stop_at_first([Problem("unused", Path(parts[0].ann_file), line)])
    return images


def _counted_wrong(path: Path, there: int, predicted: int, used: int, ids: int) -> Iterator[Problem]:
    """Of a test every image must be predicted, and once: evaluators count by the ids of images."""
    if used < there:
        what = f"{there - used} of {there} images are not predicted and would count as images without a detection"
        remedy = "Remove 'indices', set test_mode=True, or give data set and evaluator a JSON of these images alone."
        yield Problem("unused", path, what, remedy)
    elif predicted > ids:
        what = (
            f"{predicted} images are predicted for {ids} ids, so that detections would count more than once"
        )
        remedy = (
            "Predict every image once (no RepeatDataset), and give images of several files different ids."
        )
        yield Problem("unused", path, what, remedy)


def parts_of(dataset: Any) -> list[Any]:
    """The data sets inside of those that repeat or join others."""
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    return [part for some in inner if some is not None for part in parts_of(some)] or [dataset]


def _why_no_image(part: Any, content: Content, used: Any) -> Iterator[str]:
    min_size = (part.filter_cfg or {}).get("min_size", 0)
    wanted = set(part.cat_ids)
    with_objects = {a["image_id"] for a in content["annotations"] if a["category_id"] in wanted}
    for image in content["images"]:
        if image["id"] not in used:
            if min(image["width"], image["height"]) < min_size:
                yield f"smaller than {min_size} pixels (min_size)"
            elif image["id"] not in with_objects:
                yield "without an object"
            else:
                yield "left out by the data set"


def _why_no_object(part: Any, content: Content, used: Any, trains: bool) -> Iterator[str]:
    """The rules of ``CocoDataset.parse_data_info``; of a score, the classes and crowds."""
    images, wanted = {image["id"]: image for image in content["images"]}, set(part.cat_ids)
    for annotation in content["annotations"]:
        if annotation["category_id"] not in wanted:
            yield "of other classes"
        elif annotation["image_id"] not in used:
            yield "in images that are left out"
        elif trains and (why := why_not_trained(annotation, images[annotation["image_id"]])):
            yield why
        elif annotation["iscrowd"]:
            yield CROWDS


def why_not_trained(annotation: Content, image: Content) -> str | None:
    """Why an annotation is no object to train on, whatever the config; by mmdet's rules in their order."""
    if annotation.get("ignore"):
        return "to be ignored ('ignore')"
    if _is_outside(annotation, image):
        return "outside their image"
    if annotation["area"] <= 0 or is_small(annotation):
        return "of area 0 or with a side below a pixel"
    return CROWDS if annotation["iscrowd"] else None


def _is_outside(annotation: Content, image: Content) -> bool:
    """A box of a pixel or more shares no area with its image."""
    x, y, width, height = annotation["bbox"]
    across = min(x + width, image["width"]) - max(x, 0)
    down = min(y + height, image["height"]) - max(y, 0)
    return not is_small(annotation) and min(across, down) <= 0


def list_reasons(reasons: Reasons) -> str:
    """For example ``4 crowds ('iscrowd'), 2 outside their image``."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _why(what: str, reasons: Reasons) -> str:
    return f"; {what} left out: {list_reasons(reasons)}" if reasons.total() else ""

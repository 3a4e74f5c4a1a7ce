"""The rules of a COCO file, each a function over the parsed file: what training or evaluation could not use."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress, zip_longest
from pathlib import Path
from typing import Any

from mst_pretrain.data.files import BLOCK, first_of, in_threads
from mst_pretrain.runtime.terminal import CONTROL

from .coco_doubts import doubts
from .coco_file import coco_classes, read_coco
from .coco_masks import are_numbers
from .coco_names import named_alike, names_on_disk
from .coco_repair import BOX_SLACK, IMAGES, LISTS
from .coco_shapes import (
    Content,
    Faults,
    corner_box_problems,
    counted,
    is_small,
    mask_problems,
    named,
    reach,
    tiny_box_problems,
)
from .image_lists import ImageList, of_images
from .image_rules import dark_problems, remedy_of_tag, size_said, tag_problems, unread_problems
from .missing import need_folder
from .problems import WARNINGS, Problem, stop_at_first
from .reading import Reader

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id", "bbox"),
}


def check_coco(
    root: str | Path,
    ann_file: str | Path,
    img_prefix: str | Path,
    classes: Sequence[str] | None = None,
    masks: bool = False,
    alone: bool = True,
    image_list: ImageList = None,
) -> None:
    """Check one COCO split before a training or a test, and print which categories are left out.

    Args:
        root: Data root, which ``ann_file`` and ``img_prefix`` are relative to.
        ann_file: Instance JSON, e.g. ``annotations/instances_train2017.json``.
        img_prefix: Image folder, e.g. ``train2017``.
        classes: See :func:`coco_problems`.
        masks: See :func:`coco_problems`.
        alone: It must have an object; of a file that is joined with others this is asked of all together.
        image_list: Names of the images that are used; None: all.

    Raises:
        UserError: A folder is missing, or :func:`coco_problems` finds a problem.
    """
    path, folder = Path(root, ann_file), Path(root, img_prefix)
    need_folder(Path(root), "the COCO data root")
    need_folder(folder, "the image folder of this split")
    content = of_images(read_coco(path, LISTS if alone else IMAGES), image_list, path)
    for problems in _stages(path, content, folder, Reader(), classes, masks, alone):
        stop_at_first(problems)
    other = names_on_disk(folder, [image["file_name"] for image in content["images"]])
    if other:
        first = next(iter(other))
        print(
            f"note: {path}: {len(other)} names of images that are spelled in another way than their files: taken for "
            f"these ({first}: {other[first]})",
            flush=True,
        )
    own = coco_classes(content)
    left_out = [name for name in own if classes and name not in classes]
    if left_out:
        print(
            f"{path}: {len(left_out)} of {len(own)} categories are not trained: {first_of(left_out)}",
            flush=True,
        )


def coco_problems(
    path: Path,
    content: Content,
    folder: Path,
    reader: Reader,
    classes: Sequence[str] | None = None,
    masks: bool = False,
) -> Iterator[Problem]:
    """Problems of one COCO split: those of the entries first, then those of the files that they name.

    Args:
        path: The JSON.
        content: What :func:`read_coco` read.
        folder: Where the images are.
        reader: Looks at the images.
        classes: Names by label, a subset of the categories; None: all of them.
        masks: They are used, and every annotation must have one; otherwise those that cannot be used are a warning.
    """
    for number, stage in enumerate(_stages(path, content, folder, reader, classes, masks)):
        problems = list(stage)
        yield from problems
        if problems and number == 0:  # the later stages rely on the fields
            return


def _stages(
    path: Path,
    content: Content,
    folder: Path,
    reader: Reader,
    classes: Sequence[str] | None,
    masks: bool,
    alone: bool = True,
) -> Iterator[Iterable[Problem]]:
    """The problems of :func:`coco_problems` in the order of what it costs to find them."""
    yield _value_problems(path, content, masks, classes)
    yield category_problems(path, content, classes)
    yield _object_problems(path, content, classes) if alone else ()
    yield _image_problems(path, content, folder, reader)  # of another size: why masks do not fit
    content = _trained(content, classes)
    problems = list(_shape_problems(path, content, masks))
    yield problems
    if all(problem.kind in WARNINGS for problem in problems):
        yield _box_problems(path, content)
        yield (Problem("doubtful", path, *doubt) for doubt in doubts(content, masks))


def entry_problems(
    path: Path, content: Content, masks: bool, classes: Sequence[str] | None = None
) -> Iterator[Problem]:
    """Problems of images, categories and annotations; those of a later group only where the earlier groups are sound.

    Args:
        path: The JSON.
        content: Its three lists, as :func:`read_coco` repaired them.
        masks: Masks are used, and every annotation must have one.
        classes: Boxes, areas and masks of other categories are not looked at; None: all are.
    """
    problems = list(_value_problems(path, content, masks, classes))
    shapes = _shape_problems(path, _trained(content, classes), masks)
    yield from problems or (problem for problem in shapes if problem.kind not in WARNINGS)


def _trained(content: Content, classes: Sequence[str] | None) -> Content:
    """The content without annotations of categories that are not trained."""
    if classes is None:
        return content
    others = {category["id"] for category in content["categories"] if category["name"] not in classes}
    kept = [
        a
        for a in content["annotations"]
        if type(a["category_id"]) is not int or a["category_id"] not in others
    ]
    return {**content, "annotations": kept}


def _shape_problems(path: Path, content: Content, masks: bool) -> Iterator[Problem]:
    found = [Problem("entries", path, *fault) for fault in tiny_box_problems(content)]
    for what, remedy, of_boxes in () if found else mask_problems(content):
        serious = masks or of_boxes
        found.append(
            Problem("entries" if serious else "masks not used", path, what, remedy if serious else "")
        )
    yield from found
    if all(problem.kind in WARNINGS for problem in found):
        yield from (Problem("entries", path, *fault) for fault in corner_box_problems(content))


def _value_problems(
    path: Path, content: Content, masks: bool, classes: Sequence[str] | None
) -> Iterator[Problem]:
    groups: list[list[Callable[[Content], Faults]]] = [
        [_missing_fields],
        [_unusable_ids, _unusable_names],
        [_repeated_names, _unusable_sizes, _shared_files, _unknown_categories, _unknown_images],
    ]
    of_trained = [_unusable_boxes, _unusable_areas, _unusable_flags, *([_missing_masks] if masks else [])]
    groups[2] += of_trained
    trained = None
    for rules in groups:
        if rules is groups[2]:  # what categories are called is known to be sound
            trained = _trained(content, classes)
        faults = (rule(trained if trained and rule in of_trained else content) for rule in rules)
        problems = [Problem("entries", path, *fault) for fault in chain.from_iterable(faults)]
        yield from problems
        if problems:
            return


def _missing_fields(content: Content) -> Faults:
    for key, fields in FIELDS.items():
        for entry in content[key]:
            missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if missing:
                what = f"an entry of '{key}' lacks {', '.join(missing)}; it needs {', '.join(fields)}"
                yield what, "Export it as COCO instance annotations."
                return


def _unusable_ids(content: Content) -> Faults:
    """Ids of images and categories must be whole numbers, each used once; those of annotations are repaired."""
    for key in ("images", "categories"):
        ids = [entry["id"] for entry in content[key]]
        strange = [repr(i) for i in ids if type(i) is not int]
        twice = [repr(i) for i, count in Counter(i for i in ids if type(i) is int).items() if count > 1]
        what = f"ids of '{key}' are used twice or are not whole numbers, so that they would be confused"
        remedy = f"Number the {key} 1, 2, 3, ..., and correct what refers to them."
        yield from counted([*strange, *twice], what, remedy)


def _unusable_names(content: Content) -> Faults:
    for key, field in (("images", "file_name"), ("categories", "name")):
        strange = [repr(e[field]) for e in content[key] if not isinstance(e[field], str) or not e[field]]
        yield from counted(strange, f"values of '{field}' in '{key}' are not text", "Write each as a text.")
    odd = [repr(e["name"]) for e in content["categories"] if CONTROL.search(str(e["name"]))]
    yield from counted(odd, "names of 'categories' hold control characters", "Write each as plain text.")


def _repeated_names(content: Content) -> Faults:
    counts = Counter(coco_classes(content))
    twice = [f"'{name}'" for name, count in counts.items() if count > 1]
    return counted(twice, "category names are used twice", "Rename or merge these categories.")


def _unusable_sizes(content: Content) -> Faults:
    odd = [
        str(image["file_name"])
        for image in content["images"]
        if any(type(image[side]) is not int or image[side] < 1 for side in ("width", "height"))
    ]
    what = "images have a width or height that is not a whole number from 1"
    return counted(odd, what, "Write each image's size in pixels.")


def _shared_files(content: Content, folder: str | Path = "") -> Faults:
    """One file under two ids would be trained twice, each time with the objects of the other id as background."""
    counts = Counter(
        os.path.normpath(os.path.join(folder, str(image["file_name"]))) for image in content["images"]
    )
    twice = [name for name, count in counts.items() if count > 1]
    what = "files are the image of several ids"
    return counted(twice, what, "Keep one id for each file, and give it all annotations.")


def _unknown_categories(content: Content) -> Faults:
    what = "annotations have a category that is not in its categories"
    remedy = "Add the category or correct the ids."
    return counted(_pointing_nowhere(content, "category_id", "categories"), what, remedy)


def _unknown_images(content: Content) -> Faults:
    what = "annotations belong to images that are not in its images"
    remedy = "Add the images or remove these annotations."
    return counted(_pointing_nowhere(content, "image_id", "images"), what, remedy)


def _unusable_boxes(content: Content) -> Faults:
    bent = [a for a in content["annotations"] if not _is_box(a["bbox"])]
    what = "boxes are not [x, y, width, height] in finite numbers"
    return counted(named(bent, "bbox"), what, "Correct them.")


def _unusable_areas(content: Content) -> Faults:
    bent = [a for a in content["annotations"] if _is_box(a["bbox"]) and not are_numbers([a["area"]])]
    what = "areas are not finite numbers"
    return counted(named(bent, "area"), what, "Correct them, or remove 'area': it is computed then.")


def _unusable_flags(content: Content) -> Faults:
    for field in ("iscrowd", "ignore"):
        strange = [a for a in content["annotations"] if a.get(field, 0) not in (0, 1)]
        yield from counted(named(strange, field), f"values of '{field}' are not 0 or 1", "Correct them.")


def _missing_masks(content: Content) -> Faults:
    bare = [a for a in content["annotations"] if not a.get("segmentation")]
    what = "annotations have no mask ('segmentation' is absent or empty)"
    remedy = "Add the masks, remove these annotations, or train boxes only (docs/own_data.md)."
    return counted(named(bare), what, remedy)


def _pointing_nowhere(content: Content, field: str, key: str) -> list[str]:
    known = {entry["id"] for entry in content[key]}
    return named(
        [a for a in content["annotations"] if type(a[field]) is not int or a[field] not in known], field
    )


def category_problems(path: Path, content: Content, classes: Sequence[str] | None) -> Iterator[Problem]:
    """The file must have all of ``classes``, and in the same order.

    mmdet numbers labels in each file's own order: another order, or a missing category, in the validation file would
    swap classes without a word.
    """
    own, classes = coco_classes(content), tuple(classes or ())
    lacking = [name for name in classes if name not in own]
    if lacking:
        what = f"has no category {first_of(lacking)}; it has {', '.join(own)}"
        remedy = "It must have them all: correct the classes in the config, or the file."
        yield Problem("entries", path, what, remedy)
        return
    pairs = zip_longest([name for name in own if name in classes], classes)
    for place, (name, wanted) in enumerate(pairs, 1):
        if name != wanted:
            what = f"category {place} of those trained is '{name}' there and '{wanted}' in training"
            remedy = "They must have the same order: correct the file, or the classes."
            yield Problem("entries", path, what, remedy)
            return


def _object_problems(path: Path, content: Content, classes: Sequence[str] | None) -> Iterator[Problem]:
    annotations, names = content["annotations"], {c["id"]: c["name"] for c in content["categories"]}
    trained = [a for a in annotations if not classes or names[a["category_id"]] in classes]
    if any(not _is_left_out(a) and not a["iscrowd"] and not a.get("ignore") for a in trained):
        return
    what = (
        f"has no object to train on or to score: of {len(annotations)} annotations {len(trained)} are of the classes "
        f"trained, and of these {sum(map(_is_left_out, trained))} have an area of 0 or a box of less than a pixel, "
        f"{sum(bool(a.get('ignore')) for a in trained)} are to be ignored ('ignore'), and "
        f"{sum(bool(a['iscrowd']) for a in trained)} are crowds ('iscrowd')"
    )
    yield Problem("no object", path, what)


def _box_problems(path: Path, content: Content) -> Iterator[Problem]:
    """Boxes must lie within their image."""
    images = {image["id"]: image for image in content["images"]}
    sized = [(annotation, images[annotation["image_id"]]) for annotation in content["annotations"]]
    outside = [
        f"annotation {annotation['id']} -> bbox {annotation['bbox']} in {image['file_name']} of "
        f"{image['height']}x{image['width']} (height x width)"
        for annotation, image in sized
        if reach(annotation, image) > BOX_SLACK
    ]
    for what, _ in counted(outside, "boxes reach out of their image by more than a pixel", ""):
        yield Problem("box outside", path, what)


def _image_problems(path: Path, content: Content, folder: Path, reader: Reader) -> Iterator[Problem]:
    """The images must be there, whole, and of the size that the JSON says."""
    spelled = file_names(content, folder)
    files = list(dict.fromkeys(folder / name for name in spelled))
    there = list(in_threads(os.path.isfile, files, block=BLOCK))
    absent = set(files).difference(compress(files, there))
    names = [name for name in spelled if folder / name in absent]
    alike = named_alike(folder, names) if names else {}
    for name in dict.fromkeys(names):
        what, remedy = f"is not there, but {path} names it", ""
        if name in alike:
            what += f"; {folder.name} has {alike[name]}"
            remedy = "Write the names of the files into the JSON, relative to the folder, if they are the same images."
        yield Problem("absent image", folder / name, what, remedy)
    yield from (Problem("entries", path, *fault) for fault in _shared_files(content, folder.absolute()))
    whole = list(compress(files, there))
    yield from reader.images(f"{folder.name} images", whole, sizes=True)
    yield from unread_problems([file for file in whole if file in reader.facts])
    misfits = []
    for image, name in zip(content["images"], spelled, strict=True):
        file, wanted = folder / name, [image["width"], image["height"]]
        facts = reader.facts.get(file)
        if facts and facts[:2] != wanted:
            what = f"is {size_said(facts)}, but {wanted[1]}x{wanted[0]} (height x width) in {path}"
            remedy = remedy_of_tag(facts, wanted, "boxes and masks")
            misfits.append(Problem("image size", file, what, remedy))
    yield from misfits or tag_problems(files, reader.facts, "boxes and masks")
    yield from dark_problems(files, reader.facts)


def file_names(content: Content, folder: Path) -> list[str]:
    """The images' names as they are on disk, where that can be told."""
    names = [image["file_name"] for image in content["images"]]
    found = names_on_disk(folder, names)
    return [found.get(name, name) for name in names]


def _is_left_out(annotation: dict[str, Any]) -> bool:
    """mmdet drops an annotation without an area, or with a box of less than a pixel."""
    return annotation["area"] <= 0 or is_small(annotation)


def _is_box(box: Any) -> bool:
    """Four finite numbers."""
    return isinstance(box, list) and len(box) == 4 and are_numbers(box)

"""Classes, objects and polygons of COCO files, and what is put right in them in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .found import DETECTION, Found, Part, first_names, layout_error

Content = dict[str, Any]


def build(root: Path, layout: str, files: dict[str, tuple[Path, Path]], boxes_only: bool) -> Found:
    """Read the files of a data set.

    Args:
        root: Its folder.
        layout: Its name.
        files: By part, the JSON and the folder of the images.
        boxes_only: Polygons are not used.

    Raises:
        UserError: A file cannot be used, D05: train and val have different classes, D06: some objects have polygons and
            others none, D07: there is no object.
    """
    from mst_transfer.data.coco_file import parsing_once, read_with_notes
    from mst_transfer.data.coco_repair import IMAGES
    from mst_transfer.data.coco_rules import entry_problems
    from mst_transfer.data.problems import stop_at_first

    notes, contents = [], {}
    with parsing_once():
        for name, (path, _) in files.items():
            contents[name], repairs = read_with_notes(path, IMAGES)
            stop_at_first(entry_problems(path, contents[name], False))
            notes += [
                f"{_below(path, root)}: {note}; in memory, your file stays as it is" for note in repairs
            ]
    classes, left_out, warnings = _classes({name: files[name][0] for name in files}, contents)
    if left_out:
        notes.append(f"categories without an object are left out: {first_names(left_out, 8)}")
    masks, about_masks = _polygons(root, contents, classes, boxes_only)
    parts = {
        name: Part(name, folder, path, len(contents[name]["images"]))
        for name, (path, folder) in files.items()
    }
    empty = count_empty(contents["train"], classes)
    if empty:
        notes.append(
            f"{empty} of {parts['train'].count} training images have no object: they are not trained on"
        )
    return Found(
        DETECTION,
        layout,
        root,
        parts["train"],
        parts.get("val"),
        parts.get("test"),
        classes,
        objects=count_objects(contents["train"], classes),
        masks=masks,
        notes=(*notes, *about_masks),
        warnings=tuple(warnings),
    )


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def count_objects(content: Content, classes: Sequence[str]) -> dict[str, int]:
    """Objects of each class, crowds left out."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts = Counter(names[a["category_id"]] for a in content["annotations"] if not a["iscrowd"])
    return {name: counts[name] for name in classes}


def count_empty(content: Content, classes: Sequence[str]) -> int:
    """Images without an object of the classes."""
    ids = {category["id"] for category in content["categories"] if category["name"] in classes}
    used = {a["image_id"] for a in content["annotations"] if a["category_id"] in ids}
    return sum(image["id"] not in used for image in content["images"])


def _classes(
    paths: dict[str, Path], contents: dict[str, Content]
) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Names of the categories with an object, those without, and warnings."""
    own = {
        name: [category["name"] for category in content["categories"]] for name, content in contents.items()
    }
    counts = {name: count_objects(content, own[name]) for name, content in contents.items()}
    used = {label for some in counts.values() for label, count in some.items() if count}
    if not any(counts["train"].values()):
        raise layout_error(
            "D07",
            f"{paths['train']} has no object: {len(contents['train']['annotations'])} annotations, "
            f"{len(own['train'])} categories.",
            "Check that the export holds the annotations (Label Studio and CVAT can export images alone).",
        )
    for name in ("val", "test"):
        if name in own:
            _must_agree(paths, own["train"], own[name], used, name)
    classes = tuple(label for label in own["train"] if label in used)
    left_out = [label for label in own["train"] if label not in used]
    warnings = []
    unseen = [label for label in classes if not counts["train"][label]]
    if unseen:
        what = f"no object of {len(unseen)} classes among the training images, so that nothing is learned of them"
        warnings.append(f"{what}: {first_names(unseen, 8)}")
    unscored = [label for label in classes if "val" in counts and not counts["val"][label]]
    if unscored:
        what = (
            f"no object of {len(unscored)} classes among the validation images, so that they are not scored"
        )
        warnings.append(f"{what}: {first_names(unscored, 8)}")
    return classes, left_out, warnings


def _must_agree(
    paths: dict[str, Path], train: list[str], other: list[str], used: set[str], name: str
) -> None:
    """The classes with an object are in both files, in one order: labels are numbered by it."""
    mine, theirs = ([label for label in labels if label in used] for labels in (train, other))
    if mine == theirs:
        return
    lacking, beyond = set(mine) - set(theirs), set(theirs) - set(mine)
    if lacking or beyond:
        parts = [f"{first_names(sorted(lacking))} only in {paths['train']}"] if lacking else []
        parts += [f"{first_names(sorted(beyond))} only in {paths[name]}"] if beyond else []
        what = f"The classes of train and {name} differ: {'; '.join(parts)}."
    else:
        place = next(i for i, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
        what = f"The classes of train and {name} have another order: the {place + 1}. is {mine[place]} in "
        what += f"{paths['train']} and {theirs[place]} in {paths[name]}."
    raise layout_error(
        "D05",
        what,
        "Export both again from one project with one list of categories, or correct 'categories' in the files.",
    )


def _polygons(
    root: Path, contents: dict[str, Content], classes: Sequence[str], boxes_only: bool
) -> tuple[str, list[str]]:
    """Whether all, some or none of the objects have one."""
    have = total = 0
    for content in contents.values():
        ids = {category["id"] for category in content["categories"] if category["name"] in classes}
        objects = [a for a in content["annotations"] if a["category_id"] in ids and not a["iscrowd"]]
        total += len(objects)
        have += sum(bool(a.get("segmentation")) for a in objects)
    if boxes_only:
        return "none", [
            f"{have:,} of {total:,} objects have polygons, which are not used (--boxes-only)"
        ] if have else []
    if have == total:
        return "all", []
    if not have:
        return "none", ["no object has a polygon: boxes alone are trained and scored"]
    raise layout_error(
        "D06",
        f"{have:,} of {total:,} objects in {root} have a polygon, {total - have:,} have only a box.",
        "Train boxes alone: --boxes-only. Or complete the polygons in your annotation program and export again.",
    )

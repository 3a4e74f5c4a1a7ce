"""Mutators of COCO files: boxes and areas."""

import math
from collections.abc import Callable

from tests.promises.coco_edits import (
    Entry,
    convert,
    drop,
    mutator,
    on_all,
    on_apart,
    on_objects,
    on_right_edge,
    one_number,
    put,
    share_polygon,
)
from tests.promises.coco_set import HEIGHT, WIDTH, used_counts
from tests.promises.verdicts import CocoChange, CocoMutator


def _widen(entry: Entry) -> None:
    entry["bbox"][2] += 1


def _turned(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x + w, y + h, -w, -h]


def _turned_once(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x + w, y, -w, h]


def _corners(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x, y, x + w, y + h]


def _centers(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x + w / 2, y + h / 2, w, h]


def _rows_first(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [y, x, h, w]


def _corners_by_axis(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x, x + w, y, y + h]


def _shares(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    entry["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]
    share_polygon(entry)


def _box(function: Callable[[list[float]], object]) -> CocoChange:
    return on_objects(convert("bbox", function))


BOX_MUTATORS = (
    mutator(
        "box-floats",
        "same",
        _box(lambda b: list(map(float, b))),
        "Most tools write 12.0 where COCO writes 12.",
    ),
    mutator(
        "area-tiny-difference",
        "same",
        on_objects(convert("area", lambda area: area + 1e-9)),
        "Areas computed by another library differ in the last digits.",
    ),
    mutator(
        "box-text-numbers",
        "repaired",
        _box(lambda b: list(map(str, b))),
        'A spreadsheet writes "12"; it can only mean 12.',
    ),
    mutator(
        "box-pixel-outside",
        "repaired",
        on_right_edge(_widen),
        "Tools that count the last pixel end one beyond the edge.",
    ),
    mutator(
        "box-negative-sides",
        "repaired",
        on_objects(_turned),
        "Drawn from the lower right corner; the box is the same, turned round.",
    ),
    mutator(
        "box-negative-width",
        "repaired",
        on_objects(_turned_once),
        "Drawn from the right; the box is the same, turned round.",
    ),
    mutator(
        "box-corners",
        "refused",
        on_all("annotations", _corners),
        "x1, y1, x2, y2 as Pascal VOC has it: boxes leave their images.",
    ),
    mutator(
        "box-centers",
        "refused",
        on_all("annotations", _centers),
        "YOLO's form in pixels: boxes are off by half their size, the masks are not.",
    ),
    mutator(
        "box-rows-first",
        "refused",
        on_all("annotations", _rows_first),
        "y, x, height, width, as arrays are indexed: boxes are mirrored, the masks are not.",
    ),
    mutator(
        "box-corners-by-axis",
        "refused",
        on_all("annotations", _corners_by_axis),
        "x from and to, y from and to: another box than the mask's.",
    ),
    CocoMutator(
        "box-not-tight",
        "different",
        "Boxes need not be those of their masks to the pixel.",
        on_objects(convert("bbox", lambda b: [b[0], b[1], b[2] - 3, b[3] - 3])),
        counts=used_counts,
    ),
    CocoMutator(
        "box-loose",
        "different",
        "Some draw boxes with a margin: they are trained as they are drawn.",
        on_objects(convert("bbox", lambda b: [b[0] - 0.2 * b[2], b[1] - 0.2 * b[3], 1.6 * b[2], 1.6 * b[3]])),
        counts=used_counts,
    ),
    mutator(
        "box-shares",
        "refused",
        on_all("annotations", _shares),
        "YOLO's shares of the image: mmdet would use no object.",
    ),
    mutator("box-of-three", "refused", _box(lambda b: b[:3]), "A number was lost, and nobody knows which."),
    mutator(
        "box-of-five",
        "refused",
        _box(lambda b: [*b, 0.3]),
        "A rotated box; without its angle it is another box.",
    ),
    mutator(
        "box-of-zeros",
        "refused",
        on_all("annotations", put("bbox", [0, 0, 0, 0])),
        "The converter lost the boxes: nothing is left to train.",
    ),
    mutator(
        "box-null",
        "refused",
        on_objects(put("bbox", None)),
        "An object without a box cannot be trained; without it the place is background.",
    ),
    mutator(
        "box-missing",
        "refused",
        on_objects(drop("bbox")),
        "An object without a box cannot be trained; without it the place is background.",
    ),
    mutator(
        "box-empty",
        "refused",
        on_objects(put("bbox", [])),
        "An object without a box cannot be trained; without it the place is background.",
    ),
    mutator(
        "box-nested",
        "refused",
        _box(lambda b: [b[:2], b[2:]]),
        "Two pairs may be corner and size or two corners.",
    ),
    mutator("box-null-inside", "refused", one_number("bbox", None), "A number was lost."),
    mutator("box-text-inside", "refused", one_number("bbox", "left"), "A word is not a coordinate."),
    mutator(
        "box-nan",
        "refused",
        one_number("bbox", math.nan),
        "A division by zero in a script: the loss would become NaN.",
    ),
    mutator(
        "box-infinite",
        "refused",
        one_number("bbox", math.inf),
        "A division by zero in a script: the loss would become NaN.",
    ),
    mutator(
        "box-half-outside",
        "refused",
        on_objects(convert("bbox", lambda b: [b[0] + 150, *b[1:]])),
        "Labels of a larger picture; where the object is cannot be told.",
    ),
    mutator(
        "box-far-outside",
        "refused",
        on_objects(convert("bbox", lambda b: [b[0] + 5000, *b[1:]])),
        "Labels of another picture: mmdet would drop the object silently.",
    ),
    CocoMutator(
        "box-zero-width",
        "different",
        "A click by accident, which COCO itself has: mmdet leaves it out, and the count says so.",
        on_apart(convert("bbox", lambda b: [b[0], b[1], 0, b[3]])),
        counts=used_counts,
    ),
    CocoMutator(
        "box-below-a-pixel",
        "different",
        "mmdet leaves out boxes below one pixel, and the count says so.",
        on_apart(convert("bbox", lambda b: [b[0], b[1], b[2], 0.4])),
        counts=used_counts,
    ),
    mutator(
        "area-missing",
        "repaired",
        on_objects(drop("area")),
        "Many converters leave it out; it follows from the mask.",
    ),
    mutator(
        "area-null", "repaired", on_objects(put("area", None)), "An empty cell; it follows from the mask."
    ),
    mutator(
        "area-zero",
        "repaired",
        on_objects(put("area", 0)),
        "A placeholder for which mmdet drops the object silently; it follows from the mask.",
    ),
    mutator(
        "area-negative",
        "repaired",
        on_objects(convert("area", lambda a: -a)),
        "The shoelace formula on a clockwise polygon; only the sign is wrong.",
    ),
    mutator(
        "area-text",
        "repaired",
        on_objects(convert("area", str)),
        'A spreadsheet writes "812"; it can only mean 812.',
    ),
    mutator(
        "area-nan",
        "repaired",
        on_objects(put("area", math.nan)),
        "pandas writes NaN for an empty cell; it follows from the mask.",
    ),
    mutator(
        "area-of-the-box",
        "same",
        on_objects(lambda e: e.update(area=e["bbox"][2] * e["bbox"][3])),
        "Many tools write the box's area; it decides only the size class.",
    ),
)

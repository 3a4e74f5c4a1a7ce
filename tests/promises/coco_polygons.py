"""Mutators of COCO files: polygons, and masks that are missing."""

import math
import random

from tests.promises.coco_edits import (
    Entry,
    convert,
    drop,
    flat,
    mutator,
    on_all,
    on_objects,
    on_polygon,
    on_rectangles,
    on_right_edge,
    one_number,
    pick,
    points,
    put,
    share_polygon,
)
from tests.promises.coco_set import WIDTH, rectangle
from tests.promises.verdicts import Content


def _stretch(entry: Entry) -> None:
    entry["segmentation"] = [[n + 1 if n == WIDTH else n for n in entry["segmentation"][0]]]


def _halves(entry: Entry) -> None:
    x, y, w, h = entry["bbox"]
    cut = w // 2
    entry["segmentation"] = [rectangle(x, y, cut, h), rectangle(x + cut, y, w - cut, h)]


def _masks_exchanged(content: Content, rng: random.Random) -> None:
    """Gives the masks of every image to the next object of it; objects of the clean set do not overlap."""
    by_image: dict[int, list[Entry]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for entries in pick(rng, list(by_image.values())):
        masks = [entry["segmentation"] for entry in entries]
        for entry, mask in zip(entries, masks[1:] + masks[:1], strict=True):
            entry["segmentation"] = mask


POLYGON_MUTATORS = (
    mutator(
        "polygon-floats",
        "same",
        on_rectangles(on_polygon(lambda p: list(map(float, p)))),
        "Most tools write floats.",
    ),
    mutator(
        "polygon-closed",
        "same",
        on_objects(on_polygon(lambda p: p + p[:2])),
        "Shapely and GeoJSON repeat the first point; the mask is the same.",
    ),
    mutator(
        "polygon-reversed",
        "same",
        on_objects(on_polygon(lambda p: flat(points(p)[::-1]))),
        "Clockwise or not, the mask is the same.",
    ),
    mutator(
        "polygon-two-parts", "same", on_rectangles(_halves), "An object behind a pole has several polygons."
    ),
    mutator(
        "polygon-part-twice",
        "same",
        on_objects(convert("segmentation", lambda s: s + s)),
        "The union of a part with itself is the part.",
    ),
    mutator(
        "polygon-pixel-outside",
        "same",
        on_right_edge(_stretch),
        "The libraries cut a polygon at the image's edge; the mask is the same.",
    ),
    mutator(
        "polygon-text-numbers",
        "repaired",
        on_objects(on_polygon(lambda p: list(map(str, p)))),
        "A spreadsheet wrote text, which only pycocotools reads.",
    ),
    mutator(
        "polygon-pairs",
        "repaired",
        on_objects(on_polygon(points)),
        "labelme and OpenCV write pairs of points; flattened they are COCO's.",
    ),
    mutator(
        "polygon-pairs-unnested",
        "repaired",
        on_objects(lambda e: e.update(segmentation=points(e["segmentation"][0]))),
        "Lists of two numbers can only be the points of one polygon.",
    ),
    mutator(
        "polygon-not-in-a-list",
        "repaired",
        on_objects(lambda e: e.update(segmentation=e["segmentation"][0])),
        "A flat list of numbers can only be one polygon.",
    ),
    mutator(
        "polygon-line-beside",
        "repaired",
        on_objects(lambda e: e["segmentation"].insert(0, e["segmentation"][0][:4])),
        "A part of two points has no area, but pycocotools reads it as a box.",
    ),
    mutator(
        "polygon-empty-beside",
        "repaired",
        on_objects(lambda e: e["segmentation"].insert(0, [])),
        "A deleted part left an empty list, which covers nothing.",
    ),
    mutator(
        "polygon-two-points",
        "refused",
        on_objects(on_polygon(lambda p: p[:4])),
        "A line has no area, and pycocotools would read it as a box.",
    ),
    mutator(
        "polygon-odd-length",
        "refused",
        on_objects(on_polygon(lambda p: p[:-1])),
        "A coordinate was lost: mmdet would ignore the object silently.",
    ),
    mutator("polygon-nan", "refused", one_number("segmentation", math.nan), "A corner without a place."),
    mutator("polygon-infinite", "refused", one_number("segmentation", math.inf), "A corner without a place."),
    mutator("polygon-null-inside", "refused", one_number("segmentation", None), "A coordinate was lost."),
    mutator("polygon-word-inside", "refused", one_number("segmentation", "x"), "A word is not a coordinate."),
    mutator(
        "polygon-far-outside",
        "refused",
        on_objects(on_polygon(lambda p: [n + 10_000 for n in p])),
        "Labels of another picture: the mask would be empty.",
    ),
    mutator(
        "polygon-shares",
        "refused",
        on_all("annotations", share_polygon),
        "YOLO's shares beside boxes in pixels: all masks would be empty and segm AP 0.",
    ),
    mutator(
        "polygon-of-another-object",
        "refused",
        _masks_exchanged,
        "A mask wholly outside its own box: a script sorted one list and not the other.",
    ),
    mutator(
        "segmentation-empty-of-some",
        "refused",
        on_objects(put("segmentation", [])),
        "A mask head needs a mask for every object; boxes only is the user's choice.",
    ),
    mutator(
        "segmentation-empty-of-all",
        "refused",
        on_all("annotations", put("segmentation", [])),
        "Boxes only: the message says how to train without masks.",
    ),
    mutator(
        "segmentation-missing",
        "refused",
        on_objects(drop("segmentation")),
        "A mask head needs a mask for every object; boxes only is the user's choice.",
    ),
    mutator(
        "segmentation-null",
        "refused",
        on_objects(put("segmentation", None)),
        "A mask head needs a mask for every object; boxes only is the user's choice.",
    ),
    mutator(
        "segmentation-empty-polygon",
        "refused",
        on_objects(put("segmentation", [[]])),
        "The object has no mask, and mmdet would ignore it silently.",
    ),
    mutator(
        "segmentation-file-name",
        "refused",
        on_objects(put("segmentation", "mask_17.png")),
        "A name of a mask file is not COCO's format.",
    ),
)

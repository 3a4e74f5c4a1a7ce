"""All mutators of COCO instance files: those of the whole file are here, the others in modules of their own."""

import copy
import gzip
import json
import random
from collections.abc import Callable
from typing import Any

from tests.promises.coco_boxes import BOX_MUTATORS
from tests.promises.coco_categories import CATEGORY_MUTATORS
from tests.promises.coco_edits import mutator, on_all, on_some, put, to_bytes
from tests.promises.coco_ids import ID_MUTATORS
from tests.promises.coco_names import NAME_MUTATORS
from tests.promises.coco_pictures import PICTURE_MUTATORS
from tests.promises.coco_polygons import POLYGON_MUTATORS
from tests.promises.coco_runs import RUN_MUTATORS
from tests.promises.coco_set import clean_coco, used_counts
from tests.promises.coco_use import USE_MUTATORS
from tests.promises.verdicts import CocoChange, CocoMutator, Content

__all__ = ["MUTATORS", "clean_coco", "used_counts"]


def _shuffled(content: Content, rng: random.Random) -> None:
    rng.shuffle(content["images"])
    rng.shuffle(content["annotations"])


def _more_keys(content: Content, rng: random.Random) -> None:
    content["videos"] = []
    content["exporter"] = {"version": [1, 2, {"beta": None}]}
    for image in content["images"]:
        image.update(license=1, date_captured="2026-11-28", coco_url=None, flickr_url="")
    for annotation in content["annotations"]:
        annotation.update(attributes={"occluded": False}, score=1.0, color="#ff0000", track_id=None)
    for category in content["categories"]:
        category.update(isthing=1, color=[255, 0, 0])


def _keypoints(content: Content, rng: random.Random) -> None:
    for annotation in content["annotations"]:
        annotation.update(keypoints=[10, 10, 2, 20, 20, 1, 0, 0, 0], num_keypoints=2)
    for category in content["categories"]:
        category.update(keypoints=["left", "right", "top"], skeleton=[[1, 2]])


def _without(*keys: str) -> CocoChange:
    def change(content: Content, rng: random.Random) -> None:
        for key in keys:
            del content[key]

    return change


def _with(key: str, value: Any) -> CocoChange:
    return lambda content, rng: content.__setitem__(key, copy.deepcopy(value))


def _bytes(function: Callable[[bytes], bytes]) -> CocoChange:
    return lambda content, rng: function(to_bytes(content))


def _cut(content: Content, rng: random.Random) -> bytes:
    whole = to_bytes(content)
    return whole[: rng.randrange(1, len(whole) - 1)]


def _box_key_twice(content: Content, rng: random.Random) -> bytes:
    return to_bytes(content).replace(b'"bbox": [', b'"bbox": [1, 1, 20, 20], "bbox": [', 1)


def _list_key_twice(content: Content, rng: random.Random) -> bytes:
    """Writes the list of annotations in two halves under the same key; JSON readers keep the second."""
    half = len(content["annotations"]) // 2
    second = json.dumps(content["annotations"][half:])
    content["annotations"] = content["annotations"][:half]
    return to_bytes(content)[:-1] + f', "annotations": {second}}}'.encode()


def _latin(content: Content, rng: random.Random) -> bytes:
    content["info"]["description"] = "Größe"
    return json.dumps(content, ensure_ascii=False).encode("latin-1")


def _results(content: Content, rng: random.Random) -> list[Any]:
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: a[key] for key in keys}, "score": 0.9} for a in content["annotations"]]


def _panoptic(content: Content, rng: random.Random) -> Content:
    annotations = [
        {
            "image_id": image["id"],
            "file_name": image["file_name"].replace(".jpg", ".png"),
            "segments_info": [{"id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}],
        }
        for image in content["images"]
    ]
    return {**content, "annotations": annotations}


def _by_id(content: Content, rng: random.Random) -> None:
    content["annotations"] = {str(annotation["id"]): annotation for annotation in content["annotations"]}


def _entry_null(content: Content, rng: random.Random) -> None:
    content["annotations"][rng.randrange(len(content["annotations"]))] = None


def _named_categories(content: Content, rng: random.Random) -> None:
    content["categories"] = [category["name"] for category in content["categories"]]


WHOLE_FILE_MUTATORS = (
    mutator("file-as-it-is", "same", lambda content, rng: None, "A clean file is trained."),
    mutator("order-shuffled", "same", _shuffled, "The order of images and annotations means nothing."),
    mutator("more-keys", "same", _more_keys, "Every tool adds keys of its own."),
    mutator("keypoints-beside", "same", _keypoints, "COCO's person file has them beside the boxes."),
    mutator("info-and-licenses-missing", "same", _without("info", "licenses"), "Few converters write them."),
    mutator("info-null", "same", _with("info", None), "Nothing reads it."),
    mutator(
        "license-block",
        "same",
        _with("licenses", [{"id": None, "name": 5, "url": None}]),
        "Nothing reads it.",
    ),
    mutator(
        "supercategory-missing",
        "same",
        on_all("categories", lambda c: c.pop("supercategory")),
        "Nothing reads it.",
    ),
    mutator(
        "supercategory-null", "same", on_some("categories", put("supercategory", None)), "Nothing reads it."
    ),
    mutator(
        "nan-in-an-unread-field",
        "same",
        on_some("annotations", put("score", float("nan"))),
        "pandas fills empty cells with NaN; nothing reads the field.",
    ),
    mutator(
        "file-indented",
        "same",
        lambda content, rng: json.dumps(content, indent=4).encode(),
        "White space means nothing.",
    ),
    mutator(
        "file-escaped",
        "same",
        lambda content, rng: json.dumps({**content, "note": "Größe"}).encode(),
        "Escapes are JSON.",
    ),
    mutator(
        "file-with-utf8-mark",
        "repaired",
        _bytes(lambda whole: b"\xef\xbb\xbf" + whole),
        "Windows tools put a byte-order mark before the text, at which mmdet stops; the text is clear.",
    ),
    mutator(
        "file-utf16",
        "repaired",
        _bytes(lambda whole: whole.decode().encode("utf-16")),
        "PowerShell's > writes UTF-16 with a mark that says so, at which mmdet stops; the text is clear.",
    ),
    mutator(
        "file-latin1",
        "refused",
        _latin,
        "Bytes that are not UTF-8 may be of any encoding, and file names would be wrong.",
    ),
    mutator("file-cut", "refused", _cut, "A copy was interrupted, and this is the case to say so."),
    mutator("file-empty", "refused", _bytes(lambda whole: b""), "A disk was full."),
    mutator(
        "file-of-zero-bytes",
        "refused",
        _bytes(lambda whole: bytes(len(whole))),
        "A crash left zeros in place of the text.",
    ),
    mutator(
        "file-twice",
        "refused",
        _bytes(lambda whole: whole + whole),
        "Two files put behind each other are not one; half would be lost.",
    ),
    mutator(
        "file-lines",
        "refused",
        lambda content, rng: b"\n".join(json.dumps(a).encode() for a in content["annotations"]),
        "JSON Lines is another format.",
    ),
    mutator(
        "file-compressed",
        "refused",
        _bytes(gzip.compress),
        "The message says that it is gzip, and how to unpack it.",
    ),
    mutator(
        "file-is-a-web-page",
        "refused",
        lambda content, rng: b"<!DOCTYPE html><title>Sign in</title>",
        "A download answered with a page to sign in.",
    ),
    mutator(
        "file-is-a-pointer",
        "refused",
        lambda content, rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n",
        "Git LFS left a pointer: the remedy is git lfs pull.",
    ),
    mutator(
        "file-with-trailing-comma",
        "refused",
        _bytes(lambda whole: whole[:-1] + b",}"),
        "Edited by hand; the message gives line and column.",
    ),
    mutator(
        "file-with-python-literals",
        "refused",
        lambda content, rng: repr(content).encode(),
        "print() of a dictionary is not JSON.",
    ),
    mutator(
        "key-twice-in-an-entry",
        "refused",
        _box_key_twice,
        "Two boxes in one entry; readers keep the last silently.",
    ),
    mutator(
        "key-twice-in-the-file",
        "refused",
        _list_key_twice,
        "Two lists of annotations; readers keep the last and lose half of the objects silently.",
    ),
    mutator(
        "file-of-results",
        "refused",
        _results,
        "A list of detections has no images; the message says that it is a result file.",
    ),
    mutator(
        "file-panoptic",
        "refused",
        _panoptic,
        "Panoptic annotations are another format with masks in PNG files.",
    ),
    mutator(
        "annotations-missing",
        "refused",
        _without("annotations"),
        "COCO's image_info files for its test server have no labels.",
    ),
    mutator("annotations-null", "refused", _with("annotations", None), "No object to train."),
    mutator(
        "annotations-empty",
        "refused",
        _with("annotations", []),
        "No object to train; mmdet would end without an error.",
    ),
    mutator("annotations-by-id", "refused", _by_id, "A dictionary of annotations is another format."),
    mutator(
        "annotation-entry-null", "refused", _entry_null, "An entry was lost, and nobody knows of which image."
    ),
    mutator("images-missing", "refused", _without("images"), "No picture is named."),
    mutator("images-empty", "refused", _with("images", []), "No picture is named."),
    mutator(
        "categories-missing",
        "refused",
        _without("categories"),
        "Numbers without names cannot be compared with the config's classes.",
    ),
    mutator(
        "categories-empty",
        "refused",
        _with("categories", []),
        "Numbers without names cannot be compared with the config's classes.",
    ),
    mutator(
        "categories-names-only",
        "refused",
        _named_categories,
        "Names without ids: whether they count from 0 or 1 is a guess.",
    ),
)

MUTATORS: tuple[CocoMutator, ...] = (
    *WHOLE_FILE_MUTATORS,
    *ID_MUTATORS,
    *USE_MUTATORS,
    *BOX_MUTATORS,
    *POLYGON_MUTATORS,
    *RUN_MUTATORS,
    *PICTURE_MUTATORS,
    *NAME_MUTATORS,
    *CATEGORY_MUTATORS,
)

"""Small edits that the mutators of COCO files are made of."""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pycocotools import mask as mask_api

from tests.promises.coco_set import HEIGHT, IMAGE_FOLDER, WIDTH, Entry
from tests.promises.verdicts import CocoChange, CocoMutator, Content, Verdict

Item = TypeVar("Item")


def pick(rng: random.Random, items: Sequence[Item]) -> list[Item]:
    """Returns one of the items, several of them, or all."""
    count = rng.choice([1, rng.randint(1, len(items)), len(items)])
    return rng.sample(list(items), count)


def pick_apart(rng: random.Random, content: Content) -> list[Entry]:
    """Returns one annotation of each of a few images, so that every image keeps most of its objects."""
    found: dict[Any, Entry] = {}
    for annotation in rng.sample(content["annotations"], len(content["annotations"])):
        found.setdefault(annotation["image_id"], annotation)
    return rng.sample(list(found.values()), rng.randint(1, 6))


def on_some(part: str, edit: Callable[[Entry], object]) -> CocoChange:
    """Returns a change that edits one, several or all entries of a list: images, annotations or categories."""

    def change(content: Content, rng: random.Random) -> None:
        for entry in pick(rng, content[part]):
            edit(entry)

    return change


def on_all(part: str, edit: Callable[[Entry], object]) -> CocoChange:
    """Returns a change that edits every entry of a list."""

    def change(content: Content, rng: random.Random) -> None:
        for entry in content[part]:
            edit(entry)

    return change


def on_apart(edit: Callable[[Entry], object]) -> CocoChange:
    """Returns a change that edits one annotation of each of a few images."""

    def change(content: Content, rng: random.Random) -> None:
        for entry in pick_apart(rng, content):
            edit(entry)

    return change


def put(key: str, value: object) -> Callable[[Entry], None]:
    """Returns an edit that sets one field."""
    return lambda entry: entry.__setitem__(key, value)


def drop(key: str) -> Callable[[Entry], object]:
    """Returns an edit that removes one field."""
    return lambda entry: entry.pop(key)


def convert(key: str, function: Callable[[Any], object]) -> Callable[[Entry], None]:
    """Returns an edit that puts a field's value through a function."""
    return lambda entry: entry.__setitem__(key, function(entry[key]))


def renumber_images(content: Content, function: Callable[[int], object]) -> None:
    """Gives every image another id, and the annotations the same."""
    for image in content["images"]:
        image["id"] = function(image["id"])
    for annotation in content["annotations"]:
        annotation["image_id"] = function(annotation["image_id"])


def renumber_categories(content: Content, function: Callable[[int], object]) -> None:
    """Gives every category another id, and the annotations the same."""
    for category in content["categories"]:
        category["id"] = function(category["id"])
    for annotation in content["annotations"]:
        annotation["category_id"] = function(annotation["category_id"])


def one_number(key: str, value: object) -> CocoChange:
    """Returns a change that replaces one number of the boxes ("bbox") or polygons ("segmentation") of some objects."""

    def change(content: Content, rng: random.Random) -> None:
        for entry in pick(rng, content["annotations"]):
            numbers = entry["bbox"] if key == "bbox" else entry["segmentation"][0]
            numbers[rng.randrange(len(numbers))] = value

    return change


def on_objects(edit: Callable[[Entry], object]) -> CocoChange:
    """Returns a change that edits one, several or all annotations."""
    return on_some("annotations", edit)


def on_right_edge(edit: Callable[[Entry], object]) -> CocoChange:
    """Returns a change of some of the rectangles at the right edge of their image; every image has one."""

    def change(content: Content, rng: random.Random) -> None:
        for entry in pick(rng, [a for a in content["annotations"] if a["bbox"][0] + a["bbox"][2] == WIDTH]):
            edit(entry)

    return change


def on_rectangles(edit: Callable[[Entry], object]) -> CocoChange:
    """Returns a change of some of the rectangles."""

    def change(content: Content, rng: random.Random) -> None:
        for entry in pick(rng, [a for a in content["annotations"] if a["category_id"] == 1]):
            edit(entry)

    return change


def points(polygon: Sequence[float]) -> list[list[float]]:
    """Returns the corners of a flat polygon as pairs."""
    return [list(polygon[index : index + 2]) for index in range(0, len(polygon), 2)]


def flat(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Returns pairs as one flat list."""
    return [number for pair in pairs for number in pair]


def share_polygon(entry: Entry) -> None:
    """Turns an annotation's polygon from pixels into shares of the image's width and height."""
    entry["segmentation"] = [flat([[x / WIDTH, y / HEIGHT] for x, y in points(entry["segmentation"][0])])]


def on_polygon(edit: Callable[[list[Any]], object]) -> Callable[[Entry], None]:
    """Returns an edit that replaces an annotation's only polygon by what the function makes of it."""
    return lambda entry: entry.__setitem__("segmentation", [edit(entry["segmentation"][0])])


def decode(segmentation: list[list[float]], scale: int = 1) -> np.ndarray:
    """Returns polygons of the clean set as a mask, uint8 [height * scale, width * scale]."""
    scaled = [[number * scale for number in polygon] for polygon in segmentation]
    parts = mask_api.frPyObjects(scaled, HEIGHT * scale, WIDTH * scale)
    return mask_api.decode(mask_api.merge(parts))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Returns the runs of a mask in COCO's order (down the columns, background first)."""
    pixels = mask.flatten(order="F")
    borders = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff(np.concatenate([[0], borders, [pixels.size]])).tolist()
    return [0, *counts] if pixels[0] else counts


def listed(entry: Entry) -> Entry:
    """Replaces an annotation's polygons by run lengths as a list, and returns them."""
    mask = decode(entry["segmentation"])
    entry["segmentation"] = {"size": list(mask.shape), "counts": run_lengths(mask)}
    return entry["segmentation"]


def compressed(entry: Entry, scale: int = 1) -> Entry:
    """Replaces an annotation's polygons by compressed run lengths, and returns them."""
    runs = mask_api.encode(np.asfortranarray(decode(entry["segmentation"], scale)))
    entry["segmentation"] = {"size": list(map(int, runs["size"])), "counts": runs["counts"].decode()}
    return entry["segmentation"]


def on_runs(edit: Callable[[list[int]], object]) -> Callable[[Entry], None]:
    """Returns an edit that replaces the polygons by listed run lengths, put through a function."""

    def change(entry: Entry) -> None:
        runs = listed(entry)
        runs["counts"] = edit(runs["counts"])

    return change


def mutator(name: str, verdict: Verdict, change: CocoChange, why: str) -> CocoMutator:
    """Returns a mutator of the annotation file alone."""
    return CocoMutator(name, verdict, why, change)


def to_bytes(content: Content) -> bytes:
    """Returns the content as a JSON file of UTF-8."""
    return json.dumps(content, ensure_ascii=False).encode()


def by_number(file_name: str) -> str:
    """Returns the clean set's file name that has the same four digits."""
    match = re.search(r"\d{4}", file_name)
    if match is None:
        raise ValueError(f"{file_name} holds no four digits")
    return f"scene{match.group()}.jpg"


def rename_files(rename: Callable[[str], str]) -> Callable[[Path], None]:
    """Returns a function that renames every picture of the clean set."""

    def files(root: Path) -> None:
        folder = root / IMAGE_FOLDER
        for path in sorted(folder.glob("scene*.jpg")):
            target = folder / rename(path.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    return files

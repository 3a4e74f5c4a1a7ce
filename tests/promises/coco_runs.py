"""Mutators of COCO files: run lengths."""

import json
import math
from collections.abc import Callable
from typing import Any

from tests.promises.coco_edits import (
    Entry,
    compressed,
    listed,
    mutator,
    on_objects,
    on_runs,
)
from tests.promises.coco_set import HEIGHT, WIDTH


def _runs_with(key: str, value: Any) -> Callable[[Entry], None]:
    return lambda entry: listed(entry).__setitem__(key, value)


def _text_runs(edit: Callable[[str], str]) -> Callable[[Entry], None]:
    def change(entry: Entry) -> None:
        runs = compressed(entry)
        runs["counts"] = edit(runs["counts"])

    return change


def _zero_runs(counts: list[int]) -> list[int]:
    return [counts[0] - 1, 0, 1, *counts[1:]] if counts[0] else counts


def _first_shorter(counts: list[int]) -> list[int]:
    return [*counts[:-1], counts[-1] - 1]


def _negative_run(counts: list[int]) -> list[int]:
    return [counts[0] + 2 * counts[1], -counts[1], *counts[2:]]


RUN_MUTATORS = (
    mutator(
        "runs-list", "same", on_objects(listed), "Uncompressed run lengths, as COCO has them for crowds."
    ),
    mutator(
        "runs-compressed",
        "same",
        on_objects(compressed),
        "Compressed run lengths, as pycocotools and Detectron2 write them.",
    ),
    mutator(
        "runs-with-zeros",
        "same",
        on_objects(on_runs(_zero_runs)),
        "A run of no pixels changes nothing in any library.",
    ),
    mutator(
        "runs-whole-floats",
        "repaired",
        on_objects(on_runs(lambda c: list(map(float, c)))),
        "NumPy wrote 12.0, at which faster-coco-eval stops; it can only mean 12.",
    ),
    mutator(
        "runs-text",
        "repaired",
        on_objects(on_runs(lambda c: list(map(str, c)))),
        'A spreadsheet wrote "12"; it can only mean 12.',
    ),
    mutator(
        "runs-size-whole-floats",
        "repaired",
        on_objects(_runs_with("size", [float(HEIGHT), float(WIDTH)])),
        "faster-coco-eval stops at 144.0; it can only mean 144.",
    ),
    mutator(
        "runs-of-double-size",
        "refused",
        on_objects(lambda e: compressed(e, 2)),
        "The pictures were made smaller and the masks forgotten: segm AP would be 0.",
    ),
    mutator(
        "runs-size-swapped",
        "refused",
        on_objects(_runs_with("size", [WIDTH, HEIGHT])),
        "Width before height: the same runs are another mask.",
    ),
    mutator(
        "runs-last-missing",
        "refused",
        on_objects(on_runs(lambda c: c[:-1])),
        "The mask is cut, and the evaluators would hang.",
    ),
    mutator(
        "runs-sum-short", "refused", on_objects(on_runs(_first_shorter)), "The runs do not fill the image."
    ),
    mutator(
        "runs-sum-long",
        "refused",
        on_objects(on_runs(lambda c: [*c, 50])),
        "The runs are longer than the image.",
    ),
    mutator(
        "runs-negative",
        "refused",
        on_objects(on_runs(_negative_run)),
        "A negative run becomes four thousand million pixels, though the sum is right.",
    ),
    mutator(
        "runs-fractions",
        "refused",
        on_objects(on_runs(lambda c: [c[0] + 0.5, c[1] - 0.5, *c[2:]])),
        "A half pixel is lost silently, though the sum is right.",
    ),
    mutator(
        "runs-nan", "refused", on_objects(on_runs(lambda c: [math.nan, *c[1:]])), "A run without a length."
    ),
    mutator(
        "runs-null-inside",
        "refused",
        on_objects(on_runs(lambda c: [None, *c[1:]])),
        "A run without a length.",
    ),
    mutator("runs-empty-list", "refused", on_objects(on_runs(lambda c: [])), "The object has no mask."),
    mutator("runs-empty-text", "refused", on_objects(_text_runs(lambda t: "")), "The object has no mask."),
    mutator(
        "runs-rubbish",
        "refused",
        on_objects(_text_runs(lambda t: "hello, this is not a mask")),
        "Text that is not a compressed mask decodes to anything.",
    ),
    mutator(
        "runs-cut-text",
        "refused",
        on_objects(_text_runs(lambda t: t[: len(t) // 2])),
        "A column of limited width cut the text, and the evaluators would hang.",
    ),
    mutator(
        "runs-python-bytes",
        "refused",
        on_objects(_text_runs(lambda t: str(t.encode()))),
        "str() of bytes wrote b'...' into the text, which decodes to another mask.",
    ),
    mutator(
        "runs-list-as-text",
        "refused",
        on_objects(lambda e: listed(e).update(counts=json.dumps(e["segmentation"]["counts"]))),
        "A list in quotes is read as a compressed mask.",
    ),
    mutator(
        "runs-without-size",
        "refused",
        on_objects(lambda e: listed(e).pop("size")),
        "Without its size a mask may lie either way.",
    ),
    mutator(
        "runs-size-null",
        "refused",
        on_objects(_runs_with("size", None)),
        "Without its size a mask may lie either way.",
    ),
    mutator(
        "runs-without-counts",
        "refused",
        on_objects(lambda e: listed(e).pop("counts")),
        "The object has no mask, and mmdet would ignore it silently.",
    ),
    mutator(
        "runs-in-a-list",
        "refused",
        on_objects(lambda e: e.update(segmentation=[listed(e)])),
        "A list of masks is not COCO's format, and mmdet stops at it.",
    ),
)

"""A detector's confusions, against counts made by hand."""

from __future__ import annotations

import numpy as np

from mst_transfer.evaluation.detection_confusion import detection_confusion


def entry(image: int, category: int, box: list[float], **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def test_matrix_by_hand() -> None:
    """A missed object, a false alarm, a swapped class, a repeated detection and a crowd would be mixed up."""
    sizes = [{"id": number, "height": 100, "width": 100} for number in (1, 2)]
    annotations = [
        entry(1, 7, [0, 0, 10, 10]),
        entry(1, 9, [20, 0, 10, 10]),
        entry(1, 9, [40, 0, 10, 10]),
        entry(1, 7, [60, 0, 30, 30], iscrowd=1),
        entry(2, 7, [0, 0, 10, 10]),
        entry(2, 9, [0, 0, 10, 10]),
    ]
    results = [
        entry(1, 7, [0, 0, 10, 10], score=0.9),  # right
        entry(1, 7, [1, 0, 10, 10], score=0.8),  # again: nothing free is there
        entry(1, 7, [20, 0, 10, 10], score=0.7),  # of the other class
        entry(1, 9, [40, 6, 10, 10], score=0.9),  # IoU 0.25: the object is missed, and this lies on nothing
        entry(1, 9, [62, 2, 5, 5], score=0.9),  # on a crowd: does not count
        entry(1, 9, [40, 0, 10, 10], score=0.2),  # too unsure
        entry(2, 9, [0, 0, 10, 10], score=0.6),  # two objects in one place: its own class
        entry(2, 3, [0, 0, 10, 10], score=0.9),  # a category that is not scored
    ]
    matrix = detection_confusion({"images": sizes, "annotations": annotations}, results, "bbox", [7, 9])
    assert np.array_equal(matrix, [[1, 0, 1], [1, 1, 1], [1, 1, 0]])


def test_nothing_found_and_nothing_there() -> None:
    """An image without detections, or without objects, would end in an error."""
    content = {"images": [{"id": 1, "height": 9, "width": 9}], "annotations": [entry(1, 1, [0, 0, 5, 5])]}
    assert np.array_equal(detection_confusion(content, [], "bbox", [1]), [[0, 1], [0, 0]])
    content["annotations"] = []
    found = [entry(1, 1, [0, 0, 5, 5], score=1.0)]
    assert np.array_equal(detection_confusion(content, found, "bbox", [1]), [[0, 0], [1, 0]])

"""Layouts that are recognised only to say how they become one that is used."""

from __future__ import annotations

from pathlib import Path

from .found import layout_error

ENOUGH = 3  # text files that are looked at


def refused_layout(root: Path) -> None:
    """Refuse YOLO's text files and VOC's XML files with the way to COCO.

    Raises:
        UserError: D03 for YOLO, D13 for VOC's boxes.
    """
    evidence = _yolo(root)
    if evidence:
        raise layout_error(
            "D03",
            f"{root} is in YOLO's layout ({evidence}), which is not read: COCO's is.",
            "Export it again as COCO (Roboflow, CVAT, Label Studio can), or convert it: pip install fiftyone && "
            f"fiftyone convert --input-dir {root} --input-type fiftyone.types.YOLOv5Dataset "
            f"--output-dir {root}_coco --output-type fiftyone.types.COCODetectionDataset",
        )
    boxes = next(iter(sorted(root.glob("Annotations/*.xml"))), None)
    if boxes is not None:
        raise layout_error(
            "D13",
            f"{root} holds boxes as VOC's XML files ({boxes.relative_to(root)}), which are not read: COCO's JSON is.",
            "Export it again as COCO, or convert it: pip install fiftyone && "
            f"fiftyone convert --input-dir {root} --input-type fiftyone.types.VOCDetectionDataset "
            f"--output-dir {root}_coco --output-type fiftyone.types.COCODetectionDataset",
        )


def _yolo(root: Path) -> str:
    """The file that shows it, or nothing."""
    for pattern in ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt", "obj_train_data/*.txt"):
        files = sorted(root.glob(pattern))[:ENOUGH]
        if any(_has_boxes(path) for path in files):
            return str(files[0].relative_to(root))
    return next((name for name in ("data.yaml", "dataset.yaml", "obj.data") if (root / name).is_file()), "")


def _has_boxes(path: Path) -> bool:
    """Lines of a class and at least four numbers, or none at all (an image without an object)."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return all(len([float(word) for word in text.split()]) >= 5 for text in lines if text.strip())
    except (OSError, ValueError):
        return False

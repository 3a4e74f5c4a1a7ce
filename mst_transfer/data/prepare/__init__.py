"""From an unpacked data set to one that training can trust: counts, layout, labels, every file read once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from mst_pretrain.runtime.atomic import write_json

from ..image_rules import shared_images
from ..missing import need_folder
from ..reading import Reader, Record
from .coco import prepare_coco
from .findings import Findings, Task
from .imagenet import prepare_imagenet
from .segmentation import prepare_cityscapes, prepare_pair

SUMMARY, RECORD = "prepare_data.json", "prepare_data.verified.jsonl"
CHECKS: dict[str, Callable[[Task], None]] = {
    "imagenet": prepare_imagenet,
    "coco": prepare_coco,
    "cityscapes": prepare_cityscapes,
    "pair": prepare_pair,
}


def prepare(
    kind: str,
    root: str | Path,
    out: str | Path | None = None,
    any_count: bool = False,
    classes: int = 0,
    workers: int | None = None,
    boxes_only: bool = False,
) -> tuple[Findings, Path]:
    """Check a data set, make Cityscapes' train ids, and write the summary.

    A run that was interrupted, or a later one, reads only what is new: files whose size and time of modification
    are those of an earlier run are not read again.

    Args:
        kind: "imagenet", "coco", "cityscapes" or "pair" (``images/SPLIT`` and ``labels/SPLIT``).
        root: The data set; only read when ``out`` is another folder.
        out: Where the summary, the record of read files and new label maps go.
        any_count: See :class:`Task`.
        classes: See :class:`Task`.
        workers: Threads.
        boxes_only: See :class:`Task`.

    Returns:
        What was found, and the summary's path.

    Raises:
        UserError: ``root`` is not a folder, or nothing can be written to ``out``.
    """
    root, started = Path(root), time.monotonic()
    need_folder(root, "the data root")
    target = Path(out) if out is not None else root
    record = Record(target / RECORD, root)
    reader = Reader(record, workers)
    task = Task(root, target, any_count, classes, boxes_only, reader)
    try:
        CHECKS[kind](task)
        if len(task.images) > 1:
            task.findings.take(root, shared_images(*task.images[:2]))
    finally:
        record.close()
    summary = target / SUMMARY
    write_json(
        {
            "data_set": kind,
            "root": str(root),
            "official_counts": not any_count,
            **task.findings.as_dict(),
            "files_read": reader.read,
            "files_unchanged": reader.unchanged,
            "seconds": round(time.monotonic() - started, 1),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
        summary,
    )
    return task.findings, summary

"""Detection for mmdet: its COCO data set on files that are repaired in memory as everywhere here."""

from __future__ import annotations

import contextlib
import io
import os
from functools import partial
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV05Dataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS

from .coco_file import read_coco
from .coco_names import names_on_disk
from .coco_repair import IMAGES
from .image_lists import ImageList, of_images


class RepairedCOCO(COCO):
    """mmdet's index of annotations over what :func:`read_coco` gives, so that what was checked is what is trained.

    Args:
        annotation_file: Instance JSON; annotations need not be in it.
        image_list: Of the images that are used; see :func:`of_images`.

    Raises:
        UserError: As :func:`read_coco` and :func:`of_images`.
    """

    def __init__(self, annotation_file: str | Path, image_list: ImageList = None) -> None:
        super().__init__()
        content = of_images(read_coco(annotation_file, IMAGES), image_list, annotation_file)
        # mmdet writes into the images
        self.dataset = {**content, "images": [dict(image) for image in content["images"]]}
        with contextlib.redirect_stdout(io.StringIO()):
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module(
    name="CocoDataset", force=True
)  # our tools import this; then configs get it for theirs
class CocoDetection(CocoDataset):
    """mmdet's CocoDataset on the repaired content of its file; names of classes may be given as numbers.

    Args:
        metainfo: As in mmdet.
        image_list: Names of the images that are used, as ``file_name`` has them: a text file with one name a line, or
            the names themselves; None: all images of the file.
        kwargs: As in mmdet.
    """

    COCOAPI = RepairedCOCO

    def __init__(
        self, metainfo: dict[str, Any] | None = None, image_list: ImageList = None, **kwargs: Any
    ) -> None:
        self.image_list = image_list
        if image_list is not None:
            self.COCOAPI = partial(RepairedCOCO, image_list=image_list)  # type: ignore[assignment]
        classes = (metainfo or {}).get("classes")
        if isinstance(classes, list | tuple):
            metainfo = {**(metainfo or {}), "classes": tuple(map(str, classes))}
        super().__init__(metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images with their objects; see :func:`names_on_disk` for names that are spelled in another way."""
        images: list[dict[str, Any]] = super().load_data_list()
        folder = self.data_prefix["img"]
        names = [os.path.relpath(image["img_path"], folder or ".") for image in images]
        found = names_on_disk(folder, names)
        for image, name in zip(images, names, strict=True):
            if name in found:
                image["img_path"] = os.path.join(folder, found[name])
        return images


def use_repaired(part: Any) -> None:
    """Let the config of a data set name a class that reads the repaired content, if it names a CocoDataset.

    Args:
        part: Its ``type`` is the name of a class or a class; a subclass of mmdet's CocoDataset is registered anew, with
            the loading of :class:`CocoDetection` around its own.
    """
    kind = part.type if isinstance(part.type, type) else DATASETS.get(part.type)
    if not isinstance(kind, type) or not issubclass(kind, CocoDataset):
        return
    if kind is CocoDataset:
        part.type = "CocoDataset"
    elif not issubclass(kind, (CocoDetection, CocoPanopticDataset, LVISV05Dataset)):  # two read other files
        repaired = type(kind.__name__, (CocoDetection, kind), {})
        DATASETS.register_module(name=kind.__name__, force=True, module=repaired)
        part.type = kind.__name__

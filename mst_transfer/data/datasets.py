"""Segmentation for mmseg: Cityscapes' layout with any image suffix and subset of classes, and two plain folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.registry import DATASETS

from mst_pretrain.runtime.errors import UserError

from . import color_maps  # noqa: F401  (registers the transform)
from .image_lists import ImageList, read_image_list
from .layouts import cityscapes_images, folder_pairs
from .missing import need_folder
from .pair_rules import exchanged_values, rule_of_folders


@DATASETS.register_module()
class StreetSegmentation(CityscapesDataset):
    """Cityscapes whose image suffix is found by itself.

    Images are ``*_leftImg8bit.png``, ``.jpg`` or ``.jpeg``, label maps ``*_gtFine_labelTrainIds.png``. With
    ``metainfo=dict(classes=(...))``, names of Cityscapes in any order, label ``i`` is the i-th of these and
    every other pixel is 255 (ignored).

    Args:
        metainfo: Names of classes, as above.
        image_list: Names of the images that are used, as ``CITY/NAME_leftImg8bit.png``; see FolderSegmentation.
        kwargs: As in mmseg.

    Raises:
        UserError: An unknown class name, no image below ``data_prefix['img_path']``, or one of the list is not there.
    """

    def __init__(
        self, metainfo: dict[str, Any] | None = None, image_list: ImageList = None, **kwargs: Any
    ) -> None:
        self.image_list = image_list
        unknown = set(self._load_metainfo(metainfo)["classes"]) - set(self.METAINFO["classes"])
        if unknown:
            raise UserError(
                f"Classes {sorted(unknown)} are not Cityscapes classes. Use names out of: "
                + ", ".join(self.METAINFO["classes"])
            )
        super().__init__(metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Image and label paths, sorted; the suffix is that of the images found."""
        first = cityscapes_images(Path(self.data_prefix["img_path"]))[0]
        need_folder(Path(self.data_prefix["seg_map_path"]), "the label maps of this split")
        self.img_suffix = f"_leftImg8bit{first.suffix}"
        return self._listed(super().load_data_list())

    def _listed(self, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of the list, where there is one."""
        names = read_image_list(self.image_list)
        if names is None:
            return images
        folder = Path(self.data_prefix["img_path"])
        by_name = {Path(image["img_path"]).relative_to(folder).as_posix(): image for image in images}
        if missing := [name for name in names if name not in by_name]:
            raise UserError(
                f"{len(missing)} images of {self.image_list if isinstance(self.image_list, str) else 'image_list'} are "
                f"not in {folder}, such as {missing[0]}. Correct the list, or data_prefix."
            )
        return [by_name[name] for name in sorted(names)]


@DATASETS.register_module()
class FolderSegmentation(BaseSegDataset):
    """Images in one folder, label maps of class ids in another under the same names.

    Images below ``data_prefix['img_path']`` have any suffix and depth; the map of ``a/b.jpg`` is ``a/b.png`` below
    ``data_prefix['seg_map_path']``, one channel, id ``i`` for the i-th of ``metainfo['classes']``, 255 ignored. Where
    the maps of two classes hold 0 and 255 and nothing else, 255 is the second class.

    Args:
        metainfo: Names of the classes.
        image_list: Names of the images that are used, relative to the folder of images: a text file with one name a
            line, or the names themselves; None: all images.
        values: The label of each value of a map, 255 ignored, where the values are not the labels; every other value
            below the number of classes is an error then. With it nothing is inferred from 0 and 255.
        colors: Red, green, blue and label (255 ignored) of each color, for maps of colors.
        kwargs: As in mmseg.

    Raises:
        UserError: No class names, no image, two images that would share a label map, or a setting of mmseg's data sets
            that this one has no use for.
    """

    def __init__(
        self,
        metainfo: dict[str, Any] | None = None,
        image_list: ImageList = None,
        values: Mapping[int, int] | None = None,
        colors: Sequence[Sequence[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_list, self.values = image_list, values
        self.colors = [list(map(int, color)) for color in colors] if colors else None
        if self.colors:
            kwargs["pipeline"] = [
                {**step, "type": "LoadColorAnnotations"} if step["type"] == "LoadAnnotations" else step
                for step in kwargs.get("pipeline", ())
            ]
        if not (metainfo or {}).get("classes"):
            raise UserError(
                "FolderSegmentation has no classes. Name them in order of their ids: metainfo=dict(classes=(...))."
            )
        unread = [key for key in ("ann_file", "img_suffix", "seg_map_suffix") if kwargs.get(key)]
        if unread:
            raise UserError(
                f"FolderSegmentation does not read {', '.join(unread)}: it uses every image of its folder, with the "
                ".png map of its name. Leave it out, or use type='BaseSegDataset'."
            )
        super().__init__(metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Image and label paths, sorted."""
        names = read_image_list(self.image_list)
        pairs = folder_pairs(self.data_prefix["img_path"], self.data_prefix["seg_map_path"], names)
        classes = len(self.metainfo["classes"])
        if self.colors:
            self.label_map = None
        elif self.values is not None:
            self.label_map = exchanged_values(self.values, classes) or None
        else:
            self.label_map = dict(rule_of_folders(pairs[1], classes).label_map) or None
        self._metainfo["label_map"] = self.label_map  # for the checkpoint
        return [
            {
                "img_path": str(image),
                "seg_map_path": str(label),
                "label_map": self.label_map,
                "reduce_zero_label": self.reduce_zero_label,
                "seg_fields": [],
                **({"colors": self.colors} if self.colors else {}),
            }
            for image, label in zip(*pairs, strict=True)
        ]

"""Street scenes in Cityscapes' layout for mmseg: official PNG, JPEG frames, and any subset of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS

from mst_pretrain.errors import UserError

from .layouts import cityscapes_images


@DATASETS.register_module()
class StreetSegmentation(CityscapesDataset):
    """Cityscapes whose image suffix is found by itself.

    Images are ``*_leftImg8bit.png``, ``.jpg`` or ``.jpeg``, label maps ``*_gtFine_labelTrainIds.png``. With
    ``metainfo=dict(classes=(...))``, names of Cityscapes in any order, label ``i`` is the i-th of these and
    every other pixel is 255 (ignored).

    Raises:
        UserError: An unknown class name, or no image below ``data_prefix['img_path']``.
    """

    def __init__(self, metainfo: dict[str, Any] | None = None, **kwargs: Any) -> None:
        unknown = set((metainfo or {}).get("classes", ())) - set(self.METAINFO["classes"])
        if unknown:
            raise UserError(
                f"Classes {sorted(unknown)} are not Cityscapes classes. Use names out of: "
                + ", ".join(self.METAINFO["classes"])
            )
        super().__init__(metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Image and label paths, sorted; the suffix is that of the images found."""
        first = cityscapes_images(Path(self.data_prefix["img_path"]))[0]
        self.img_suffix = f"_leftImg8bit{first.suffix}"
        return super().load_data_list()

"""Photos without labels: a folder, a list, tar shards, a data set of the Hugging Face hub."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .found import PHOTOS, Found, Part, layout_error


def is_photo_spec(text: str) -> bool:
    """Whether it can only name photos: a list, shards, an address or a data set of the hub."""
    return text.startswith("hf:") or "://" in text or text.endswith((".txt", ".tar")) or "{" in text


def photos(data: str | Path) -> Found:
    """All images of a source.

    Raises:
        UserError: D01: nothing is there, or no image.
    """
    from mst_pretrain.data.files import holds_image, image_names
    from mst_pretrain.data.sources import open_source
    from mst_pretrain.data.suffixes import describe_left_out
    from mst_pretrain.runtime.errors import UserError

    notes: tuple[str, ...] = ()
    folder = Path(data)
    try:
        if folder.is_dir() and holds_image(folder):
            left_out: Counter[str] = Counter()
            count = sum(1 for _ in image_names(folder, left_out))
            others = describe_left_out(left_out)
            notes = (f"left out: {others}",) if others else ()
        else:
            count = len(open_source(data))
    except UserError as error:
        raise layout_error(
            "D01", str(error), "Photos are a folder, a list.txt, *.tar shards, or hf:NAME."
        ) from error
    return Found(PHOTOS, _kind(str(data), folder), folder, Part("train", folder, None, count), notes=notes)


def _kind(text: str, folder: Path) -> str:
    if text.startswith("hf:") and not text.startswith("hf://"):
        return "photos of a Hugging Face data set"
    if folder.suffix == ".txt" and not folder.is_dir():
        return "list of photos"
    if folder.is_dir() and next(folder.rglob("*.tar"), None) is None:
        return "photos"
    from mst_pretrain.data.files import holds_image

    return "photos" if folder.is_dir() and holds_image(folder) else "photos in tar shards"

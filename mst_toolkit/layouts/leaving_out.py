"""``--skip-broken``: files that cannot be read are left out, by name, and nothing is changed on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .file_faults import FileFault
from .found import CITYSCAPES, DETECTION, Found, Part, first_names, layout_error


def whole_photos(data: str) -> tuple[list[str], list[FileFault]]:
    """The photos that can be read, as absolute paths, and those that cannot.

    Args:
        data: A folder or a list of images.

    Raises:
        UserError: The images are not files of their own, or none of them can be read.
    """
    from mst_pretrain.data.files import BLOCK, find_fault, in_threads
    from mst_pretrain.data.sources import FileSource, open_source
    from mst_pretrain.runtime.errors import UserError

    source = open_source(data)
    if not isinstance(source, FileSource):
        raise UserError(
            f"--skip-broken leaves out files, and the images of {data} lie in shards. Leave the option out; a broken "
            "shard must be written again."
        )
    paths = [str(Path(path).absolute()) for path in source.paths]
    faults = [
        FileFault(Path(path), fault, "")
        for path, fault in zip(paths, in_threads(find_fault, paths, block=BLOCK), strict=True)
        if fault
    ]
    broken = {str(fault.path) for fault in faults}
    whole = [path for path in paths if path not in broken]
    if not whole:
        raise _nothing_left(Path(data), faults)
    return whole, faults


def without_broken(found: Found) -> tuple[Found, list[FileFault]]:
    """Labelled data without the images that cannot be read, or whose label map cannot; and these files.

    Raises:
        UserError: Of a part none is left.
    """
    faults: list[FileFault] = []
    parts: dict[str, Part] = {}
    for part in found.parts:
        own, names = _broken(found, part)
        faults += own
        if own:
            if not names:
                raise _nothing_left(part.images, own)
            parts[part.name] = replace(part, names=tuple(names), count=len(names))
    if not faults:
        return found, []
    left = replace(found, **parts)  # type: ignore[arg-type]
    if found.layout != CITYSCAPES:
        from mst_transfer.data.coco_file import parsing_once

        from .splitting import objects_of

        with parsing_once():
            left = replace(left, objects=objects_of(left))
    return replace(left, warnings=(*left.warnings, left_out(faults))), faults


def left_out(faults: Sequence[FileFault]) -> str:
    """The sentence that a plan has on the files that were left out."""
    named = first_names([f"{fault.path} ({fault.what})" for fault in faults])
    return f"--skip-broken: {len(faults)} files that cannot be read are left out: {named}"


def _broken(found: Found, part: Part) -> tuple[list[FileFault], list[str]]:
    """The files of a part that cannot be read, and the names of its images that remain."""
    from mst_pretrain.data.files import BLOCK, find_fault, in_threads

    rows = _files(found, part)
    paths = [path for _, files in rows for path in files if path.is_file()]
    looked = zip(paths, in_threads(find_fault, paths, block=BLOCK), strict=True)
    faults = {path: FileFault(path, what, "") for path, what in looked if what}
    kept = [name for name, files in rows if not any(path in faults for path in files)]
    return list(faults.values()), kept


def _files(found: Found, part: Part) -> list[tuple[str, list[Path]]]:
    """Name of each image of a part, and its files: the image and, of segmentation, the label map."""
    assert part.annotations is not None
    if found.task == DETECTION:
        from mst_transfer.data.coco_file import read_with_notes
        from mst_transfer.data.coco_repair import IMAGES
        from mst_transfer.data.image_lists import of_images

        content, _ = read_with_notes(part.annotations, IMAGES)
        images = of_images(content, part.names, part.annotations)["images"]
        return [(str(image["file_name"]), [part.images / image["file_name"]]) for image in images]
    from mst_transfer.data.layouts import cityscapes_pairs, folder_pairs

    if found.layout == CITYSCAPES:
        pairs = cityscapes_pairs(part.images, part.annotations)
    else:
        pairs = folder_pairs(part.images, part.annotations, part.names)
    return [
        (image.relative_to(part.images).as_posix(), [image, label])
        for image, label in zip(*pairs, strict=True)
    ]


def _nothing_left(where: Path, faults: Sequence[FileFault]) -> Exception:
    return layout_error(
        "D01",
        f"{where}: none of the {len(faults)} files can be read, the first: {faults[0].path} ({faults[0].what}).",
        "Copy them again.",
    )

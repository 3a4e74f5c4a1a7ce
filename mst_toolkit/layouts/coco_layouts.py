"""Detection in COCO's format as COCO, Roboflow, CVAT and Label Studio write it, and files named one by one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mst_pretrain.runtime.json_text import parse_json

from .coco_reading import build
from .found import Found, first_names, layout_error

ROBOFLOW = "_annotations.coco.json"
SPLITS = {  # what programs call them
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
INSTANCES = re.compile(
    r"instances_(?P<split>train|training|val|valid|validation|test)(?P<rest>.*)\.json", re.IGNORECASE
)
HEAD = 1 << 16  # bytes of a JSON that show whether it may be COCO's
FEW = 50  # names by which a folder of images is found

Files = dict[str, tuple[Path, Path]]  # part: JSON and image folder
Layout = tuple[str, str, Callable[[], Found]]  # name, evidence, what reads it


def candidates(root: Path, boxes_only: bool) -> Iterator[Layout]:
    """The layouts of a folder that fit; where several files could be the training's, each gives one."""
    roboflow = [
        folder for folder in _folders(root) if (folder / ROBOFLOW).is_file() and folder.name.lower() in SPLITS
    ]
    if roboflow:
        files = {SPLITS[folder.name.lower()]: (folder / ROBOFLOW, folder) for folder in roboflow}
        evidence = ", ".join(f"{folder.name}/{ROBOFLOW}" for folder in roboflow)
        yield "Roboflow export", evidence, partial(_build_files, root, "Roboflow export", files, boxes_only)
    known = set()
    groups: dict[str, dict[str, Path]] = {}
    for path in _jsons(root / "annotations"):
        match = INSTANCES.fullmatch(path.name)
        if match:
            known.add(path)
            groups.setdefault(match["rest"], {})[SPLITS[match["split"].lower()]] = path
    for jsons in _joined(groups):
        evidence = ", ".join(f"annotations/{path.name}" for path in jsons.values())
        yield "COCO", evidence, partial(_build_coco, root, jsons, boxes_only)
    single = [
        path
        for path in (*_jsons(root), *_jsons(root / "annotations"))
        if path not in known and _may_be_coco(path)
    ]
    for path in single if not known else ():
        yield _name_of(path), str(path.relative_to(root)), partial(one_json, path, boxes_only, root)


def _joined(groups: dict[str, dict[str, Path]]) -> list[dict[str, Path]]:
    """Files of one ending belong together; a val file of another ending joins the only train file."""
    with_train = {rest: jsons for rest, jsons in groups.items() if "train" in jsons}
    if len(with_train) == 1:
        jsons = next(iter(with_train.values()))
        for other in groups.values():
            if other is not jsons and not other.keys() & jsons.keys():
                jsons = {**jsons, **other}
        return [jsons]
    return list(with_train.values())


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _jsons(folder: Path) -> list[Path]:
    return (
        sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        if folder.is_dir()
        else []
    )


def _may_be_coco(path: Path) -> bool:
    """The lists of a COCO file are named in it; a large file is not parsed for that."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            whole = len(head) < HEAD
        if whole:
            content = parse_json(head)
            return isinstance(content, dict) and {"images", "categories"} <= content.keys()
        return any(key in head for key in (b'"images"', b'"annotations"', b'"categories"'))
    except (OSError, ValueError):
        return False


def _name_of(path: Path) -> str:
    if path.name == "result.json":
        return "Label Studio export"
    return "CVAT export" if path.name == "instances_default.json" else "COCO file"


def _root_of(path: Path) -> Path:
    """The folder of a data set by one of its JSONs."""
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def one_json(path: Path, boxes_only: bool, root: Path | None = None) -> Found:
    """One COCO JSON and its images, without a split.

    Raises:
        UserError: D04: its images are not found; and what :func:`build` refuses.
    """
    from mst_transfer.data.coco_file import parsing_once

    root = root or _root_of(path)
    with parsing_once():
        return build(root, _name_of(path), {"train": (path, find_images(path, root))}, boxes_only)


def explicit(
    train_json: str | Path,
    train_images: str | Path | None,
    val_json: str | Path | None,
    val_images: str | Path | None,
    boxes_only: bool,
) -> Found:
    """Files that were named one by one.

    Raises:
        UserError: D01: a file or folder does not exist; D16: images without a JSON; and what :func:`build` refuses.
    """
    if val_images is not None and val_json is None:
        raise layout_error(
            "D16",
            f"There is a folder of validation images, {val_images}, and no annotations of them.",
            "Add --val-json FILE, or leave --val-images out: the training images are split then.",
        )
    files: Files = {}
    for name, given, images in (("train", train_json, train_images), ("val", val_json, val_images)):
        if given is None:
            continue
        path, folder = Path(given), Path(images) if images is not None else None
        if not path.is_file():
            raise layout_error("D01", f"{path} does not exist.", f"Check --{name}-json.")
        if folder is not None and not folder.is_dir():
            raise layout_error("D01", f"Folder {folder} does not exist.", f"Check --{name}-images.")
        files[name] = (path, folder or find_images(path, _root_of(path)))
    if len(files) == 2 and files["train"][0].samefile(files["val"][0]):
        raise layout_error(
            "D16",
            f"--train-json and --val-json are one file, {train_json}: the score would be that of the training images.",
            "Leave --val-json out: a fifth of the images is kept for validation then.",
        )
    return build(files["train"][1], "COCO files", files, boxes_only)


def _build_files(root: Path, layout: str, files: Files, boxes_only: bool) -> Found:
    if "train" not in files:
        first = next(iter(files.values()))[0]
        raise layout_error(
            "D01",
            f"{root} is a {layout} without train/ ({first.relative_to(root)} is there).",
            f"Unpack all of it, or use this part alone, split by us: --train-json {first}",
        )
    return build(root, layout, files, boxes_only)


def _build_coco(root: Path, jsons: dict[str, Path], boxes_only: bool) -> Found:
    from mst_transfer.data.coco_file import parsing_once

    with parsing_once():
        files = {name: (path, find_images(path, root)) for name, path in jsons.items()}
        return build(root, "COCO", files, boxes_only)


def find_images(path: Path, root: Path) -> Path:
    """The folder in which the images of a JSON lie, below ``root`` or beside the JSON.

    Raises:
        UserError: D04: none of them is in any folder.
    """
    from mst_transfer.data.coco_file import read_with_notes
    from mst_transfer.data.coco_names import names_on_disk
    from mst_transfer.data.coco_repair import IMAGES

    content, _ = read_with_notes(path, IMAGES)
    names = [
        image["file_name"]
        for image in content["images"]
        if isinstance(image, dict) and image.get("file_name")
    ]
    if not names:  # build() says what the entries lack
        return path.parent
    some = names[:: max(1, len(names) // FEW)]
    best, most = None, 0
    for folder in _image_folders(path, root):
        there = sum(os.path.isfile(folder / name) for name in some)
        there += len(names_on_disk(folder, some)) if there < len(some) else 0
        if there > most:
            best, most = folder, there
        if there == len(some):
            break
    if best is None:
        tried = ", ".join(str(folder) for folder in _image_folders(path, root)[:4])
        raise layout_error(
            "D04",
            f"The images of {path} were not found, the first being {first_names(names, 1)}. Looked in {tried}.",
            f"Name their folder: --train-json {path} --train-images FOLDER",
        )
    return best


def _image_folders(path: Path, root: Path) -> list[Path]:
    """Where they may lie, the likeliest first."""
    match = INSTANCES.fullmatch(path.name)
    split, rest = (match["split"], match["rest"]) if match else ("default", "")
    likely = [
        root / f"{split}{rest}",
        root / "images" / f"{split}{rest}",
        root / split,
        root / "images" / split,
    ]
    likely += [root / "images", root / "data", path.parent, root]
    below = _folders(root) + [inner for folder in _folders(root) for inner in _folders(folder)]
    return [folder for folder in dict.fromkeys([*likely, *below]) if folder.is_dir()]

"""Mutators of COCO files: sizes of images, and the pictures on disk."""

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.promises.coco_edits import convert, drop, on_all, on_some, pick, put
from tests.promises.coco_set import IMAGE_FOLDER, rectangle, used_counts
from tests.promises.verdicts import CocoMutator, Content

EXIF_ORIENTATION = 0x0112


def _swapped(content: Content, rng: random.Random) -> None:
    for image in pick(rng, content["images"]):
        image["width"], image["height"] = image["height"], image["width"]


def _small_added(content: Content, rng: random.Random) -> None:
    content["images"].append({"id": 13, "file_name": "small.png", "width": 40, "height": 24})
    content["annotations"].append(
        {
            "id": 1_000,
            "image_id": 13,
            "category_id": 1,
            "bbox": [4, 4, 12, 12],
            "area": 144,
            "iscrowd": 0,
            "segmentation": [rectangle(4, 4, 12, 12)],
        }
    )


def _small_file(root: Path) -> None:
    Image.new("RGB", (40, 24), (40, 40, 40)).save(root / IMAGE_FOLDER / "small.png")


def _empty_added(content: Content, rng: random.Random) -> None:
    content["images"].append({"id": 13, "file_name": "scene0013.jpg", "width": 192, "height": 144})


def _empty_file(root: Path) -> None:
    Image.new("RGB", (192, 144), (40, 40, 40)).save(root / IMAGE_FOLDER / "scene0013.jpg")


def _first(root: Path) -> Path:
    return root / IMAGE_FOLDER / "scene0001.jpg"


def _cut(root: Path) -> None:
    path = _first(root)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(root: Path) -> None:
    _first(root).write_bytes(b"")


def _web_page(root: Path) -> None:
    _first(root).write_text("<!DOCTYPE html><p>404")


def _half_size(root: Path) -> None:
    for path in sorted((root / IMAGE_FOLDER).glob("*.jpg")):
        Image.open(path).resize((96, 72)).save(path)


def _turned(tag: int, back: Image.Transpose, suffix: str = ".jpg") -> Callable[[Path], None]:
    """Returns a function that stores every picture turned, with the EXIF tag that turns it upright again."""

    def files(root: Path) -> None:
        for path in sorted((root / IMAGE_FOLDER).glob("*.jpg")):
            exif = Image.Exif()
            exif[EXIF_ORIENTATION] = tag
            picture = Image.open(path).transpose(back)
            path.unlink()
            picture.save(path.with_suffix(suffix), quality=95, exif=exif)

    return files


def _stored_sizes(content: Content, rng: random.Random) -> None:
    for image in content["images"]:
        image["width"], image["height"] = image["height"], image["width"]


def _as_webp(content: Content, rng: random.Random) -> None:
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace(".jpg", ".webp")


def _extra_file(root: Path) -> None:
    Image.new("RGB", (192, 144)).save(root / IMAGE_FOLDER / "not_in_the_list.jpg")


def _no_folder(root: Path) -> None:
    (root / IMAGE_FOLDER).rename(root / "pictures")


def _nothing(content: Content, rng: random.Random) -> None:
    """Leaves the annotation file as it is; the pictures change."""


PICTURE_MUTATORS = (
    CocoMutator(
        "size-swapped",
        "refused",
        "Height before width: objects are dropped in training and every mask scores 0.",
        _swapped,
    ),
    CocoMutator(
        "size-null",
        "refused",
        "An exporter without the pictures left the size empty; boxes cannot be checked against it.",
        on_some("images", put("width", None)),
    ),
    CocoMutator(
        "size-missing",
        "refused",
        "An exporter without the pictures left the size out; boxes cannot be checked against it.",
        on_some("images", drop("height")),
    ),
    CocoMutator(
        "size-zero",
        "refused",
        "A placeholder: mmdet would drop every object of the image silently.",
        on_some("images", put("height", 0)),
    ),
    CocoMutator(
        "size-negative",
        "refused",
        "A picture has no negative size.",
        on_some("images", convert("width", lambda n: -n)),
    ),
    CocoMutator("size-word", "refused", "A word is not a size.", on_some("images", put("width", "wide"))),
    CocoMutator(
        "size-one-off",
        "refused",
        "The picture is not the one that was labelled, or was cropped since.",
        on_some("images", convert("width", lambda n: n + 1)),
    ),
    CocoMutator(
        "size-fraction",
        "refused",
        "A size computed by a factor: it is not the picture's.",
        on_some("images", convert("height", lambda n: n + 0.5)),
    ),
    CocoMutator(
        "size-text",
        "repaired",
        'A spreadsheet writes "192"; it can only mean 192.',
        on_all("images", lambda i: i.update(width=str(i["width"]), height=str(i["height"]))),
    ),
    CocoMutator(
        "size-whole-floats",
        "repaired",
        "faster-coco-eval stops at 192.0; it can only mean 192.",
        on_some("images", convert("width", float)),
    ),
    CocoMutator(
        "pictures-made-smaller",
        "refused",
        "The pictures were resized after labelling: every box would be wrong.",
        _nothing,
        files=_half_size,
    ),
    CocoMutator(
        "pictures-turned-by-exif",
        "warned",
        "Phones store photographs lying down; the file gives the size as it is seen, and so do all readers.",
        _nothing,
        files=_turned(6, Image.Transpose.ROTATE_90),
    ),
    CocoMutator(
        "pictures-upside-down-by-exif",
        "warned",
        "The size is the same both ways: whether objects were drawn on the upright pictures cannot be told.",
        _nothing,
        files=_turned(3, Image.Transpose.ROTATE_180),
    ),
    CocoMutator(
        "pictures-mirrored-by-exif",
        "warned",
        "The size is the same both ways: whether objects were drawn on the upright pictures cannot be told.",
        _nothing,
        files=_turned(2, Image.Transpose.FLIP_LEFT_RIGHT),
    ),
    CocoMutator(
        "pictures-turned-by-exif-sizes-as-stored",
        "refused",
        "labelme does not look at the tag: sizes and objects are of the pixels as stored.",
        _stored_sizes,
        files=_turned(8, Image.Transpose.ROTATE_270),
    ),
    CocoMutator(
        "pictures-turned-by-exif-in-webp",
        "refused",
        "OpenCV does not follow the tag in WebP: pictures would lie beside upright objects.",
        _as_webp,
        files=_turned(6, Image.Transpose.ROTATE_90, ".webp"),
    ),
    CocoMutator("picture-cut", "refused", "A copy was interrupted.", _nothing, files=_cut),
    CocoMutator("picture-empty", "refused", "A disk was full.", _nothing, files=_emptied),
    CocoMutator(
        "picture-is-a-web-page",
        "refused",
        "A download answered with an error page.",
        _nothing,
        files=_web_page,
    ),
    CocoMutator(
        "picture-missing",
        "refused",
        "Training would stop or replace the picture later.",
        _nothing,
        files=lambda root: _first(root).unlink(),
    ),
    CocoMutator(
        "picture-folder-missing",
        "refused",
        "The folder has another name; the message gives the path that was looked for.",
        _nothing,
        files=_no_folder,
    ),
    CocoMutator(
        "picture-not-listed",
        "same",
        "A picture that the file does not list is not part of the set.",
        _nothing,
        files=_extra_file,
    ),
    CocoMutator(
        "picture-without-objects-added",
        "same",
        "A background picture is valid; the objects and the score are the same.",
        _empty_added,
        files=_empty_file,
    ),
    CocoMutator(
        "small-picture-added",
        "different",
        "The config's min_size leaves the picture out, and the count says so.",
        _small_added,
        files=_small_file,
        counts=used_counts,
    ),
)

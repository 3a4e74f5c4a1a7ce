"""COCO files as tools write them: the same ground truth and score as of a clean file, or refused by name."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image
from pycocotools import mask as masks

from mst_pretrain.runtime.errors import UserError
from mst_transfer.data.coco_file import read_coco
from mst_transfer.data.coco_rules import check_coco
from mst_transfer.data.detection import CocoDetection
from mst_transfer.evaluation import MSTCocoMetric, score_coco
from mst_transfer.evaluation.coco_scores import LIBRARIES

Edit = Callable[[dict[str, Any]], Any]
HEIGHT, WIDTH = 40, 60
BOXES = [[5, 4, 20, 10], [30, 20, 12, 16], [2, 2, 40, 30], [10, 10, 9, 9], [25, 5, 30, 12]]


def clean() -> dict[str, Any]:
    """Three images, the last without an object; five rectangles of two classes."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "30"}, {"id": 4, "name": "stop"}],
        "annotations": [
            {"id": n, "image_id": 1 + n % 2, "category_id": 1 + 3 * (n % 3 == 0), "bbox": [x, y, w, h]}
            | {"area": w * h, "iscrowd": 0, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            for n, (x, y, w, h) in enumerate(BOXES, 1)
        ],
    }


def written(root: Path, content: dict[str, Any] | bytes) -> Path:
    """The set below a folder, as in Roboflow's layout."""
    folder = root / "train"
    folder.mkdir(exist_ok=True)
    for number in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{number}.png")
    path = folder / "_annotations.coco.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def up_to(left: float, top: float, right: float, bottom: float) -> list[float]:
    """The polygon of a rectangle."""
    return [left, top, right, top, right, bottom, left, bottom]


def each(**values: Any) -> Edit:
    """Give every annotation these values, or what functions make of it."""

    def edit(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            new = {key: value(annotation) if callable(value) else value for key, value in values.items()}
            annotation.update(new)

    return edit


def without(key: str) -> Edit:
    return lambda content: [annotation.pop(key) for annotation in content["annotations"]]


def run_lengths(annotation: dict[str, Any]) -> list[int]:
    x, y, w, h = annotation["bbox"]
    flat = np.zeros((WIDTH, HEIGHT), np.uint8)
    flat[x : x + w, y : y + h] = 1
    changes = np.flatnonzero(np.diff(flat.ravel(), prepend=0)).tolist()
    return np.diff([0, *changes, WIDTH * HEIGHT]).tolist()


def rle(edit: Callable[[list[int]], Any] = list, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Edit:
    return each(segmentation=lambda a: {"size": list(size), "counts": edit(run_lengths(a))})


def compressed(annotation: dict[str, Any]) -> dict[str, Any]:
    found = masks.frPyObjects({"size": [HEIGHT, WIDTH], "counts": run_lengths(annotation)}, HEIGHT, WIDTH)
    return {"size": [HEIGHT, WIDTH], "counts": found["counts"].decode()}


def pairs(annotation: dict[str, Any]) -> list[Any]:
    (polygon,) = annotation["segmentation"]
    return [list(point) for point in zip(polygon[::2], polygon[1::2], strict=True)]


def from_corner(annotation: dict[str, Any]) -> list[int]:
    x, y, w, h = annotation["bbox"]
    return [x + w, y + h, -w, -h]


def image_ids(new: Callable[[int], Any]) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = new(image["id"])
        for annotation in content["annotations"]:
            annotation["image_id"] = new(annotation["image_id"])

    return edit


def category_ids(new: Callable[[int], Any]) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        for category in content["categories"]:
            category["id"] = new(category["id"])
        each(category_id=lambda a: new(a["category_id"]))(content)

    return edit


SAME: dict[str, Edit] = {
    "order of entries": lambda c: [c[key].reverse() for key in ("images", "annotations")],
    "more keys": lambda c: (c.update(info=None, licenses=[]), each(attributes={"a": 1}, keypoints=[])(c)),
    "run lengths": rle(),
    "compressed run lengths": each(segmentation=compressed),
    "floats in boxes": each(bbox=lambda a: [float(v) for v in a["bbox"]]),
    "root category": lambda c: c["categories"].insert(0, {"id": 0, "name": "root"}),
    "ignore 0": each(ignore=0),
}
REPAIRED: dict[str, tuple[Edit, str]] = {
    "annotation ids from 0": (each(id=lambda a: a["id"] - 1), "1 ids of annotations"),
    "one annotation id": (each(id=3), "4 ids of annotations"),
    "no annotation id": (without("id"), "5 ids of annotations"),
    "huge annotation ids": (each(id=lambda a: 10**25 + a["id"]), "5 ids of annotations"),
    "annotation ids that are text": (each(id=lambda a: str(a["id"])), "5 ids of annotations"),
    "huge image ids": (image_ids(lambda i: 10**25 + i), "3 ids of images below 0 or beyond"),
    "neighbors for float64": (image_ids(lambda i: 2**53 + i), "3 ids of images below 0 or beyond"),
    "negative image ids": (image_ids(lambda i: i - 5), "3 ids of images below 0"),
    "huge category ids": (category_ids(lambda i: 10**25 + i), "2 ids of categories below 0 or beyond"),
    "image ids as text": (image_ids(str), "3 ids of images that are not integers"),
    "entries twice": (
        lambda c: [c[key].append(dict(c[key][1])) for key in ("images", "annotations")],
        "1 entries of images that are repeated",
    ),
    "spaces around a name": (lambda c: c["categories"][1].update(name=" stop "), "1 names of categories with"),
    "an area that is not a number": (each(area=float("nan")), "5 annotations without an area"),
    "float image ids": (image_ids(float), "3 ids of images that are not integers"),
    "float references": (each(category_id=lambda a: float(a["category_id"])), "5 values of category_id"),
    "references as text": (each(image_id=lambda a: str(a["image_id"])), "5 values of image_id"),
    "no area": (without("area"), "5 annotations without an area"),
    "null area": (each(area=None), "5 annotations without an area"),
    "area 0": (each(area=0), "5 annotations of area 0"),
    "area as text": (each(area=lambda a: str(a["area"])), "5 areas written as text"),
    "no iscrowd": (without("iscrowd"), "5 annotations without 'iscrowd'"),
    "null iscrowd": (each(iscrowd=None), "5 annotations without 'iscrowd'"),
    "iscrowd false": (each(iscrowd=False), "5 annotations with another spelling"),
    "ignore as text": (each(ignore="0"), "5 annotations with another spelling"),
    "boxes as text": (each(bbox=lambda a: [f"{v}.0" for v in a["bbox"]]), "5 boxes with numbers"),
    "boxes from the other corner": (each(bbox=from_corner), "5 boxes with a negative"),
    "pairs of points": (each(segmentation=lambda a: [pairs(a)]), "5 masks whose polygons"),
    "pairs without a list": (each(segmentation=pairs), "5 masks whose polygons"),
    "a flat polygon": (each(segmentation=lambda a: a["segmentation"][0]), "5 masks whose polygons"),
    "polygons as text": (
        each(segmentation=lambda a: [[str(v) for v in a["segmentation"][0]]]),
        "5 masks with numbers",
    ),
    "an empty polygon beside": (each(segmentation=lambda a: [*a["segmentation"], []]), "5 masks with a polygon"),
    "float run lengths": (rle(lambda runs: [float(run) for run in runs]), "5 masks whose run lengths"),
    "float sizes": (lambda c: [i.update(width=60.0, height="40") for i in c["images"]], "6 widths and heights"),
    "a name that is a number": (lambda c: c["categories"][0].update(name=30), "1 names of categories"),
}  # fmt: skip
REFUSED: dict[str, tuple[Edit, str]] = {
    "run lengths of another size": (rle(size=(80, 120)), "5 annotations have run lengths of another size"),
    "run lengths of the exchanged size": (rle(size=(WIDTH, HEIGHT)), "of another size"),
    "one run is missing": (rle(lambda runs: runs[:-1]), "do not add up to height x width"),
    "negative run": (rle(lambda runs: [runs[0] + 9, -9, *runs[1:]]), "not whole numbers from 0"),
    "half runs": (rle(lambda runs: [runs[0] + 0.5, *runs[1:]]), "not whole numbers from 0"),
    "no run": (rle(lambda runs: []), "do not add up"),
    "no pixel": (rle(lambda runs: [sum(runs)]), "without a pixel"),
    "rubbish as run lengths": (rle(lambda runs: "no RLE!"), "cannot be decoded"),
    "run lengths cut": (
        each(segmentation=lambda a: {"size": [HEIGHT, WIDTH], "counts": compressed(a)["counts"][:-2]}),
        "cannot be decoded|do not add up",
    ),
    "run lengths as bytes": (rle(lambda runs: str(b"d0bn2")), "cannot be decoded"),
    "a list of run lengths": (each(segmentation=lambda a: [compressed(a)]), "neither a list of polygons"),
    "mask as text": (each(segmentation="1,2,3"), "neither a list of polygons"),
    "polygon that is not a number": (each(segmentation=[[5, 4, float("nan"), 4, 9, 9]]), "finite numbers"),
    "infinite polygon": (each(segmentation=[[5, 4, float("inf"), 4, 9, 9]]), "finite numbers"),
    "true in a polygon": (each(segmentation=[[5, 4, True, 4, 9, 9]]), "finite numbers"),
    "odd polygon": (each(segmentation=lambda a: [a["segmentation"][0][:-1]]), "odd number"),
    "two points": (each(segmentation=[[5, 4, 9, 9]]), "less than three points"),
    "mask outside": (each(segmentation=[[95, 4, 99, 4, 99, 9]]), "lies outside its image"),
    "mask far outside": (each(segmentation=[[5, 4, 1e9, 4, 9, 9]]), "farther out of its image"),
    "mask beside its box": (each(bbox=[1, 1, 3, 3], segmentation=[[50, 30, 55, 30, 55, 35]]), "does not touch"),
    "boxes of whole images": (
        each(bbox=[0, 0, WIDTH, HEIGHT]),
        r"most boxes are not around their masks as \[x, y, width, height\]: annotation 1 -> bbox \[0, 0, 60",
    ),
    "boxes as two corners": (
        each(bbox=lambda a: [*a["bbox"][:2], 58, 39], segmentation=lambda a: [up_to(*a["bbox"][:2], 58, 39)]),
        "left, top, right, bottom",
    ),
    "width null": (lambda c: c["images"][0].update(width=None), "1 images have a width or height"),
    "width 0": (lambda c: c["images"][0].update(width=0), "1 images have a width or height"),
    "half a pixel": (lambda c: c["images"][0].update(height=40.5), "1 images have a width or height"),
    "exchanged sizes": (lambda c: [i.update(width=HEIGHT, height=WIDTH) for i in c["images"]], "is 40x60"),
    "a file under two ids": (lambda c: c["images"][1].update(file_name="./1.png"), "several ids: 1.png"),
    "image ids that are names": (image_ids(lambda i: f"no. {i}"), "3 ids of 'images'"),
    "image ids true": (lambda c: c["images"][0].update(id=True), "1 ids of 'images'"),
    "repeated image ids": (lambda c: c["images"][1].update(id=1), "1 ids of 'images'"),
    "null category": (each(category_id=None), "5 annotations have a category"),
    "null name": (lambda c: c["categories"][0].update(name=None), "'name' in 'categories' are not text"),
    "names that become equal": (lambda c: [c["categories"][n].update(name=v) for n, v in ((0, 50), (1, "50"))],
                                "used twice"),
    "file name as number": (lambda c: c["images"][0].update(file_name=1), "'file_name' in 'images' are not text"),
    "iscrowd 2": (each(iscrowd=2), "5 values of 'iscrowd' are not 0 or 1"),
    "iscrowd yes": (each(iscrowd="yes"), "5 values of 'iscrowd' are not 0 or 1"),
    "infinite area": (each(area=float("inf")), "5 areas are not finite"),
    "boxes as shares": (each(bbox=lambda a: [v / WIDTH for v in a["bbox"]]), "of these 5 have .* less than a pixel"),
    "all ignored": (each(ignore=1), "no object to train on"),
    "annotations by id": (lambda c: c.update(annotations={"1": c["annotations"][0]}), "no entries under"),
}  # fmt: skip


def predictions(content: dict[str, Any]) -> list[dict[str, Any]]:
    """One shifted detection of each object, under the ids of a file."""
    images = {str(image["file_name"]): image for image in content["images"]}
    order = [images[name] for name in sorted(images)]
    names = {str(category["name"]).strip(): category["id"] for category in content["categories"]}
    found = []
    for n, (x, y, w, h) in enumerate(BOXES, 1):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[y : y + h, x + n : x + w] = 1
        coded = masks.encode(mask)
        ids = {"image_id": int(order[n % 2]["id"]), "category_id": names["stop" if n % 3 == 0 else "30"]}
        one = {"bbox": [x + n, y, w, h], "segmentation": {**coded, "counts": coded["counts"].decode()}}
        found.append({**ids, "score": 1 - n / 10, **one})
    return found


def loaded(path: Path) -> list[Any]:
    """What mmdet trains of each image."""
    settings = {"data_root": str(path.parent.parent), "ann_file": "train/_annotations.coco.json"}
    dataset = DATASETS.build(
        dict(
            type="CocoDataset",
            metainfo=dict(classes=(30, "stop")),
            data_prefix=dict(img="train"),
            pipeline=[],
        )
        | settings
    )
    assert isinstance(dataset, CocoDetection)
    infos = sorted((dataset.get_data_info(i) for i in range(len(dataset))), key=lambda info: info["img_path"])
    return [
        (
            Path(i["img_path"]).name,
            i["height"],
            i["width"],
            *tuple(
                sorted(
                    (o["bbox"], o["bbox_label"], o["ignore_flag"], drawn(o["mask"])) for o in i["instances"]
                )
            ),
        )
        for i in infos
    ]


def drawn(mask: Any) -> bytes:
    coded = (
        masks.frPyObjects(mask, HEIGHT, WIDTH)
        if not isinstance(mask, dict) or isinstance(mask["counts"], list)
        else mask
    )
    return bytes(masks.decode(masks.merge(coded) if isinstance(coded, list) else coded))


def scores(path: Path, found: list[dict[str, Any]], kind: str, library: str) -> dict[str, Any]:
    """Scores of the two classes, to twelve digits: the libraries add in another order."""
    per_class = score_coco(path, found, kind, library).per_class
    return {
        f"{name} {key}": value and round(value, 12)
        for name in ("30", "stop")
        for key, value in per_class[name].items()
    }


@pytest.mark.parametrize("name", [*SAME, *REPAIRED])
def test_the_ground_truth_of_a_clean_file(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training would see other objects, or one of the libraries give another score, and nobody be told."""
    (tmp_path / "clean").mkdir()
    expected = written(tmp_path / "clean", clean())
    content = clean()
    edit, note = (SAME[name], "") if name in SAME else REPAIRED[name]
    edit(content)
    path = written(tmp_path, content)
    before = path.read_bytes()
    check_coco(tmp_path, "train/_annotations.coco.json", "train", masks=True)
    said = capsys.readouterr().out
    assert (f"note: {path}: {note}" in said) if note else "note:" not in said
    assert loaded(path) == loaded(expected)
    for kind in ("bbox", "segm"):
        wanted = scores(expected, predictions(clean()), kind, LIBRARIES[0])
        assert 0 < wanted["stop AP"] < 1 and 0 < wanted["30 AP"] < 1
        for library in LIBRARIES:
            assert scores(path, predictions(json.loads(before)), kind, library) == wanted
    assert path.read_bytes() == before and "note: /" not in capsys.readouterr().out.replace(str(expected), "")


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_mean_two_things(tmp_path: Path, name: str) -> None:
    """An evaluator would hang or count wrong, or mmdet train on wrong masks, without a word."""
    content = clean()
    edit, message = REFUSED[name]
    edit(content)
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        check_coco(tmp_path, "train/_annotations.coco.json", "train", masks=True)
    assert str(path) in str(error.value)
    if name not in (
        "exchanged sizes",
        "all ignored",
        "file name as number",
    ):  # seen with the images, or no fault of ids
        with pytest.raises(UserError):
            score_coco(path, [], "bbox")


def zipped(text: str) -> bytes:
    """An archive with the one file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("_annotations.coco.json", text)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda text: b"\xef\xbb\xbf" + text.encode(), ""),
        (lambda text: text.encode("utf-16"), ""),
        (lambda text: text[:-9].encode(), "cannot be read as JSON"),
        (
            lambda text: text.replace('"iscrowd": 0', '"iscrowd": 0, "iscrowd": 1', 1).encode(),
            "'iscrowd' twice",
        ),
        (lambda text: b"[" * 10**5 + b"]" * 10**5, "cannot be read as JSON"),
        (lambda text: gzip.compress(text.encode()), r"coco\.json is compressed with gzip: unpack it\.$"),
        (lambda text: zipped(text), r"coco\.json is an archive: unpack it\.$"),
        (
            lambda text: b"version https://git-lfs.github.com/spec/v1\n",
            "is a pointer of Git LFS: git lfs pull",
        ),
        (lambda text: b"<!doctype html><title>Sign in", "is a web page: download the file itself"),
        (
            lambda text: text.replace("stop", "arr\u00eat").encode("latin-1"),
            r"is not UTF-8 \(byte 0xea at \d+\): save it as UTF-8\.$",
        ),
    ],
    ids=[
        *("byte order mark", "utf-16", "truncated", "a key twice", "nested"),
        *("gzip", "zip", "Git LFS", "web page", "Latin-1"),
    ],
)
def test_bytes(tmp_path: Path, encode: Callable[[str], bytes], message: str) -> None:
    """Windows tools' files would end in a traceback of json, or the first of two values be forgotten."""
    path = written(tmp_path, encode(json.dumps(clean())))
    if message:
        with pytest.raises(UserError, match=message):
            read_coco(path)
    else:
        assert read_coco(path) == clean() and loaded(path)


def test_result_files_have_the_ids_of_the_file(tmp_path: Path) -> None:
    """Results would be scored elsewhere against images that the user's file does not have."""
    content = clean()
    image_ids(lambda i: 10**25 + i)(content)
    path = written(tmp_path, content)
    metric = MSTCocoMetric(str(path), "bbox", out_dir=str(tmp_path))
    metric.dataset_meta = {"classes": ("30", "stop")}
    instances = {"bboxes": np.float32([[5, 4, 25, 14]]), "scores": np.float32([0.5]), "labels": np.array([1])}
    metric.process(None, [{"img_id": 10**25 + 1, "pred_instances": instances}])
    metric.evaluate(1)
    assert json.loads((tmp_path / "detections.bbox.json").read_text())[0]["image_id"] == 10**25 + 1

"""Bad folders and files: one message with path and remedy before any work; good ones pass."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.quickstart import street
from mst_pretrain.data import files
from mst_pretrain.data.sources import open_source
from mst_pretrain.runtime.errors import UserError
from mst_transfer.data import layouts, reading
from mst_transfer.data.coco_file import coco_classes, read_coco
from mst_transfer.data.coco_rules import check_coco
from mst_transfer.data.pair_rules import (
    check_cityscapes,
    cityscapes_label_maps,
    cityscapes_present_classes,
)

ANNOTATIONS = "annotations/instances_train2017.json"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three street scenes in both layouts."""
    out = tmp_path_factory.mktemp("pristine") / "data"
    street.generate(out, seed=5, train=3, val=1, height=64, width=96)
    return out


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def picture(kind: str, **options: Any) -> bytes:
    """A noisy 40x50 picture as an encoded file."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_image_folder_counts_every_format_at_any_depth(tmp_path: Path) -> None:
    """Images in sub-folders, in upper-case names or rarer formats would be left out silently."""
    names = ["a.jpg", "b.JPEG", "x/c.png", "x/y/d.webp", "e.bmp", "f.tif", "x/g.TIFF"]
    kinds = ["jpeg", "jpeg", "png", "webp", "bmp", "tiff", "tiff"]
    for name, kind in zip(names, kinds, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(kind))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._a.jpg").write_bytes(b"resource fork")
    open_source(tmp_path).check()
    assert files.list_images(tmp_path) == sorted(tmp_path / name for name in names)


def test_missing_empty_and_file_in_place_of_folder(tmp_path: Path) -> None:
    """A mistyped image folder would end in a traceback or train on nothing."""
    for path, problem in ((tmp_path / "absent", "does not exist"), (tmp_path, "holds no image")):
        with pytest.raises(UserError, match=problem) as error:
            open_source(path)
        assert str(path) in str(error.value) and "Check the path" in str(error.value)
    (tmp_path / "one.jpg").write_bytes(picture("jpeg"))
    with pytest.raises(UserError, match="folder that holds it"):
        open_source(tmp_path / "one.jpg")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_truncated_image_is_named(tmp_path: Path, kind: str, share: float) -> None:
    """A truncated image would stop a run hours after its start."""
    (tmp_path / f"good.{kind}").write_bytes(picture(kind))
    bad = tmp_path / f"bad.{kind}"
    bad.write_bytes(picture(kind)[: int(share * len(picture(kind)))])
    with pytest.raises(UserError, match="1 of 2 images cannot be used") as error:
        open_source(tmp_path).check()
    assert str(bad) in str(error.value) and "good" not in str(error.value)
    assert "Copy them again" in str(error.value)


def test_last_bytes_decide(tmp_path: Path) -> None:
    """Images with padding behind their end would be refused; images without their end marker accepted."""
    for name, content, whole in (
        ("padded.jpg", picture("jpeg") + b"\0" * 40, True),
        ("trailer.jpg", picture("jpeg") + b"camera note", True),
        ("trailer.png", picture("png") + b"\n", True),
        ("png_called.jpg", picture("png"), True),
        ("no_end.jpg", picture("jpeg")[:-2], False),
        ("no_end.png", picture("png")[:-12], False),
        ("text.jpg", b"<html>404 not found</html>", False),
        # the embedded preview's end marker must not pass for the image's own
        ("preview.jpg", picture("jpeg")[:200] + b"\xff\xd9" + b"x" * 50, False),
    ):
        (tmp_path / name).write_bytes(content)
        assert (files.find_fault(tmp_path / name) == "") == whole, name


def test_checks_of_images_need_no_transfer_package() -> None:
    """Pretraining would need mmdet and mmseg only to look at its image files."""
    code = (
        "import sys, mst_pretrain.data.files; "
        "bad = {m.split('.')[0] for m in sys.modules} & {'mst_transfer', 'mmcv', 'mmdet', 'mmseg'}; "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_good_layouts_pass(data: Path) -> None:
    """Sound data would be refused."""
    check_coco(data / "coco", ANNOTATIONS, "train2017/")
    check_cityscapes(data / "cityscapes", "train")


def test_coco_missing_parts(data: Path, tmp_path: Path) -> None:
    """Missing root, images or JSON would end in mmdet's traceback."""
    root = data / "coco"
    for arguments, named in (
        ((tmp_path / "absent", ANNOTATIONS, "train2017"), tmp_path / "absent"),
        ((root, ANNOTATIONS, "test2017"), root / "test2017"),
        ((root, "annotations/absent.json", "train2017"), root / "annotations/absent.json"),
    ):
        with pytest.raises(UserError, match="does not exist") as error:
            check_coco(*arguments)
        assert str(named) in str(error.value)


def test_coco_truncated_json_and_truncated_image(data: Path) -> None:
    """Half a download would be found in the middle of training."""
    image = data / "coco/train2017/street_000001.jpg"
    truncate(image)
    with pytest.raises(
        UserError, match=r"train2017/street_000001\.jpg: truncated JPEG: no end marker\. Copy"
    ):
        check_coco(data / "coco", ANNOTATIONS, "train2017")
    truncate(data / "coco" / ANNOTATIONS)
    with pytest.raises(UserError, match=r"cannot be read as JSON.*again"):
        check_coco(data / "coco", ANNOTATIONS, "train2017")


def test_coco_absent_images_are_counted(data: Path) -> None:
    """A JSON that names absent images would fail at whichever step meets the first one."""
    for index in (0, 2):
        (data / f"coco/train2017/street_00000{index}.jpg").unlink()
    with pytest.raises(
        UserError, match=r"/street_000000\.jpg: is not there, .* \(and 1 more: \S*/street_000002\.jpg\)"
    ) as error:
        check_coco(data / "coco", ANNOTATIONS, "train2017")
    assert "instances_train2017.json" in str(error.value) and "remove their entries" in str(error.value)


def test_coco_class_order(data: Path) -> None:
    """Train and val files that order categories differently would swap classes in every score."""
    path = data / "coco" / ANNOTATIONS
    classes = coco_classes(read_coco(path))
    assert classes == ("person", "car", "truck", "bus", "bicycle")
    check_coco(data / "coco", ANNOTATIONS, "train2017", ["car", "bus"])
    with pytest.raises(UserError, match="json: has no category tram; it has person, car"):
        check_coco(data / "coco", ANNOTATIONS, "train2017", ["car", "tram"])
    content = json.loads(path.read_text())
    content["categories"].reverse()
    path.write_text(json.dumps(content))
    assert coco_classes(read_coco(path)) == classes[::-1]
    with pytest.raises(UserError, match="same order"):
        check_coco(data / "coco", ANNOTATIONS, "train2017", classes)


def test_cityscapes_missing_parts(data: Path, tmp_path: Path) -> None:
    """Missing folders, empty folders and images without label map would end in a traceback or be skipped."""
    with pytest.raises(UserError, match=r"absent.*does not exist"):
        check_cityscapes(tmp_path / "absent", "train")
    root = data / "cityscapes"
    with pytest.raises(UserError, match=r"leftImg8bit/test.*does not exist"):
        check_cityscapes(root, "test")
    (root / "gtFine/train/street/street_000001_gtFine_labelTrainIds.png").unlink()
    with pytest.raises(
        UserError, match=r"street_000001\S*: does not exist.*tools/prepare_data.py cityscapes"
    ):
        check_cityscapes(root, "train")
    shutil.rmtree(root / "gtFine")
    with pytest.raises(UserError, match=r"gtFine/train.*does not exist"):
        check_cityscapes(root, "train")
    for image in (root / "leftImg8bit/train/street").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="holds no image"):
        check_cityscapes(root, "train")


def test_cityscapes_bad_label_maps(data: Path) -> None:
    """Unknown ids become a CUDA assert, other sizes a shape error, colour maps nonsense."""
    root = data / "cityscapes"
    path = root / "gtFine/train/street/street_000002_gtFine_labelTrainIds.png"
    good = np.array(Image.open(path))
    for labels, message in (
        (np.where(good == 1, 33, good), r"unknown id 33 .*0..18 and 255.*prepare_data.py cityscapes ROOT"),
        (good[:-1], r"is 63x96 \(height x width\), its image .* is 64x96"),
        (np.stack([good] * 3, axis=-1), r"mode RGB; one channel .*not the color maps"),
    ):
        Image.fromarray(labels.astype(np.uint8)).save(path)
        with pytest.raises(UserError, match=message) as error:
            check_cityscapes(root, "train")
        assert str(path) in str(error.value)
    Image.fromarray(good).save(path)
    truncate(path)
    with pytest.raises(UserError, match=r"street_000002_gtFine_labelTrainIds\.png: truncated PNG"):
        check_cityscapes(root, "train")


def test_large_sets_are_sampled_and_say_so(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of all Cityscapes-sized sets would take minutes, or a sampled one pass for a complete one."""
    root = data / "cityscapes"
    monkeypatch.setattr(reading, "MAX_READ_MAPS", 2)
    maps = cityscapes_label_maps(root, "train")
    assert reading.sample(maps) == reading.sample(maps) and len(reading.sample(maps)) == 2
    for path in maps:
        Image.fromarray(np.full((64, 96), 20, np.uint8)).save(path)
    with pytest.raises(UserError, match="sample of 2 of 3 maps"):
        check_cityscapes(root, "train")


def test_present_classes(data: Path) -> None:
    """A head would get classes that the data do not have, or miss one, or number them in another order."""
    root = data / "cityscapes"
    for path, train_id in zip(cityscapes_label_maps(root, "train"), (11, 0, 5), strict=True):
        Image.fromarray(np.full((64, 96), train_id, np.uint8)).save(path)
    assert cityscapes_present_classes(root, "train") == ("road", "pole", "person")
    for path in cityscapes_label_maps(root, "train"):
        Image.fromarray(np.full((64, 96), 255, np.uint8)).save(path)
    with pytest.raises(UserError, match="no pixel of a known class"):
        cityscapes_present_classes(root, "train")


def test_train_id_names_are_the_official_ones() -> None:
    """A class name would stand for another train id than in Cityscapes."""
    from cityscapesscripts.helpers.labels import trainId2label

    assert tuple(trainId2label[index].name for index in range(19)) == layouts.CITYSCAPES_CLASSES


def test_street_segmentation_maps_a_subset_of_classes(data: Path) -> None:
    """With CamVid's 11 classes, labels would be shifted against the head, or the rest not ignored."""
    from mmseg.datasets.transforms import LoadAnnotations

    from mst_transfer.data.datasets import StreetSegmentation

    root = data / "cityscapes"
    classes = (
        *("road", "sidewalk", "building", "fence", "pole", "traffic sign"),
        *("vegetation", "sky", "person", "rider", "car"),
    )
    new_ids = {0: 0, 1: 1, 2: 2, 4: 3, 5: 4, 7: 5, 8: 6, 10: 7, 11: 8, 12: 9, 13: 10}
    every = np.resize(np.array([*range(19), 255], np.uint8), (64, 96))
    for path in cityscapes_label_maps(root, "train"):
        Image.fromarray(every).save(path)
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    dataset = StreetSegmentation(
        data_root=str(root), data_prefix=prefix, metainfo={"classes": classes}, pipeline=[]
    )
    assert dataset.metainfo["classes"] == classes and len(dataset) == 3
    assert dataset.metainfo["palette"][-1] == [0, 0, 142]
    labels = LoadAnnotations()(dataset.get_data_info(0))["gt_seg_map"]
    expected = np.vectorize(lambda train_id: new_ids.get(train_id, 255))(every)
    assert (labels == expected).all()


def test_street_segmentation_finds_its_suffix(data: Path) -> None:
    """JPEG frames would need an option that nobody knows, or give an empty data set."""
    from mst_transfer.data.datasets import StreetSegmentation

    folder = data / "cityscapes/leftImg8bit/train/street"
    prefix = {"img_path": str(folder.parent), "seg_map_path": str(data / "cityscapes/gtFine/train")}
    for path in sorted(folder.iterdir()):
        path.with_suffix(".jpg").write_bytes(picture("jpeg"))
        path.unlink()
    dataset = StreetSegmentation(data_prefix=prefix)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [Path(info["img_path"]).name for info in infos] == [
        f"street_00000{i}_leftImg8bit.jpg" for i in range(3)
    ]
    assert all(os.path.isfile(info["img_path"]) and os.path.isfile(info["seg_map_path"]) for info in infos)
    (folder / "more_leftImg8bit.png").write_bytes(picture("png"))
    with pytest.raises(UserError, match="mixes images"):
        StreetSegmentation(data_prefix=prefix)
    with pytest.raises(UserError, match=r"'tree'.*not Cityscapes classes"):
        StreetSegmentation(data_prefix=prefix, metainfo={"classes": ("road", "tree")})


def test_street_segmentation_takes_a_part(data: Path) -> None:
    """A comparison with 20 labelled images of Cityscapes' layout would fail, or train on all of them."""
    from mst_transfer.data.datasets import StreetSegmentation

    root = data / "cityscapes"
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    names = [f"street/street_00000{i}_leftImg8bit.png" for i in (2, 0)]
    dataset = StreetSegmentation(data_root=str(root), data_prefix=prefix, image_list=names)
    paths = [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
    assert [os.path.relpath(path, root / "leftImg8bit/train") for path in paths] == sorted(names)
    with pytest.raises(UserError, match=r"1 images of image_list are not in .*such as street/other"):
        StreetSegmentation(data_root=str(root), data_prefix=prefix, image_list=[*names, "street/other.png"])

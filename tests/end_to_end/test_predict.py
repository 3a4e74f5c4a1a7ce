"""tools/test.py and tools/predict.py on one model: the same predictions, and files that the official tools score."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import mst_transfer
from mst_pretrain.runtime.config import import_custom_modules, load_config
from mst_pretrain.runtime.errors import run_cli
from mst_transfer.prediction import Detections, Predictor, Segmentation
from tests.end_to_end.in_process import tool

ROOT = Path(__file__).parents[2]
SEGMENT = str(ROOT / "configs/quickstart/upernet.py")
# The quickstart's, with larger anchors: a network of random weights finds objects of several sizes.
LARGE_ANCHORS = f"""
_base_ = "{ROOT / "configs/quickstart/mask_rcnn.py"}"
model = dict(rpn_head=dict(anchor_generator=dict(scales=[16])))
"""
THINGS = ("person", "car", "truck", "bus", "bicycle")


def called(name: str, *arguments: object) -> int:
    """A tool's exit code."""
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: tool(name).main([str(argument) for argument in arguments]))
    return int(ended.value.code or 0)


def weights(config: str, scope: str, path: Path) -> Path:
    """A checkpoint of random weights, all of them different, that finds things of every class."""
    from mmdet.utils import register_all_modules as register_detection
    from mmseg.utils import register_all_modules as register_segmentation

    (register_detection if scope == "mmdet" else register_segmentation)(init_default_scope=True)
    cfg = load_config(config)
    import_custom_modules(cfg)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.15 / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.02
            scale *= 20 if "fc_cls" in name else 1
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    torch.save({"state_dict": model.state_dict(), "meta": {}}, path)
    return path


def photo(path: Path, seed: int, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 12, width // 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """COCO data whose objects are the model's own detections, changed: some moved, some crowds, one image empty."""
    root = tmp_path_factory.mktemp("coco")
    config = root / "detector.py"
    config.write_text(LARGE_ANCHORS)
    checkpoint = weights(str(config), "mmdet", root / "weights.pth")
    sizes = [(360, 480), (150, 120), (97, 131), (300, 500), (96, 96)]
    names = [f"{number:012d}.jpg" for number in (7, 139, 25, 802, 64)]
    for seed, (name, size) in enumerate(zip(names, sizes, strict=True)):
        photo(root / "val2017" / name, seed, *size)
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for name in names[:-1]:
        (found,) = mst_transfer.predict(config, checkpoint, root / "val2017" / name)
        assert isinstance(found, Detections) and found.masks is not None and len(found.boxes) >= 10
        for place in range(0, len(found.boxes), 3):
            mask = np.asfortranarray(
                np.roll(found.masks[place], rng.integers(-2, 3, 2), (0, 1)).astype(np.uint8)
            )
            if mask.sum() < 4:
                continue
            rle = coco_masks.encode(mask)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": int(name[:12]), "iscrowd": int(place % 5 == 0)}
                | {"category_id": 3 * int(found.labels[place]) + 2, "bbox": coco_masks.toBbox(rle).tolist()}
                | {"area": float(mask.sum()), "segmentation": {**rle, "counts": rle["counts"].decode()}}
            )
    content = {
        "images": [
            {"id": int(name[:12]), "file_name": name, "height": height, "width": width}
            for name, (height, width) in zip(names, sizes, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": 3 * label + 2, "name": name} for label, name in enumerate(THINGS)],
    }
    for split in ("val", "train"):
        path = root / f"annotations/instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root, config, checkpoint


def official_coco(annotations: Path, results: Path, iou_type: str) -> np.ndarray:
    """pycocotools on a result file: the twelve numbers."""
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(results)), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_detection(coco: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tools/predict.py would find other things than tools/test.py scores, or the printed AP not be the official one."""
    root, config, checkpoint = coco
    annotations = root / "annotations/instances_val2017.json"
    options = [
        "--work-dir",
        tmp_path / "run",
        "--out",
        tmp_path / "results",
        "--cfg-options",
        f"data_root={root}",
    ]
    assert called("test", config, checkpoint, *options) == 0
    printed = capsys.readouterr().out
    arguments = ["--config", config, "--checkpoint", checkpoint, "--annotations", annotations]
    assert called("predict", root / "val2017", *arguments, "--out", tmp_path / "predicted") == 0
    metrics = json.loads((tmp_path / "run/test_metrics.json").read_text())
    report = json.loads((tmp_path / "run/test_report.json").read_text())
    for place, iou_type in enumerate(("bbox", "segm")):
        written = [tmp_path / folder / f"detections.{iou_type}.json" for folder in ("results", "predicted")]
        tested, predicted = (json.loads(path.read_text()) for path in written)
        key = ("image_id", "category_id", "score")
        assert sorted(tested, key=lambda e: [e[k] for k in key]) == sorted(
            predicted, key=lambda e: [e[k] for k in key]
        )
        expected = official_coco(annotations, written[1], iou_type)
        assert 0.01 < expected[0] < 0.95 and (expected[3:5] > 0).all()
        scored = report["scores"][0][iou_type]
        assert list(scored["statistics"].values()) == pytest.approx(expected.tolist(), abs=1e-12)
        assert f"{iou_type} mAP {100 * expected[0]:.2f}" in printed
        assert metrics[f"coco/{iou_type}_mAP_s"] == pytest.approx(expected[3], abs=1e-12)
        assert report["scores"][0]["images"] == 5 and set(scored["per_class"]) == set(THINGS), place
        assert "segmentation" not in tested[0] if iou_type == "bbox" else "bbox" not in tested[0]
    assert "AP_small" in printed and "images/s" in printed and report["speed"]["images_per_second"] > 0
    index = json.loads((tmp_path / "predicted/predictions.json").read_text())
    assert [entry["image_id"] for entry in index["images"]] == [7, 25, 64, 139, 802]
    assert index["categories"][1] == {"id": 5, "name": "car"} and index["failed"] == []
    for entry in index["images"]:
        picture = Image.open(tmp_path / "predicted/pictures" / Path(entry["file_name"]).with_suffix(".png"))
        factor = picture.width // entry["width"]
        assert (
            picture.size == (factor * entry["width"], factor * entry["height"]) and min(picture.size) >= 320
        )
    assert not list(tmp_path.rglob("*.part"))


def test_pycocotools_and_augmentation(coco: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """--coco-library would not choose, or --tta test the plain model, or score other results than it writes."""
    root, config, checkpoint = coco
    options = ["--tta-scales", "1", "--coco-library", "pycocotools", "--out", tmp_path / "results"]
    options += ["--work-dir", tmp_path / "run", "--cfg-options", f"data_root={root}"]
    assert called("test", config, checkpoint, *options) == 0
    report = json.loads((tmp_path / "run/test_report.json").read_text())
    assert report["tta"] and report["tta_scales"] == [1.0]
    for iou_type in ("bbox", "segm"):
        scored = report["scores"][0][iou_type]
        written = tmp_path / f"results/detections.{iou_type}.json"
        expected = official_coco(root / "annotations/instances_val2017.json", written, iou_type)
        assert scored["library"].startswith("pycocotools") and expected[0] > 0.001
        assert list(scored["statistics"].values()) == pytest.approx(expected.tolist(), abs=1e-12)
    (plain,) = mst_transfer.predict(config, checkpoint, root / "val2017/000000000007.jpg")
    assert isinstance(plain, Detections)
    merged = [entry["score"] for entry in json.loads(written.read_text()) if entry["image_id"] == 7]
    assert len(merged) >= 10 and not np.isin(merged, plain.scores).all()


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Street data whose label maps are the model's own predictions, changed, with ignored regions."""
    from cityscapesscripts.helpers.labels import id2label, name2label

    root = tmp_path_factory.mktemp("cityscapes")
    checkpoint = weights(SEGMENT, "mmseg", root / "weights.pth")
    rng = np.random.default_rng(0)
    for index in range(3):
        name, city = f"ulm_{index:06d}_000019", "ulm"
        image = root / f"leftImg8bit/val/{city}/{name}_leftImg8bit.png"
        photo(image, index, 96 + index, 160)
        (found,) = mst_transfer.predict(SEGMENT, checkpoint, image)
        assert isinstance(found, Segmentation) and len(np.unique(found.label_map)) >= 3
        ids = np.array([name2label[name].id for name in found.classes])[found.label_map]
        wrong = np.kron(rng.random((13, 20)) < 0.4, np.ones((8, 8), bool))[: ids.shape[0], : ids.shape[1]]
        other = rng.choice([name2label[name].id for name in found.classes], ids.shape)
        ids = np.where(wrong, other, ids)
        ids[:10], ids[10:14, :50] = 1, 0  # ego vehicle and unlabelled are ignored
        for kind, values in (
            ("labelIds", ids),
            ("labelTrainIds", np.vectorize(lambda i: id2label[i].trainId % 256)(ids)),
        ):
            path = root / f"gtFine/val/{city}/{name}_gtFine_{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(path)
    return root, checkpoint, root / "gtFine/val"


def test_segmentation(
    cityscapes: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed mIoU would not be the official one, the PNGs hold train ids, or a weight be missing unnoticed."""
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as official

    root, checkpoint, labels = cityscapes
    options = [
        "--work-dir",
        tmp_path / "run",
        "--out",
        tmp_path / "results",
        "--cfg-options",
        f"data_root={root}",
    ]
    assert called("test", SEGMENT, checkpoint, *options) == 0
    printed = capsys.readouterr().out
    arguments = ["--config", SEGMENT, "--checkpoint", checkpoint, "--out", tmp_path / "predicted"]
    assert called("predict", root / "leftImg8bit/val", *arguments) == 0
    metrics = json.loads((tmp_path / "run/test_metrics.json").read_text())
    truth = sorted(str(path) for path in labels.rglob("*_labelIds.png"))
    for folder in (tmp_path / "results", tmp_path / "predicted/label_maps"):
        official.args.predictionPath, official.args.predictionWalk = str(folder), None
        official.args.JSONOutput, official.args.quiet, official.args.evalInstLevelScore = False, True, False
        found = [official.getPrediction(official.args, path) for path in truth]
        expected = official.evaluateImgLists(found, truth, official.args)
        assert metrics["mIoU"] == pytest.approx(100 * expected["averageScoreClasses"], abs=1e-9)
        assert 5 < metrics["mIoU"] < 95
        assert [np.asarray(Image.open(path)).shape for path in found] == [(96, 160), (97, 160), (98, 160)]
    assert f"mIoU {metrics['mIoU']:.2f}" in printed
    cut = {"state_dict": dict(torch.load(checkpoint, weights_only=True)["state_dict"])}
    cut["state_dict"].pop("decode_head.conv_seg.bias")
    torch.save(cut, tmp_path / "cut.pth")
    assert called("test", SEGMENT, tmp_path / "cut.pth", *options[:2], *options[4:]) == 2
    said = capsys.readouterr().err
    assert (
        f"{tmp_path / 'cut.pth'}" in said and "decode_head.conv_seg.bias" in said and "Traceback" not in said
    )
    report = json.loads((tmp_path / "run/test_report.json").read_text())["scores"][0]
    rows = list(csv.reader((tmp_path / "run/confusion_matrix.csv").open()))
    assert [list(map(int, row[1:])) for row in rows[1:]] == report["confusion_matrix"]["pixels"]
    index = json.loads((tmp_path / "predicted/predictions.json").read_text())
    entry = index["images"][0]
    ids = np.asarray(Image.open(tmp_path / "predicted" / entry["label_map"]))
    for one in index["classes"]:
        assert entry["shares"][one["name"]] == pytest.approx((ids == one["id"]).mean())
    picture = Image.open(tmp_path / "predicted/pictures" / Path(entry["file_name"]))
    assert picture.width > 5 * 160 and picture.height == 5 * 96


def test_segmentation_with_augmentation(cityscapes: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """--tta of a segmentor would not run, or mirror the label maps."""
    root, checkpoint, _ = cityscapes
    measured = []
    for options in ([], ["--tta-scales", "1"]):
        arguments = ["--work-dir", tmp_path / "run", *options, "--cfg-options", f"data_root={root}"]
        assert called("test", SEGMENT, checkpoint, *arguments) == 0
        measured.append(json.loads((tmp_path / "run/test_metrics.json").read_text())["aAcc"])
    plain, merged = measured
    assert merged != plain and merged > 0.6 * plain


def test_bad_images_are_named_and_the_rest_is_predicted(
    coco: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One truncated photograph of a thousand would lose the other 999, or be predicted as grey."""
    root, config, checkpoint = coco
    photos = tmp_path / "photos"
    photo(photos / "deep/a.jpg", 0, 96, 128)
    photo(photos / "a.jpg", 1, 96, 128)
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:-300])
    (photos / "text.png").write_bytes(b"\x89PNG no image IEND\xaeB`\x82")
    arguments = ["--config", config, "--checkpoint", checkpoint, "--out", tmp_path / "out"]
    assert called("predict", photos, *arguments) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert f"{photos / 'cut.jpg'}" in captured.out and f"{photos / 'text.png'}" in captured.out
    index = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [entry["file_name"] for entry in index["images"]] == ["a.jpg", "deep/a.jpg"]
    assert [entry["file_name"] for entry in index["failed"]] == ["cut.jpg", "text.png"]
    assert [entry["image_id"] for entry in index["images"]] == [1, 3]
    assert (tmp_path / "out/pictures/deep/a.png").is_file() and (tmp_path / "out/pictures/a.png").is_file()
    assert {path.name for path in (tmp_path / "out").rglob("*.*")} == {
        *("a.png", "predictions.json", "detections.bbox.json", "detections.segm.json")
    }
    arguments[-1] = tmp_path / "again"
    assert called("predict", photos / "cut.jpg", *arguments) == 2  # nothing at all could be predicted
    assert called("predict", photos / "absent.jpg", *arguments) == 2
    assert "absent.jpg" in capsys.readouterr().err
    assert (
        called("predict", photos / "a.jpg", photos / "deep/a.jpg", *arguments) == 2
    )  # one name for two images
    wrong = ["--annotations", root / "annotations/instances_val2017.json"]
    assert called("predict", photos / "a.jpg", *arguments, *wrong) == 2
    assert "a.jpg" in capsys.readouterr().err
    cut = {"state_dict": dict(torch.load(checkpoint, weights_only=True)["state_dict"])}
    cut["state_dict"].pop("rpn_head.rpn_cls.bias")
    torch.save(cut, tmp_path / "cut.pth")
    assert called("predict", photos / "a.jpg", *arguments[:3], tmp_path / "cut.pth", *arguments[4:]) == 2
    assert "rpn_head.rpn_cls.bias" in capsys.readouterr().err


def test_batches_are_single_images(coco: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Results would depend on --batch-size: by padding, by images exchanged in a batch, or by one that is broken."""
    _, config, checkpoint = coco
    sizes = {"a": (96, 128), "b": (131, 97), "d": (192, 256), "e": (96, 128)}
    for seed, (name, size) in enumerate(
        sizes.items()
    ):  # a, d and e have one test size, a and e their own size too
        photo(tmp_path / f"photos/{name}.jpg", seed, *size)
    (tmp_path / "photos/c.jpg").write_bytes(b"no image")
    found = {}
    for batch in ("1", "2"):
        out = tmp_path / batch
        arguments = ["--config", config, "--checkpoint", checkpoint, "--out", out, "--batch-size", batch]
        assert called("predict", tmp_path / "photos", *arguments) == 1
        names = ("predictions", "detections.bbox", "detections.segm")
        found[batch] = [json.loads((out / f"{name}.json").read_text()) for name in names]
    (one, *ones), (other, *others) = found.values()
    assert {**one, "date": None} == {**other, "date": None} and one["dtype"] == "float32"
    for alone, together in zip(ones, others, strict=True):
        assert [entry["image_id"] for entry in alone] == [entry["image_id"] for entry in together]
        scores = [[entry["score"] for entry in entries] for entries in (alone, together)]
        assert len(alone) > 50 and scores[0] == pytest.approx(scores[1], abs=1e-4)
    boxes = [[value for entry in entries for value in entry["bbox"]] for entries in (ones[0], others[0])]
    assert boxes[0] == pytest.approx(boxes[1], abs=0.05)


def test_batches_and_bfloat16_with_augmentation(coco: tuple[Path, Path, Path]) -> None:
    """Views of a batch would be merged across images, or --dtype change nothing or break heads in float32."""
    root, config, checkpoint = coco
    pixels = np.asarray(Image.open(root / "val2017/000000000064.jpg").convert("RGB"))
    exact = Predictor(config, checkpoint, "cpu", tta_scales=[1.0])
    pair = [pixels, pixels[:, ::-1].transpose(1, 0, 2)]
    together = dict(exact.in_batches(pair, 2))
    rounded = Predictor(config, checkpoint, "cpu", tta_scales=[1.0], dtype="bfloat16")(pixels)
    for place, one in enumerate(map(exact, pair)):
        other = together[place]
        assert isinstance(one, Detections) and isinstance(other, Detections)
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)
    assert isinstance(rounded, Detections) and rounded.boxes.dtype == np.float32
    scores = rounded.scores[:5], together[0].scores[:5]  # type: ignore[union-attr]
    np.testing.assert_allclose(*scores, atol=0.05)
    assert not np.array_equal(*scores)


def test_batches_and_bfloat16_of_a_segmentor(cityscapes: tuple[Path, Path, Path]) -> None:
    """A batch would mix its images up, or --dtype change nothing."""
    root, checkpoint, _ = cityscapes
    street = np.asarray(Image.open(next(root.rglob("ulm_000000_000019_leftImg8bit.png"))).convert("RGB"))
    pair = [street, street[:, ::-1]]
    one, together, rounded = (
        mst_transfer.predict(SEGMENT, checkpoint, pair, batch_size=size, dtype=dtype)
        for size, dtype in ((1, "float32"), (2, "float32"), (2, "bfloat16"))
    )
    for maps in zip(one, together, rounded, strict=True):
        first, second, third = (found.label_map for found in maps if isinstance(found, Segmentation))
        assert (first == second).mean() > 0.999 and 0.8 < (first == third).mean() < 1


def test_results_of_two_runs_do_not_mix(
    coco: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run would predict the first one's drawings, or old files be scored as this run's."""
    root, config, checkpoint = coco
    photos, out = tmp_path / "photos", tmp_path / "out"
    photo(photos / "a.jpg", 0, 96, 128)
    arguments = ["--config", config, "--checkpoint", checkpoint, "--out"]
    for inside in (photos, photos / "out", tmp_path / "out/../photos"):
        assert called("predict", photos, *arguments, inside) == 2
        assert "lies inside the images" in capsys.readouterr().err
    assert [path.name for path in photos.iterdir()] == ["a.jpg"]
    assert called("predict", photos, *arguments, out) == 0
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    options = ["--work-dir", tmp_path / "run", "--out", out, "--cfg-options", f"data_root={root}"]
    for call in (("predict", photos, *arguments, out), ("test", config, checkpoint, *options)):
        assert called(*call) == 2
        said = capsys.readouterr().err
        assert f"--out {out} is not empty (detections.bbox.json, " in said and "give another folder" in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == written


def test_python_call(coco: tuple[Path, Path, Path]) -> None:
    """An array would be read as BGR, or boxes and masks come in another frame or type than documented."""
    root, config, checkpoint = coco
    path = root / "val2017/000000000139.jpg"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    lossless = path.with_suffix(".png")
    Image.fromarray(pixels).save(lossless)
    by_file, by_array = mst_transfer.predict(config, checkpoint, [lossless, pixels])
    assert isinstance(by_file, Detections) and isinstance(by_array, Detections)
    assert by_file.image == lossless and by_array.image is None and by_file.classes == THINGS
    assert by_file.boxes.dtype == by_file.scores.dtype == np.float32 and by_file.labels.dtype == np.int64
    assert by_file.masks is not None and by_array.masks is not None and by_file.masks.dtype == bool
    assert (
        by_file.masks.shape
        == (len(by_file.boxes), 150, 120)
        == (len(by_file.boxes), by_file.height, by_file.width)
    )
    for key in ("boxes", "scores", "labels", "masks"):
        assert np.array_equal(getattr(by_file, key), getattr(by_array, key)), key
    assert (by_file.boxes[:, 2:] <= [120, 150]).all() and (np.diff(by_file.scores) <= 0).all()
    (mirrored_colours,) = mst_transfer.predict(config, checkpoint, pixels[..., ::-1])
    assert not np.array_equal(mirrored_colours.scores, by_array.scores)  # type: ignore[union-attr]
    lossless.unlink()


@pytest.mark.skipif("MST_REAL_DATA" not in os.environ, reason="real data not present")
def test_official_category_ids_of_real_photos() -> None:
    """Predictions of COCO's 80 classes without an annotation file would be scored under wrong categories."""
    from mmdet.datasets import CocoDataset

    from mst_transfer.prediction.coco_ids import category_ids

    path = Path(os.environ["MST_REAL_DATA"], "coco-mini/annotations/instances_val2017.json")
    real = {category["name"]: category["id"] for category in json.loads(path.read_text())["categories"]}
    classes = CocoDataset.METAINFO["classes"]
    assert category_ids(classes, None, "") == [real[name] for name in classes]
    assert category_ids(classes[::-1], None, "") == list(range(1, 81))


def test_several_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each of torchrun's processes would clear the folder that the others write."""
    started = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "::1",
        "MASTER_PORT": "29500",
    }
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    arguments = ["--config", SEGMENT, "--checkpoint", tmp_path / "a.pth", "--out", tmp_path / "out"]
    assert called("predict", tmp_path, *arguments) == 2
    assert "works in one process" in capsys.readouterr().err

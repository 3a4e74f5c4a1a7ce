"""tools/prepare_data.py: sound sets pass, each kind of damage is named with its remedy, nothing is read twice."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cityscapesscripts.preparation.json2labelImg import json2labelImg
from PIL import Image

from examples.quickstart import street
from mst_pretrain.runtime.errors import run_cli
from mst_transfer.data import reading
from mst_transfer.data.prepare import RECORD, SUMMARY

TOOL = Path(__file__).parents[3] / "tools/prepare_data.py"
SET_SIZES = {"train": 3, "val": 2}
Run = Callable[..., tuple[int, str, dict[str, Any]]]


def tool() -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("tools_prepare_data", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the tool as its last two lines do: exit code, what it printed, the summary."""

    def call(kind: str, root: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            run_cli(lambda: tool().main([kind, str(root), *options]))
        out = Path(options[options.index("--out") + 1]) if "--out" in options else root
        summary = json.loads((out / SUMMARY).read_text()) if (out / SUMMARY).is_file() else {}
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err, summary

    return call


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Street scenes in COCO's, Cityscapes' and ImageNet's layout, and as a pair of folders."""
    out = tmp_path_factory.mktemp("pristine") / "data"
    street.generate(out, seed=7, **SET_SIZES, height=48, width=64)
    for split in SET_SIZES:
        for index, path in enumerate(sorted((out / f"coco/{split}2017").iterdir())):
            folder = out / "imagenet" / split / f"n0000000{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / f"{path.stem}.JPEG")
            label = out / f"cityscapes/gtFine/{split}/street/{path.stem}_gtFine_labelTrainIds.png"
            for kind, source in (("images", path), ("labels", label)):
                target = out / "pair" / kind / split / f"{path.stem}{source.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    return out


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def kinds(summary: dict[str, Any], level: str = "problems") -> list[str]:
    return [problem["kind"] for problem in summary[level]]


@pytest.mark.parametrize(
    ("kind", "options", "splits"),
    [
        ("imagenet", ["--any-count"], {"train": 3, "val": 2}),
        ("coco", ["--any-count"], {"train2017": 3, "val2017": 2}),
        ("cityscapes", ["--any-count"], {"train": 3, "val": 2}),
        ("pair", ["--classes", "19"], {"train": 3, "val": 2}),
    ],
)
def test_sound_sets_pass(data: Path, run: Run, kind: str, options: list[str], splits: dict[str, int]) -> None:
    """Good data would be refused, or a part of it be passed over."""
    (data / "imagenet/train/.ipynb_checkpoints").mkdir()
    code, said, summary = run(kind, data / kind, *options)
    assert (code, summary["problems"]) == (0, []) and "no problem" in said
    assert {name: numbers["images"] for name, numbers in summary["splits"].items()} == splits
    maps = {"cityscapes": 10, "pair": 5}.get(kind, 0)  # Cityscapes: train ids and label ids
    assert (summary["files_read"], summary["files_unchanged"]) == (5 + maps, 0)


@pytest.mark.parametrize(
    ("kind", "part", "archive"),
    [
        ("imagenet", "val", "ILSVRC2012_img_val.tar"),
        ("coco", "val2017", "val2017.zip"),
        ("coco", "annotations/instances_val2017.json", "annotations_trainval2017.zip"),
        ("cityscapes", "leftImg8bit/val", "leftImg8bit_trainvaltest.zip"),
    ],
)
def test_missing_split(data: Path, run: Run, kind: str, part: str, archive: str) -> None:
    """A split that was never unpacked would be noticed after training."""
    path = data / kind / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, said, summary = run(kind, data / kind)
    missing = [problem["path"] for problem in summary["problems"] if problem["kind"] == "missing split"]
    assert code == 2 and str(path) in missing
    assert f"{path}: " in said and archive in said and "Unpack the archive" in said
    code, said, summary = run(kind, data / kind, "--any-count")
    assert (code, kinds(summary)) == (2, ["missing split"])
    assert (archive in said) == (kind != "coco")  # a set of one's own never was in COCO's archives


@pytest.mark.parametrize("kind", ["imagenet", "coco", "cityscapes", "pair"])
def test_truncated_image(data: Path, run: Run, kind: str) -> None:
    """A half-copied image would stop a run hours later."""
    suffixes = (".JPEG", ".jpg", ".png")
    images = [path for path in sorted((data / kind).rglob("*00001*")) if path.suffix in suffixes]
    path = truncate(next(path for path in images if "gtFine" not in path.name and "labels" not in path.parts))
    options = ["--classes", "19"] if kind == "pair" else ["--any-count"]
    code, said, summary = run(kind, data / kind, *options)
    assert (code, kinds(summary)) == (2, ["unusable file"])
    assert f"{path}: truncated" in said and "Copy or unpack them again" in said


def test_every_pixel_is_decoded(data: Path, run: Run) -> None:
    """Head and tail of a file would pass for the whole: a PNG with a damaged middle would stop training."""
    path = sorted((data / "cityscapes/leftImg8bit/train/street").iterdir())[0]
    encoded = bytearray(path.read_bytes())
    encoded[len(encoded) // 2] ^= 0xFF
    path.write_bytes(bytes(encoded))
    code, said, summary = run("cityscapes", data / "cityscapes", "--any-count")
    assert (code, kinds(summary)) == (2, ["unusable file"]) and f"{path}: not decodable" in said


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_json_names_an_absent_file(data: Path, run: Run) -> None:
    """An entry without its image would stop an epoch at a random step."""
    root = data / "coco"
    path = edit_json(
        root / "annotations/instances_train2017.json",
        lambda content: content["images"][1].update(file_name="gone.jpg"),
    )
    code, said, summary = run("coco", root, "--any-count")
    assert (code, kinds(summary)) == (2, ["absent image"])
    assert (
        f"{root / 'train2017/gone.jpg'}: is not there, but {path} names it" in said
        and "remove their entries" in said
    )


def test_boxes_and_sizes_of_a_json(data: Path, run: Run) -> None:
    """Annotations of another resolution would train on the wrong places."""
    root = data / "coco"

    def edit(content: dict[str, Any]) -> None:
        first, second = content["annotations"][:2]
        first["bbox"] = [60.0, 10.0, 5.5, 5.0]  # 1.5 pixels beyond a width of 64
        for annotation in content["annotations"]:  # run lengths would be of another size than the image below
            del annotation["segmentation"]
        second["bbox"] = [0.0, -0.9, 64.9, 48.0]  # rounding
        content["annotations"][2]["bbox"][2] = 0
        content["images"][2].update(width=128, height=96)

    path = edit_json(root / "annotations/instances_train2017.json", edit)
    code, said, summary = run("coco", root, "--any-count", "--boxes-only")
    assert code == 2 and kinds(summary) == ["image size"] and kinds(summary, "warnings") == ["box outside"]
    number = json.loads(path.read_text())["annotations"][0]["id"]
    outside = "1 boxes reach out of their image by more than a pixel"
    assert f"{path}: {outside}: annotation {number} -> bbox [60.0, 10.0, 5.5, 5.0]" in said
    assert "is 48x64, but 96x128 (height x width)" in said and "1 of area 0 or with a side below" in said


@pytest.mark.parametrize(
    ("box", "outside"),
    [
        ([-1.5, 9.0, 9.0, 9.0], True),
        ([9.0, -1.5, 9.0, 9.0], True),
        ([60.0, 9.0, 5.5, 9.0], True),
        ([9.0, 44.0, 9.0, 5.5], True),  # 1.5 pixels below a height of 48
        ([-0.9, -0.9, 65.8, 49.8], False),
    ],
)
def test_a_box_beyond_each_side(data: Path, run: Run, box: list[float], outside: bool) -> None:
    """Boxes below their image, or above it, would pass: only left and right would be looked at."""
    root = data / "coco"
    edit_json(
        root / "annotations/instances_train2017.json",
        lambda content: content["annotations"][0].update(
            bbox=box, segmentation=[[box[0], box[1], box[0] + 9, box[1], box[0], box[1] + 9]]
        ),
    )
    code, said, summary = run("coco", root, "--any-count")
    assert kinds(summary, "warnings") == ["box outside"] * outside and (f"bbox {box} in" in said) == outside
    assert code == 0 and not kinds(summary) and "no problem" in said


def test_objects_that_training_leaves_out_are_counted(data: Path, run: Run) -> None:
    """The preparation would find no problem in a file that the training refuses."""
    path = data / "coco/annotations/instances_train2017.json"
    total = len(json.loads(path.read_text())["annotations"])

    def mark(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["ignore"] = 1

    edit_json(path, mark)
    code, said, _ = run("coco", data / "coco", "--any-count")
    assert code == 0 and f"{total - 2} of {total} objects are trained; left out: 1 " in said
    edit_json(path, lambda content: [a.update(ignore=1) for a in content["annotations"][1:]])
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 0
    path.write_text(json.dumps(content))
    code, said, summary = run("coco", data / "coco", "--any-count")
    assert code == 2 and kinds(summary) == ["unused"] and f"1 of {total} objects are trained" in said


@pytest.mark.parametrize(
    ("kind", "options"), [("cityscapes", ["--any-count"]), ("pair", ["--classes", "19"])]
)
def test_label_map_of_another_size_or_with_unknown_ids(
    data: Path, run: Run, kind: str, options: list[str]
) -> None:
    """Labels would be shifted against their image, or an id of no class stop a GPU with an assertion."""
    folder = data / ("cityscapes/gtFine/train/street" if kind == "cityscapes" else "pair/labels/train")
    first, second, *_ = (path for path in sorted(folder.glob("*.png")) if "labelIds" not in path.name)
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(first)
    Image.fromarray(np.full((48, 64), 19, np.uint8)).save(second)
    code, said, summary = run(kind, data / kind, *options)
    assert (code, kinds(summary)) == (2, ["label map size", "unknown id"])
    assert f"{first}: is 48x60 (height x width), its image" in said and "is 48x64" in said
    assert f"{second}: has 3,072 pixels of the unknown id 19 (all: [19]); ids are 0..18 and 255" in said
    assert "Resize the map with nearest neighbor" in said and "as 255" in said


def test_label_ids_of_another_size(data: Path, run: Run) -> None:
    """Training reads only train ids; the official score would end on maps that nobody looked at."""
    path = sorted(data.glob("cityscapes/gtFine/val/*/*_labelIds.png"))[0]
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(path)
    code, said, summary = run("cityscapes", data / "cityscapes", "--any-count")
    assert (code, kinds(summary)) == (2, ["label map size"]) and f"{path}: is 48x60" in said


def test_image_without_label_map(data: Path, run: Run) -> None:
    """An image whose map is absent would stop an epoch at a random step."""
    path = sorted((data / "pair/labels/val").iterdir())[0]
    path.unlink()
    code, said, summary = run("pair", data / "pair", "--classes", "19")
    assert (code, kinds(summary)) == (2, ["no label map"]) and f"{path}: does not exist" in said


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("imagenet", ["1,281,167 images", "1,000 classes", "50,000 images"]),
        ("coco", ["118,287 images", "5,000 images"]),
        ("cityscapes", ["2,975 images", "500 images"]),
    ],
)
def test_wrong_count(data: Path, run: Run, kind: str, counts: list[str]) -> None:
    """Results on a part of the data would be compared with the literature's."""
    code, said, summary = run(kind, data / kind)
    assert code == 2 and set(kinds(summary)) <= {"wrong count", "missing split"}
    for count in counts:
        assert f"expected {count}" in said
    assert "found 3" in said and "--any-count" in said
    assert ("missing split" in kinds(summary)) == (kind == "cityscapes")  # 1,525 test images


def test_shards_are_checked_inside(data: Path, run: Run, tmp_path: Path) -> None:
    """A truncated image inside a tar shard would pass."""
    import io
    import tarfile

    for split, good in (("train", 2), ("val", 1)):
        with tarfile.open(tmp_path / f"{split}-000.tar", "w") as tar:
            for index, path in enumerate(sorted((data / f"coco/{split}2017").iterdir())[:2]):
                encoded = path.read_bytes()
                parts = (("jpg", encoded if index < good else encoded[:-300]), ("cls", b"7"))
                for suffix, content in parts:
                    member = tarfile.TarInfo(f"{split}{index}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    code, said, summary = run("imagenet", tmp_path, "--any-count")
    assert (code, kinds(summary)) == (2, ["unusable file"])
    assert f"{tmp_path / 'val-000.tar'}: val1.jpg: truncated JPEG" in said
    assert summary["splits"]["train"] == {"images": 2, "classes": 1}


def test_many_problems_are_bounded_on_the_screen(data: Path, run: Run) -> None:
    """Thousands of lines would hide the other kinds; a summary cut short would hide files to copy again."""
    root = data / "coco"
    edit_json(
        root / "annotations/instances_train2017.json",
        lambda content: content["images"].extend(
            {"id": 100 + i, "file_name": f"gone{i}.jpg", "height": 48, "width": 64} for i in range(9)
        ),
    )
    code, said, summary = run("coco", root, "--any-count")
    assert code == 2 and kinds(summary) == ["absent image"] * 9
    assert said.count("gone") == 5 and f"and 4 more, all in {root / SUMMARY}" in said


def test_unchanged_files_are_not_read_again(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption hours of reading would start anew, or a file that changed since would pass unread."""
    root, opened = data / "coco", []
    decode = reading.to_rgb

    def interrupted(encoded: bytes) -> Image.Image:
        opened.append(encoded)
        if 4 <= len(opened) < 10:
            raise KeyboardInterrupt
        return decode(encoded)

    monkeypatch.setattr(reading, "to_rgb", interrupted)
    code, said, summary = run("coco", root, "--any-count", "--workers", "1")
    assert code == 130 and "run the same command again" in said and summary == {}
    with open(root / RECORD, "a") as record:
        record.write('["whole_image train2017/torn')  # as a killed run leaves it
    opened.extend([b""] * 10)
    count = len(opened)
    code, _, summary = run("coco", root, "--any-count", "--workers", "1")
    assert code == 0 and (summary["files_read"], summary["files_unchanged"]) == (2, 3)
    assert len(opened) == count + 2
    path = sorted((root / "val2017").iterdir())[1]
    stat = path.stat()
    path.write_bytes(b"\xff\xd8" + bytes(stat.st_size - 2))  # as long as it was
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    code, said, summary = run("coco", root, "--any-count")
    assert code == 2 and (summary["files_unchanged"], kinds(summary)) == (4, ["unusable file"])
    assert str(path) in said and "1 problem," in said


def write_polygons(path: Path, rng: np.random.Generator, height: int, width: int) -> None:
    """Overlapping random polygons of all sorts of labels."""
    labels = ("road", "sky", "car", "cargroup", "license plate", "ego vehicle", "bicycle", "static", "person")
    objects = [
        {"label": str(rng.choice(labels)), "polygon": rng.integers(-5, width + 5, (5, 2)).tolist()}
        | ({"deleted": 1} if rng.random() < 0.2 else {})
        for _ in range(12)
    ]
    objects.append({"label": "truck", "polygon": [[10, 5], [20, 5], [20, 15], [10, 15]]})
    path.write_text(json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects}))


@pytest.fixture
def polygons(data: Path) -> Path:
    """Cityscapes with polygons and without train ids."""
    rng = np.random.default_rng(3)
    for path in sorted((data / "cityscapes/gtFine").rglob("*_gtFine_labelTrainIds.png")):
        name = path.name.replace("labelTrainIds.png", "polygons.json")
        write_polygons(path.with_name(name), rng, 48, 64)
        path.unlink()
    return data / "cityscapes"


def test_train_ids_equal_cityscapesscripts(polygons: Path, run: Run, tmp_path: Path) -> None:
    """Converted labels would differ from the official tool's: another benchmark under the same name."""
    code, said, _ = run("cityscapes", polygons, "--any-count")
    assert code == 0 and "5 labelTrainIds maps drawn" in said
    sources = sorted(polygons.rglob("*_polygons.json"))
    assert len(sources) == 5
    for source in sources:
        json2labelImg(str(source), str(tmp_path / "official.png"), "trainIds")
        expected = np.array(Image.open(tmp_path / "official.png"))
        ours = np.array(Image.open(str(source).replace("polygons.json", "labelTrainIds.png")))
        assert ours.dtype == expected.dtype and (ours == expected).all() and len(np.unique(ours)) > 3
        assert (ours[5:16, 10:21] == 14).all()  # a truck, drawn last
    assert not list(polygons.rglob("*.part"))
    code, said, summary = run("cityscapes", polygons, "--any-count")
    assert code == 0 and "drawn" not in said and summary["files_unchanged"] == 15


def test_bad_polygons_are_named(polygons: Path, run: Run) -> None:
    """cityscapesscripts ends the whole conversion at an unknown label, with its usage text."""
    broken, strange = sorted(polygons.rglob("train/street/*_polygons.json"))[:2]
    broken.write_text(broken.read_text()[:-20])
    edit_json(strange, lambda content: content["objects"][0].update(label="spaceship", deleted=0))
    code, said, summary = run("cityscapes", polygons, "--any-count")
    assert code == 2 and kinds(summary) == ["polygons"] * 2 + ["no label map"] * 2
    assert f"{broken}: not Cityscapes' polygons" in said and f"{strange}: labels ['spaceship']" in said
    assert len(list(polygons.rglob("*_labelTrainIds.png"))) == 3


def test_out_leaves_the_data_alone_and_is_a_data_root(polygons: Path, run: Run, tmp_path: Path) -> None:
    """Data that may only be read could not be prepared, or the maps made elsewhere not be trained on."""
    from mst_transfer.data.pair_rules import check_cityscapes

    kept = sorted((polygons / "gtFine/val/street").glob("*.json"))[0]
    drawn = kept.with_name(kept.name.replace("polygons.json", "labelTrainIds.png"))
    json2labelImg(str(kept), str(drawn), "trainIds")
    kept.unlink()  # one map is there already, and nothing to draw it from
    before = {path: path.stat().st_mtime_ns for path in polygons.rglob("*")}
    out = tmp_path / "out"
    code, said, _ = run("cityscapes", polygons, "--any-count", "--out", str(out))
    assert code == 0 and f"train with data_root={out}" in said and "4 labelTrainIds" in said
    assert {path: path.stat().st_mtime_ns for path in polygons.rglob("*")} == before
    check_cityscapes(out, "train")
    check_cityscapes(out, "val")
    code, said, summary = run("cityscapes", polygons, "--any-count", "--out", str(out))
    assert code == 0 and summary["files_unchanged"] == 15 and f"train with data_root={out}" in said


def test_a_root_that_cannot_be_written_says_what_to_do(data: Path, run: Run) -> None:
    """The tool would end in a traceback, perhaps after hours."""
    (data / "coco" / RECORD).mkdir()  # cannot be opened, also by root
    code, said, _ = run("coco", data / "coco", "--any-count")
    assert code == 2 and "cannot be written" in said and "--out DIR" in said and "Traceback" not in said


def test_arguments_that_do_not_fit(data: Path, run: Run, tmp_path: Path) -> None:
    """A mistyped root or a missing number of classes would end in a traceback or an empty check."""
    for kind, root, options, message in (
        ("coco", tmp_path / "absent", ["--any-count"], "does not exist"),
        ("pair", data / "pair", [], "--classes N"),
        ("coco", data / "coco", ["--classes", "3"], "--classes N"),
        ("imagenet", data / "imagenet", ["--boxes-only"], "--boxes-only goes with 'coco'"),
    ):
        code, said, _ = run(kind, root, *options)
        assert code == 2 and said.startswith("error: ") and message in said


@pytest.mark.parametrize("kind", ["coco", "pair"])
def test_validation_images_out_of_train_are_a_warning(data: Path, run: Run, kind: str) -> None:
    """A set whose scores mean nothing would be "no problem"."""
    options = {"coco": ["--any-count"], "pair": ["--classes", "19"]}[kind]
    _, said, summary = run(kind, data / kind, *options)
    assert "also in train" not in said and summary["warnings"] == []
    splits = {"coco": ("train2017", "val2017"), "pair": ("images/train", "images/val")}[kind]
    train, val = (sorted((data / kind / split).iterdir()) for split in splits)
    if kind == "coco":
        shutil.copy(
            data / "coco/annotations/instances_train2017.json",
            data / "coco/annotations/instances_val2017.json",
        )
        for path in train:
            shutil.copy(path, val[0].parent)
    else:
        for part, suffix in (("images", val[0].suffix), ("labels", ".png")):
            for path in train:
                shutil.copy(data / f"pair/{part}/train/{path.stem}{suffix}", data / f"pair/{part}/val")
    code, said, summary = run(kind, data / kind, *options)
    assert f"warning: {val[0].parent}: 3 of 3 images of val are also in train, first" in said
    assert "no problem, 1 warning, summary" in said and code == 0
    assert [warning["kind"] for warning in summary["warnings"]] == ["shared images"]

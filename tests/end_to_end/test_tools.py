"""The tools as a user calls them: bad input is one message, and the chain pretrain, convert, train, test holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.config import load_config
from mst_pretrain.runtime.errors import run_cli
from tests.end_to_end.in_process import tool
from tests.forked import Forked

ROOT = Path(__file__).parents[2]
PRETRAIN = "configs/quickstart/pretrain.py"
DETECT = "configs/quickstart/mask_rcnn.py"
SEGMENT = "configs/quickstart/upernet.py"
TINY_PRETRAINING = [
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "train_cfg.max_iters=2",
    "model.head.prototypes=32",
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run tools/train.py here, as its last two lines do, and return the one message with which it refuses."""
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: tool("train").main(list(arguments)))
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert "Traceback" not in captured.out + captured.err
    assert "Iter(train)" not in captured.out and "Epoch(train)" not in captured.out
    messages = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1
    return messages[0]


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A tool as its own process."""
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    return subprocess.run(arguments, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def write_image(path: Path, seed: int = 0, height: int = 96, width: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs' worth of noise."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(8):
        write_image(folder / f"{index}.jpg", index)
    return folder


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images per split, one box each, in COCO's layout with the quickstart's categories."""
    names = ("person", "car", "truck", "bus", "bicycle")
    for split in ("train", "val"):
        for index in range(2):
            write_image(tmp_path / f"coco/{split}2017/{index}.jpg", index)
        box = [10.0, 20.0, 60.0, 40.0]
        polygon = [10.0, 20.0, 70.0, 20.0, 70.0, 60.0, 10.0, 60.0]
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg", "height": 96, "width": 128} for i in range(2)],
            "annotations": [
                {"id": i + 1, "image_id": i, "category_id": i + 1, "bbox": box, "area": 2400.0, "iscrowd": 0}
                | {"segmentation": [polygon]}
                for i in range(2)
            ],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        }
        path = tmp_path / f"coco/annotations/instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "coco"


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two images per split with label maps of roads and sky, in Cityscapes' layout."""
    for split in ("train", "val"):
        for index in range(2):
            stem = tmp_path / f"cityscapes/leftImg8bit/{split}/town/{index}"
            write_image(stem.with_name(f"{index}_leftImg8bit.png"), index)
            labels = np.zeros((96, 128), np.uint8)
            labels[:40] = 10
            path = tmp_path / f"cityscapes/gtFine/{split}/town/{index}_gtFine_labelTrainIds.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(path)
    return tmp_path / "cityscapes"


def test_missing_folder_in_two_processes(tmp_path: Path) -> None:
    """Each process would print the error, torchrun a traceback, or the others be waited for half a minute."""
    folder = tmp_path / "absent"
    arguments = [PRETRAIN, "2", "--work-dir", str(tmp_path / "run"), "--cfg-options", f"data_root={folder}"]
    done = command("bash", "tools/dist_train.sh", *arguments, PORT="29713")
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1 and str(folder) in done.stderr


@pytest.mark.parametrize(("name", "remedy"), [("absent", "Check the path"), ("empty", "")])
def test_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, remedy: str) -> None:
    """A mistyped data root would end in a traceback, an empty one divide by zero or train on nothing."""
    (tmp_path / "empty").mkdir()
    options = ["--work-dir", str(tmp_path / "run"), "--cfg-options", f"data_root={tmp_path / name}"]
    message = refused(capsys, PRETRAIN, *options)
    assert str(tmp_path / name) in message and remedy in message


def test_truncated_jpeg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A half-copied photograph would stop the run hours later, or train as grey."""
    for index in range(4):
        write_image(tmp_path / f"images/{index}.jpg", index)
    truncate(tmp_path / "images/2.jpg")
    options = [f"data_root={tmp_path / 'images'}", *TINY_PRETRAINING]
    message = refused(capsys, PRETRAIN, "--work-dir", str(tmp_path / "run"), "--cfg-options", *options)
    assert str(tmp_path / "images/2.jpg") in message


def test_truncated_jpeg_of_coco(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A half-copied training photograph would stop detection in the middle of an epoch."""
    truncate(coco / "train2017/1.jpg")
    options = [f"data_root={coco}", "model.backbone.init_cfg=None"]
    message = refused(capsys, DETECT, "--work-dir", str(coco / "run"), "--cfg-options", *options)
    assert str(coco / "train2017/1.jpg") in message


def test_coco_json_with_absent_images(coco: Path) -> None:
    """A JSON of another data set would fail at a random step; as a process."""
    (coco / "train2017/0.jpg").unlink()
    options = [f"data_root={coco}", "model.backbone.init_cfg=None"]
    arguments = [DETECT, "--work-dir", str(coco / "run"), "--cfg-options", *options]
    code, output = Forked("train", *arguments).result()
    assert code == 2 and "Traceback" not in output and output.count("error: ") == 1
    message = output[output.index("error: ") :]
    assert str(coco / "annotations/instances_train2017.json") in message and "0.jpg" in message


def test_label_map_with_unknown_id(cityscapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An id of no class would be an index error in the loss, on a GPU an assertion without a line."""
    path = cityscapes / "gtFine/train/town/1_gtFine_labelTrainIds.png"
    Image.fromarray(np.full((96, 128), 77, np.uint8)).save(path)
    options = [f"data_root={cityscapes}", "model.backbone.init_cfg=None"]
    message = refused(capsys, SEGMENT, "--work-dir", str(cityscapes / "run"), "--cfg-options", *options)
    assert str(path) in message and "77" in message


def test_checkpoint_of_another_architecture(
    cityscapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of which no weight fits would train from scratch and say nothing."""
    other = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=0)
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {f"teacher.backbone.{key}": v for key, v in other.state_dict().items()}}, path)
    options = [f"data_root={cityscapes}", f"model.backbone.init_cfg.checkpoint={path}"]
    message = refused(capsys, SEGMENT, "--work-dir", str(tmp_path / "run"), "--cfg-options", *options)
    assert str(path) in message and "another architecture" in message


def test_missing_checkpoint(cityscapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who has not pretrained would not learn where the weights belong and what makes them."""
    arguments = ["configs/cityscapes/upernet_mst.py", "--work-dir", str(cityscapes / "run")]
    absent = "work_dirs/absent/mst_swin-t_8xb128-300e_in1k/latest.pth"
    options = [f"data_root={cityscapes}", f"model.backbone.init_cfg.checkpoint={absent}"]
    message = refused(capsys, *arguments, "--cfg-options", *options)
    assert absent in message
    assert "tools/pretrain.sh configs/pretrain/mst_swin-t_8xb128-300e_in1k.py" in message


def test_unknown_config_key(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt key would be ignored."""
    message = refused(capsys, PRETRAIN, "--cfg-options", "train_cfg.max_epoch=3")
    assert PRETRAIN in message and "train_cfg.max_epoch'" in message and "train_cfg.max_epochs" in message


def test_unknown_key_in_a_config_file(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt key of a config file would end in a TypeError's traceback."""
    config = tmp_path / "mine.py"
    config.write_text(f"_base_ = {str(ROOT / PRETRAIN)!r}\nmodel = dict(head=dict(hiden_dim=8))\n")
    message = refused(
        capsys, str(config), "--work-dir", str(tmp_path / "run"), "--cfg-options", f"data_root={images}"
    )
    assert str(config) in message and "hiden_dim" in message


def test_number_of_classes(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A head of another number of classes would learn wrong labels or index beyond them."""
    options = [f"data_root={coco}", "model.backbone.init_cfg=None", "model.roi_head.mask_head.num_classes=3"]
    message = refused(capsys, DETECT, "--work-dir", str(coco / "run"), "--cfg-options", *options)
    assert "model.roi_head.mask_head.num_classes=3" in message and "5 classes" in message


def pretrain(images: Path, work_dir: Path, *arguments: str) -> None:
    """Two iterations of the quickstart's pretraining, in this process."""
    tool("train").main(
        [
            PRETRAIN,
            "--work-dir",
            str(work_dir),
            *arguments,
            "--cfg-options",
            f"data_root={images}",
            *TINY_PRETRAINING,
        ]
    )


def test_exported_backbone_gives_equal_features(images: Path, tmp_path: Path) -> None:
    """timm would load a file of other weights, or none of them, from tools/convert_checkpoint.py."""
    pretrain(images, tmp_path)
    exported = tmp_path / "backbone.safetensors"
    tool("convert_checkpoint").main([str(tmp_path / "latest.pth"), str(exported)])
    shape = dict(load_config(ROOT / PRETRAIN).model.backbone, num_classes=0)
    name = shape.pop("name")
    loaded = timm.create_model(name, checkpoint_path=str(exported), **shape).eval()
    expected = timm.create_model(name, **shape).eval()
    prefix = "teacher.backbone."
    state = load_checkpoint(tmp_path / "latest.pth")["state_dict"]
    expected.load_state_dict({key[len(prefix) :]: v for key, v in state.items() if key.startswith(prefix)})
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(pixels), expected(pixels))


def test_export_names_the_architecture(tmp_path: Path) -> None:
    """A published file would not say which of timm's models takes it."""
    model = timm.create_model("vit_small_patch16_224", num_classes=0)
    torch.save(
        {f"teacher.backbone.{key}": value for key, value in model.state_dict().items()}, tmp_path / "a.pth"
    )
    tool("convert_checkpoint").main([str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors")])
    with safe_open(str(tmp_path / "a.safetensors"), "pt") as file:
        assert file.metadata()["architecture"] == "vit_small_patch16_224"
        assert set(file.keys()) == set(model.state_dict())

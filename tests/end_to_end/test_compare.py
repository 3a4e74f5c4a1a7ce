"""tools/compare.py --run trains and tests a row, records it, and does not do it again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.errors import run_cli

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/upernet.py")


def tool(name: str) -> ModuleType:
    """A file of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two images of noise per split, the upper half labelled sky, in Cityscapes' layout."""
    for split in ("train", "val"):
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 255, (96, 128, 3), dtype=np.uint8)
            image = tmp_path / f"scenes/leftImg8bit/{split}/town/{index}_leftImg8bit.png"
            label = tmp_path / f"scenes/gtFine/{split}/town/{index}_gtFine_labelTrainIds.png"
            for path, content in ((image, pixels), (label, np.repeat([[10], [0]], 48, 0).astype(np.uint8))):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.broadcast_to(content, (96, 128, *content.shape[2:]))).save(path)
    return tmp_path / "scenes"


def test_a_row_is_run_once(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A row would be trained twice, tested on other weights, or recorded under another seed or setting."""
    monkeypatch.chdir(tmp_path)
    compare = tool("compare").main
    options = [f"data_root={scenes}", "train_cfg.max_iters=1", "train_dataloader.batch_size=2"]
    arguments = ["--run", "--configs", CONFIG, "--rows", "random", "--seeds", "3", "--cfg-options", *options]
    compare(arguments)
    folder = tmp_path / "work_dirs/upernet_random_seed3"
    (path,) = folder.glob("results/*.json")
    record = json.loads(path.read_text())
    run = record["run"]
    assert (run["init"], run["init_sha256"], run["seed"], run["iterations"]) == ("random", None, 3, 1)
    assert run["options"] == {"train_cfg.max_iters": 1, "train_dataloader.batch_size": 2}
    assert (run["batch"], record["iteration"], record["tta"]) == (2, 1, False)
    assert record["checkpoint_sha256"] == file_sha256(folder / "latest.pth")
    assert record["metrics"] == json.loads((folder / "test_metrics.json").read_text())
    cell = (
        f"{record['metrics']['mIoU']:.2f} / {record['metrics']['mAcc']:.2f} / {record['metrics']['aAcc']:.2f}"
    )
    title = "upernet (train_cfg.max_iters=1, train_dataloader.batch_size=2)"
    printed = capfd.readouterr().out
    assert f"| initialisation | {title} |" in printed and f"| random | {cell} |" in printed

    compare(arguments)
    printed = capfd.readouterr().out
    assert "1 of 1 runs have a result, 0 to do" in printed and "$ " not in printed
    path.unlink()
    compare(["--dry-run", *arguments[1:]])
    printed = capfd.readouterr().out
    assert "tools/test.py" in printed and "tools/train.py" not in printed
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: compare(["--dry-run", *arguments[1:-1], "train_dataloader.batch_size=1"]))
    assert ended.value.code == 2 and "holds a run of other options" in capfd.readouterr().err


def test_a_run_is_one_run_and_a_test_one_test(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run resumed with another setting or row, or a test with another setting, would be in the first one's cell."""
    monkeypatch.chdir(tmp_path)
    data, short = f"data_root={scenes}", ["train_cfg.max_iters=1", "train_dataloader.batch_size=2"]
    train, folder = [CONFIG, "--init", "random"], tmp_path / "work_dirs/upernet_random_seed0"
    tool("train").main([*train, "--cfg-options", data, *short])
    run = json.loads((folder / "run.json").read_text())
    assert {key: value["images"] for key, value in run["data"].items()} == {"train": 2, "test": 2}
    for arguments, message in (
        ([*train, "--resume", "--cfg-options", data, *short[1:]], "train_cfg.max_iters: 1 -> "),
        (
            [CONFIG, "--resume", str(folder / "latest.pth"), "--cfg-options", data, *short],
            "model.backbone.init_cfg: None -> {'type': 'Pretrained', 'checkpoint': 'quickstart_out/pretrain/",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            run_cli(lambda arguments=arguments: tool("train").main(arguments))
        assert ended.value.code == 2 and message in capfd.readouterr().err
    assert json.loads((folder / "run.json").read_text()) == run

    test = [CONFIG, str(folder / "latest.pth"), "--work-dir", str(folder), "--cfg-options"]
    tool("test").main([*test, data, *short])
    (path,) = folder.glob("results/*.json")
    record = json.loads(path.read_text())
    assert record["data"] == run["data"]["test"] and record["config_sha256"] == run["config_sha256"]
    tool("test").main([*test, data, *short, "model.decode_head.align_corners=True"])
    few = tmp_path / "few"
    shutil.copytree(scenes, few)
    (few / "leftImg8bit/val/town/1_leftImg8bit.png").unlink()
    tool("test").main([*test, f"data_root={few}", *short])
    assert len(list(folder.glob("results/*.json"))) == 3 and json.loads(path.read_text()) == record
    capfd.readouterr()
    tool("compare").main(
        ["--dry-run", "--configs", CONFIG, "--rows", "random", "--cfg-options", data, *short]
    )
    printed = capfd.readouterr().out
    setting = "train_cfg.max_iters=1, train_dataloader.batch_size=2"
    (head,) = [line for line in printed.splitlines() if line.startswith("| initialisation |")]
    assert "1 of 1 runs have a result, 0 to do" in printed and f"| upernet ({setting}) |" in head
    assert f"| upernet (model.decode_head.align_corners=True, {setting}) |" in head
    assert f"| upernet ({setting}, tested on other data " in head and ": 1 images) |" in head
    path.unlink()
    tool("compare").main(
        ["--dry-run", "--configs", CONFIG, "--rows", "random", "--cfg-options", data, *short]
    )
    assert "0 of 1 runs have a result, 1 to do" in capfd.readouterr().out


def test_a_row_and_a_file_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The file would be replaced by the row's without a word."""
    arguments = [str(ROOT / "configs/coco/mask_rcnn_mst.py"), "--init", "moby"]
    options = ["--cfg-options", "model.backbone.init_cfg.checkpoint=mine.pth"]
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: tool("train").main([*arguments, *options]))
    assert ended.value.code == 2 and "both name the weights" in capsys.readouterr().err


def test_a_row_without_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """tools/train.py would build and load data first, or not say what makes the file."""
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "configs/cityscapes/setr_pup_mst_deit-s.py")
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: tool("train").main([config, "--init", "supervised"]))
    message = capsys.readouterr().err
    assert ended.value.code == 2 and not (tmp_path / "work_dirs").exists()
    assert "pretrained/supervised_deit-s.safetensors (row 'supervised', deit-s)" in message
    assert "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth" in message
    assert "--to timm" in message and "--init random" in message


def test_pretraining_has_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """--init on a pretraining config would be ignored."""
    config = str(ROOT / "configs/pretrain/mst_swin-t_8xb64-100e_in1k.py")
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: tool("train").main([config, "--init", "dino"]))
    assert ended.value.code == 2 and "Pretraining has --init-from" in capsys.readouterr().err

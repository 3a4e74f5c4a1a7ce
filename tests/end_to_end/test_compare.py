"""tools/compare.py --run trains and tests a row, records it, and does not do it again."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mst_pretrain.runtime.atomic import file_sha256
from mst_pretrain.runtime.errors import run_cli
from mst_transfer.comparison import runs
from tests.end_to_end.in_process import tool
from tests.forked import Forked

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/quickstart/upernet.py")
ROW = ["--configs", CONFIG, "--rows", "random", "--seeds", "3"]
SHORT = ["train_cfg.max_iters=1", "train_dataloader.batch_size=2"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of noise per split, the upper half labelled sky, in Cityscapes' layout."""
    root = tmp_path_factory.mktemp("scenes")
    for split in ("train", "val"):
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 255, (96, 128, 3), dtype=np.uint8)
            image = root / f"leftImg8bit/{split}/town/{index}_leftImg8bit.png"
            label = root / f"gtFine/{split}/town/{index}_gtFine_labelTrainIds.png"
            for path, content in ((image, pixels), (label, np.repeat([[10], [0]], 48, 0).astype(np.uint8))):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.broadcast_to(content, (96, 128, *content.shape[2:]))).save(path)
    return root


def call(command: list[str]) -> None:
    """A tool that the comparison starts, as a process that imports nothing."""
    code, output = Forked(*command[1:], folder=Path.cwd()).result()
    assert code == 0, output[-3000:]


@pytest.fixture(scope="module")
def first(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which ``compare.py --run`` has trained and tested a row, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("first"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setattr(runs, "_call", call)
        tool("compare").main(["--run", *ROW, *options(scenes)])
    return folder, printed.getvalue()


@pytest.fixture
def folder(first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the row's work directory; the test runs where it would have been made."""
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "work_dirs/upernet_random_seed3"


def options(data: Path) -> list[str]:
    return ["--cfg-options", f"data_root={data}", *SHORT]


def test_a_row_is_run_once(
    first: tuple[Path, str], scenes: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A row would be trained twice, tested on other weights, or recorded under another seed or setting."""
    compare = tool("compare").main
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
    assert f"| initialisation | {title} |" in first[1] and f"| random | {cell} |" in first[1]

    compare(["--run", *ROW, *options(scenes)])
    printed = capfd.readouterr().out
    assert "1 of 1 runs have a result, 0 to do" in printed and "$ " not in printed
    path.unlink()
    compare(["--dry-run", *ROW, *options(scenes)])
    printed = capfd.readouterr().out
    assert "tools/test.py" in printed and "tools/train.py" not in printed
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: compare(["--dry-run", *ROW, *options(scenes)[:-1], "train_dataloader.batch_size=1"]))
    assert ended.value.code == 2 and "holds a run of other options" in capfd.readouterr().err


def test_a_run_is_one_run_and_a_test_one_test(
    scenes: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run resumed with another setting or row, or a test with another setting, would be in the first one's cell."""
    given = [*options(scenes), "randomness.seed=3"]
    run = json.loads((folder / "run.json").read_text())
    assert {key: value["images"] for key, value in run["data"].items()} == {"train": 2, "test": 2}
    uncut = [option for option in given if option != SHORT[0]]
    for arguments, message in (
        ([CONFIG, "--init", "random", "--resume", *uncut], "train_cfg.max_iters: 1 -> "),
        (
            [CONFIG, "--resume", str(folder / "latest.pth"), *given],
            "model.backbone.init_cfg: None -> {'type': 'Pretrained', 'checkpoint': 'quickstart_out/pretrain/",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            run_cli(lambda arguments=arguments: tool("train").main(arguments))
        assert ended.value.code == 2 and message in capfd.readouterr().err
    assert json.loads((folder / "run.json").read_text()) == run

    test = [CONFIG, str(folder / "latest.pth"), "--work-dir", str(folder)]
    (path,) = folder.glob("results/*.json")
    record = json.loads(path.read_text())
    assert record["data"] == run["data"]["test"] and record["config_sha256"] == run["config_sha256"]
    tool("test").main([*test, *given, "model.decode_head.align_corners=True"])
    few = tmp_path / "few"
    shutil.copytree(scenes, few)
    (few / "leftImg8bit/val/town/1_leftImg8bit.png").unlink()
    tool("test").main([*test, *options(few), "randomness.seed=3"])
    assert len(list(folder.glob("results/*.json"))) == 3 and json.loads(path.read_text()) == record
    capfd.readouterr()
    tool("compare").main(["--dry-run", *ROW, *options(scenes)])
    printed = capfd.readouterr().out
    setting = "train_cfg.max_iters=1, train_dataloader.batch_size=2"
    (head,) = [line for line in printed.splitlines() if line.startswith("| initialisation |")]
    assert "1 of 1 runs have a result, 0 to do" in printed and f"| upernet ({setting}) |" in head
    assert f"| upernet (model.decode_head.align_corners=True, {setting}) |" in head
    assert f"| upernet ({setting}, tested on other data " in head and ": 1 images) |" in head
    path.unlink()
    tool("compare").main(["--dry-run", *ROW, *options(scenes)])
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

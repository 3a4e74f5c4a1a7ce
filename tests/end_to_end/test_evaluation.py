"""The evaluations as a user runs them: one and two processes agree, the JSON says how, bad input is one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mst_pretrain.evaluation import knn_evaluation
from mst_pretrain.evaluation.features import block_features
from mst_pretrain.evaluation.linear_evaluation import settings_of
from mst_pretrain.method.backbones import build_trunk
from mst_pretrain.runtime.devices import run_in
from mst_pretrain.runtime.errors import UserError, run_cli
from mst_transfer.evaluation import dense_probe
from tests.end_to_end.in_process import tool
from tests.forked import free_port, outputs_of, two

ROOT = Path(__file__).parents[2]
NAME = "vit_tiny_patch16_224"
SHAPE: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2)
SIZES = ["--resize", "32", "--crop", "32", "--workers", "0"]
TOY_PROBE = f"""
_base_ = {str(ROOT / "configs/quickstart/probe.py")!r}
train_cfg = dict(max_iters=2)
train_dataloader = dict(batch_size=2)
param_scheduler = [dict(type="ConstantLR", factor=1.0, by_epoch=False)]
"""


def fill(folder: Path, per_class: dict[str, int], seed: int) -> str:
    """Class folders: every class its own colour, with noise."""
    rng = np.random.default_rng(seed)
    for label, (name, count) in enumerate(per_class.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 160, (36, 40, 3)) + np.eye(3, dtype=int)[label % 3] * 60
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A training set of 23 images and a val set of 9: neither divides by two processes."""
    root = tmp_path_factory.mktemp("labelled")
    train = fill(root / "train", {"a": 10, "b": 7, "c": 6}, 0)
    return train, fill(root / "val", {"a": 4, "c": 5}, 1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretraining checkpoint."""
    torch.manual_seed(0)
    trunk = build_trunk(NAME, **SHAPE)
    path = tmp_path_factory.mktemp("weights") / "latest.pth"
    state = {f"teacher.backbone.{key}": value for key, value in trunk.state_dict().items()}
    torch.save({"state_dict": state, "meta": trunk.architecture}, path)
    return str(path)


def last_json(text: str) -> dict[str, Any]:
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``tools/dist_eval.sh`` on two CPU processes; the first argument is knn or linear."""
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
        "PORT": free_port(),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = ["bash", "tools/dist_eval.sh", arguments[0], "2", *arguments[1:]]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('{"protocol"') == 1
    return last_json(done.stdout)


def without_surroundings(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("date", "world_size")}


def test_knn_of_two_processes_is_one_processes(
    data: tuple[str, str], checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features would come back in another order or padded, or the JSON lack what the number depends on."""
    arguments = [*data, "--checkpoint", checkpoint, *SIZES, "--batch-size", "4", "-k", "5", "1"]
    tool("eval_knn").main([*arguments, "--out", str(tmp_path / "1.json"), "--save", str(tmp_path / "1.npz")])
    (line,) = capsys.readouterr().out.splitlines()  # what is for a person goes to stderr
    one = json.loads(line)
    assert json.loads((tmp_path / "1.json").read_text()) == one and not list(tmp_path.glob("*.part"))
    assert (one["model"], one["model_args"], one["prefix"]) == (NAME, SHAPE, "teacher.backbone.")
    assert (one["train_images"], one["val_images"], one["classes"], one["k"]) == (23, 9, 3, [1, 5])
    assert {"sha256", "temperature", "resize", "crop", "versions", "date", "knn_1", "knn_5"} <= set(one)
    other = result_of(two_processes("knn", *arguments, "--save", str(tmp_path / "2.npz")))
    assert (one["world_size"], other["world_size"]) == (1, 2)
    assert without_surroundings(other) == without_surroundings(one)
    first, second = np.load(tmp_path / "1.npz"), np.load(tmp_path / "2.npz")
    assert first["train_features"].shape == (23, 16) and set(first) == set(second)
    for name in first:
        if first[name].dtype.kind == "U":  # names of images and classes
            assert first[name].tolist() == second[name].tolist(), name
            continue
        np.testing.assert_allclose(second[name], first[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_features_are_computed_in_the_precision_that_is_asked_for(
    data: tuple[str, str], checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dtype would change nothing, or a result not say in which precision its features were computed."""
    features, banks = {}, {}
    for dtype, given in (("float32", []), ("bfloat16", ["--dtype", "bfloat16"])):
        arguments = [*data, "--checkpoint", checkpoint, *SIZES, *given, "--out", str(tmp_path / dtype)]
        tool("eval_knn").main([*arguments, "-k", "1", "--save", str(tmp_path / f"{dtype}.npz")])
        captured = capsys.readouterr()
        assert last_json(captured.out)["dtype"] == dtype and f"runs in {dtype} on cpu" in captured.err
        features[dtype] = np.load(tmp_path / f"{dtype}.npz")["val_features"]
        tool("eval_linear").main([*arguments, "--epochs", "1", "--lr", "1"])
        assert last_json(capsys.readouterr().out)["dtype"] == dtype
        banks[dtype] = torch.load(tmp_path / f"{dtype}.state", weights_only=True)["bank"]["weights.0"]
    for one, other in (features.values(), banks.values()):
        assert 0 < abs(one - other).max() < 0.1 and one.dtype == other.dtype


def test_default_neighbours_that_do_not_fit_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A small data set would be refused for a k that nobody gave, or lose k-NN results without a word."""
    neighbours = knn_evaluation.neighbours
    assert neighbours(None, 50, "train") == [10, 20]
    assert capsys.readouterr().err == "k = [100, 200] left out: train has 50 training images\n"
    assert neighbours(None, 200, "train") == [10, 20, 100, 200] and not capsys.readouterr().err


def test_linear_of_two_processes_is_one_with_the_whole_batch(
    data: tuple[str, str],
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Gradients would be averaged over uneven shares, images trained on twice, or each process train its own heads."""
    # 23 images less 3 held out, in batches of 7: shares of 4 and 3, and a last batch of 6.
    arguments = [*data, "--checkpoint", checkpoint, *SIZES, "--epochs", "2", "--train-batch-size", "7"]
    states = {}
    for number in (1, 2):
        out = tmp_path / f"{number}.json"
        if number == 2:
            result = last_json(outputs_of(two("eval_linear", *arguments, "--out", str(out)))[0])
        else:
            tool("eval_linear").main([*arguments, "--out", str(out)])
            result = last_json(capsys.readouterr().out)
        assert result["world_size"] == number
        states[number] = torch.load(f"{out}.state", weights_only=True)["bank"], without_surroundings(result)
    (one, first), (other, second) = states[1], states[2]
    assert first.keys() == second.keys() and first["linear"] == second["linear"]
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert max(float(value.abs().max()) for name, value in one.items() if name == "bias") > 0


def test_sweep_reports_what_it_chose(
    data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number would not say by which images, rate and features it was chosen, or that its weights are random."""
    out = tmp_path / "out.json"
    arguments = [*data, "--checkpoint", "none", "--model", NAME, "--model-args", json.dumps(SHAPE), *SIZES]
    arguments += [
        "--augment",
        "none",
        "--epochs",
        "3",
        "--lr",
        "0.1",
        "10",
        "--low-shot",
        "0.5",
        "--hold-out",
        "0.3",
    ]
    tool("eval_linear").main([*arguments, "--out", str(out)])
    result = json.loads(out.read_text())
    assert last_json(capsys.readouterr().out) == result
    assert result["checkpoint"] == "none" and result["init_seed"] == 0
    # Of 10, 7, 6 images half: 5, 4, 3 (rounded to even); held out of these 2, 1, 1.
    assert (result["train_images"], result["held_out_images"], result["val_images"]) == (8, 4, 9)
    assert result["features"] == ["last1", "last3", "last1+avgpool", "last3+avgpool"]
    best = max(head["held_out_accuracy"] for head in result["heads"])
    assert len(result["heads"]) == 8 and result["chosen"]["held_out_accuracy"] == best
    assert 0 <= result["linear"] <= 100
    tool("eval_linear").main([*arguments, "--out", str(out), "--resume"])
    assert "3 of 3 epochs are done" in capsys.readouterr().err
    again = json.loads(out.read_text())
    assert without_surroundings(again) == without_surroundings(result)


def test_dino_protocol_is_dinos(
    data: tuple[str, str], checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number called DINO's would have another rate, batch, schedule or features, or not use all training images."""
    parsed = tool("eval_linear").parse([*data, "--protocol", "dino"])
    settings = settings_of(parsed, build_trunk(NAME, **{**SHAPE, "depth": 6}), 5000)
    assert settings.columns == {"last4": (0, 64)} and (settings.rates, settings.epochs) == ([0.001], 100)
    assert (settings.batch, settings.scaled_rates) == (1024, [0.004])
    assert settings.step_each_epoch and settings.augment and (settings.resize, settings.crop) == (256, 224)
    arguments = [*data, "--checkpoint", checkpoint, *SIZES, "--protocol", "dino", "--epochs", "1"]
    tool("eval_linear").main(arguments)
    result = last_json(capsys.readouterr().out)
    assert (result["protocol"], result["features"]) == ("linear-dino", ["last3"])
    assert (result["train_images"], result["held_out_images"], result["batch"]) == (23, 0, 23)
    assert result["hold_out"] is None and result["chosen"] == {"features": "last3", "lr": 0.001}


def test_dino_protocol_for_vit_b(
    data: tuple[str, str], checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DINO's ViT-B setting would read four blocks, leave the patch tokens out, or not say what it read."""
    asked = ["--protocol", "dino", "--blocks", "1", "--avgpool"]
    trunk = build_trunk(NAME, **SHAPE).eval()
    settings = settings_of(tool("eval_linear").parse([*data, *asked]), trunk, 5000)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = trunk.forward_features(images)
        rows = block_features(trunk, images, settings.blocks, settings.avgpool)
    ((name, (start, stop)),) = settings.columns.items()
    assert name == "last1+avgpool"
    torch.testing.assert_close(
        rows[:, start:stop], torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1), rtol=1e-5, atol=1e-6
    )
    out = tmp_path / "out.json"
    tool("eval_linear").main(
        [*data, "--checkpoint", checkpoint, *SIZES, *asked, "--epochs", "1", "--out", str(out)]
    )
    result = last_json(capsys.readouterr().out)
    assert (result["features"], result["blocks"], result["avgpool"]) == (["last1+avgpool"], 1, True)
    assert result["chosen"] == {"features": "last1+avgpool", "lr": 0.001}
    weights = torch.load(f"{out}.state", weights_only=True)["bank"]["weights.0"]
    assert weights.shape == (1, 3, 2 * SHAPE["embed_dim"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--avgpool"], "a sweep tries"),
        (["--protocol", "dino", "--avgpool"], "--blocks 1"),
        (["--protocol", "dino", "--avgpool", "--blocks", "4"], "--blocks 1"),
    ],
)
def test_pooled_tokens_where_they_do_not_apply(data: tuple[str, str], options: list[str], match: str) -> None:
    """The option would do nothing in a sweep, or a result be called DINO's that its script cannot make."""
    with pytest.raises(UserError, match=match):
        tool("eval_linear").parse([*data, *options])


def test_pooled_tokens_of_a_swin_are_refused(data: tuple[str, str]) -> None:
    """A Swin's means of tokens would be called [CLS] and their mean."""
    args = tool("eval_linear").parse([*data, "--protocol", "dino", "--blocks", "1", "--avgpool"])
    swin = build_trunk("swin_tiny_patch4_window7_224", embed_dim=8, num_heads=(1, 1, 2, 2))
    with pytest.raises(UserError, match="--avgpool is for a ViT"):
        settings_of(args, swin, 100)


@pytest.mark.parametrize(
    ("name", "change", "options", "words"),
    [
        ("eval_knn", "", ["-k", "24"], ["-k 24", "23 training images"]),
        ("eval_knn", "few", [], ["4 training images", "default 10", "-k 1"]),
        ("eval_knn", "unknown", [], ["val has classes", "new"]),
        ("eval_knn", "empty", [], ["empty"]),
        ("eval_knn", "", ["--crop", "36", "--resize", "40"], ["patch size 8"]),
        ("eval_knn", "other", [], ["other.pth", "holds no ViT or Swin backbone", "found: layer1"]),
        ("eval_linear", "lonely", [], ["'lonely' has one training image", "--protocol dino"]),
        ("eval_linear", "", ["--low-shot", "10"], ["--low-shot", "between 0 and 1"]),
        ("eval_linear", "", ["--protocol", "dino", "--augment", "none"], ["--protocol dino"]),
        ("eval_linear", "", ["--resume"], ["--out"]),
        ("eval_linear", "", ["--blocks", "9"], ["--blocks 9", "3 blocks"]),
    ],
)
def test_bad_input_is_one_message(
    data: tuple[str, str], checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    name: str, change: str, options: list[str], words: list[str],
) -> None:  # fmt: skip
    """A user's mistake would end in a traceback, in silence, or in a number."""
    train, val = data
    if change == "unknown":
        val = fill(tmp_path / "val", {"a": 1, "new": 1}, 0)
    if change == "few":
        train = val = fill(tmp_path / "few", {"a": 2, "b": 2}, 0)
    if change == "lonely":
        train = fill(tmp_path / "train", {"a": 3, "b": 2, "c": 2, "lonely": 1}, 0)
    if change == "empty":
        (tmp_path / "empty").mkdir()
        train = str(tmp_path / "empty")
    if change == "other":
        checkpoint = str(tmp_path / "other.pth")
        torch.save({"layer1.weight": torch.ones(2)}, checkpoint)
    arguments = [train, val, "--checkpoint", checkpoint, *SIZES, *options]
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: tool(name).main(arguments))
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(errors) == 1 and "Traceback" not in captured.out + captured.err
    assert all(word in errors[0] for word in words), errors[0]


def test_dense_probe_trains_one_layer_and_prints_miou(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dense probe would train the backbone, take another one's weights, or not say what it measured."""
    for split in ("train", "val"):
        for index in range(2):
            rng = np.random.default_rng(index)
            picture = tmp_path / f"street/leftImg8bit/{split}/town/{index}_leftImg8bit.png"
            labels = tmp_path / f"street/gtFine/{split}/town/{index}_gtFine_labelTrainIds.png"
            for path in (picture, labels):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (144, 256, 3), dtype=np.uint8)).save(picture)
            Image.fromarray(np.repeat([[10], [0]], 72, 0).repeat(256, 1).astype(np.uint8)).save(labels)
    config, run, out = tmp_path / "probe.py", tmp_path / "run", tmp_path / "dense.json"
    config.write_text(TOY_PROBE)
    arguments = [str(tmp_path / "street"), "--checkpoint", checkpoint, "--config", str(config)]
    autocast: list[bool] = []

    def spied(dtype: str, device: torch.device, forward: Any) -> Any:
        def seen(images: torch.Tensor) -> Any:
            autocast.append(torch.is_autocast_enabled("cpu"))
            return forward(images)

        return run_in(dtype, device, seen)

    monkeypatch.setattr(dense_probe, "run_in", spied)
    tool("eval_dense").main([*arguments, "--work-dir", str(run), "--out", str(out), "--dtype", "bfloat16"])
    assert autocast == [True] * 4  # two steps, two images tested
    result = json.loads(out.read_text())
    assert last_json(capsys.readouterr().out) == result
    assert {"mIoU", "mAcc", "aAcc", "sha256", "iterations"} <= set(result) and result["dtype"] == "bfloat16"
    assert (result["classes"], result["prefix"], result["model"]) == (
        ["road", "sky"],
        "teacher.backbone.",
        NAME,
    )
    state = torch.load(run / "latest.pth", weights_only=False)["state_dict"]
    source = torch.load(checkpoint, weights_only=True)["state_dict"]
    backbone = {key for key in state if key.startswith("backbone.trunk.")}
    assert len(backbone) == len(source) and set(state) - backbone == {
        "decode_head.conv_seg.weight",
        "decode_head.conv_seg.bias",
    }
    for key in backbone:
        assert torch.equal(state[key], source[key.replace("backbone.trunk.", "teacher.backbone.")]), key
    assert state["decode_head.conv_seg.weight"].shape == (2, 3 * 16, 1, 1)

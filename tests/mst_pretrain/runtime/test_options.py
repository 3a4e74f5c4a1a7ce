"""What ``--cfg-options`` takes: values of the kind that the config has, keys that something reads, or one message."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mst_pretrain.runtime.config import load_config, read_options
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.options import READ, ConfigOptions, walk

ROOT = Path(__file__).parents[3]
CONFIG = """
data_root = "data/photos"
classes = ("scratch", "dent")
size = (256, 128)
iterations = 400
train_pipeline = [dict(type="Resize", scale=size)]
model = dict(
    backbone=dict(depth=12, taps=(0, 1), pretrained=None, init_cfg=dict(checkpoint="a.pth", prefix="b.")),
    weights=[1, 0.5],
)
train_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline, shuffle=True)
)
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.99)))
sync_bn = "torch"
load_from = None
"""
CLASSES = "train_dataloader.dataset.metainfo.classes"
SCALE = "train_dataloader.dataset.pipeline.0.scale"
CHECKPOINT = "model.backbone.init_cfg.checkpoint"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        *(
            (key, text, text)
            for key in ("data_root", CHECKPOINT)
            for text in ("my photos", " a,b", "1e5", "50")
        ),
        *((CHECKPOINT, text, text) for text in ("lr=3/[x](y", "'quoted'", "t-{0,01}.tar", "true", "50,60")),
        ("load_from", "runs/a, b.pth", "runs/a, b.pth"),
        ("load_from", "2024", "2024"),
        ("sync_bn", "None", None),
        ("model.backbone.init_cfg", "None", None),
        ("model.backbone.depth", "6", 6),
        ("optim_wrapper.optimizer.lr", "1", 1.0),
        ("optim_wrapper.optimizer.lr", "1e-4", 1e-4),
        ("train_dataloader.dataset.shuffle", "false", False),
        ("train_dataloader.dataset.shuffle", "1", True),
        ("model.backbone.taps", "2,3", (2, 3)),
        ("model.backbone.taps", "[2, 3]", [2, 3]),
        ("model.backbone.taps", "(2)", (2,)),
        ("model.weights", "[1,1,0.25]", [1, 1, 0.25]),
        (CLASSES, "(traffic sign, 50 ,driver's seat,None)", ("traffic sign", "50", "driver's seat", "None")),
        (CLASSES, '("a, b", 1e5)', ("a, b", "1e5")),
        *((CLASSES, text, ("crack 1",)) for text in ("crack 1", "crack 1,", "(crack 1)", "('crack 1')")),
        (SCALE, "[(256,144),(128,72)]", [(256, 144), (128, 72)]),
        ("model.backbone.pretrained", "1e-3", 1e-3),
        ("model.backbone.pretrained", "a,b c", "a,b c"),
        ("model.backbone.pretrained", "[a, 2]", ["a", 2]),
        ("+model.backbone.width", "2,2", [2, 2]),
        ("+model.backbone.width", "t-{0,01,2}.tar", "t-{0,01,2}.tar"),
        ("+model.backbone.depth", "0.5", 0.5),  # asked for: another kind than the config's
    ],
)
def test_value_is_of_the_kind_that_the_config_has(config: Path, key: str, text: str, value: Any) -> None:
    """A path with a space or a comma would be another folder, a class named 50 a number."""
    options = read_options(config, {key: text})
    assert options == {key: value} and type(options[key]) is type(value)
    cfg = load_config(config, options)
    assert dict(walk(cfg._cfg_dict))[key.removeprefix("+")] == value


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("optim_wrapper.optimizer.lr", "1e", r"lr=1e: '1e' is not a number, .*\(0\.001\)"),
        *(("optim_wrapper.optimizer.lr", text, "not a finite number") for text in ("inf", "-inf", "1e999")),
        ("optim_wrapper.optimizer.lr", "nan", "not a number"),
        ("optim_wrapper.optimizer.betas", "(0.9,inf)", "not a finite number"),
        ("optim_wrapper.optimizer.lr", "0,1", "not a number"),
        ("optim_wrapper.optimizer.betas", "(0.9,x)", "'x' is not a number"),
        ("model.backbone.depth", "6.0", r"'6\.0' is not a whole number"),
        ("model.backbone.depth", "1e1", "not a whole number"),
        ("model.backbone.depth", "", "not a whole number"),
        ("model.backbone.taps", "(2,3.0)", "not a whole number"),
        ("model.backbone.taps", "3", r"a list there .*Write \(3\)"),
        ("model.backbone.taps", "[2,3", "no partner"),
        (CLASSES, "", r"a list there"),
        (CLASSES, "(a,,b)", "empty element"),
        ("train_dataloader.dataset.shuffle", "yes", "not True or False"),
        ("train_dataloader.dataset.shuffle", "2", "not True or False"),
        (CLASSES, "()", "Give one or more"),
        ("model.backbone.init_cfg", "a.pth", "the keys checkpoint, prefix there"),
        ("model.backbone.dpth", "3", r"Did you mean 'model\.backbone\.depth'"),
        ("data_root", "", "is empty"),
        ("data_root", "None", "is empty"),
    ],
)
def test_value_of_another_kind_is_named(config: Path, key: str, text: str, words: str) -> None:
    """A typo in a number would surface as a traceback after the data was read, or train with another value."""
    with pytest.raises(UserError, match=rf"{config.name}: .*{words}|{config.name} has no key.*{words}"):
        read_options(config, {key: text})


@pytest.mark.parametrize(
    "given", [["data_root=t-0.tar", "a.b=1", "data_root=t-1.tar"], ["data_root=my", "photos"]]
)
def test_what_a_shell_took_apart_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Braces without quotes become two options, a path with a space two words: the run would see a part of the data."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=ConfigOptions, default={})
    for arguments in (
        ["--cfg-options", *given],
        [word for pair in given for word in ("--cfg-options", pair)],
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
        assert "quotes around" in capsys.readouterr().err


def test_one_option_inside_another_is_refused(config: Path) -> None:
    """One of the two would be lost, or MMEngine would end in a traceback."""
    for texts in (
        {"model.backbone.init_cfg": "None", CHECKPOINT: "b.pth"},
        {"model.backbone.depth": "1", "+model.backbone.depth": "2"},
    ):
        with pytest.raises(UserError, match="Give one of them"):
            read_options(config, texts)


@pytest.mark.parametrize(
    ("key", "holder"),
    [
        ("classes", CLASSES),
        ("size", SCALE),
        ("iterations", "train_cfg.max_iters"),
        ("train_pipeline.0.type", "train_dataloader.dataset.pipeline.0.type"),
        ("+classes", CLASSES),
        ("+custom_hook", "Did you mean 'custom_hooks'"),
    ],
)
def test_variable_that_the_config_has_used_is_refused(config: Path, key: str, holder: str) -> None:
    """A run would train with the old classes, and its saved config would say the new ones."""
    with pytest.raises(UserError, match=rf"{config.name}: --cfg-options .*would change nothing.*{holder}"):
        read_options(config, {key: "(a,b)"})


@pytest.mark.parametrize(
    ("tool", "key", "words"),
    [
        ("tools/test.py", "val_dataloader.dataset.ann_file", "Set test_dataloader.dataset.ann_file"),
        ("tools/test.py", "val_evaluator.ann_file", "Set test_evaluator.ann_file"),
        ("tools/test.py", "+val_cfg.fp16", "Set test_cfg.fp16"),
        ("tools/test.py", "+val_dataloader.dataset.indices", "Set test_dataloader.dataset.indices"),
        ("tools/test.py", "load_from", "does not read load_from"),
        ("tools/test.py --tta", "val_evaluator.ann_file", "Set test_evaluator.ann_file"),
        ("tools/test.py", "+tta_model.type", "Add --tta"),
        ("tools/predict.py", "+tta_pipeline", "Add --tta"),
        ("tools/predict.py", "test_evaluator.ann_file", "does not read test_evaluator"),
        ("tools/train.py", "test_evaluator.ann_file", "Set val_evaluator.ann_file"),
        ("tools/train.py", "+test_cfg.fp16", "Set val_cfg.fp16"),
        ("tools/train.py", "+tta_model.type", "does not read tta_model"),
        ("tools/eval_dense.py", "+tta_model.type", "does not read tta_model"),
    ],
)
def test_key_that_this_tool_does_not_read_is_refused(tool: str, key: str, words: str) -> None:
    """A test with another val_evaluator.ann_file would score the old annotations, and record the new ones."""
    config = ROOT / "configs/coco/mask_rcnn_mst.py"
    with pytest.raises(UserError, match=rf"--cfg-options {re.escape(key)}=... would change nothing.*{words}"):
        read_options(config, {key: "3"}, tool)


@pytest.mark.parametrize(
    ("tool", "key"),
    [
        ("tools/test.py", "test_evaluator.ann_file"),
        ("tools/test.py", "train_cfg.max_iters"),  # a training's: the test's record names the training by it
        ("tools/test.py --tta", "+tta_model.type"),
        ("tools/train.py", "val_evaluator.ann_file"),
        ("tools/train.py", "test_dataloader.dataset.ann_file"),  # whose data the run's record has
        ("tools/eval_dense.py", "test_evaluator.ann_file"),
        ("tools/eval_dense.py", "val_evaluator.ann_file"),
        ("tools/predict.py", "test_dataloader.dataset.ann_file"),
        ("tools/predict.py --tta", "+tta_model.type"),
        ("", "val_evaluator.ann_file"),
    ],
)
def test_key_that_this_tool_reads_is_taken(tool: str, key: str) -> None:
    """An option that works would be refused."""
    assert read_options(ROOT / "configs/coco/mask_rcnn_mst.py", {key: "3"}, tool)


def test_data_root_that_nothing_is_below_is_refused(tmp_path: Path) -> None:
    """A config of one's own that sets data_root beside a base that has used its own would train on the base's data."""
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = {str(ROOT / 'configs/coco/mask_rcnn_own-data.py')!r}\ndata_root = 'mine/'\n")
    with pytest.raises(UserError, match="no path in the config is below its data_root, 'mine/'"):
        read_options(path, {"data_root": "other"})


def test_scheduled_values_are_refused() -> None:
    """A pretraining would keep the schedule's learning rate without a word."""
    with pytest.raises(UserError, match=r"default_hooks\.schedule\.base_lr"):
        read_options("configs/quickstart/pretrain.py", {"optim_wrapper.optimizer.lr": "1e-3"})
    assert read_options("configs/quickstart/upernet.py", {"optim_wrapper.optimizer.lr": "1e-3"})


def test_every_key_of_the_runner_is_one_that_is_read() -> None:
    """An option that the runner takes would be refused."""
    assert set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} <= READ


CONFIGS = sorted(
    path
    for folder in ("configs", "studies/configs")
    for path in (ROOT / folder).rglob("*.py")
    if not {"drop_in", "_base_"} & set(path.parts)
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_variable_of_every_config_takes_effect_or_is_refused(path: Path) -> None:
    """An option would be accepted, written into the saved config, and change nothing."""
    before = load_config(path)._cfg_dict
    for name in set(before) - READ - {"data_root"}:
        with pytest.raises(UserError, match=f"'{name}' is a variable"):
            read_options(path, {name: "1"})
    after = load_config(path, read_options(path, {"data_root": "else where/x"}))._cfg_dict
    assert read_paths(after) == [
        f"else where/x{value[len(before['data_root'].rstrip('/')) :]}" for value in read_paths(before, True)
    ]


def read_paths(node: Any, old: bool = False) -> list[str]:
    """Values of the keys that are read and name the data, in a config whose data root is known."""
    root = node["data_root"].rstrip("/") if old else "else where/x"
    live = Config({name: value for name, value in node.items() if name in READ})._cfg_dict
    return [value for _, value in walk(live) if isinstance(value, str) and value.startswith(root)]

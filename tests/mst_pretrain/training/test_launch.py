"""Configs and command lines: what is overridden, moved, refused, and how an error reads."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import Registry

from mst_pretrain.runtime.config import explain, load_config
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.runtime.options import check_option_keys
from mst_pretrain.training import launch
from mst_pretrain.training.resume import without_weights

CONFIG = """
data_root = "data/coco/"
model = dict(type="Net", backbone=dict(type="Trunk", depth=12, init_cfg=dict(checkpoint="a.pth")))
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4))
custom_hooks = [dict(root=data_root, files=("data/coco/a.json", "data/cocoa"))]
train_cfg = dict(max_epochs=12)
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun tells a process."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.get(name, "0"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(CONFIG)
    return path


def arguments(config: Path, **given: Any) -> argparse.Namespace:
    values = {"work_dir": None, "launcher": "none", "amp": False, "auto_scale_lr": False, "resume": None}
    return argparse.Namespace(config=str(config), **{**values, **given})


def test_unknown_key_names_the_nearest(config: Path) -> None:
    """A typo in --cfg-options would be ignored and the run would train with the old value."""
    with pytest.raises(UserError) as caught:
        load_config(config, {"model.backbone.dpth": 6})
    message = str(caught.value)
    assert str(config) in message and "'model.backbone.dpth'" in message
    assert "'model.backbone.depth'" in message and "+model.backbone.dpth=" in message


def test_keys_are_overridden_and_added(config: Path) -> None:
    """--cfg-options would not reach nested keys, list entries, or keys added on purpose with a plus."""
    options = {
        "model.backbone.depth": 6,
        "custom_hooks.0.root": "x",
        "+model.backbone.width": 3,
        "train_cfg": {"max_epochs": 1},
    }
    cfg = load_config(config, options)
    assert (cfg.model.backbone.depth, cfg.model.backbone.width, cfg.custom_hooks[0].root) == (6, 3, "x")
    assert cfg.train_cfg.max_epochs == 1 and cfg.model.backbone.type == "Trunk"


def test_list_index_beyond_the_end_is_unknown(config: Path) -> None:
    """An index that is not there would surface as a KeyError deep inside the merge."""
    with pytest.raises(UserError, match=r"custom_hooks\.1\.root"):
        check_option_keys(Config.fromfile(config), {"custom_hooks.1.root": "x"}, config)


@pytest.mark.parametrize("new", ["/elsewhere/mini", "/elsewhere/mini/"])
def test_data_root_moves_every_path(config: Path, new: str) -> None:
    """Training and evaluation would read different data sets, or a folder of similar name would move too."""
    cfg = load_config(config, {"data_root": new})
    assert cfg.data_root == "/elsewhere/mini/" and cfg.custom_hooks[0].root == "/elsewhere/mini/"
    assert cfg.custom_hooks[0].files == ("/elsewhere/mini/a.json", "data/cocoa")


def test_missing_and_broken_configs_are_named(tmp_path: Path) -> None:
    """A wrong path or a syntax error in a config would end in a traceback of the reader."""
    broken = tmp_path / "broken.py"
    broken.write_text("model = dict(\n")
    for path in (tmp_path / "absent.py", broken):
        with pytest.raises(UserError, match=path.name):
            load_config(path)


def test_work_dir_is_named_after_the_config(config: Path) -> None:
    """Fine-tuning would not find the checkpoint where pretraining leaves it."""
    cfg = load_config(config)
    launch.prepare(cfg, arguments(config))
    assert cfg.work_dir == "work_dirs/net"
    launch.prepare(cfg, arguments(config, work_dir="mine"))
    assert cfg.work_dir == "mine"


def test_resume_finds_the_newest_checkpoint(config: Path, tmp_path: Path) -> None:
    """--resume without a path would start anew, or ask for pretrained weights that the run no longer needs."""
    cfg = load_config(config)
    launch.prepare(cfg, arguments(config, work_dir=str(tmp_path), resume="auto"))
    assert not cfg.get("resume")  # nothing there yet: from the beginning, as mmdet does
    torch.save({}, tmp_path / "latest.pth")
    launch.prepare(cfg, arguments(config, work_dir=str(tmp_path), resume="auto"))
    assert cfg.resume and cfg.load_from == str(tmp_path / "latest.pth")
    with pytest.raises(UserError, match=r"gone\.pth"):
        launch.prepare(cfg, arguments(config, resume="gone.pth"))
    with pytest.raises(UserError, match=rf"{tmp_path} is a folder.* Give {tmp_path}/latest\.pth\."):
        launch.prepare(cfg, arguments(config, resume=str(tmp_path)))
    (tmp_path / "latest.pth").unlink()
    with pytest.raises(UserError, match=rf"{tmp_path} is a folder.* Give the path of a \.pth"):
        launch.prepare(cfg, arguments(config, resume=str(tmp_path)))


@pytest.mark.parametrize(("plain", "mixed"), sorted(launch.AMP_WRAPPERS.items()))
def test_amp_switches_the_wrapper(
    config: Path, monkeypatch: pytest.MonkeyPatch, plain: str, mixed: str
) -> None:
    """--amp would train in full precision, or lose the pretraining wrapper's per-tensor clipping."""
    cfg = load_config(config, {"optim_wrapper.type": plain})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    launch.prepare(cfg, arguments(config, amp=True))
    assert cfg.optim_wrapper.type == mixed and cfg.optim_wrapper.loss_scale == "dynamic"


@pytest.mark.parametrize("on_gpu", [False, True])
def test_batches_for_a_gpu_are_in_pinned_memory(
    config: Path, monkeypatch: pytest.MonkeyPatch, on_gpu: bool
) -> None:
    """A GPU would wait for every image's copy, a CPU run be warned, or the config's own choice be replaced."""
    cfg = load_config(config)
    cfg.train_dataloader, cfg.val_dataloader = {"num_workers": 1}, {"num_workers": 1, "pin_memory": False}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    launch.prepare(cfg, arguments(config))
    assert cfg.train_dataloader.get("pin_memory", False) is on_gpu
    assert cfg.val_dataloader.pin_memory is False


def test_amp_without_gpu_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--amp on a CPU would end in an assertion inside MMEngine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="GPU"):
        launch.prepare(load_config(config), arguments(config, amp=True))


def test_cpu_processes_use_gloo(config: Path, torchrun: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several CPU processes would look for NCCL and give DDP the number of a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = load_config(config)
    launch.prepare(cfg, arguments(config))  # recognised: it would train twice, into one folder
    assert cfg.launcher == "pytorch" and cfg.env_cfg.dist_cfg.backend == "gloo" and cfg.sync_bn is None
    assert (
        cfg.model_wrapper_cfg.type == "MMDistributedDataParallel" and cfg.model_wrapper_cfg.device_ids is None
    )


def test_synchronised_head_on_cpu_processes_is_refused(
    config: Path, torchrun: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run would end in a traceback of DDP's, after the data had been checked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = {"+model.head": {"norm": "syncbn"}}
    with pytest.raises(UserError, match=r"syncbn.*model\.head\.norm=bn"):
        launch.prepare(load_config(config, options), arguments(config, launcher="pytorch"))
    monkeypatch.setenv("WORLD_SIZE", "1")  # one process needs no synchronisation
    launch.prepare(load_config(config, options), arguments(config))


def test_init_from(config: Path, tmp_path: Path) -> None:
    """--init-from would be ignored, name no missing file, or be read again at a resume."""
    with pytest.raises(UserError, match=r"not a pretraining config.*init_cfg\.checkpoint"):
        launch.prepare(load_config(config), arguments(config, init_from="a.pth"))
    options, file = {"+model.init_from": None}, tmp_path / "dino.pth"
    with pytest.raises(UserError, match=r"dino\.pth does not exist"):
        launch.prepare(load_config(config, options), arguments(config, init_from=str(file)))
    file.touch()
    cfg = load_config(config, options)
    launch.prepare(cfg, arguments(config, init_from=str(file)))
    assert cfg.model.init_from == str(file)
    torch.save({}, tmp_path / "latest.pth")
    cfg = load_config(config, options)
    launch.prepare(cfg, arguments(config, init_from=str(file), work_dir=str(tmp_path), resume="auto"))
    assert cfg.model.init_from == str(file) and cfg.resume
    file.unlink()
    launch.prepare(cfg, arguments(config, init_from=str(file), work_dir=str(tmp_path), resume="auto"))
    model = {"init_from": "a.pth", "backbone": {"depth": 12, "init_cfg": {"checkpoint": "b.pth"}}}
    assert without_weights(model) == {"init_from": None, "backbone": {"depth": 12, "init_cfg": None}}
    assert model["init_from"] == "a.pth"  # the config of the first run is compared


@pytest.mark.parametrize(("limit", "interval"), [(2, 1), (50, 50), (None, 50)])
def test_short_runs_log_every_iteration(config: Path, limit: int | None, interval: int) -> None:
    """A trial of two iterations would end without having printed a loss."""
    options = {"+default_hooks": {"logger": {"interval": 50}}, "+train_cfg.max_iters": limit}
    cfg = load_config(config, options)
    launch.prepare(cfg, arguments(config))
    assert cfg.default_hooks.logger.interval == interval


def test_auto_scale_lr(config: Path) -> None:
    """--auto-scale-lr would be accepted and do nothing."""
    cfg = load_config(config)
    launch.prepare(cfg, arguments(config, auto_scale_lr=True))
    assert cfg.auto_scale_lr.enable is True
    cfg.auto_scale_lr = {}
    with pytest.raises(UserError, match="base_batch_size"):
        launch.prepare(cfg, arguments(config, auto_scale_lr=True))


class Trunk:
    """What the config's backbone is built as."""

    def __init__(self, depth: int, init_cfg: Any = None) -> None: ...


def raised_while_building(cfg: Any) -> Exception:
    """What MMEngine raises when it builds a module from its config."""
    registry = Registry("model")
    registry.register_module(module=Trunk)
    with pytest.raises((TypeError, KeyError)) as caught:
        registry.build(cfg)
    return caught.value


def test_argument_that_no_class_takes_is_named(config: Path) -> None:
    """A misspelt key in a config file would end in a TypeError that names neither file nor key."""
    cfg = load_config(config, {"+model.backbone.dpth": 6})
    error = explain(cfg, raised_while_building(cfg.model.backbone))
    assert error is not None
    assert str(config) in str(error) and "model.backbone.dpth" in str(error) and "Trunk" in str(error)


def test_program_errors_are_not_explained_away(config: Path) -> None:
    """A defect of the program would be reported as the user's mistake and hide its traceback."""
    cfg = load_config(config)
    assert explain(cfg, TypeError("f() got an unexpected keyword argument 'nowhere_in_config'")) is None
    assert explain(cfg, TypeError("can only concatenate str")) is None
    assert explain(cfg, KeyError("loss")) is None
    assert explain(cfg, ValueError("raised in a training step")) is None


def test_unregistered_type_is_named(config: Path) -> None:
    """A misspelt type would end in a KeyError with a traceback."""
    cfg = load_config(config, {"model.backbone.type": "Trnk"})
    error = explain(cfg, raised_while_building(cfg.model.backbone))
    assert error is not None and "model.backbone.type='Trnk'" in str(error)


def test_worker_error_is_shown_without_its_traceback(config: Path) -> None:
    """A bad image met by a data worker would print the worker's traceback."""
    wrapped = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    )
    wrapped += '  File "x.py", line 1\nmst_pretrain.errors.UserError: a.jpg is truncated. Copy it again.\n'

    def fail(_: Any) -> None:
        raise UserError(wrapped)

    cfg = Config({"launcher": "none", "runner_type": "Runner"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mst_pretrain.training.runner.build_runner", lambda cfg: None)
        with pytest.raises(UserError) as caught:
            launch.run(cfg, fail)
    assert str(caught.value) == "a.jpg is truncated. Copy it again."


def test_missing_extra_is_named(config: Path) -> None:
    """Without the transfer extra a user would read an import traceback instead of the command that installs it."""
    cfg = load_config(config, {"+custom_imports": {"imports": ["a_module_that_is_not_there"]}})
    with pytest.raises(UserError, match=r"a_module_that_is_not_there.*setup_env\.sh"):
        launch.run(cfg, lambda runner: None)


def test_values_that_cannot_work_are_named(config: Path) -> None:
    """No workers, or a length that is no number, would end in a traceback."""
    cfg = load_config(config, {"+train_dataloader": {"num_workers": 0, "persistent_workers": True}})
    launch.prepare(cfg, arguments(config))
    assert cfg.train_dataloader.persistent_workers is False
    cfg = load_config(config, {"+default_hooks": {"logger": {"interval": 50}}, "+train_cfg.max_iters": "abc"})
    with pytest.raises(UserError, match=r"max_iters is 'abc'"):
        launch.prepare(cfg, arguments(config))


def test_missing_images_are_named_before_anything_is_built(config: Path, tmp_path: Path) -> None:
    """The message would come after two hundred lines of log, with an empty work directory left behind."""
    dataset = {"type": "UnlabelledImages", "data_root": str(tmp_path / "nowhere")}
    with pytest.raises(UserError, match="nowhere does not exist"):
        launch.check_pretraining(load_config(config, {"+train_dataloader": {"dataset": dataset}}))
    launch.check_pretraining(load_config(config))


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("max_iters", -5, 0),
        ("max_epochs", -1, 0),
        ("max_epochs", -0.5, 0),
        ("max_epochs", float("inf"), 0),
        ("max_epochs", float("nan"), 0),
        ("val_interval", 0, 1),
    ],
)
def test_a_length_that_cannot_be_is_refused(config: Path, key: str, value: float, least: int) -> None:
    """A training would end without a step and without a word, or never."""
    cfg = load_config(config, {f"+train_cfg.{key}": value})
    with pytest.raises(UserError, match=rf"train_cfg\.{key} is {value}; it must be at least {least}\."):
        launch.check_pretraining(cfg)
    launch.check_pretraining(load_config(config, {"+train_cfg.max_epochs": 0, "+train_cfg.max_iters": 0}))


@pytest.mark.parametrize("key", ["work_dir", "data_root"])
def test_paths_that_are_not_utf8_are_named(config: Path, key: str) -> None:
    """The run would end in a UnicodeEncodeError while it writes its config."""
    path = "photos/caf" + os.fsdecode(b"\xe9")
    given = {"work_dir": path} if key == "work_dir" else {}
    cfg = load_config(config, {"data_root": path} if key == "data_root" else {})
    with pytest.raises(UserError, match=rf"{key} is 'photos/caf.udce9/?', which is not UTF-8.*ln -s"):
        launch.prepare(cfg, arguments(config, **given))


def test_a_full_disk_while_a_run_writes_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose disk fills up would end in a traceback; a missing file must not be taken for that."""
    cfg = Config({"launcher": "none", "runner_type": "Runner", "work_dir": "runs/x"})
    monkeypatch.setattr("mst_pretrain.training.runner.build_runner", lambda cfg: None)

    def fail(error: OSError) -> Any:
        def task(_: Any) -> None:
            raise error

        return task

    with pytest.raises(UserError, match=r"^runs/x cannot be written \(No space left.*--resume"):
        launch.run(cfg, fail(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(FileNotFoundError):
        launch.run(cfg, fail(FileNotFoundError(errno.ENOENT, "No such file")))


def test_a_full_temporary_folder_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tool would end in an UnboundLocalError of the config reader's."""

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    with pytest.raises(UserError, match=r"net\.py cannot be read: .*No space left on device.*TMPDIR=DIR"):
        load_config(config)

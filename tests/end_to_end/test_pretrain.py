"""Pretraining as processes: killed and resumed, on two processes, and without any of the transfer packages."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from mst_pretrain.checkpoints.storage import load_checkpoint
from tests.forked import Forked, free_port, output_of, outputs_of, two

ROOT = Path(__file__).parents[2]
SHAPE: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
CONFIG = f"""
_base_ = {str(ROOT / "configs/_base_/mst_pretrain.py")!r}
data_root = "{{images}}"
model = dict(
    backbone=dict(name="vit_tiny_patch16_224", drop_path_rate=0.2, **{SHAPE}),
    head=dict(prototypes=24, hidden_dim=16, bottleneck_dim=8, norm_last_layer=False),
    masking=dict(mode="attention", num=2, prob=0.5),
    decoder=dict(width=8, min_width=4),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    pin_memory=False,
    dataset=dict(
        data_root=data_root,
        crops=dict(
            global_crops=[dict(size=32), dict(size=32, blur_probability=0.1, solarize_probability=0.2)],
            local_crop=dict(size=16, scale=(0.1, 0.4)),
            local_count=2,
        ),
    ),
)
train_cfg = dict(max_epochs=40, max_iters=10)
default_hooks = dict(checkpoint=dict(interval=6, max_keep_ckpts=-1))
"""
# 17 images in batches of 4: iterations 0-3 and a part of 4 are the first epoch, iteration 6 is inside the second.
SAME_ON_ANY_NUMBER_OF_PROCESSES = """
model = dict(decoder=None, backbone=dict(drop_path_rate=0.0))
optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=1.0, momentum=0.9), clip_grad_per_tensor=0.5)
default_hooks = dict(schedule=dict(base_lr=20.0, warmup_epochs=0, freeze_last_layer_epochs=0))
train_cfg = dict(max_iters=5)
"""
# Imported by the config: the third batch of the second process is broken.
BREAK_THE_SECOND_RANK = """
import os
from mst_pretrain.method.mst import MST

original, calls = MST.loss, []

def loss(self, global_views, local_views, seeds):
    calls.append(1)
    broken = os.environ["RANK"] == "1" and len(calls) == 3
    return original(self, global_views * float("nan") if broken else global_views, local_views, seeds)

MST.loss = loss
"""
# Imported by the config: the first process saves alone at step 2; at step 3 the second, or the launcher, gets a signal.
STOP_THE_SECOND_RANK = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class StopAtThree(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        rank, step = os.environ["RANK"], runner.iter + 1
        if step == 2 and rank == "0":
            runner.save_checkpoint(runner.work_dir, "alone.pth", by_epoch=False)
        if step == 3 and rank == "1" and "WHOM" in os.environ:
            os.kill(os.getpid() if os.environ["WHOM"] == "itself" else os.getppid(), signal.SIGUSR1)
"""
CORE_ALONE = """
import importlib.abc, runpy, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mmcv", "mmdet", "mmseg"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in ("mmcv", "mmdet", "mmseg"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit("the blocker does not block " + name)

def tool(name, *arguments):
    sys.argv = [name, *arguments]
    try:
        runpy.run_path("tools/" + name, run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise

config, work_dir, labelled, shape = sys.argv[1:]
exported = work_dir + "/backbone.safetensors"
tool("train.py", config, "--work-dir", work_dir, "--cfg-options", "train_cfg.max_iters=2",
     "train_dataloader.num_workers=1")
tool("eval_knn.py", labelled, labelled, "--checkpoint", work_dir + "/latest.pth", "--model", "vit_tiny_patch16_224",
     "--model-args", shape, "--resize", "32", "--crop", "32", "-k", "1", "3", "--workers", "0")
tool("convert_checkpoint.py", work_dir + "/latest.pth", exported)

import json, timm, torch
model = timm.create_model("vit_tiny_patch16_224", checkpoint_path=exported, num_classes=0, **json.loads(shape)).eval()
torch.save(model(torch.ones(1, 3, 32, 32)).detach(), work_dir + "/features.pth")
assert not {"mmcv", "mmdet", "mmseg", "mst_transfer"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 images in two class folders."""
    folder = tmp_path_factory.mktemp("labelled")
    for index in range(17):
        path = folder / f"class{index % 2}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((56 + index, 48), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def config(tmp_path: Path, images: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(CONFIG.replace("{images}", str(images)))
    return path


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A process group of its own, one thread per process."""
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, **environment: str) -> str:
    process = start(*arguments, **environment)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-4000:]
    return output


def train(config: Path, work_dir: Path, *arguments: str) -> str:
    return output_of("train", str(config), "--work-dir", str(work_dir), *arguments)


def kill_at(config: Path, work_dir: Path, checkpoint: str) -> int:
    """Train without an end, and kill the process and its workers when ``checkpoint`` is there."""
    arguments = ["--work-dir", str(work_dir), "--cfg-options", "train_cfg.max_iters=None"]
    process = Forked("train", str(config), *arguments)
    deadline = time.monotonic() + 200
    while not (work_dir / checkpoint).exists() and not process.ended and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    return process.result()[0]


def tensors(node: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of nested dictionaries and lists, by path."""
    if isinstance(node, Tensor):
        return {name: node}
    items = (
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    )
    return {path: value for key, item in items for path, value in tensors(item, f"{name}/{key}").items()}


def test_killed_run_resumes_bit_for_bit(config: Path, tmp_path: Path) -> None:
    """10 steps would not be 6, kill -9 inside an epoch, and 4: samples, crops, dropped paths or states would differ."""
    train(config, tmp_path / "whole")
    assert kill_at(config, tmp_path / "killed", "latest.pth") == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "killed/latest.pth")["meta"]["iter"] % 6 == 0
    output = train(config, tmp_path / "killed", "--resume", str(tmp_path / "killed/iter_6.pth"))
    assert "keys matched" in output
    whole, resumed = (load_checkpoint(tmp_path / name / "iter_10.pth") for name in ("whole", "killed"))
    middle = load_checkpoint(tmp_path / "killed/iter_6.pth")
    assert middle["meta"]["iter"] == 6 and middle["meta"]["run"] == resumed["meta"]["run"]
    for part in ("state_dict", "optimizer"):
        expected, got = tensors(whole[part]), tensors(resumed[part])
        assert expected and set(expected) == set(got)
        unequal = [name for name in expected if not torch.equal(expected[name], got[name])]
        assert unequal == [], part
    names = set(whole["state_dict"])
    assert {"mask_token", "distillation.center"} <= names
    assert {name.partition(".")[0] for name in names} >= {"student", "teacher", "decoder"}
    moved = [key for key in names if not torch.equal(middle["state_dict"][key], whole["state_dict"][key])]
    assert len(moved) > 0.8 * len(names)


def test_two_processes_are_one_with_twice_the_batch(config: Path, images: Path, tmp_path: Path) -> None:
    """Gradients, the centre, the samples or the measured features of several processes would differ from one's."""
    both, one = tmp_path / "both.py", tmp_path / "one.py"
    common = f"_base_ = {str(config)!r}\n{SAME_ON_ANY_NUMBER_OF_PROCESSES}"
    common += f"evaluation = dict(knn={str(images)!r}, every_epochs=0.5)\n"
    both.write_text(
        common + "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n"
    )
    one.write_text(
        common + "train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)\n"
    )
    outputs_of(two("train", str(both), "--launcher", "pytorch", "--work-dir", str(tmp_path / "2")))
    train(one, tmp_path / "1")
    first, second = (load_checkpoint(tmp_path / name / "latest.pth") for name in ("1", "2"))
    start_weights = load_checkpoint(tmp_path / "1/initial.pth")["state_dict"]
    assert first["meta"]["iter"] == second["meta"]["iter"] == 5
    assert first["meta"]["run"]["batch"] == second["meta"]["run"]["batch"] == 4
    for name, value in first["state_dict"].items():
        torch.testing.assert_close(second["state_dict"][name], value, rtol=2e-5, atol=2e-5, msg=name)
    for name in ("student.backbone.blocks.0.mlp.fc1.weight", "mask_token", "distillation.center"):
        assert (first["state_dict"][name] - start_weights[name]).abs().max() > 1e-3, name
    told = [[json.loads(line) for line in (tmp_path / name / "evaluations.jsonl").open()] for name in "12"]
    assert [line["step"] for line in told[0]] == [line["step"] for line in told[1]] == [2, 4]
    for ours, others in zip(*told, strict=True):
        assert ours["knn"] == others["knn"] and ours["rankme"] == pytest.approx(others["rankme"], rel=1e-3)


def test_two_processes_stop_together_and_continue_exactly(config: Path, tmp_path: Path) -> None:
    """One process would stop and the other wait for ever, at a signal or at a checkpoint that one writes alone."""
    (tmp_path / "stop_the_second_rank.py").write_text(STOP_THE_SECOND_RANK)
    both = tmp_path / "both.py"
    both.write_text(
        f"_base_ = {str(config)!r}\n"
        "custom_imports = dict(imports=['mst_pretrain', 'stop_the_second_rank'])\n"
        "train_dataloader = dict(batch_size=2, num_workers=1)\n"
        "train_cfg = dict(max_iters=6)\n"
        "custom_hooks = [dict(type='StopAtThree')]\n"
    )

    path = f"{ROOT}:{tmp_path}"
    common = ("train", str(both), "--launcher", "pytorch", "--work-dir")
    outputs_of(two(*common, str(tmp_path / "whole"), PYTHONPATH=path))
    whole = load_checkpoint(tmp_path / "whole/latest.pth")
    assert load_checkpoint(tmp_path / "whole/alone.pth")["meta"]["iter"] == 2

    stopped = two(*common, str(tmp_path / "itself"), PYTHONPATH=path, WHOM="itself")
    results = [process.result() for process in stopped]
    assert [code for code, _ in results] == [75, 75] and "Continue from" in results[0][1] + results[1][1]
    command = ("bash", "tools/dist_train.sh", str(both), "2", "--work-dir", str(tmp_path / "launcher"))
    process = start(*command, PORT=free_port(), PYTHONPATH=path, WHOM="launcher")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 75 and "Continue from" in output, output[-4000:]
    for whom in ("itself", "launcher"):
        assert 3 <= load_checkpoint(tmp_path / whom / "latest.pth")["meta"]["iter"] <= 5
    outputs_of(two(*common, str(tmp_path / "itself"), "--resume", PYTHONPATH=path))
    resumed = load_checkpoint(tmp_path / "itself/latest.pth")
    assert resumed["meta"]["iter"] == whole["meta"]["iter"]
    unequal = [
        key
        for key, value in whole["state_dict"].items()
        if not torch.equal(value, resumed["state_dict"][key])
    ]
    assert unequal == []


def test_a_broken_batch_of_one_process_is_skipped_by_all(config: Path, tmp_path: Path) -> None:
    """One process would step and the other not: their weights part for ever, or the job hangs."""
    (tmp_path / "break_the_second_rank.py").write_text(BREAK_THE_SECOND_RANK)
    both = tmp_path / "both.py"
    both.write_text(
        f"_base_ = {str(config)!r}\n"
        "custom_imports = dict(imports=['mst_pretrain', 'break_the_second_rank'])\n"
        "train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n"
        "train_cfg = dict(max_iters=4)\n"
        "every_step = dict(type='CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=-1)\n"
        "default_hooks = dict(checkpoint=every_step)\n"
    )
    arguments = ("train", str(both), "--launcher", "pytorch", "--work-dir", str(tmp_path / "2"))
    output = "".join(outputs_of(two(*arguments, PYTHONPATH=f"{ROOT}:{tmp_path}")))
    assert output.count("Step 3 skipped, 1 in a row, 1 in all: the loss is not finite on rank 1.") == 1
    entry = json.loads((tmp_path / "2/skipped_steps.jsonl").read_text())
    assert entry["step"] == 3 and len(entry["images"]) == 2
    assert entry["losses"][1] == "nan" and math.isfinite(float(entry["losses"][0]))
    second, third, fourth = (
        load_checkpoint(tmp_path / f"2/iter_{step}.pth")["state_dict"] for step in (2, 3, 4)
    )
    assert all(torch.equal(second[name], third[name]) for name in second)
    assert not torch.equal(third["mask_token"], fourth["mask_token"])
    assert all(torch.isfinite(value).all() for value in fourth.values())


def test_core_works_without_the_transfer_packages(config: Path, images: Path, tmp_path: Path) -> None:
    """Pretraining, k-NN or export would need mmcv, mmdet or mmseg, which a pretraining machine does not have."""
    work_dir = tmp_path / "run"
    output = run(sys.executable, "-c", CORE_ALONE, str(config), str(work_dir), str(images), json.dumps(SHAPE))
    result = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    assert result["knn_1"] == 100.0 and (result["train_images"], result["val_images"]) == (17, 17)
    assert f"{work_dir / 'backbone.safetensors'}" in output and "matched: 30 of 30 weights" in output
    prefix, state = "teacher.backbone.", load_checkpoint(work_dir / "latest.pth")["state_dict"]
    teacher = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SHAPE).eval()
    teacher.load_state_dict(
        {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    )
    expected = teacher(torch.ones(1, 3, 32, 32)).detach()
    torch.testing.assert_close(torch.load(work_dir / "features.pth", weights_only=True), expected)

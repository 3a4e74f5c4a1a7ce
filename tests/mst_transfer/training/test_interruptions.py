"""Fine-tuning that is asked to stop, and images that break while it runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from PIL import Image
from torch import Tensor, nn

import mst_transfer.training.loops  # noqa: F401  registers the loops
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.runtime.errors import Stopped, UserError
from mst_pretrain.training.memory import OutOfMemory
from mst_pretrain.training.runner import MSTRunner

IMAGES = 6


class Drawing(BaseModel):
    """Its weights remember what was seen, in which order, and what was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.validated = 0

    def forward(self, x: Tensor, mode: str = "tensor") -> Any:
        if mode == "predict":
            self.validated += len(x)
            return [{}]
        return {"loss": (self.weight * x).square().mean() + self.weight.sum() * torch.rand(())}


class Photos(torch.utils.data.Dataset):
    """Gray squares as mmdet's and mmseg's data sets describe them; read with something drawn."""

    def __init__(self, folder: Path, defect: Exception | None = None) -> None:
        self.folder, self.defect = folder, defect
        if not folder.exists():
            folder.mkdir()
            for index in range(IMAGES):
                Image.new("L", (4, 4), 40 * index).save(folder / f"{index}.png")

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"img_path": str(self.folder / f"{index}.png")}

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with Image.open(self.folder / f"{index}.png") as image:
            gray = float(np.asarray(image).mean()) / 255
        if self.defect and index == 3:
            raise self.defect
        return {"x": gray + torch.rand(()) + float(np.random.rand())}


class At(Hook):
    """Does something when an iteration of training, or of a validation after so many, begins."""

    def __init__(self, iteration: int, action: Any, mode: str = "train") -> None:
        self.iteration, self.action, self.mode = iteration, action, mode

    def _before_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, mode: str = "train") -> None:
        if mode == self.mode and runner.iter + (mode == "train") == self.iteration:
            self.action()
            self.iteration = -1


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


LOOPS = {
    "epochs": {"type": "CappedEpochLoop", "max_epochs": 4},
    "iterations": {"type": "ExactIterLoop", "max_iters": 12, "val_begin": 1, "val_interval": 3},
}


def make(
    folder: Path,
    loop: str,
    *hooks: Hook,
    data: Photos | None = None,
    share: float = 0.01,
    batch: int = 2,
    workers: int = 0,
    **options: Any,
) -> MSTRunner:
    loader = {
        "dataset": data or Photos(folder.parent / "photos"),
        "batch_size": batch,
        "num_workers": workers,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "default_collate"},
    }
    runner = MSTRunner(
        model=Drawing(),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=dict(LOOPS[loop]),
        val_dataloader={
            **loader,
            "dataset": Photos(folder.parent / "val"),
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
        val_cfg={},
        val_evaluator=Evaluator([]),
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.1}, **options},
        param_scheduler={
            "type": "MultiStepLR",
            "by_epoch": loop == "epochs",
            "milestones": [2, 7],
            "gamma": 0.5,
        },
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 100},
            "watch": {"type": "WatchHook", "max_bad_share": share},
        },
        randomness={"seed": 3},
        default_scope="mmengine",
        log_level="ERROR",
        experiment_name=f"{folder.parent.name}_{folder.name}_{loop}",
    )
    for hook in hooks:
        runner.register_hook(hook)
    return runner


def resume(folder: Path, loop: str, checkpoint: str = "latest.pth", **options: Any) -> MSTRunner:
    runner = make(folder.with_name("rest"), loop, **options)
    runner._resume, runner._load_from = True, str(folder / checkpoint)
    runner.train()
    return runner


def weight(runner: Any) -> float:
    return float(runner.model.weight)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stopped_fine_tuning_continues_exactly(tmp_path: Path, loop: str) -> None:
    """A detection job at its time limit would lose what it trained since the last epoch, or end otherwise."""
    whole = make(tmp_path / "whole", loop)
    whole.train()
    with pytest.raises(Stopped, match="stopped after step 5"):
        make(tmp_path / "cut", loop, At(5, terminate)).train()
    assert load_checkpoint(tmp_path / "cut/latest.pth")["meta"]["iter"] == 5
    rest = resume(tmp_path / "cut", loop)
    assert weight(rest) == weight(whole) and (rest.iter, rest.epoch) == (whole.iter, whole.epoch)
    assert rest.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()


def test_an_accumulated_step_is_finished_first(tmp_path: Path) -> None:
    """The gradients of the micro-batches before the signal would be lost."""
    options = {"accumulative_counts": 2}
    whole = make(tmp_path / "whole", "iterations", **options)
    whole.train()
    with pytest.raises(Stopped, match="stopped after step 6"):
        make(tmp_path / "cut", "iterations", At(5, terminate), **options).train()
    assert weight(resume(tmp_path / "cut", "iterations", **options)) == weight(whole)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stop_in_a_validation_is_validated_again(tmp_path: Path, loop: str) -> None:
    """A long validation would outlast the batch system's patience, or the score of its step would be missing."""
    whole = make(tmp_path / "whole", loop)
    whole.train()
    with pytest.raises(Stopped, match="stopped in the validation after step 6"):
        make(tmp_path / "cut", loop, At(6, terminate, "val")).train()
    meta = load_checkpoint(tmp_path / "cut/latest.pth")["meta"]
    assert (meta["iter"], meta["epoch"]) == (6, 2 if loop == "epochs" else 0)
    rest = resume(tmp_path / "cut", loop)
    assert weight(rest) == weight(whole)
    assert rest.model.validated == 3 * IMAGES  # after 6, 9 and 12 iterations; the first after 3


def test_a_stop_where_a_validation_is_due_does_not_skip_it(tmp_path: Path) -> None:
    """The score of that step would be missing, and a best checkpoint with it."""
    with pytest.raises(Stopped, match="stopped after step 6"):
        make(tmp_path / "cut", "iterations", At(6, terminate)).train()
    assert resume(tmp_path / "cut", "iterations").model.validated == 3 * IMAGES  # after 6, 9 and 12


@pytest.mark.parametrize("loop", LOOPS)
def test_a_repeated_validation_finds_its_hooks_ready(tmp_path: Path, loop: str) -> None:
    """A run that keeps its best checkpoint could never be resumed once it was stopped in a validation."""
    order: list[str] = []

    class Order(Hook):
        def before_train(self, runner: Any) -> None:
            order.append("train")

        def before_val(self, runner: Any) -> None:
            order.append("validation")

    with pytest.raises(Stopped):
        make(tmp_path / "cut", loop, At(3, terminate, "val")).train()
    runner = make(tmp_path / "rest", loop, Order())
    runner._resume, runner._load_from = True, str(tmp_path / "cut/latest.pth")
    runner.train()
    assert order == ["train", *["validation"] * 4]


def test_files_of_other_formats_are_left_to_the_data_set(tmp_path: Path) -> None:
    """Arrays and deep TIFFs, which only the data set can read, would be called broken."""

    class Arrays(Photos):
        def get_data_info(self, index: int) -> dict[str, Any]:
            return {"img_path": str(self.folder / f"{index}.npy")}

    data = Arrays(tmp_path / "photos")
    for index in range(IMAGES):
        np.save(tmp_path / f"photos/{index}.npy", np.zeros(3))
    runner = make(tmp_path / "run", "iterations", data=data)
    runner.train()
    assert runner.iter == 12 and not (tmp_path / "run/bad_images.txt").exists()


def test_broken_images_are_replaced_and_named(tmp_path: Path) -> None:
    """One image that breaks in the night would end a fine-tuning, or a resumed one would draw another in its place."""
    photos = tmp_path / "photos"

    def damage() -> None:
        (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:-20])
        (photos / "4.png").unlink()

    stop = At(8, terminate)
    with pytest.raises(Stopped):
        make(tmp_path / "cut", "epochs", At(4, damage), stop, share=0.5).train()
    one, other = (make(tmp_path / name, "epochs", share=0.5) for name in ("one", "other"))
    for runner in (one, other):
        runner._resume, runner._load_from = True, str(tmp_path / "cut/latest.pth")
        runner.train()
        listed = Path(runner.work_dir, "bad_images.txt").read_text()
        names = [line.split("\t")[0] for line in listed.splitlines()]
        assert names == [str(photos / name) for name in ("1.png", "4.png")]
        assert "truncated PNG" in listed and "No such file" in listed
    assert one.iter == 12 and weight(one) == weight(other)


@pytest.mark.parametrize("defect", [KeyError("gt_bboxes"), UserError("photo 3 has no label")])
def test_a_defect_is_no_broken_image(tmp_path: Path, defect: Exception) -> None:
    """A transform that fails, or a wrong label, would be blamed on the image, and others be taken in its place."""
    data = Photos(tmp_path / "photos", defect=defect)
    with pytest.raises(type(defect), match=str(defect.args[0])):
        make(tmp_path / "run", "iterations", data=data, share=1.0).train()
    assert not (tmp_path / "run/bad_images.txt").exists()


def test_too_many_broken_images_stop_a_fine_tuning(tmp_path: Path) -> None:
    """A data set that is half gone would be trained on without a word."""
    photos = tmp_path / "photos"
    with pytest.raises(UserError, match=r"1 of 6 images cannot be used.*bad_images\.txt.*latest\.pth"):
        make(tmp_path / "run", "iterations", At(4, (photos / "1.png").unlink)).train()
    assert load_checkpoint(tmp_path / "run/latest.pth")["meta"]["iter"] >= 4


class Wide(Drawing):
    """Runs out of memory where a batch has more than two images."""

    def forward(self, x: Tensor, mode: str = "tensor") -> Any:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")
        return super().forward(x, mode)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_full_device_names_what_to_type(tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fine-tuning would end with a page of PyTorch's words, and its user guess the batch that fits."""
    monkeypatch.setitem(globals(), "Drawing", Wide)
    runner = make(tmp_path / "run", loop, batch=4)
    with pytest.raises(OutOfMemory) as caught:
        runner.train()
    said = str(caught.value).splitlines()
    assert said[0].startswith("Step 1 ran out of memory on ") and "a batch of 4 images" in said[0]
    assert [line.strip() for line in said[1:]] == [
        "Compute activations a second time, slower: --cfg-options +model.backbone.with_cp=True",
        "The same step in parts (2 images fit: tried): --cfg-options train_dataloader.batch_size=2 "
        "optim_wrapper.accumulative_counts=2 (lengths in iterations become 2 times as large)",
        "Smaller images, in a new run: scale or crop_size in train_dataloader.dataset.pipeline",
    ]


class Deadly(Photos):
    """Its worker is killed as the system kills it."""

    read = 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.read += 1
        if self.read == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_killed_worker_is_named(tmp_path: Path) -> None:
    """ "DataLoader worker exited unexpectedly" would leave the user of a fine-tuning to guess."""
    data = Deadly(tmp_path / "photos")
    with pytest.raises(UserError, match=r"worker that loads images.* was killed .*num_workers=0 \[R13\]"):
        make(tmp_path / "run", "iterations", data=data, workers=1).train()

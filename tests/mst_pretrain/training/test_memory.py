"""A pretraining whose memory runs out, on its device or in a worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

import mst_pretrain  # noqa: F401  registers the model, the data and the loop
from mst_pretrain.checkpoints.storage import load_checkpoint
from mst_pretrain.data.datasets import UnlabelledImages
from mst_pretrain.method.mst import MST
from mst_pretrain.runtime.errors import UserError
from mst_pretrain.training.memory import OutOfMemory, lost_worker
from mst_pretrain.training.runner import build_runner

MakeConfig = Callable[..., Config]
ASKED = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 23.6 GiB"


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From the third step on no more than two images fit; the sizes of the micro-batches."""
    sizes: list[int] = []
    loss = MST.loss

    def limited(model: MST, views: torch.Tensor, *others: torch.Tensor) -> Any:
        sizes.append(views.shape[1])
        if len(sizes) > 2 and views.shape[1] > 2:
            raise torch.OutOfMemoryError(ASKED)
        return loss(model, views, *others)

    monkeypatch.setattr(MST, "loss", limited)
    return sizes


def test_the_message_of_a_full_device_and_its_remedies(
    toy_config: MakeConfig, small_device: list[int]
) -> None:
    """Somebody would get a page of PyTorch's words, or a remedy that does not fit or is refused."""
    options = {"train_cfg__max_iters": 5, "default_hooks__checkpoint__interval": 2}
    cfg = toy_config(**options)
    with pytest.raises(OutOfMemory) as caught:
        build_runner(cfg).train()
    said = str(caught.value)
    assert re.match(
        r"Step 3 ran out of memory on .+: a batch of 4 images, as global_crops \[4, 2, 3, 32, 32\]; local_crops "
        r"\[4, 2, 3, 16, 16\]; \d+\.\d GiB were in use at the peak, and 2\.50 GiB more were asked for\. The first two "
        r"continue this run: --resume \(from .*latest\.pth\)\. \[R12\]\n",
        said,
    )
    assert [line.strip() for line in said.splitlines()[1:]] == [
        "Compute activations a second time, slower: --cfg-options model.gradient_checkpointing=True",
        "The same step in parts (2 images fit: tried): --cfg-options train_dataloader.batch_size=2 "
        "train_cfg.accumulate=2",
        "Fewer local crops, in a new run: --cfg-options train_dataloader.dataset.crops.local_count=1",
    ]
    assert small_device == [4, 4, 4, 2]
    again = toy_config(
        **options,
        model__gradient_checkpointing=True,
        train_dataloader__batch_size=2,
        train_cfg__accumulate=2,
    )
    again.work_dir, again.resume = cfg.work_dir, True
    again.load_from = str(Path(cfg.work_dir, "latest.pth"))
    build_runner(again).train()
    assert load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["iter"] == 5


def test_other_errors_of_a_step_stay_as_they_are(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the program would be called a lack of memory."""

    def broken(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(MST, "loss", broken)
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
        build_runner(toy_config(train_cfg__max_iters=1)).train()


def test_a_killed_worker_is_named_and_the_steps_are_saved(
    toy_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "DataLoader worker exited unexpectedly" would leave the user to guess, and the steps would be lost."""
    read = UnlabelledImages.__getitem__
    count = [0]

    def killed(dataset: UnlabelledImages, key: Any) -> Any:
        count[0] += 1
        if count[0] == 30:  # of the worker's own: in its eighth batch
            os.kill(os.getpid(), signal.SIGKILL)
        return read(dataset, key)

    monkeypatch.setattr(UnlabelledImages, "__getitem__", killed)
    cfg = toy_config(
        train_cfg__max_iters=12,
        train_dataloader__num_workers=1,
        default_hooks__checkpoint__interval=2,
        evaluation=None,
    )
    with pytest.raises(UserError) as caught:
        build_runner(cfg).train()
    assert re.match(
        r"A worker that loads images(?: \(process \d+\))? was killed by the system or by somebody \(.+\)\. The system "
        r"does so where memory runs out; \d+\.\d GiB are free now\. Give the job more \(Slurm: --mem\), or have fewer "
        r"workers \(now 1\): --cfg-options train_dataloader\.num_workers=0 \[R13\] .*latest\.pth with --resume\.$",
        str(caught.value),
    )
    assert load_checkpoint(Path(cfg.work_dir, "latest.pth"))["meta"]["iter"] >= 2
    subprocess.run(["true"], check=True)  # the end of any other child raises PyTorch's error no more


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "DataLoader worker (pid(s) 41, 42) exited unexpectedly",
            r"\(process 41, 42\) was killed .*without a word",
        ),
        (
            "DataLoader worker (pid 41) is killed by signal: Killed. ",
            r"\(process 41\) was killed .*\(Killed\)",
        ),
        (
            "DataLoader worker (pid 41) is killed by signal: Bus error. It is",
            r"no space in the shared memory",
        ),
        (
            "DataLoader worker (pid 41) is killed by signal: Segmentation fault. ",
            r"crashed \(Segmentation fault\)",
        ),
    ],
)
def test_how_a_worker_ended(error: str, said: str) -> None:
    """A crash of a library, or a small /dev/shm, would be called a lack of memory."""
    assert re.search(said, lost_worker(RuntimeError(error), 4))
    assert "num_workers=2" in lost_worker(RuntimeError(error), 4) or "crashed" in said
    assert lost_worker(RuntimeError("something else"), 4) == ""


def test_a_worker_that_ends_while_it_hands_over_a_batch_is_named() -> None:
    """The connection breaks before PyTorch notices: a traceback of multiprocessing would be all."""
    broken = ConnectionResetError(104, "Connection reset by peer")
    assert lost_worker(broken, 1).startswith("A worker that loads images was killed")
    assert lost_worker(EOFError(), 1) and lost_worker(broken, 0) == ""
    assert lost_worker(ConnectionError("Caught ConnectionError in DataLoader worker process 0."), 1) == ""
